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
# # 9. Medical adaptation
#
# **Question.** How much accuracy does a model gain from having been adapted to medicine, and would a test set of this
# size detect the gain?
#
# *Prerequisites:* [chapter 2](02_fine_tuning.ipynb). *Time:* 15 minutes to read; seconds to run once the answers exist.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: those of data/book.yml
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import start

chapter = start(globals())
chapter.opening()

# %% [markdown]
# ## Pairs of models
#
# Most medical models are general models that were trained further on medical images and texts. Section 5 of
# [Zhu et al. (2026)](../book/bibliography.md#zhu-2026) fine-tunes five of them and the two general models behind them on
# the same data, and reports small gains (its figure 4). This page compares every model of the run with its
# [base](../book/glossary.md#base), if the base is in the run, too.

# %%
from mlprobe_utils.analysis.adaptation import pairs

compared = pairs(chapter.models)
paired = {slug for pair in compared for slug in pair}
alone = [card for m, card in chapter.models.items() if m not in paired]

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import say

apart = ", ".join(card.name for card in alone)
bases = len({base for _, base in compared})
say(
    f"Pairs: {len(compared)}; general models in them: {bases}.",
    f"Without a pair in this run: {apart}." if alone else "",
)

# %% [markdown]
# ## The gains
#
# A gain is the accuracy of the adapted model minus that of its base, on the same test images, averaged over the runs of
# the fine-tuning. Each block of the chart has its scope:
#
# - *retrained model*: intervals and tests allow for other test images (whole patients and
#   [duplicate groups](../book/glossary.md#duplicate-group) are resampled) and for other runs of both models;
# - *fixed model*: they allow for other test images only and say nothing about another training.
#
# Each bar is the 95 % interval of one gain. The colours show which gains are
# [significant](../book/glossary.md#significant) after correction for all gains of their block.

# %%
from mlprobe_utils.analysis.adaptation import MEAN, gains
from mlprobe_utils.pipeline import results

predicted = results.prediction_rows(chapter.selection)
gained = gains(predicted, compared, chapter.image_sets, split_rule)
single = gained[gained["dataset"] != MEAN]

# %% tags=["hide-input"]
from mlprobe_utils.analysis.adaptation import GAINED, LOST, NEITHER
from mlprobe_utils.plots.forest import change_chart
from mlprobe_utils.plots.tables import show

title = "Accuracy of adapted models minus that of their bases"
words = LOST, GAINED, NEITHER
drawn = single.rename(columns={"gain": "change"}), chapter.names
change_chart(*drawn, title, words) if compared else show(gained)

# %% tags=["hide-input"]
from mlprobe_utils.analysis.adaptation import summary

named = single.replace(chapter.names)
blocks = named.groupby("statement", sort=False)
lines = [f"- *{block}*: {summary(own)}" for block, own in blocks]
say("\n".join(lines) or summary(named))

# %% tags=["hide-input"]
from mlprobe_utils.stats.intervals import TRAINING, WEIGHTS
from mlprobe_utils.stats.paired import in_words

scope = TRAINING if TRAINING in set(gained["scope"]) else WEIGHTS
after = gained[(gained["stage"] == "finetuned") & (gained["scope"] == scope)]
each = after[after["dataset"] != MEAN]
ends = 100 * each[["gain", "low", "high"]]
relative = ends.div(each["accuracy of the base"], axis=0)

# %% tags=["hide-input"]
sizes = (
    f"After fine-tuning the average gain is {in_words(each, 'gain')} pp",
    f"(*{scope}*). Relative to the accuracy of the base, the same gain is",
    f"{in_words(relative, 'gain')} %. Always state which of the two is",
    "meant. (Both intervals hold however the single gains are correlated.)",
)
say(*sizes) if compared else say(summary(each))

# %% [markdown]
# The average over the data sets, per model (the chart's fold has every single gain):

# %%
averages = after[after["dataset"] == MEAN]
averages = averages if len(averages) else after
averages = averages.sort_values("gain", ascending=False)
columns = ["model", "base", "accuracy", "gain", "low", "high", "scope"]
show(averages[columns].replace(chapter.names), title="Average gains")

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import file

all_gains = chapter.named(gained.replace({"base": chapter.names}))
file(all_gains.drop(columns="statement"), "Gains of adaptation")

# %% tags=["hide-input"]
of_bases = predicted["model"].isin({base for _, base in compared})
first = of_bases & (predicted["stage"] == "pretrained")
answers = predicted[first & (predicted["split"] == "test")]
unparsed = 100 * answers["parsed"].isna().mean()

# %% tags=["hide-input"]
say(
    f"Before fine-tuning, {unparsed:.0f} % of the bases' answers name no",
    "option or several and count as incorrect, so a gain before fine-tuning",
    "is partly a gain in following the format.",
) if len(answers) else say("No base was evaluated before fine-tuning.")

