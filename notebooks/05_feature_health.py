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
# # 5. Feature health
#
# **Question.** How well does each module keep and refine the class, in one number per module?
#
# *Prerequisites:* [chapter 4](04_planted_faults.ipynb). *Time:* 35 minutes to read; half a minute to run once the
# probes exist.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: those of data/book.yml
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper
metric: str = ""  # accuracy, or balanced accuracy of very unequal classes; or f1, mcc, …

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import answer, say, start

chapter = start(globals())
chapter.opening()

# %% [markdown]
# ## Three equations
#
# For a module $M$ with probing performance $P_1, \dots, P_n$ at its points,
# [Zhu et al. (2026)](../book/bibliography.md#zhu-2026) define a [growth factor](../book/glossary.md#growth-factor), a
# [volatility penalty](../book/glossary.md#volatility-penalty) and, from both, the feature
# [health score](../book/glossary.md#health-score):
#
# $$\mathrm{GF}_M = \ln\frac{P_{\text{end}}}{\sqrt{P_{\text{start}}\,P_{\min}}}$$
#
# $$\mathrm{VP}_M = \exp\Big(-\lambda \sum_{i=1}^{n-1} \frac{|P_{i+1} - P_i|}{P_{\text{end}}}\Big)$$
#
# $$\mathrm{FHS}_M = P_{\text{end}}\,(1 + \mathrm{GF}_M)\,\mathrm{VP}_M$$
#
# A module is meant to be healthy if it ends high, above where it began and above its lowest point, without jumping
# about on the way.

# %%
examples = {
    "rises evenly": [70, 75, 80],
    "flat": [80, 80, 80],
    "one dip": [80, 60, 80],
    "one deeper dip": [80, 40, 80],
    "two dips": [80, 60, 80, 60, 80],
    "one point": [80],
}

# %%
from mlprobe_utils.evaluation.health import health_score

penalty = chapter.protocol.health.penalty  # lambda
scored = {name: health_score(c, penalty) for name, c in examples.items()}
{name: round(score, 1) for name, score in scored.items()}

# %% tags=["hide-input"]
flat, deeper = scored["flat"], examples["one deeper dip"]
dip, deep = scored["one dip"], scored["one deeper dip"]
rewarded = "**above**" if flat < min(dip, deep) else "not both above"
say(
    "A rise is rewarded, so the score has no upper bound. A dip to",
    f"{examples['one dip'][1]} scores {dip:.1f}, a dip to {deeper[1]}",
    f"{deep:.1f}: {rewarded} the flat curve with {flat:.1f}.",
)

# %% [markdown]
# All of these curves end at the same performance. A module with one point scores its performance.
#
# ## The score rewards a dip
#
# Why? A dip lowers $P_{\min}$, which raises the growth factor, and this can outweigh the volatility penalty. Take a
# curve that starts and ends at $P$ and dips once to $dP$, with $0 < d < 1$. The equations give
#
# $$\frac{\mathrm{FHS}}{P} = \big(1 - \tfrac12 \ln d\big)\, e^{-2\lambda(1 - d)},$$
#
# which is above 1, the value of a flat curve, as long as
#
# $$\lambda < \lambda^*(d) = \frac{\ln\big(1 - \tfrac12 \ln d\big)}{2\,(1 - d)}.$$
#
# The limit $\lambda^*$ tends to $\tfrac14$ for shallow dips and grows with their depth. So with $\lambda \le \tfrac14$
# **every** such dip raises the score, the deeper the more. A larger $\lambda$ penalises shallow dips and still rewards
# deep ones; no $\lambda$ penalises them all. With $k$ equal dips the limit is $\lambda^*/k$. A dip that does not become
# the module's lowest point leaves the growth factor alone, and is penalised. The formula beside a numerical search:

# %%
import numpy as np

end, worst = 80.0, np.array([79.0, 70, 60, 40, 20])
d, tried = worst / end, np.arange(0, 2, 1e-4)  # tried: values of lambda
limit = np.log(1 - np.log(d) / 2) / (2 * (1 - d))
curves = [[end, low, end] for low in worst]
highest = [tried[health_score(c, tried) > end].max() for c in curves]

# %%
import pandas as pd
from mlprobe_utils.plots.tables import show

dips = pd.DataFrame({"dips from 80 to": worst})
for own in (penalty, 0.25, 0.3, 0.5):
    dips[f"score, λ = {own:g}"] = [health_score(c, own) for c in curves]
