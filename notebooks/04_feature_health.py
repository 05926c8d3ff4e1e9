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
# *Prerequisites:* [chapter 3](03_probing). *Time:* 35 minutes to read; half a minute to run once the probes exist.

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
from mlprobe_utils.evaluation.health import health_score

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
from mlprobe_utils.analysis.health import profile
from mlprobe_utils.evaluation.health import health_by_run
from mlprobe_utils.pipeline import scoring

scores = scoring.probe_scores(chapter.selection)
outputs = scoring.output_scores(chapter.selection)
health = health_by_run(scores, penalty, chapter.metric)
profiles = profile(health, outputs, chapter.metric)

# %%
from mlprobe_utils.pipeline.cards import bases
from mlprobe_utils.plots.tables import profile_table, show

after, apart = profiles.query("stage == 'finetuned'"), bases(chapter.models)
profile_table(after, chapter.names, "this run, after fine-tuning", apart)

# %% [markdown]
# This is the form of the paper's table 1. Each cell is a {term}`four-score profile` and reads as the information flows:
# vision tower, connector, LLM, and what the model finally says.

# %% tags=["hide-input"]
from mlprobe_utils.pipeline.published import paper_profiles

origin = "the paper's own: full-size models, real images"
profile_table(paper_profiles(), {}, origin)

# %% [markdown]
# The same table as {cite:t}`zhu-2026` print it, from `data/published/table1.csv`, through the same code. **The figures of
# the two tables cannot be compared**: other models, other images, another scale of everything. What can be compared is
# how each table behaves within itself, which is what [chapter 10](10_comparisons) does. The paper does not say whether its
# scores were taken before or after fine-tuning; the table of this run before it:

# %%
before = profiles.query("stage == 'pretrained'")
profile_table(before, chapter.names, "this run, before fine-tuning", apart)

# %% [markdown]
# The profiles after fine-tuning as lines; models of one {term}`series` stand in one row.

# %%
from mlprobe_utils.pipeline.cards import series
from mlprobe_utils.plots import charts

charts.health_profiles(after, chapter.names, series(chapter.models))

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import glue
from mlprobe_utils.evaluation.health import HEALTH
from mlprobe_utils.evaluation.points import MODULES

glue("lowest_module", MODULES[after[HEALTH].mean().idxmin()[-1]])
glue("lowest_health", after[HEALTH].mean().min())
glue("highest_health", after[HEALTH].mean().max())
glue("final_mean", after["P_final"].mean())

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.health import STATE

by_stage = profiles.set_index(STATE)[HEALTH]
changes = by_stage.xs("finetuned", level="stage")
changes = changes - by_stage.xs("pretrained", level="stage")
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
# The scores say where a module is weak. Do they, where that is known?

# %% [markdown] tags=["needs-planted-faults"]
# ## Profiles with a known fault
#
# One fault at a time, weak or strong, is planted in one fine-tuned model of this run
# ([chapter 11](11_planted_faults)). Its four scores beside those of the healthy model, first run:

# %%
import pandas as pd

damaged = chapter.damaged()
both = damaged.healthy, damaged.selection
probed = pd.concat([scoring.probe_scores(one) for one in both])
answered = pd.concat([scoring.output_scores(one) for one in both])
first_run = "stage == 'finetuned' and run == 0"

# %%
from mlprobe_utils.plots.charts import fault_profiles

by_fault = profile(
    health_by_run(probed.query(first_run), penalty, chapter.metric),
    answered.query(first_run),
    chapter.metric,
)
fault_profiles(by_fault, damaged.planted, damaged.names)

# %% [markdown]
# The same as changes from the healthy model, in points:

# %%
from mlprobe_utils.analysis.fault_effects import profile_changes

changed = profile_changes(by_fault, damaged.planted)
show(changed.replace({"model": damaged.names}))

# %% tags=["hide-input"]
glue("lowest_where_damaged", int(changed["falls most where damaged"].sum()))
glue("damaged_models", len(changed))

# %% [markdown]
# The score of the damaged part falls most in {glue:text}`lowest_where_damaged` of {glue:text}`damaged_models` damaged
# models. What is lost in a module is missing in all that follow, so that their scores fall too: a profile shows that
# something is lost, and needs [chapter 5](05_diagnosis) to say between which two places.

# %% [markdown]
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
# {glue:text}`run_spread_most:.1f`: differences of this size carry no meaning. Nor is the seed the only chance in a score.
#
# ## The same scores by places
#
# All scores above are of the mean of the image tokens, as the paper's. [Chapter 3](03_probing) has a second pooling that
# keeps where a token is ({term}`places`). A module is only as healthy as both say:

