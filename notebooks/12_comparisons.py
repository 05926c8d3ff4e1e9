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
# # 12. Comparing modules, models and data sets
#
# **Question.** What do the scores of many models show about modules, about model size and about data sets, and how much of it
# is more than chance?
#
# *Prerequisites:* [chapter 5](05_feature_health.ipynb). *Time:* 15 minutes to read; seconds to run once the probes exist.

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
# ## Two tables, the same functions
#
# Section 4.3 of [Zhu et al. (2026)](../book/bibliography.md#zhu-2026) compares the modules, the models and the data sets in the paper's
# table 1. Here every such sentence is a function of a table of [four-score profiles](../book/glossary.md#four-score-profile), applied twice:
# to the table of this run after fine-tuning, and to the paper's own.

# %%
from mlprobe_utils.evaluation.health import health_by_run
from mlprobe_utils.pipeline import scoring

scores = scoring.probe_scores(chapter.selection)
outputs = scoring.output_scores(chapter.selection)
penalty = chapter.protocol.health.penalty
health = health_by_run(scores, penalty, chapter.metric)

# %%
from mlprobe_utils.analysis.health import profile
from mlprobe_utils.pipeline.cards import bases
from mlprobe_utils.pipeline.published import paper_profiles

profiles = profile(health, outputs, chapter.metric)
after = profiles.query("stage == 'finetuned'")
adapted = after[~after["model"].isin(bases(chapter.models))]
tables = {"the paper": paper_profiles(), "this run": chapter.named(adapted)}

# %% tags=["hide-input"]
from mlprobe_utils.analysis.comparisons import LEAST, summary
from mlprobe_utils.pipeline.cards import paper_sizes, sizes

of_run = sizes(chapter.models).rename(index=chapter.names)
known_sizes = {"the paper": paper_sizes(), "this run": of_run}
found = {name: summary(tables[name], known_sizes[name]) for name in tables}
count = {name: own["model"].nunique() for name, own in tables.items()}
enough = {name: own for name, own in tables.items() if count[name] >= LEAST}

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import say

few = "so its comparisons have p values and intervals, too."
if "this run" not in enough:
    few = (
        f"too few for p values and intervals, which need {LEAST}: `make book "
    )
    few += "MODELS=all` runs a miniature of each of the paper's models. The "
    few += "comparisons below are those of the paper's table."

# %% tags=["hide-input"]
say(
    f"The paper's table has {count['the paper']} models. This run has",
    f"{count['this run']} to compare, {few} Models that others were adapted",
    "from are left out, as the paper leaves them out.",
)

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import collapsed_in_words
from mlprobe_utils.pipeline.results import prediction_rows

rows = prediction_rows(chapter.selection)
in_means = rows[rows["model"].isin(adapted["model"])]

# %% tags=["hide-input"]
collapsed = collapsed_in_words(in_means, chapter.names)
say(
    "Collapsed runs of this run (one answer to nearly all images, or a class",
    f"that is never named), which are part of its means: {collapsed}.",
)

# %% [markdown]
# **No value of one table can be compared with a value of the other**: the paper's models are full-size and its images real.
# What can be compared is whether a sentence holds in each. *p (Holm)* allows for the number of comparisons in a table, and
# decides what is [significant](../book/glossary.md#significant). The sample here is a sample of models: a score is the mean over a model's
# runs.
#
# ## Modules: which score varies least?
#
# The paper concludes that the connector's score varies least, so its impact is secondary. Each mark is one model.

# %%
import pandas as pd
from mlprobe_utils.evaluation.health import SCORES

parts = pd.concat(tables, names=["results", None]).reset_index("results")
values = parts.melt(["results", "dataset", "model"], list(SCORES))
values = values.dropna(subset="value")

# %%
import altair as alt
from mlprobe_utils.plots.drawing import COLOURS

across = alt.X("value:Q", title="score (%)").scale(zero=False)
down = alt.Y("variable:N", sort=[*SCORES], title=None)
marks = alt.Chart(values).encode(x=across, y=down)
marks = marks.mark_tick(thickness=2, color=COLOURS[1], opacity=0.8)