# %% [markdown]
# ### The test behind one gain
#
# Both models answer the same images, so only the images on which exactly one of them is correct carry information. With one
# run of each model and independent images, the paired test is McNemar's exact test: if both models were equally good,
# each of these images would favour either model with probability 1/2. Here for run 0 on the first data set; the chart uses
# all runs and keeps patients and duplicate groups together.

# %%
tested = predicted.query("split == 'test' and stage == 'finetuned'")
tested = tested[tested["run"] == 0]
correct = tested.assign(correct=tested["parsed"] == tested["label"])
keys = {"index": ["dataset", "image"], "columns": "model"}
correct = correct.pivot(**keys, values="correct")
correct = correct.loc[next(iter(chapter.datasets))]

# %%
from scipy.stats import binomtest

counts = []
for adapted, base in compared:
    wins = int((correct[adapted] & ~correct[base]).sum())
    losses = int((correct[base] & ~correct[adapted]).sum())
    p = binomtest(wins, max(wins + losses, 1)).pvalue
    counts.append((chapter.names[adapted], wins, losses, p))

# %%
import pandas as pd

only = "only the adapted model correct", "only the base correct"
show(pd.DataFrame(counts, columns=["model", *only, "p"]))

# %% [markdown]
# ## How much runs differ
#
# Fine-tuned again with another seed, a model gives other answers. A gain is a result about two *trainings* only if it is
# larger than this variation. Two runs of one model estimate it poorly, so the variance is pooled over all models of a data
# set; what the limited number of test images contributes is subtracted (*by images*). The table has standard deviations
# in pp, the pooled one with its 95 % interval.

# %%
from mlprobe_utils.analysis.adaptation import NUMBERS, spreads

selected = chapter.image_sets, split_rule
spread = spreads(predicted, compared, *selected)
known = ["dataset", "models", "degrees of freedom", "observed"]
observed = spread[known].copy()

# %%
from scipy.stats import chi2

freedom = observed["degrees of freedom"]
for end, share in {"low": 0.975, "high": 0.025}.items():
    factor = freedom / chi2.ppf(share, freedom)
    observed[end] = observed["observed"] * factor**0.5
parts = spread[["by images", "between runs"]]
show(chapter.named(observed.join(parts)))

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import collapsed_in_words

few = "One run per model: this page makes no statement about trainings."
pooled = "Pooling assumes that the runs of all models vary alike."
known_spread = spread["observed"].notna().any()

# %% tags=["hide-input"]
say(
    pooled if known_spread else few,
    "A **collapsed** run gives one answer to more than 90 % of the images",
    "or never names one of the classes; it violates this assumption.",
    f"Collapsed runs: {collapsed_in_words(predicted, chapter.names)}.",
)

# %% [markdown]
# ## Could a gain of the published size be detected?
#
# The fewer images two models disagree on, the easier it is to detect a gain of a given size. The paper does not report the
# disagreement. So we compute the power of the exact paired test for several assumptions, from the most favourable one (all
# disagreements favour the same model) to 20 % of the images.

# %%
from mlprobe_utils.pipeline.cards import PUBLISHED
from mlprobe_utils.pipeline.published import IMAGES

published = pd.read_csv(PUBLISHED / "gains.csv")
recomputed = PUBLISHED / "recomputed"  # by benchmarks/printed_numbers.py
power = pd.read_csv(recomputed / "gains_detectable.csv")
largest = power[power["gain"] == power["gain"].max()]

# %%
sets = {name: f"{name} ({n} images)" for name, n in IMAGES.items()}
sets |= {"mean of all": "mean of the three", "gain": "gain (pp)"}
show(largest.rename(columns=sets))

# %% tags=["hide-input"]
file(power.rename(columns=sets), "Power for the published gains")

# %% tags=["hide-input"]
by = largest.set_index("disagreement")
easiest, tenth = by.loc["fewest possible"], by.loc["10 %"]
pair_rows = each["disagreement"]
of_run = f" (the median in this run: {pair_rows.median():.0f} %)"
best = ", ".join(f"{easiest[name]:.0f} % on {name}" for name in IMAGES)
likely = ", ".join(f"{tenth[name]:.0f} % on {name}" for name in IMAGES)

# %% tags=["hide-input"]
say(
    "The table shows the power, in percent, for the largest of the",
    f"{len(published)} published gains, {largest['gain'].max():.2f} pp. At",
    f"best the test detects it with a probability of {best}. If the two models",
    f"disagree on 10 % of the images{of_run if compared else ''}, it is",
    f"{likely}; a power of 80 % then needs {tenth['images needed']:,.0f} images.",
)

