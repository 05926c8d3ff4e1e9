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
# # 4. Feature health
#
# **Question.** How well does each module keep and refine the class, in one number a module?
#
# *Prerequisites:* [chapter 3](03_probing). *Time:* 20 minutes to read; seconds to run once the probes exist.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: all 16 miniatures
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images: all real sets are the default then
metric: str = "accuracy"  # or f1, mcc, …: the glossary names them

# %% tags=["hide-input"]
from mlprobe_utils.chapter import start

chapter = start(globals())
chapter.opening()

# %% [markdown]
# ## Three equations
#
# For a module $M$ with probing performance $P_1, \dots, P_n$ at its points, {cite:t}`zhu-2026` define a
# {term}`growth factor`, a {term}`volatility penalty` and from both the feature {term}`health score`:
#
# $$\mathrm{GF}_M = \ln\frac{P_{\text{end}}}{\sqrt{P_{\text{start}}\,P_{\min}}}$$
#
# $$\mathrm{VP}_M = \exp\Big(-\lambda \sum_{i=1}^{n-1} \frac{|P_{i+1} - P_i|}{P_{\text{end}}}\Big)$$
#
# $$\mathrm{FHS}_M = P_{\text{end}}\,(1 + \mathrm{GF}_M)\,\mathrm{VP}_M$$
#
# A module is healthy if it ends high, above where it began and above its worst point, without jumping about on the way.

# %%
examples = {
    "rises evenly": [70, 75, 80],
    "flat": [80, 80, 80],
    "jumps": [80, 60, 80],
    "one point": [80],
}

# %%
from mlprobe_utils.health import health_score

penalty = chapter.protocol.health.penalty
scored = {name: health_score(c, penalty) for name, c in examples.items()}
{name: round(score, 1) for name, score in scored.items()}

# %% [markdown]
# All four curves end at the same performance. A rise is rewarded beyond it, so that the score has no upper bound; a dip
# is punished although nothing is lost at the end; and a module with a single point scores its plain performance.
#
# ## The scores of this run, and the paper's
#
# From the curves of the image tokens' means, computed for each run and then averaged.

# %%
from mlprobe_utils import results
from mlprobe_utils.profiles import health_by_run, of_stage, profile

scores = results.probe_scores(chapter.selection)
outputs = results.output_scores(chapter.selection)
health = health_by_run(scores, penalty, metric)
profiles = profile(health, outputs, metric)

# %%
from mlprobe_utils.lineage import bases
from mlprobe_utils.tables import profile_table, show

after, apart = of_stage(profiles, "finetuned"), bases(chapter.models)
profile_table(after, chapter.names, "this run, after fine-tuning", apart)

# %% [markdown]
# This is the form of the paper's table 1. Each cell is a {term}`four-score profile` and reads as the information flows:
# vision tower, connector, LLM, and what the model finally says.

# %% tags=["hide-input"]
from mlprobe_utils.profiles import paper_profiles

origin = "the paper's own: full-size models, real images"
profile_table(paper_profiles(), {}, origin)

# %% [markdown]
# The same table as {cite:t}`zhu-2026` print it, from `data/published/table1.csv`, through the same code. **The figures of
# the two tables cannot be compared**: other models, other images, another scale of everything. What can be compared is
# how each table behaves within itself, which is what [chapter 6](06_comparisons) does. The paper does not say whether its
# scores were taken before or after fine-tuning; the table of this run before it:

# %%
before = of_stage(profiles, "pretrained")
profile_table(before, chapter.names, "this run, before fine-tuning", apart)

# %% [markdown]
# The profiles after fine-tuning as lines; models of one {term}`series` stand in one row.

# %%
from mlprobe_utils import charts
from mlprobe_utils.lineage import series

charts.health_profiles(after, chapter.names, series(chapter.models))

# %% tags=["hide-input"]
from mlprobe_utils.chapter import glue
from mlprobe_utils.points import MODULES
from mlprobe_utils.profiles import HEALTH, lowest_module

glue("lowest_module", MODULES[lowest_module(after)])
glue("lowest_health", after[HEALTH].mean().min())
glue("highest_health", after[HEALTH].mean().max())
glue("final_mean", after["P_final"].mean())

# %% tags=["hide-input"]
from mlprobe_utils.profiles import health_changes

changes = health_changes(profiles)
glue("fell", int((changes < 0).sum().sum()))
glue("scores", changes.size)
glue("above_hundred", int((profiles[HEALTH] > 100).sum().sum()))

# %% [markdown]
# After fine-tuning, the {glue:text}`lowest_module` has the lowest mean score of the three modules,
# {glue:text}`lowest_health:.1f`, and the highest is {glue:text}`highest_health:.1f`; the final output scores
# {glue:text}`final_mean:.1f` % on average. Fine-tuning lowered {glue:text}`fell` of {glue:text}`scores` health scores.
# {glue:text}`above_hundred` of all scores of both stages exceed 100: although it looks like a percentage, a health
# score has no upper bound.
#
# ## What the scores are made of
#
# Growth factor and volatility penalty of every module after fine-tuning, mean over runs.

# %%
parts = health[health["stage"] == "finetuned"].groupby(
    ["dataset", "model", "module"], as_index=False
)
factors = parts[["end", "growth", "volatility", "health"]].mean()
show(chapter.named(factors), decimals=3)

# %% tags=["hide-input"]
import numpy as np

spread = (
    health[health["stage"] == "finetuned"]
    .groupby(["model", "dataset", "module"])["health"]
    .agg(np.ptp)
)
glue("run_spread", spread.mean())
glue("run_spread_most", spread.max())

# %% [markdown]
# Two runs that differ in nothing but the seed are {glue:text}`run_spread:.1f` points apart on average, and up to
# {glue:text}`run_spread_most:.1f`. The volatility penalty adds up the sampling noise of every step, so that deeper
# modules and smaller test sets look less healthy than they are: differences of this size carry no meaning.
#
# ## Takeaways
#
# - Healthy is not the same as right: a module may score high and the answer be wrong, see
#   [the scores of this run](#the-scores-of-this-run-and-the-papers).
# - The score mixes where a module ends, whether it rose and whether it jumped: see [three equations](#three-equations).
# - It is as noisy as the curves it is made of: see [what the scores are made of](#what-the-scores-are-made-of).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("04_feature_health")