dips["rewarded below λ ="] = [f"{value:.3f}" for value in limit]
show(dips.assign(searched=[f"{value:.3f}" for value in highest]))

# %% tags=["hide-input"]
at_penalty = dips[f"score, λ = {penalty:g}"]
say(
    f"With the λ of this run, {penalty:g}, {(at_penalty > end).sum()} of the",
    f"{len(dips)} dips score above a flat curve ({end:.1f}). A dip to",
    f"{worst[0]:.0f} is penalised from λ = {limit[0]:.2f} on, a dip to",
    f"{worst[-1]:.0f} only from λ = {limit[-1]:.2f} on.",
)

# %% [markdown]
# A high score is therefore no proof that a module keeps the class throughout: look at the curve, too.
#
# ## The scores of this run
#
# The scores come from the curves of the mean of the image tokens, after fine-tuning, and are means over runs. They are
# scores of accuracy. Each has a 95 % interval for the fitted probes on new images, with the effect of noise taken out
# ([below](#noise-corrected-scores)). Averaged over runs, the intervals are rather too wide than too narrow.

# %%
from mlprobe_utils.analysis.health import health_of_run

corrected = health_of_run(chapter.selection)
numbers = ["raw", "score", "low", "high", "flat_low", "flat_high"]
tuned = corrected[corrected["stage"] == "finetuned"]
of_module = tuned.groupby(["dataset", "model", "module"], as_index=False)
each = of_module[numbers].mean().assign(x=lambda t: "FHS_" + t["module"])

# %% tags=["hide-input"]
from mlprobe_utils.analysis.adaptation import of_models
from mlprobe_utils.pipeline import results
from mlprobe_utils.stats.intervals import WEIGHTS, intervals
from mlprobe_utils.stats.resampling import accuracy

predicted = results.prediction_rows(chapter.selection)
given = chapter.image_sets, split_rule
answers = [*of_models(predicted, "finetuned", *given)]

# %% tags=["hide-input"]
final = pd.concat(
    intervals(accuracy(own, drawn), WEIGHTS).assign(dataset=on, model=slug)
    for on, drawn, correct in answers
    for slug, own in correct.items()
)
four = final.assign(x="P_final").rename(columns={"value": "raw"})
four = pd.concat([each, four], ignore_index=True)

# %% tags=["hide-input"]
from mlprobe_utils.plots import charts, lines
from mlprobe_utils.plots.figures import Key

band = {"raw": "value", "low": "band_low", "high": "band_high"}
drawn = four[["dataset", "model", "x", *band]].rename(columns=band)
drawn = chapter.named(drawn)
drawn = drawn.assign(series=drawn["model"])
few = len(set(drawn["model"])) <= charts.FEW

# %% tags=["hide-input"]
of_colour = enumerate(dict.fromkeys(drawn["model"]))
keys = [Key(name, "model", charts.COLOURS[n % 6]) for n, name in of_colour]
by = (None if few else "model", "dataset")
title = "Health scores and final output after fine-tuning"
title += " (areas: 95 % intervals)"
lines.lines(drawn, keys, charts.PROFILE, title, by=by)

# %%
words = "{0.raw:.1f} [{0.low:.1f}, {0.high:.1f}]".format
cells = four.assign(cell=[words(row) for row in four.itertuples()])
wide = cells.pivot(index=["dataset", "model"], columns="x", values="cell")
main = wide[["FHS_V", "FHS_C", "FHS_L", "P_final"]].rename_axis(columns=None)
show(chapter.named(main.reset_index()), title="Health scores of this run")

# %% [markdown]
# Each row is a [four-score profile](../book/glossary.md#four-score-profile), in the order in which the information
# flows: vision tower, connector, LLM, and the model's answer.

# %%
from mlprobe_utils.analysis.health import profile
from mlprobe_utils.evaluation.health import health_by_run
from mlprobe_utils.pipeline import scoring

scores = scoring.probe_scores(chapter.selection)
outputs = scoring.output_scores(chapter.selection)
health = health_by_run(scores, penalty, chapter.metric)
profiles = profile(health, outputs, chapter.metric)

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.health import HEALTH, STATE
from mlprobe_utils.evaluation.points import MODULES

after = profiles.query("stage == 'finetuned'")
by_stage = profiles.set_index(STATE)[HEALTH]
changes = by_stage.xs("finetuned", level="stage")
changes = changes - by_stage.xs("pretrained", level="stage")