# %%
from mlprobe_utils.evaluation.points import PLACES

health_places = health_by_run(scores, penalty, chapter.metric, PLACES)
by_places = profile(health_places, outputs, chapter.metric)
placed_after = by_places.query("stage == 'finetuned'")
caption = "this run, after fine-tuning, by places"
profile_table(placed_after, chapter.names, caption, apart)

# %% tags=["hide-input"]
keys = ["dataset", "model"]
pair = [own.set_index(keys)[HEALTH] for own in (after, placed_after)]
glue("places_apart", (pair[1] - pair[0]).abs().mean().mean())
for name in HEALTH:
    ranked = [own[name].groupby("dataset").rank() for own in pair]
    glue(f"ranks_{name}", ranked[0].corr(ranked[1]))

# %% [markdown]
# The two differ by {glue:text}`places_apart:.1f` points on average. Rank correlation of the models within a data set, by
# mean and by places: {glue:text}`ranks_FHS_V:.2f` for the vision tower, {glue:text}`ranks_FHS_C:.2f` for the connector,
# {glue:text}`ranks_FHS_L:.2f` for the LLM. Where it is low, a score ranks how readable a module's *mean* is, and not what
# the module holds.
#
# ## What noise does to a score
#
# A test set is a sample of images, and a curve of accuracies measured on it a noisy one. The volatility penalty adds up
# the noise of every step, and the growth factor looks for the lowest of all noisy points. What that does is seen on
# curves whose truth is known: answers to images are simulated, of a module that rises evenly from 70 to 85 %. At
# correlation 0 its points are right on images of their own, at 0.9 neighbouring points on nearly the same.

# %%
from mlprobe_utils.pipeline.published import origin, simulated

noise = simulated("raw_health").query("shape == 'rising'")
noise = noise.query("points in [2, 28, 64] and images in [150, 624]")
show(noise.drop(columns="shape"))

# %% tags=["hide-input"]
found = noise.set_index(["points", "images", "correlation"])
glue("noise_true", found["true score"].iloc[0])
glue("noise_two", found.loc[2, "raw bias"].abs().max())
glue("noise_two_error", found.loc[2, "error"].max())
glue("noise_deep", -found.at[(64, 150, 0.0), "raw bias"])

# %% tags=["hide-input"]
glue("noise_alike", -found.at[(64, 150, 0.9), "raw bias"])
glue("noise_large", -found.at[(64, 624, 0.9), "raw bias"])
glue("noise_covered", found.loc[64, "raw coverage"].max())
glue("noise_origin", origin("raw_health"))

# %% [markdown]
# *raw bias* is how far measured scores are off on average, and *error* its standard error. The true score is
# {glue:text}`noise_true:.1f` in every row. With two points, it is missed by at most {glue:text}`noise_two:.1f` points
# (with a standard error of up to {glue:text}`noise_two_error:.1f`). With 64 points and 150 images the score is
# {glue:text}`noise_deep:.1f` points too low, {glue:text}`noise_alike:.1f` where neighbouring points are alike, and
# {glue:text}`noise_large:.1f` then with 624 images. *raw coverage* tells how often the usual interval, from resampled
# images, holds the truth: at 64 points in at most {glue:text}`noise_covered:.0f` % of test sets, as it moves with the
# score; *penalty* is the lambda. **A deep module looks ill because it is deep and the test set small.** (Simulated
# {glue:text}`noise_origin`.)
#
# ## A flat curve as the yardstick
#
# The LLMs of the paper's table have {glue:text}`layers_least` to {glue:text}`layers_most` layers. Would one that changes
# nothing at all have scored higher than printed? Of the paper only layers, test images and final accuracy are known. So
# the {term}`flat curve` is put at that accuracy, and the agreement of neighbouring layers is assumed: a correlation of 0
# (none) or higher.

# %%
import pandas as pd
from mlprobe_utils.pipeline.cards import PUBLISHED
from mlprobe_utils.plots.tables import file

recomputed = PUBLISHED / "recomputed"  # by benchmarks/printed_numbers.py
placed = pd.read_csv(recomputed / "llms_beside_flat.csv")
file(placed, "The paper's LLMs beside a flat curve")

# %%
trend = pd.read_csv(recomputed / "depth_trend.csv")
show(trend, decimals=2)

# %% tags=["hide-input"]
alike = placed[placed["correlation"] == placed["correlation"].max()]
beside = trend[trend["correlation"] == trend["correlation"].max()]
glue("layers_least", int(placed["points"].min()))
glue("layers_most", int(placed["points"].max()))
glue("flat_llms", len(alike))
glue("flat_below", int((alike["score"] < alike["2.5 %"]).sum()))
glue("flat_above", int((alike["score"] > alike["97.5 %"]).sum()))
glue("flat_loses", (alike["level"] - alike["50 %"]).max())

