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
# # 7. Medical adaptation
#
# **Question.** What does a model gain in image classification by having been adapted to medicine, and would a test set of
# this size show it?
#
# *Prerequisites:* [chapter 2](02_fine_tuning). *Time:* 15 minutes to read; seconds to run once the answers exist.

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
# ## Who is compared with whom
#
# A medical model is seldom trained from nothing: most are general models that went on learning from medical images and
# texts. Section 5 of {cite:t}`zhu-2026` fine-tunes five of them and the two general models that they come from on the
# same data, and finds hardly a difference (its figure 4). Here every model whose card names a {term}`base` that is in
# this run is compared with it. Left out, with the reason, are:

# %%
from mlprobe_utils.analysis.adaptation import pairs

compared = pairs(chapter.models)
paired = {slug for pair in compared for slug in pair}
alone = [card for m, card in chapter.models.items() if m not in paired]

# %% tags=["hide-input"]
import pandas as pd
from mlprobe_utils.plots.tables import show

rows = []
for card in alone:
    base = chapter.names.get(card.base, card.base)
    reason = f"its base, {base}, is not in this run"
    rows.append((card.name, reason if base else "its card names no base"))
show(pd.DataFrame(rows, columns=["model", "reason"]))

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import glue

glue("pairs", len(compared))
glue("bases", len({base for _, base in compared}))

# %% [markdown]
# Pairs that remain: {glue:text}`pairs`; general models in them: {glue:text}`bases`.
#
# ## How far runs differ
#
# Fine-tuned again with another seed, a model gives other answers to the same images. A gain is a statement about two
# trainings only if it is larger than that. Two runs of one model tell little of how far runs differ; so their variance is
# pooled over all models of a data set, and what the choice of images alone would make of two equal runs is subtracted
# (*by images*). Standard deviations, in points:

# %%
from mlprobe_utils.analysis.adaptation import NUMBERS, spreads
from mlprobe_utils.pipeline import results

predicted = results.prediction_rows(chapter.selection)
selected = chapter.image_sets, split_rule
spread = spreads(predicted, compared, *selected)
of_runs = [*spread.columns[: spread.columns.get_loc("2 runs")]]
show(chapter.named(spread[of_runs]))

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import collapsed_in_words
from mlprobe_utils.stats.intervals import TRAINING, WEIGHTS
from mlprobe_utils.stats.resampling import LEAST_FREEDOM

several = bool(spread["degrees of freedom"].ge(LEAST_FREEDOM).all())
glue("training", TRAINING if several else WEIGHTS)
glue("collapsed", collapsed_in_words(predicted, chapter.names))

# %% tags=["hide-input"]
one_run = "There are too few runs: no statement about a training is made."
known = chapter.named(spread.rename(columns={"degrees of freedom": "of"}))
texts = known["between runs"].map("{:.1f} on ".format) + known["dataset"]
texts += known["of"].map(" ({} degrees of freedom)".format)
pooled = f"Between runs remain, in points: {'; '.join(texts)}."
glue("pooled", pooled if several else one_run)

# %% [markdown]
# {glue:text}`pooled` Pooling takes for granted that runs of all models differ alike. A **collapsed** run, which gives one
# answer to more than 90 % of the images or never names a class that is there, breaks that, and pulls down the mean that it
# enters. Collapsed runs here: {glue:text}`collapsed`.
#
# ## The gains
#
# Accuracy of the adapted model less that of its base, on the same test images, each the mean over the runs of the
# fine-tuning. *Retrained model*: intervals and tests allow for other images (whole patients and {term}`duplicate groups
# <duplicate group>` are drawn) and for other runs of both models. *These weights*: for other images alone, with the models
# as they were trained; and so before anyone was fine-tuned. The chart draws the 95 % interval of each gain by itself;
# its colours follow the {term}`significance <significant>` among all gains of a block.

# %%
from mlprobe_utils.analysis.adaptation import MEAN, gains

gained = gains(predicted, compared, *selected)
single = gained[gained["dataset"] != MEAN]

# %% tags=["hide-input"]
from mlprobe_utils.analysis.adaptation import GAINED, LOST, NEITHER
from mlprobe_utils.plots.forest import change_chart

ends = {"gain": "value", "low": "band_low", "high": "band_high"}
title = "Accuracy of adapted models less that of their bases"
words = LOST, GAINED, NEITHER
drawn = single.rename(columns=ends), chapter.names, title, words
change_chart(*drawn) if compared else show(gained)