# %% tags=["hide-input"]
fell, above = (changes < 0).sum().sum(), (profiles[HEALTH] > 100).sum().sum()
mean = after[HEALTH].mean()
say(
    f"The {MODULES[mean.idxmin()[-1]]} has the lowest mean score",
    f"({mean.min():.1f}), the {MODULES[mean.idxmax()[-1]]} the highest",
    f"({mean.max():.1f}). Fine-tuning lowered {fell} of {changes.size} scores.",
    f"Scores above 100, of both stages: {above} of {profiles[HEALTH].size}.",
)

# %% [markdown]
# The same in the form of the paper's Table 1; then before fine-tuning; then the paper's own table, from
# `data/published/table1.csv` through the same code. **The numbers of this run and of the paper cannot be compared**:
# other models, other images, another scale. What can be compared is how each table behaves within itself
# ([chapter 12](12_comparisons.ipynb)). The paper does not say whether its scores are from before or after fine-tuning.

# %% tags=["hide-output"]
from mlprobe_utils.pipeline.cards import bases
from mlprobe_utils.plots.tables import profile_table

apart = bases(chapter.models)
profile_table(after, chapter.names, "this run, after fine-tuning", apart)

# %% tags=["hide-output"]
untuned = profiles.query("stage == 'pretrained'")
profile_table(untuned, chapter.names, "this run, before fine-tuning", apart)

# %% tags=["hide-output"]
from mlprobe_utils.pipeline.published import paper_profiles

published = "the paper's own: full-size models, real images"
profile_table(paper_profiles(), {}, published)

# %% [markdown] tags=["needs-planted-faults"]
# ## Profiles with a known fault
#
# Does a score fall where the fault is? These are the damaged models of [chapter 4](04_planted_faults.ipynb) beside the
# healthy one, first run.

# %%
damaged = chapter.damaged()
both = damaged.healthy, damaged.selection
probed = pd.concat([scoring.probe_scores(one) for one in both])
answered = pd.concat([scoring.output_scores(one) for one in both])
first_run = "stage == 'finetuned' and run == 0"

# %%
by_fault = profile(
    health_by_run(probed.query(first_run), penalty, chapter.metric),
    answered.query(first_run),
    chapter.metric,
)
charts.fault_profiles(by_fault, damaged.planted, damaged.names)

# %% [markdown]
# The change from the healthy model (pp):

# %%
from mlprobe_utils.analysis.fault_effects import profile_changes

changed = profile_changes(by_fault, damaged.planted)
show(changed.replace({"model": damaged.names}))

# %% tags=["hide-input"]
hits = (changed["falls most where damaged"] == "yes").sum()
say(
    f"The score of the damaged part falls most in {hits} of {len(changed)}",
    "damaged models. These changes have no interval: they only illustrate.",
    "What is lost in one module is missing in all that follow, so their",
    "scores fall too. A profile shows *that* something is lost; the",
    "[diagnosis](06_diagnosis.ipynb) tests *where*.",
)

# %% [markdown]
# ## What the scores are made of
#
# Growth factor and volatility penalty of every module after fine-tuning, mean over runs; first the scores that differ
# most from the performance at the module's end.

# %%
parts = health[health["stage"] == "finetuned"].groupby(
    ["dataset", "model", "module"], as_index=False
)
factors = parts[["end", "growth", "volatility", "health"]].mean()
gap = (factors["health"] - factors["end"]).abs()
factors = chapter.named(factors.replace({"module": MODULES}))
factors = factors.loc[gap.sort_values(ascending=False).index]
show(factors.head(10), decimals=2)

# %%
from mlprobe_utils.plots.tables import file

file(factors, "Growth and volatility of every module")

# %% tags=["hide-input"]
spread = parts["health"].agg(np.ptp)["health"]
say(
    f"Two runs that differ only in their seed are {spread.mean():.1f} pp apart",
    f"on average, and up to {spread.max():.1f} pp. Differences of this size",
    "carry no meaning, and the seed is only one source of chance.",
) if health["run"].nunique() > 1 else say("There is one run per model.")

# %% [markdown]
# ## The same scores from the second pooling
#
# So far, the probes saw the mean of the image tokens, as in the paper. The second pooling of
# [chapter 3](03_probing.ipynb) keeps where a token is ([places](../book/glossary.md#position-preserving-pooling)).

# %% tags=["hide-output"]
from mlprobe_utils.evaluation.points import PLACES

health_places = health_by_run(scores, penalty, chapter.metric, PLACES)
by_places = profile(health_places, outputs, chapter.metric)
placed_after = by_places.query("stage == 'finetuned'")
caption = "this run, after fine-tuning, by places"
profile_table(placed_after, chapter.names, caption, apart)