# %% tags=["hide-input"]
glue("trend_least", trend["Spearman"].min())
glue("trend_most", trend["Spearman"].max())
glue("beside_least", beside["Spearman beside flat"].min())
glue("beside_most", beside["Spearman beside flat"].max())
glue("beside_apart", trend["Spearman beside flat"].max())

# %% [markdown]
# Even with layers that agree most, a flat curve loses up to {glue:text}`flat_loses:.1f` points by noise alone. Of the
# {glue:text}`flat_llms` printed scores {glue:text}`flat_below` then lie below the flat curve's 2.5th percentile, and
# {glue:text}`flat_above` above its 97.5th. The table asks about depth. Deeper LLMs score lower in print: the rank
# correlation of layers with FHS_L - P_final is {glue:text}`trend_least:.2f` to {glue:text}`trend_most:.2f`. Once a flat
# curve of the same depth is taken off, it is {glue:text}`beside_least:.2f` to {glue:text}`beside_most:.2f` for layers that
# agree most: noise is then enough to explain the trend. It is up to {glue:text}`beside_apart:.2f` for layers that agree
# less: so much noise would take more from deep LLMs than they have lost.
#
# How much the paper's layers agree is not printed, and the last layer's accuracy is not P_final: this is a yardstick, no
# correction. A correction takes the answers to single images, which a run has.
#
# ## Scores that know their noise
#
# From the answers, the noise between points is measured (several images of one patient count as one draw). Curves that
# could lie behind the measured one are drawn, noise is added to each once more, and what this changes on average is
# subtracted: the {term}`corrected health score`. It has an interval, and where there is no noise, it is the paper's. It
# is of accuracy, whichever metric this page shows.
#
# In the tables, *raw* is the paper's score, *score* the corrected one, and *low* and *high* are the ends of its 95 %
# interval. Then follows where a flat curve with the very noise of these answers would score, from the 2.5th percentile
# (*flat_low*) to the 97.5th (*flat_high*).

# %%
from mlprobe_utils.analysis.health import health_of_run

corrected = health_of_run(chapter.selection)
tuned = corrected[corrected["stage"] == "finetuned"]
numbers = ["raw", "score", "low", "high", "flat_low", "flat_high"]

# %%
over_models = tuned.groupby(["dataset", "module"], as_index=False)
show(chapter.named(over_models[numbers].mean()))

# %% [markdown]
# Means over models and runs; the ends too are means, not an interval of the mean. The same of the LLM of each model, in
# the fold, and of every module as a file:

# %% tags=["hide-output"]
by_model = ["dataset", "model", "module"]
each = tuned.groupby(by_model, as_index=False)[numbers].mean()
each = chapter.named(each)
show(each[each["module"] == "L"].drop(columns="module"))

# %%
file(each, "Corrected health scores of every module")

# %% tags=["hide-input"]
change = (corrected["score"] - corrected["raw"]).abs()
width = corrected["high"] - corrected["low"]
glue("corrected_mean", change.mean())
glue("corrected_most", change.max())
glue("corrected_width", width.median())

# %% tags=["hide-input"]
below = corrected["raw"] < corrected["flat_low"]
above = corrected["raw"] > corrected["flat_high"]
glue("own_below", int(below.sum()))
glue("own_above", int(above.sum()))
glue("own_scores", len(corrected))
glue("most_points", int(corrected["points"].max()))

# %% [markdown]
# The correction changes the scores of this run (both stages, every run) by {glue:text}`corrected_mean:.1f` points on
# average and by at most {glue:text}`corrected_most:.1f`: no module here has more than {glue:text}`most_points` points.
# Half of the 95 % intervals are wider than {glue:text}`corrected_width:.1f` points. Of {glue:text}`own_scores` raw scores
# {glue:text}`own_below` lie below a flat curve's range and {glue:text}`own_above` above it; by chance about one in twenty
# would lie outside. The interval is of other images for the same probes: what another seed of training would change is
# not in it.
#
# ### How far the correction can be trusted
#
# On simulated answers again, now of several shapes. The last is restless by less than the noise of 150 images.

# %%
trust = simulated("corrected_health")
trust = trust.query(
    "points in [2, 28, 64] and images == 150 and correlation == 0.9"
)
kept = ["shape", "points", "true score", "raw bias"]
show(trust[[*kept, "bias", "error", "coverage", "width"]])

