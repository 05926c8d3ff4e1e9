# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10. Comparing modules, models and data sets
#
# **Question.** What do the scores of many models, side by side, say of modules, of model size and of data sets, and how
# much of it is more than chance?
#
# *Prerequisites:* [chapter 4](04_feature_health). *Time:* 20 minutes to read; seconds to run once the probes exist.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: those of data/book.yml
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper
metric: str = ""  # accuracy, or balanced accuracy of very unequal classes; or f1, mcc, …

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import start

chapter = start(globals())
chapter.opening()

# %% [markdown]
# ## Two tables, one reading
#
# Section 4.3 of {cite:t}`zhu-2026` reads the paper's table 1 in three directions: down a column (modules), along a row
# (models), and across (data sets). Here every sentence of it is a function of a table of
# {term}`four-score profiles <four-score profile>`, and each function reads two tables: that of this run, after
# fine-tuning, and the paper's own.

# %%
from mlprobe_utils.evaluation.health import health_by_run
from mlprobe_utils.pipeline import scoring

scores = scoring.probe_scores(chapter.selection)
outputs = scoring.output_scores(chapter.selection)
penalty = chapter.protocol.health.penalty
health = health_by_run(scores, penalty, chapter.metric)

# %%
from mlprobe_utils.analysis.health import profile

profiles = profile(health, outputs, chapter.metric)
after = profiles.query("stage == 'finetuned'")

# %%
from mlprobe_utils.pipeline.cards import bases
from mlprobe_utils.pipeline.published import paper_profiles

adapted = after[~after["model"].isin(bases(chapter.models))]
tables = {
    "this run": chapter.named(adapted),
    "the paper": paper_profiles(),
}

# %% tags=["hide-input"]
from mlprobe_utils.analysis.comparisons import summary
from mlprobe_utils.book.chapter import glue
from mlprobe_utils.pipeline.cards import paper_sizes, sizes

of_run = sizes(chapter.models).rename(index=chapter.names)
said = {
    "run": summary(tables["this run"], of_run),
    "paper": summary(tables["the paper"], paper_sizes()),
}

# %% tags=["hide-input"]
claims = ["steadiest", "health", "poor", "high", "size", "order"]
for where, words in said.items():
    for claim, found in zip(claims, words.values(), strict=True):
        glue(f"{claim}_{where}", found)
glue("models_run", tables["this run"]["model"].nunique())
glue("models_paper", tables["the paper"]["model"].nunique())

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import collapsed_in_words
from mlprobe_utils.pipeline.results import prediction_rows

rows = prediction_rows(chapter.selection)
in_means = rows[rows["model"].isin(adapted["model"])]
glue("collapsed", collapsed_in_words(in_means, chapter.names))

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import note

number = tables["this run"]["model"].nunique()
few = f"This run has {number} model{'s' if number > 1 else ''} to compare, "
few += "too few for a p value, which takes 4 at least: `make book "
few += "MODELS=all` runs a miniature of each of the paper's fourteen."
note(few if number < 4 else f"This run compares {number} models.")

# %% [markdown]
# Models of this run that others were adapted from are left out, as the paper leaves them out: {glue:text}`models_run`
# models here, {glue:text}`models_paper` there. **No value of one table can be compared with a value of the other**: the
# paper's models are full-size and its images real. What can be compared is whether a sentence holds within each. Where
# several comparisons are made at once, *p (Holm)* allows for their number, and decides what is {term}`significant`; with
# fewer than four models there is no *p*. What varies here are models: a score is the mean over a model's runs, and how far
# runs differ ([chapter 7](07_medical_adaptation)) is part of how far models do. Collapsed runs in
# these means (one answer to more than 90 % of the images, or a class that is never named): {glue:text}`collapsed`.
#
# ## Modules: which score varies least?
#
# The range of each score over models, best minus worst, in points.

# %%
from mlprobe_utils.analysis.comparisons import beside
from mlprobe_utils.evaluation.health import SCORES
from mlprobe_utils.plots.tables import show

both = beside(tables, lambda profiles: profiles)
by_set = both.groupby(["results", "dataset"], sort=False)[list(SCORES)]
show((by_set.max() - by_set.min()).reset_index())

# %% [markdown]
# The paper reads: the connector's score varies least, so that its impact is secondary. The standard deviation of FHS_C
# over that of another health score, and whether the two differ:

# %%
from mlprobe_utils.analysis.comparisons import steadier

show(beside(tables, steadier), decimals=2)

