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
# ## The gains
#
# Accuracy of the adapted model less that of its base, on the same test images, each the mean over the runs of the
# fine-tuning; below it, the same before anyone was fine-tuned. An interval holds for other images from where these came
# from (whole patients and {term}`duplicate groups <duplicate group>` are drawn), not for another fine-tuning.

# %%
from mlprobe_utils.analysis.adaptation import gains
from mlprobe_utils.pipeline import results

predicted = results.prediction_rows(chapter.selection)
gained = gains(predicted, compared, chapter.image_sets, split_rule)

# %% tags=["hide-input"]
from mlprobe_utils.analysis.adaptation import GAINED, LOST, NEITHER
from mlprobe_utils.plots.forest import change_chart

ends = {"gain": "value", "low": "band_low", "high": "band_high"}
title = "Accuracy of adapted models less that of their bases"
words = LOST, GAINED, NEITHER
drawn = gained.rename(columns=ends), chapter.names, title, words
change_chart(*drawn) if compared else show(gained)

# %%
from mlprobe_utils.evaluation.health import STAGE_NAMES

after = gained[gained["statement"] == STAGE_NAMES["finetuned"]]
after = after.drop(columns=["statement", "verdict", "disagreement", "p"])
show(chapter.named(after).replace({"base": chapter.names}))

# %% tags=["hide-input"]
from mlprobe_utils.analysis.adaptation import MEAN
from mlprobe_utils.plots.tables import file

file(
    chapter.named(gained.replace({"base": chapter.names})),
    "Gains of adaptation",
)

# %% tags=["hide-input"]
single = gained[gained["dataset"] != MEAN]
for stage, words in STAGE_NAMES.items():
    own = single[single["statement"] == words]
    glue(f"compared_{stage}", len(own))
    glue(f"up_{stage}", int((own["gain"] > 0).sum()))
    glue(f"told_{stage}", int((own["p (Holm)"] < 0.05).sum()))

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import in_words

for stage, words in STAGE_NAMES.items():
    own = single[single["statement"] == words]
    relative = own[["relative gain (%)", "relative low", "relative high"]]
    relative = relative.set_axis(["gain", "low", "high"], axis=1)
    glue(f"gain_{stage}", in_words(own, "gain"))
    glue(f"relative_{stage}", in_words(relative, "gain"))

# %% [markdown]
# After fine-tuning, {glue:text}`up_finetuned` of {glue:text}`compared_finetuned` gains are above zero, and
# {glue:text}`told_finetuned` are significant by an exact paired test, corrected for their number
# ({term}`Holm <Holm correction>`). On average they are {glue:text}`gain_finetuned` points, or
# {glue:text}`relative_finetuned` % of the base's accuracy: **the same gain has two sizes**, and a text that says
# "percent" leaves open which. Before fine-tuning they are {glue:text}`gain_pretrained` points on average, and
# {glue:text}`told_pretrained` of {glue:text}`compared_pretrained` are significant: what adaptation taught of a task is
# seen there first, and fine-tuning teaches the same task to both.
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
# the fewest possible (all disagreements are in favour of one), with one image in ten, and with the median of
# this run's pairs. How often, in percent, would an exact paired test on so many images find a gain that is really there?

# %%
from mlprobe_utils.analysis import detectable
from mlprobe_utils.pipeline.published import IMAGES

own = single[single["statement"] == STAGE_NAMES["finetuned"]]
here = own["disagreement"].median()
shares = {"as few as can be": None, "10 %": 10.0}
shares |= {f"{here:.0f} %, as here": here} if compared else {}
found = detectable.table(printed["gain"].abs().sort_values(), shares, IMAGES)
show(found)

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
# The other way round: the smallest gain that is found four times in five, in points. Where nothing stands, none is: even
# if all disagreements are in favour of one, they are too few.

# %%
least = detectable.least_gains({"5 %": 5.0} | shares, IMAGES)
show(least)

# %% [markdown]
# ## What the printed gains can be
#
# The paper prints no accuracy of a base. But an accuracy is a whole number of right answers, so that all bases can be
# tried: from which do all the gains of a base's models come out as printed, with table 1's accuracies? "Average accuracy
# gain" can be read in three ways.

# %%
recomputed = PUBLISHED / "recomputed"  # by benchmarks/printed_numbers.py
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
# - **What another fine-tuning would give.** Runs differ by chance too, and there are few of them.
# - **Why.** Adapted models differ from their bases in data, stages and sometimes in what was frozen, all at once.
# - **Anything of the original models**, where the page is of miniatures: these were adapted on phantoms, and where the
#   test images are phantoms too, they are drawn from the same physics.
#
# ## Takeaways
#
# - Compare on the same images, and pair: see [the gains](#the-gains).
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