# %% tags=["hide-input"]
restless = trust["shape"] == "restless"
glue("trust_raw", trust.loc[~restless, "raw bias"].abs().max())
glue("trust_bias", trust.loc[~restless, "bias"].abs().max())
glue("trust_error", trust.loc[~restless, "error"].max())
glue("trust_coverage", trust.loc[~restless, "coverage"].mean())
glue("trust_restless", trust.loc[restless, "bias"].max())
glue("trust_origin", origin("corrected_health"))

# %% [markdown]
# On the first four shapes raw scores are up to {glue:text}`trust_raw:.1f` points off on average, corrected ones up to
# {glue:text}`trust_bias:.1f` (chance alone is off by {glue:text}`trust_error:.1f`: the largest
# standard error), and the intervals hold the truth in {glue:text}`trust_coverage:.0f` % of test sets. The restless curve
# shows the limit: its corrected score is up to {glue:text}`trust_restless:.1f` points too high. Changes smaller than the
# noise cannot be distinguished from it; the score then assumes a calm curve, and only the interval shows that a restless
# one is possible. (Simulated {glue:text}`trust_origin`.)
#
# ## How ranks move with what the score leaves open
#
# Lambda is {glue:text}`penalty` without a reason; the metric, the last point and the spacing of points are choices too. Kendall's tau
# compares the order of models under one choice and another: 1 is the same order, 0 none. The last row changes no choice
# and only redraws the test images. Raw scores after fine-tuning, of the first run; mean and lowest tau over modules and
# data sets, then all of them with their intervals.

# %%
from mlprobe_utils.analysis.health import rank_table
from mlprobe_utils.pipeline import results

of = {"stage": "finetuned", "run": 0, "pooling": "image_mean"}
rows = results.probe_rows(chapter.selection, **of)
ranks = rank_table(rows, chapter.image_sets, split_rule, penalty)

# %%
of_choice = ranks.groupby(["changed", "to"], sort=False)
over_all = of_choice.agg(
    models=("models", "first"),
    **{"tau (mean)": ("tau", "mean"), "lowest tau": ("tau", "min")},
)
show(over_all.reset_index(), decimals=2)

# %%
file(chapter.named(ranks), "Rank stability by data set and module")

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.points import MODULES

least = chapter.named(ranks).dropna(subset="tau")
least = least.sort_values("tau", kind="stable")
place = least["module"].map(MODULES) + ", " + least["dataset"] + ")"
choice = least["changed"] + ": " + least["to"] + ", "

# %% tags=["hide-input"]
redrawn = least["changed"] == "images"
said = least["tau"].map("tau {:.2f} (".format).astype(str)
said += choice.where(~redrawn, "") + place
none = "there are too few models for an order, or they all tie"
glue("tau_choice", next(iter(said[~redrawn]), none))
glue("tau_images", next(iter(said[redrawn]), none))
glue("penalty", penalty)

# %% [markdown]
# The choice that moves an order most: {glue:text}`tau_choice`. Redrawing the images alone, where it does most:
# {glue:text}`tau_images`. An order that other images overturn says nothing about models, whichever the choice.
#
# ## What a module's score cannot tell
#
# - **Which of two modules of different depth is healthier**, raw: their difference is made of depth first. The corrected
#   scores can be compared, within their intervals.
# - **Whether a module is calm, or restless by less than the noise**: the interval is as wide as that question.
# - **Whether the training was lucky**: probes and adapters are taken as they are. Several runs show something of it, no
#   interval here does.
# - **What the module did to the class**: a score near that of a flat curve may be of a module that changes nothing, or of
#   one whose noise hides what it does.
# - **Anything, from a printed score alone**: without the answers to single images, noise can be guessed but not taken out.
#
# The correction is in `evaluation/health.py`. It joins the bootstrap's estimate of bias
# {cite:p}`efron-1993` with curves from Gaussian processes {cite:p}`rasmussen-2006` and a covariance shrunk as by
# {cite:t}`schaefer-2005`; answers are simulated as by {cite:t}`emrich-1991`, and a flat curve's noise has a closed form
# through the function of {cite:t}`owen-1956`.
#
# ## Takeaways
#
# - Healthy is not the same as right: a module may score high and the answer be wrong, see
#   [the scores of this run](#the-scores-of-this-run-and-the-papers).
# - The score mixes where a module ends, whether it rose and whether it jumped: see [three equations](#three-equations).
# - Noise alone lowers the score of a deep module: see [what noise does](#what-noise-does-to-a-score), and
#   [a flat curve](#a-flat-curve-as-the-yardstick) for what remains of the paper's trend.
# - With the answers to single images noise can be taken out, in part: see
#   [scores that know their noise](#scores-that-know-their-noise).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("04_feature_health")