# %% [markdown]
# FHS_C varies least of the three health scores: in the paper's table {glue:text}`steadiest_paper`; in this run's
# {glue:text}`steadiest_run`. One caution: a connector has one or two points, and a score that is made of few points collects little
# sampling noise ([chapter 4](04_feature_health)). A small spread does not show that a module matters little.
#
# ## Models: does health make a good answer?
#
# The paper reads: a high P_final needs healthy modules throughout. The rank correlation of each health score with P_final
# over models:

# %%
from mlprobe_utils.analysis.comparisons import correlations

show(beside(tables, correlations), decimals=2)

# %% [markdown]
# The paper's table: {glue:text}`health_paper`. This run: {glue:text}`health_run`. A correlation over so few models is
# itself uncertain, and it says nothing of causes: a data set that is easy for a model raises all four of its scores.
#
# The other half of the sentence is that a poor P_final *invariably* comes with a severely degraded module. Made a rule:
# poor are the models in the lowest quarter of P_final, degraded is a module in the lowest quarter of its score.

# %%
from mlprobe_utils.analysis.comparisons import extremes

show(beside(tables, extremes))

# %% [markdown]
# Models with a poor P_final and a degraded module: {glue:text}`poor_paper` in the paper's table,
# {glue:text}`poor_run` in this run's. Of those with a high P_final: {glue:text}`high_paper`, and {glue:text}`high_run`.
# *Invariably* would be all of them, and none. With three scores a model, a degraded module is common by chance.
#
# ## Size: is a larger model healthier?
#
# Each step from one size of a {term}`series` to the next, and what it changes, in points.

# %%
from mlprobe_utils.analysis.comparisons import size_steps

steps = {
    "this run": size_steps(tables["this run"], of_run),
    "the paper": size_steps(tables["the paper"], paper_sizes()),
}
show(beside(steps, lambda own: own.drop(columns="series")))

# %% [markdown]
# Counted, with a sign test: without any influence of size, half of the steps would go up.

# %%
from mlprobe_utils.analysis.comparisons import size_signs

show(beside(steps, size_signs))

# %% [markdown]
# Steps that improve every health score: {glue:text}`size_paper` in the paper's table, {glue:text}`size_run` in this
# run's. A miniature takes series and order from its original, and has about the size of every other miniature: what its
# steps show is chance and what little its shape does. The paper's steps differ in more than size too (another vision
# tower, other training), and deeper LLMs lose health to noise alone ([chapter 4](04_feature_health)).
#
# ## Data sets: which is easiest?
#
# Means over models. *follow* counts the models whose own scores are in the order of the means.

# %%
from IPython.display import display
from mlprobe_utils.analysis.comparisons import dataset_order

for name in tables:
    found = beside({name: tables[name]}, dataset_order)
    display(show(found.drop(columns="order")))

# %% [markdown]
# The paper's table: {glue:text}`order_paper`. This run: {glue:text}`order_run`. Such an order cannot tell a hard data set
# from one with other classes: with three options guessing is right less often than with two, and a majority class
# lifts accuracy ([chapter 1](01_datasets)).
#
# ## What holds
#
# All readings in a few words, each computed by the same code; and once more from the
# {term}`corrected health scores <corrected health score>` of this run, from which noise is taken out
# ([chapter 4](04_feature_health); of accuracy, whichever metric this page shows).

# %%
from mlprobe_utils.analysis.health import health_of_run

corrected = health_of_run(chapter.selection)
corrected = corrected.rename(columns={"score": "health"})
calm = profile(corrected, outputs).query("stage == 'finetuned'")
calm = chapter.named(calm[calm["model"].isin(adapted["model"])])
said["corrected"] = summary(calm, of_run)

# %%
import pandas as pd

columns = {"run": "this run", "corrected": "this run, corrected"}
held = pd.DataFrame({"claim": said["paper"].keys()})
for where, name in (columns | {"paper": "the paper"}).items():
    held[name] = said[where].values()
show(held)

# %% tags=["hide-input"]
same = held[columns["run"]] == held[columns["corrected"]]
glue("kept", int(same.sum()))
glue("claims", len(same))

# %% [markdown]
# With noise taken out, {glue:text}`kept` of {glue:text}`claims` readings of this run stay as they are, word for word.
# Where modules have few points, noise does little to their scores; a reading that changes was made of it in part. From
# the paper's scores nothing can be taken out: its answers to single images are not printed.

# %% [markdown]
# ## Takeaways
#
# - A sentence about a table becomes checkable once its words are a rule, see [what holds](#what-holds).
# - Nine correlations over a dozen models: some look large by chance, see
#   [does health make a good answer](#models-does-health-make-a-good-answer).
# - A larger model is another model, not only a larger one, see
#   [is a larger model healthier](#size-is-a-larger-model-healthier).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("10_comparisons")