# %% [markdown]
# So "adaptation gains little" cannot be concluded from such test sets: they would give the same picture for models that
# gained nothing and for models that gained as much as was published.
#
# Variation between runs comes on top. The next table has the smallest difference between two trainings, in pp, that one
# test at this page's test sets detects with 80 % power, for several numbers of runs per model. *Images alone* is the limit for
# infinitely many runs. These are plans computed from the variances above, so they have no interval of their own.

# %%
least = spread[["dataset", *(f"{n} runs" for n in NUMBERS), "images alone"]]
show(chapter.named(least))

# %% tags=["hide-input"]
average = least.mean(numeric_only=True).dropna()
line = ", ".join(f"{value:.1f} pp with {n}" for n, value in average.items())
unknown = "Too few runs or no pair: the smallest difference is unknown."
say(f"Averaged over the data sets: {line}." if line else unknown)

# %% [markdown]
# ### Do these intervals hold?
#
# We simulated models of equal true accuracy whose runs vary by a known amount, and counted how often the 95 % intervals of
# means over runs, and of differences between two such means, contain the truth.

# %%
from mlprobe_utils.pipeline.published import origin, simulated

simulation = simulated("runs")
held = simulation[simulation["scope"] == TRAINING]
fixed = simulation[simulation["scope"] == WEIGHTS]
file(simulation, "Coverage of intervals over runs")

# %% tags=["hide-input"]
say(
    f"Intervals for a *{TRAINING}* cover the truth in",
    f"{held['covered'].min():.1f} to {held['covered'].max():.1f} % of the",
    f"simulations (standard error at most {held['error'].max():.1f} pp), and",
    f"those for *{WEIGHTS}*, which do not claim to cover other runs, in as few as",
    f"{fixed['covered'].min():.0f} %. (Simulated {origin('runs')}.)",
)

# %% [markdown]
# ## Which accuracies give the published gains?
#
# The paper reports no accuracy of a base. But an accuracy is a whole number of correct answers, so every possible base can
# be tried: which ones reproduce all published gains of their models, with the accuracies of Table 1? "Average accuracy
# gain" has three possible definitions.

# %%
fitting = pd.read_csv(recomputed / "bases_that_fit.csv")
show(fitting)

# %% tags=["hide-input"]
fits = []
for base_name, own in fitting.groupby("base", sort=False):
    ways = own.loc[own["bases that fit"] > 0, "definition of a gain"]
    fits.append(f"{base_name}: {', '.join(ways) or 'none'}")
say(f"Definitions that some base satisfies: {'; '.join(fits)}.")

# %% [markdown]
# Where no definition fits, the gains were computed from accuracies other than the published ones, for example from
# another run.
#
# ## Limits
#
# - **Other tasks.** Classifying one data set after fine-tuning on it is the task where a base has least to catch up.
#   Reports, open questions and rare findings are different tasks.
# - **Single models.** Variation between runs is estimated for all models together, not for each.
# - **Causes.** Adapted models differ from their bases in data, training stages and sometimes in what was frozen, all at
#   once.
# - **Original models.** Where the page shows miniatures, these were adapted on phantoms. Test images that are phantoms
#   come from the same simulated physics, which favours adaptation.
#
# ## Takeaways

# %% tags=["hide-input"]
from collections import Counter

verdicts, worst = Counter(each["verdict"]), each["gain"].min()
loss = f"{-worst:.1f} pp" if worst < 0 else "none"

# %% tags=["hide-input"]
mean_gain = (
    "After fine-tuning, adapted models differ from their bases by"
    f" {in_words(each, 'gain')} pp on average (*{scope}*)."
    f" Of {len(each)} differences,"
    f" significant gains: {verdicts[GAINED]}; significant losses:"
    f" {verdicts[LOST]}; largest loss: {loss}."
)

# %% tags=["hide-input", "answer"]
from mlprobe_utils.book.chapter import answer

answer(
    mean_gain if compared else summary(each),
    "On the paper's test sets its largest gain would be detected with a",
    f"probability of {likely}, if two models disagree on 10 % of the images. A gain that",
    "is not significant there may still be real.",
)

# %% [markdown]
# - Compare models on the same images and pair the answers: see [the test behind one gain](#the-test-behind-one-gain).
# - The gain of one run is a result about its weights, not about the training: see [how much runs
#   differ](#how-much-runs-differ).
# - Report the largest loss beside the number of gains, and pp or percent explicitly: see [the gains](#the-gains).
# - "No significant gain" on a few hundred images is compatible with a useful gain: see [could a gain of the published size
#   be detected](#could-a-gain-of-the-published-size-be-detected).
# - Published accuracies can be checked by arithmetic: see [which accuracies give the published
#   gains](#which-accuracies-give-the-published-gains).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("09_medical_adaptation")