# %% tags=["hide-input"]
pair = [
    t.set_index(["dataset", "model"])[HEALTH] for t in (after, placed_after)
]
ranks = [t.groupby("dataset").rank() for t in pair]
agree = [ranks[0][name].corr(ranks[1][name]) for name in HEALTH]
ranked = zip(MODULES.values(), agree, strict=True)
ranked = ", ".join(f"{name} {value:.2f}" for name, value in ranked)
unranked = "There are too few models to rank."

# %% tags=["hide-input"]
apart_by = (pair[1] - pair[0]).abs().mean().mean()
agreement = f"Rank correlation of the models within a data set: {ranked}."
agreement += " Where it is low, a score ranks only the *mean* of a module."
say(
    f"The two differ by {apart_by:.1f} pp on average.",
    agreement if len(chapter.models) > 1 else unranked,
)

# %% [markdown]
# ## What noise does to a score
#
# A test set is a sample, so a measured curve is noisy. The volatility penalty adds up the noise of every step, and the
# growth factor picks the lowest of all noisy points. To see the effect, we simulate test sets for a module that rises
# evenly, whose true score is known. With correlation 0 each point is correct on images of its own; the higher the
# correlation, the more alike neighbouring points are.

# %%
from mlprobe_utils.pipeline.published import origin, simulated

noise = simulated("raw_health").query("shape == 'rising'")
noise = noise.query("points in [2, 28, 64] and images in [150, 624]")
plain = {"raw bias": "bias (pp)", "error": "standard error"}
plain["raw coverage"] = "coverage (%)"
show(noise.drop(columns=["shape", "penalty"]).rename(columns=plain))

# %% tags=["hide-input"]
cases = noise.set_index(["points", "images", "correlation"])
bias, covered = cases["raw bias"], cases["raw coverage"]
few_points, many = noise["points"].min(), noise["points"].max()
sets, near = (noise["images"].min(), noise["images"].max()), 0.9
lost = [-bias[many, sets[n], c] for n, c in ((0, 0.0), (0, near), (1, near))]
most = covered.loc[many].max()
seldom = f"at most {most:.0f} %" if most else "none"

# %% tags=["hide-input"]
say(
    f"With {few_points} probe points, the mean score is off by at most",
    f"{bias.loc[few_points].abs().max():.1f} pp. With {many} probe points and",
    f"{sets[0]} images it is {lost[0]:.1f} pp too low, {lost[1]:.1f} pp where",
    f"neighbours are alike, and {lost[2]:.1f} pp then with {sets[1]} images.",
    f"The usual interval contains the true score in {seldom} of these test",
    f"sets. (Simulated {origin('raw_health')}.)",
)

# %% [markdown]
# **A deep module looks unhealthy because it is deep and the test set is small.**
#
# ## A flat curve for comparison
#
# Would an LLM that changes nothing at all score higher than the published LLMs? Of these we know the layers, the test
# images and the final accuracy. So we put a [flat curve](../book/glossary.md#flat-curve) at that accuracy, and assume
# how alike neighbouring layers are (correlation).

# %%
from mlprobe_utils.pipeline.cards import PUBLISHED

recomputed = PUBLISHED / "recomputed"  # by benchmarks/printed_numbers.py
placed = pd.read_csv(recomputed / "llms_beside_flat.csv")
trend = pd.read_csv(recomputed / "depth_trend.csv")
less = ["minus flat", "p (minus flat)"]
show(trend.set_axis([*trend.columns[:5], *less], axis=1), decimals=2)

# %%
file(placed, "The paper's LLMs beside a flat curve")

# %% tags=["hide-input"]
alike = placed[placed["correlation"] == placed["correlation"].max()]
lower = (alike["score"] < alike["2.5 %"]).sum()
higher = (alike["score"] > alike["97.5 %"]).sum()
loses = (alike["level"] - alike["50 %"]).max()
depths = f"{placed['points'].min()} to {placed['points'].max()} layers"

# %% tags=["hide-input"]
say(
    f"The published LLMs have {depths}. Even with the most alike layers, a",
    f"flat curve loses up to {loses:.1f} pp to noise alone. Of {len(alike)}",
    f"published scores, {lower} then {'lies' if lower == 1 else 'lie'} below",
    f"the central 95 % of flat curves, and {higher} above.",
)