# %%
charts = []
for (where, name), _ in values.groupby(["results", "dataset"], sort=False):
    of_panel = f"datum.results == '{where}' && datum.dataset == '{name}'"
    chosen = marks.transform_filter(of_panel).properties(width=200, height=90)
    charts.append(chosen.properties(title=f"{name} ({where})"))
words = "Scores of every model, in a panel per data set"
alt.concat(*charts, columns=3, description=words)

# %% [markdown]
# The table has the standard deviation of FHS_C divided by that of another health score. Below 1, the connector's
# score varies less.

# %%
from mlprobe_utils.analysis.comparisons import beside, steadier
from mlprobe_utils.plots.tables import show

show(beside(enough, steadier), decimals=2)

# %% tags=["hide-input"]
from mlprobe_utils.analysis.comparisons import CLAIMS

said = {
    claim: ". ".join(
        f"*{name.capitalize()}*: {own[claim]}" for name, own in found.items()
    )
    for claim in CLAIMS
}

# %% tags=["hide-input"]
least, ranks, low, high, larger, order = CLAIMS
say(f"FHS_C varies least of the three health scores. {said[least]}.")

# %% [markdown]
# A connector has one or two probe points, and a score of few points collects little sampling noise
# ([chapter 5](05_feature_health.ipynb)). A small spread does not show that a module matters little.
#
# ## Models: does health make a good answer?
#
# The paper concludes that a high P_final needs healthy modules throughout. The chart shows the rank correlation of each health
# score with P_final over models, with a 95 % interval.

# %%
from mlprobe_utils.analysis.comparisons import correlations
from mlprobe_utils.stats.paired import ALPHA

related = beside(enough, correlations)
p = related["p (Holm)"]
words_of_p = {True: "significant", False: "not significant"}
related["significance"] = (p < ALPHA).map(words_of_p)
related["of"] = related["results"] + ", " + related["dataset"]

# %%
whole = alt.Scale(domain=[-1, 1])
rule = alt.Chart(related).encode(
    y=alt.Y("score:N", title=None),
    x=alt.X("low:Q", scale=whole, title="Spearman's rank correlation"),
    color=alt.Color("significance:N", title=None).scale(range=COLOURS[:2]),
)

# %%
ends = rule.mark_rule(strokeWidth=2).encode(x2="high:Q")
dots = rule.mark_point(filled=True, size=60, opacity=1)
shape = alt.Shape("significance:N").legend(None)
dots = dots.encode(x="Spearman:Q", shape=shape)
zero = alt.Chart(related).mark_rule(strokeDash=[3, 2]).encode(x=alt.datum(0))
both = alt.layer(zero, ends, dots).properties(width=200, height=70)
facets = both.facet(facet=alt.Facet("of:N", title=None), columns=3)
facets.properties(description="Rank correlations with 95 % intervals")

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import file

file(related, "Rank correlations with intervals")

# %% tags=["hide-input"]
say(f"{ranks[0].upper() + ranks[1:]}. {said[ranks]}.")

# %% [markdown]
# A correlation says nothing of causes: a data set that is easy for a model raises all four of its scores.
#
# The other half of the sentence is that a poor P_final *invariably* comes with a severely degraded module. As a rule: a
# low P_final lies in the lowest quarter of the models on a data set, and a degraded module has a score in its lowest
# quarter.

# %%
from mlprobe_utils.analysis.comparisons import extremes

show(beside(enough, extremes), title="Extremes of P_final")

# %% tags=["hide-input"]
say(
    f"Models with a low P_final and a degraded module. {said[low]}.\n\n",
    f"Models with a high P_final and a degraded module. {said[high]}.\n\n",
    "*Invariably* would be all of the first, and none of the second.",
)

# %% [markdown]
# ## Size: is a larger model healthier?
#
# Each line is a step from one size of a [series](../book/glossary.md#series) to the next, and what it changes. These single differences have
# no interval: the paper's answers to single images are not published.

# %%
from mlprobe_utils.analysis.comparisons import size_steps