# %%
after = gained[gained["stage"] == "finetuned"]
hidden = ["stage", "statement", "verdict", "disagreement", "p"]
after = after.drop(columns=hidden)
show(chapter.named(after).replace({"base": chapter.names}))

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import file

file(
    chapter.named(gained.replace({"base": chapter.names})),
    "Gains of adaptation",
)

# %% tags=["hide-input"]
fixed = single[single["scope"] == WEIGHTS]
for stage in ("pretrained", "finetuned"):
    own = fixed[fixed["stage"] == stage]
    glue(f"compared_{stage}", len(own))
    glue(f"up_{stage}", int((own["gain"] > 0).sum()))
    glue(f"told_{stage}", int((own["verdict"] != NEITHER).sum()))

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import in_words

trained = single[single["scope"] == TRAINING] if several else fixed
for stage, scoped in {"pretrained": fixed, "finetuned": trained}.items():
    own = scoped[scoped["stage"] == stage]
    glue(f"gain_{stage}", in_words(own, "gain"))
    glue(f"relative_{stage}", own["relative gain (%)"].mean())

# %% tags=["hide-input"]
tested = single[single["scope"] == TRAINING]
found_told = (tested["verdict"] != NEITHER).sum()
told = f"{found_told} if other runs are allowed for"
glue("told_training", told if several else "of other runs nothing is known")

# %% [markdown]
# After fine-tuning, {glue:text}`up_finetuned` of {glue:text}`compared_finetuned` gains are above zero. Significant are
# {glue:text}`told_finetuned` of these weights, and {glue:text}`told_training`. On average gains are
# {glue:text}`gain_finetuned` points ({glue:text}`training`), or {glue:text}`relative_finetuned:+.1f` % of the base's
# accuracy: **the same gain has two sizes**, and a text that says "percent" leaves open which. Before fine-tuning they are
# {glue:text}`gain_pretrained` points on average, and {glue:text}`told_pretrained` of {glue:text}`compared_pretrained` are
# significant: what adaptation taught of a task is seen there first, and fine-tuning teaches the same task to both.
#
# ## Could a gain of the printed size be detected?
#
# The paper's gains, and what they are a gain of:

# %%
from mlprobe_utils.pipeline.cards import PUBLISHED

printed = pd.read_csv(PUBLISHED / "gains.csv")
show(printed, decimals=2)

# %% [markdown]
# Two models differ only in the images that one has right and the other wrong. What a test can show depends on how many
# these are: the fewer they disagree on, the easier a gain is detected. The paper does not print it. So each gain is tried with
# the fewest possible (all disagreements are in favour of one), and on 5, 10 and 20 % of the images{glue:text}`disagreement`.
# How often, in percent, would an exact paired test on so many images find a gain that is really there?

# %%
recomputed = PUBLISHED / "recomputed"  # by benchmarks/printed_numbers.py
found = pd.read_csv(recomputed / "gains_detectable.csv")
show(found)

# %% tags=["hide-input"]
from mlprobe_utils.pipeline.published import IMAGES

here = fixed.query("stage == 'finetuned'")["disagreement"]
of_run = f"; the median of this run's pairs is {here.median():.0f} %"
glue("disagreement", of_run if compared else "")

# %% tags=["hide-input"]
fewest = found[found["they disagree on"] == "as few as can be"]
tenth = found[found["they disagree on"] == "10 %"]
for name in IMAGES:
    glue(f"fewest_{name}", fewest[name].max())
    glue(f"tenth_{name}", tenth[name].max())
glue("tenth_mean", tenth["mean of all"].max())
glue("needed", int(tenth["images needed"].min()))

# %% [markdown]
# In the most favourable case the largest of the gains would be found {glue:text}`fewest_BUSI:.0f` times in 100 on BUSI's
# 150 images, {glue:text}`fewest_COVID19-CT:.0f` times on COVID19-CT's 203, and {glue:text}`fewest_Chest-Xray:.0f` times on
# Chest-Xray's 624. If the models disagree on one image in ten it is {glue:text}`tenth_BUSI:.0f`,
# {glue:text}`tenth_COVID19-CT:.0f` and {glue:text}`tenth_Chest-Xray:.0f` times, and {glue:text}`tenth_mean:.0f` times for the mean
# of all three; {glue:text}`needed` images would be needed to find it four times in five. So that adaptation gains
# little is what these test sets would show of a model that gained nothing, and also of one that gained as much as is printed.
#
# That was of images alone. The other way round, and with runs: the smallest difference between two trainings, in points,
# that is found four times in five, by one test, with so many runs of each, from the variances of this run's models and
# pairs. With ever more runs *images alone* would count.