# %% tags=["hide-input"]
beside = trend.loc[trend["correlation"] == trend["correlation"].max()]
left = beside["Spearman beside flat"]
say(
    "In the paper's table, deeper LLMs score lower: depth and FHS_L - P_final",
    f"have rank correlations of {trend['Spearman'].min():.2f} to",
    f"{trend['Spearman'].max():.2f}. Minus a flat curve of the same depth,",
    f"{left.min():.2f} to {left.max():.2f} remain if layers are most alike.",
)

# %% [markdown]
# So noise is enough to explain the trend. If layers are less alike, the correlation turns positive: that much noise
# would cost deep LLMs more than they have lost. How alike the paper's layers are is not published, and the accuracy of
# the last layer is not P_final: this is a comparison and no correction. A correction needs the predictions on single
# images, which a run has.
#
# ## Noise-corrected scores
#
# From the predictions, we estimate the noise between points (several images of one patient count as one draw). We draw
# curves that could lie behind the measured one, add noise to each once more, and subtract what this changes on average:
# the [corrected health score](../book/glossary.md#corrected-health-score). Without noise it equals the paper's score.
#
# In code, `correct` being whether each image is classified correctly at each point:
#
# ```python
# from mlprobe_utils.evaluation.health import corrected_health
#
# raw, score, low, high = corrected_health(correct, penalty)
# ```
#
# Means over models and runs (the ends, too, are means, and no interval of the mean), beside the central 95 % of scores
# of a flat curve with the noise of these predictions:

# %%
headers = {"raw": "the paper's score", "score": "corrected"}
headers |= {"flat_low": "flat, 2.5 %", "flat_high": "flat, 97.5 %"}
over_models = tuned.groupby(["dataset", "module"], as_index=False)
beside_flat = chapter.named(over_models[numbers].mean())
show(beside_flat.replace({"module": MODULES}).rename(columns=headers))

# %%
listed = chapter.named(each.drop(columns="x")).rename(columns=headers)
file(listed, "Corrected health scores of every module")

# %% tags=["hide-input"]
moved = (corrected["score"] - corrected["raw"]).abs()
width = (corrected["high"] - corrected["low"]).median()
under = (corrected["raw"] < corrected["flat_low"]).sum()
over = (corrected["raw"] > corrected["flat_high"]).sum()

# %% tags=["hide-input"]
say(
    f"The correction changes the {len(corrected)} scores of this run (both",
    f"stages, every run) by {moved.mean():.1f} pp on average and at most",
    f"{moved.max():.1f}: no module has more than {corrected['points'].max()}",
    f"points. The median interval is {width:.1f} pp wide. Scores below the",
    f"range of a flat curve: {under}; above it: {over}; by chance, about",
    f"{0.025 * len(corrected):.0f} each.",
)

# %% [markdown]
# The interval is for the same probes on other images. What another seed of the training would change is not in it.
#
# How far can the correction be trusted? On simulated predictions of several shapes, of which the last, *restless*,
# varies by less than the noise of the test set:

# %% tags=["hide-output"]
trust = simulated("corrected_health").query(
    "points in [2, 28, 64] and images == 150 and correlation == 0.9"
)
shown = ["shape", "points", "true score", "raw bias"]
shown += ["bias", "error", "coverage", "width"]
show(trust[shown].rename(columns={"error": "standard error"}))

# %% tags=["hide-input"]
restless = trust["shape"] == "restless"
calm, rough = trust[~restless], trust.loc[restless, "bias"].max()
off = [calm[name].abs().max() for name in ("raw bias", "bias", "error")]

# %% tags=["hide-input"]
say(
    "On all other shapes, the paper's score is off by up to",
    f"{off[0]:.1f} pp on average and the corrected one by up to {off[1]:.1f}",
    f"(standard error up to {off[2]:.1f}); {calm['coverage'].mean():.0f} % of",
    "the intervals contain the true score. The corrected score of the",
    f"restless curve is up to {rough:.1f} pp too high.",
    f"(Simulated {origin('corrected_health')}.)",
)

# %% [markdown]
# Changes smaller than the noise cannot be distinguished from it. The score then assumes a calm curve, and only the
# interval shows that a restless one is possible.
#
# ## How much the ranks depend on choices
#
# The paper gives no reason for its $\lambda$. The metric, the last point and the spacing of points are choices, too.
# Kendall's tau compares the order of the models under two choices: 1 is the same order, 0 is no agreement. The last row
# changes no choice and only redraws the test images. Paper's scores after fine-tuning, first run, over modules and data
# sets:

# %%
from mlprobe_utils.analysis.health import rank_table