steps = {
    name: size_steps(own, known_sizes[name]) for name, own in tables.items()
}
wide = steps["the paper"].melt(["from", "to", "dataset"], list(SCORES))
wide["model"] = wide["from"] + " to " + wide["to"]
wide["low"] = wide["high"] = wide["value"]

# %%
from mlprobe_utils.stats.paired import verdicts

signs = ("falls", "rises", "equal")
words_of = verdicts(wide["value"], wide["value"] * 0, signs)
change = wide.assign(verdict=words_of, statement=wide["variable"])

# %%
from dataclasses import replace

from mlprobe_utils.plots.forest import change_chart

title = "The paper's models: what a step up in size changes"
figure = change_chart(change, {}, title, signs)
axes = ("one block per score, one line per step", "change in the score (pp)")
replace(figure, axes=axes)

# %% [markdown]
# Counted, with a sign test: without any influence of size, half of the steps would go up. Several steps are of the same
# models on other data sets, so these p values are too small.

# %%
from mlprobe_utils.analysis.comparisons import size_signs

several = {name: own for name, own in steps.items() if len(own)}
show(beside(several, size_signs))

# %% tags=["hide-input"]
say(f"Steps that improve every health score. {said[larger]}.")

# %% [markdown]
# A miniature takes its series and order from its original, and is about as large as every other miniature: its steps show
# chance and what little its shape does. The paper's steps differ in more than size (another vision tower, other training),
# and deeper LLMs lose health to noise alone ([chapter 5](05_feature_health.ipynb)).
#
# ## Data sets: which is easiest?
#
# The order of the data sets by the mean over models, and how many models follow it with their own scores.

# %%
from mlprobe_utils.analysis.comparisons import dataset_order

columns = ["results", "score", "order", "models", "in this order", "p (Holm)"]
show(beside(tables, dataset_order)[columns])

# %% [markdown]
# Such an order does not show which data set is hard: with three classes guessing is right less often than with two, and a
# large class lifts accuracy ([chapter 1](01_datasets.ipynb)).
#
# ## What holds
#
# All claims in a few words, and once more from the [corrected health scores](../book/glossary.md#corrected-health-score) of this run, from which
# the effect of noise is removed ([chapter 5](05_feature_health.ipynb); always of accuracy). The paper's scores cannot be
# corrected, as its answers to single images are not published.

# %%
from mlprobe_utils.analysis.health import health_of_run

corrected = health_of_run(chapter.selection)
corrected = corrected.rename(columns={"score": "health"})
noiseless = profile(corrected, outputs).query("stage == 'finetuned'")
noiseless = noiseless[noiseless["model"].isin(adapted["model"])]
of_corrected = summary(chapter.named(noiseless), of_run)

# %%
held = pd.DataFrame(found | {"this run, corrected": of_corrected})
show(held.rename_axis("claim").reset_index())

# %% tags=["hide-input"]
kept = int((held["this run"] == held["this run, corrected"]).sum())
say(
    f"With noise removed, {kept} of {len(held)} results of this run stay the",
    "same, word for word. A result that changes was partly noise.",
)

# %% [markdown]
# ## Takeaways

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import answer

best = related.sort_values("Spearman").iloc[-1]
clearest = f"{best['Spearman']:.2f} ({best['low']:.2f} to {best['high']:.2f})"
place = f"{best['score']} on {best['dataset']}, {best['results']}"
certain = (related["significance"] == "significant").sum()

# %% tags=["hide-input", "answer"]
answer(
    f"{certain} of {len(related)} rank correlations of a health score with",
    f"P_final are significant. The largest is {clearest}, 95 % interval",
    f"({place}). Whether FHS_C varies least: {said[least]}. Whether a larger",
    f"model of a series improves every health score: {said[larger]}.",
)

# %% [markdown]
# - A sentence about a table can be checked once its words are a rule: see [what holds](#what-holds).
# - A correlation over a dozen models has a wide interval: see
#   [does health make a good answer](#models-does-health-make-a-good-answer).
# - A larger model differs in more than its size: see [is a larger model healthier](#size-is-a-larger-model-healthier).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("12_comparisons")