# %%
least = spread[["dataset", *(f"{n} runs" for n in NUMBERS), "images alone"]]
show(chapter.named(least))

# %% tags=["hide-input"]
smallest = least.mean(numeric_only=True)
line = ", ".join(f"{own:.1f} with {n}" for n, own in smallest.items())
glue("smallest", line if several and compared else "unknown")

# %% [markdown]
# On average over the data sets the smallest difference is {glue:text}`smallest`.
#
# ### Do these intervals hold?
#
# Simulated: models of one true accuracy, whose runs differ by so much (*spread*, a standard deviation in points), and
# intervals of a mean over runs and of the difference of two such, with the variance pooled over the models; here of the
# hardest case, four models and a test set of BUSI's size.

# %%
from mlprobe_utils.pipeline.published import origin, simulated

simulation = simulated("runs")
held = simulation[simulation["scope"] == TRAINING]
hardest = held.query("images == 150 and models == 4")
show(hardest.drop(columns=["scope", "images", "models"]))

# %% tags=["hide-input"]
glue("held_least", held["covered"].min())
glue("held_most", held["covered"].max())
short = simulation[simulation["scope"] == WEIGHTS]["covered"]
glue("held_fixed", short.min())
glue("held_error", held["error"].max())
glue("held_origin", origin("runs"))

# %% [markdown]
# With the variance between runs, 95 % intervals hold what other runs on other images would give {glue:text}`held_least:.1f`
# to {glue:text}`held_most:.1f` times in 100 (standard error of a value: {glue:text}`held_error:.1f` at most); those of these
# weights, which make no such claim, only {glue:text}`held_fixed:.0f` times at the least. Where runs hardly differ they are
# a little too wide. (Simulated {glue:text}`held_origin`.)

# %% [markdown]
# ## What the printed gains can be
#
# The paper prints no accuracy of a base. But an accuracy is a whole number of right answers, so that all bases can be
# tried: from which do all the gains of a base's models come out as printed, with table 1's accuracies? "Average accuracy
# gain" can be read in three ways.

# %%
fitting = pd.read_csv(recomputed / "bases_that_fit.csv")
show(fitting)

# %% tags=["hide-input"]
for base, own in fitting.groupby("base"):
    ways = own.loc[own["bases that fit"] > 0, "a gain is the"]
    glue(f"ways_{base}", ", or ".join(ways) or "none of the three")

# %% [markdown]
# A reading that leaves no base cannot be what was computed from table 1. What remains for Qwen2.5-VL-7B:
# {glue:text}`ways_Qwen2.5-VL-7B`; for Gemma-3-4B: {glue:text}`ways_Gemma-3-4B`. Where nothing remains, the gains were made
# of other accuracies than those that are printed, such as those of another run.
#
# ## What it cannot tell
#
# - **What adaptation is worth elsewhere.** Classification of one data set after fine-tuning on it is the task where a
#   base has least to catch up; reports, questions and rare findings are others.
# - **How one model's runs differ.** Two runs do not tell; the variance is that of all models together.
# - **Why.** Adapted models differ from their bases in data, stages and sometimes in what was frozen, all at once.
# - **Anything of the original models**, where the page is of miniatures: these were adapted on phantoms, and where the
#   test images are phantoms too, they are drawn from the same physics.
#
# ## Takeaways
#
# - Compare on the same images, and pair: see [the gains](#the-gains).
# - A gain of one run is a gain of its weights: see [how far runs differ](#how-far-runs-differ).
# - Points and percent are two sizes of one gain: state both, see [the gains](#the-gains).
# - "No significant gain" on a few hundred images is compatible with a gain worth having: see
#   [could a gain of the printed size be detected](#could-a-gain-of-the-printed-size-be-detected).
# - Printed numbers can be checked by arithmetic: see [what the printed gains can be](#what-the-printed-gains-can-be).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("07_medical_adaptation")