of = {"stage": "finetuned", "run": 0, "pooling": "image_mean"}
rows = results.probe_rows(chapter.selection, **of)
taus = rank_table(rows, chapter.image_sets, split_rule, penalty)

# %%
of_choice = taus.groupby(["changed", "to"], sort=False)
over_all = of_choice.agg(
    models=("models", "first"),
    **{"tau (mean)": ("tau", "mean"), "lowest tau": ("tau", "min")},
)
choices = {"changed": "choice", "to": "changed to"}
show(over_all.reset_index().rename(columns=choices), decimals=2)

# %%
named_taus = chapter.named(taus).rename(columns=choices)
file(named_taus, "Rank stability by data set and module")

# %% tags=["hide-input"]
least = named_taus.dropna(subset="tau").sort_values("tau", kind="stable")
where = least["module"].map(MODULES) + ", " + least["dataset"]
ends = least[["tau", "low", "high"]].itertuples(index=False)
sizes = ["tau = {:.2f} [{:.2f}, {:.2f}]".format(*row) for row in ends]
place = pd.Series(sizes, least.index, dtype=str) + " (" + where + ")"
redrawn = least["choice"] == "images"

# %% tags=["hide-input"]
which = least["choice"] + " " + least["changed to"] + ": " + place
tied = "There are too few models to rank, or all tie."
turned = (
    f"The choice that changes an order most is {next(iter(which[~redrawn]), '')}."
    f" Redrawing the images alone changes most: {next(iter(place[redrawn]), '')}."
    " An order that other images overturn says nothing about models."
)
say(turned if len(least) else tied)

# %% [markdown]
# ## What a module's score cannot tell
#
# - **Whether the module kept the class throughout.** A dip raises the score.
# - **Which of two modules of different depth is healthier**, uncorrected: they differ by depth first. Corrected scores
#   can be compared, within their intervals.
# - **Whether a module is calm, or restless by less than the noise.** The interval is as wide as that question.
# - **Whether the training was lucky.** Probes and adapters are taken as they are; no interval here includes retraining.
# - **What the module did to the class.** A score near that of a flat curve may come from a module that changes nothing,
#   or from one whose noise hides what it does.
# - **Anything, from a published score alone.** Without the predictions on single images, noise can be guessed but not
#   removed.
#
# The correction (`evaluation/health.py`) joins the bootstrap's estimate of bias
# ([Efron and Tibshirani, 1993](../book/bibliography.md#efron-1993)) with curves from Gaussian processes
# ([Rasmussen and Williams, 2006](../book/bibliography.md#rasmussen-2006)) and a covariance shrunk as by
# [Schäfer and Strimmer (2005)](../book/bibliography.md#schaefer-2005). Predictions are simulated as by
# [Emrich and Piedmonte (1991)](../book/bibliography.md#emrich-1991). The noise of a flat curve has a closed form through
# the function of [Owen (1956)](../book/bibliography.md#owen-1956).
#
# ## Takeaways

# %% tags=["hide-input"]
extremes = chapter.named(each).sort_values("raw", kind="stable")
at = "{0.raw:.1f} [{0.low:.1f}, {0.high:.1f}] ({1}, {0.model}, {0.dataset})"
lowest, *_, best = extremes.itertuples()
lowest, best = (at.format(row, MODULES[row.module]) for row in (lowest, best))

# %% tags=["hide-input", "answer"]
answer(
    f"After fine-tuning, health scores lie between {lowest} and {best}; half",
    f"of the 95 % intervals are wider than {width:.1f} pp. Read them with two",
    "reservations. A dip to a new lowest point *raises* the score: with",
    f"λ = {penalty:g}, {deeper} scores {deep:.1f}, a flat curve {flat:.1f}.",
    "And noise alone lowers the score of a deep module, in simulations by",
    f"{lost[1]:.1f} pp at {many} probe points and {sets[0]} images.",
)

# %% [markdown]
# - With $\lambda \le \tfrac14$, a dip to a module's lowest point raises its score, the deeper the more: see
#   [the score rewards a dip](#the-score-rewards-a-dip).
# - A healthy score is not a correct answer: see [the scores of this run](#the-scores-of-this-run).
# - Noise alone lowers the score of a deep module, and is enough to explain the paper's trend with depth: see
#   [what noise does to a score](#what-noise-does-to-a-score) and [a flat curve](#a-flat-curve-for-comparison).
# - With predictions on single images, noise can be taken out in part: see
#   [noise-corrected scores](#noise-corrected-scores).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("05_feature_health")
