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
# # 11. Comprehension and utilization
#
# **Question.** Inside the LLM, how well can a probe decode the class from the image tokens, how well from the last token,
# which the model answers from, and is the second ever higher than the first?
#
# *Prerequisites:* [chapter 3](03_probing.ipynb). *Time:* 20 minutes to read; half a minute to run once the probes exist.

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
# ## Two curves through one LLM
#
# Section 5 of [Zhu et al. (2026)](../book/bibliography.md#zhu-2026) draws two curves through an LLM. **[Comprehension](../book/glossary.md#comprehension)** is the
# accuracy of a probe on the mean of the image tokens. **[Utilization](../book/glossary.md#utilization)** is the accuracy of a probe on the
# [last token](../book/glossary.md#last-token), from which the answer is generated. From its figure 5 the paper concludes that
# utilization starts lower, catches up in deeper layers, and cannot exceed comprehension.
#
# Both kinds of probes are trained with several seeds and tested on the same images, so the two curves can be compared
# layer by layer, in pairs.

# %%
from mlprobe_utils.analysis import comprehension
from mlprobe_utils.pipeline.tested import evaluated

selected = chapter.selection, chapter.image_sets
curves = evaluated(*selected, comprehension.outcomes_of)
compared = comprehension.differences(curves)

# %% [markdown]
# The outcomes behind a curve say for every seed, layer and test image whether the probe is correct. The difference of
# the two curves of one model, in percentage points:

# %%
import pandas as pd

of_one = curves[0].outcomes
utilization = of_one["finetuned", "utilization", comprehension.CURVE]
image_tokens = of_one["finetuned", "comprehension", comprehension.CURVE]
by_seed = (utilization.correct * 100.0 - image_tokens.correct * 100.0).mean(2)
pd.Series(by_seed.mean(axis=0), utilization.points).round(1).to_dict()

# %% [markdown]
# Figure 5 shows two models of one series. The chart shows the same two where this run has them, else its first model.

# %%
from mlprobe_utils.pipeline.cards import original
from mlprobe_utils.plots.charts import both_curves

names = {slug: original(card).name for slug, card in chapter.models.items()}
shown = [
    s for s, name in names.items() if name in ("Lingshu-7B", "Lingshu-32B")
]
shown = shown or [*names][:1]
both_curves(compared[compared["model"].isin(shown)], chapter.names)

# %% [markdown]
# ## Where the curves cross
#
# The next chart shows the difference for every model: above 0 the probe of the last token is better. The area is a
# [simultaneous band](../book/glossary.md#simultaneous-band) of the [retrained probe](../book/glossary.md#retrained-probe): it holds the whole true curve with 95 %
# probability. A difference is [significant](../book/glossary.md#significant) if the p value of its layer is below 0.05 after correction for all layers
# of all curves. These statements are about one fine-tuning of each model, with its probes trained anew.

# %%
from mlprobe_utils.plots.charts import difference_curves

difference_curves(compared, chapter.names)

# %% tags=["hide-input"]
from mlprobe_utils.analysis.comprehension import ABOVE, BELOW
from mlprobe_utils.book.chapter import say
from mlprobe_utils.evaluation.health import STAGE_NAMES

courses = chapter.named(comprehension.course(compared))
by_stage = {
    name: courses[courses["stage"] == name] for name in STAGE_NAMES.values()
}
first, last = courses["first layer"], courses["last layer"]

# %% tags=["hide-input"]
say(
    f"Of {len(courses)} curves (both stages), utilization starts",
    f"significantly below comprehension in {(first == BELOW).sum()} and",
    f"significantly above in {(first == ABOVE).sum()}. At the last layer",
    f"it is significantly below in {(last == BELOW).sum()} and above in",
    f"{(last == ABOVE).sum()}.",
    "In the others these test images show no difference.",
)

# %% tags=["hide-input"]
from mlprobe_utils.analysis.comprehension import above_in_words

found_above = {name: above_in_words(own) for name, own in by_stage.items()}
bullets = [f"- {name}: {own}" for name, own in found_above.items()]
say("\n".join(bullets))

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import file

file(courses, "Where utilization is highest above comprehension")

# %% [markdown]
# A curve that rises above another by less than its band has not been shown to exceed it: two noisy curves that run side by
# side cross somewhere by chance.
#
# ## Is comprehension a ceiling?
#
# A ceiling is a statement about the best that each can do. If we picked the best of many layers on the test images, both
# would look too good ([chapter 6](06_diagnosis.ipynb)). So the layer of each is picked on the **validation** images, and the two
# layers are compared on the test images.

# %%
from mlprobe_utils.plots.forest import change_chart

best = comprehension.ceilings(curves)
drawn_best = best.assign(statement=best["stage"].map(STAGE_NAMES))
title = "Utilization - comprehension, each at its best layer"
change_chart(drawn_best, chapter.names, title, comprehension.WORDS)

# %% tags=["hide-input"]
file(chapter.named(best), "Best of comprehension and of utilization")

# %% tags=["hide-input"]
from mlprobe_utils.analysis.comprehension import mean_in_words

stages = best.groupby("stage", sort=False)
at_best = {STAGE_NAMES[stage]: own for stage, own in stages}
means = {name: mean_in_words(own) for name, own in at_best.items()}
say(*(f"{name.capitalize()}: {own}." for name, own in means.items()))

# %% [markdown]
# One pair with significantly higher utilization would be enough to show that comprehension, measured in this way, is no
# ceiling. There is a reason why it need not be one: a probe of the mean sees what the tokens have in common, while attention
# can take from each token what that token holds. The last token can hold what the mean has averaged away. Finding no such
# pair does not prove a ceiling.
#
# ## Where the answer appears
#
# The [logit lens](../book/glossary.md#logit-lens) applies the model's own output head, instead of a probe, to the last token of every layer. The
# chart shows the probability that it gives to the true option, among the options, for the models of the first chart.

# %%
from mlprobe_utils.analysis.comprehension import true_option
from mlprobe_utils.pipeline import results
from mlprobe_utils.plots.charts import lens_curves

lens = results.lens_rows(chapter.selection)
chances = true_option(lens)
of_shown = chances[chances["model"].isin(shown)]
lens_title = "Probability of the true option through the logit lens"
lens_curves(of_shown, chapter.names, "probability", lens_title)

# %% tags=["hide-input"]
from mlprobe_utils.analysis.comprehension import settled, settling_layers

fixed = settled(lens)
at = settling_layers(fixed)
early = at.groupby("stage", sort=False)["layers before the last"].agg(
    ["mean", "size"]
)
late = at[at["layers before the last"] == 0].groupby("stage").size()

# %% tags=["hide-input"]
before_last = [
    f"{row['mean']:.1f} layers before the last one {STAGE_NAMES[stage]} (only"
    f" at the last layer in {late.get(stage, 0)} of {row['size']:.0f} pairs)"
    for stage, row in early.iterrows()
]

# %% tags=["hide-input"]
say(
    "An answer has *settled* at a layer if the option ranked first there is",
    "ranked first in all later layers, too. On average, half of the test",
    f"images have settled {' and '.join(before_last)}.",
)

# %% tags=["hide-input"]
by_layer = chances.rename(columns={"value": "probability"})
by_layer = by_layer.merge(fixed.rename(columns={"value": "settled"}))
file(chapter.named(by_layer), "Logit lens, every model and layer")

# %% [markdown]
# ### Was the answer there, and lost?
#
# If an earlier layer ranked the options better than the last one, the model would have held an answer that was then lost.
# The best layer is picked on the validation images, and compared with the last one on the test images.

# %%
from mlprobe_utils.analysis.comprehension import (
    GAINED,
    LOST,
    NEITHER,
    earlier_layer,
)

earlier = earlier_layer(lens, chapter.image_sets, split_rule)

# %%
drawn_earlier = earlier.assign(statement=earlier["stage"].map(STAGE_NAMES))
lost_title = "Logit lens: last layer - best layer on validation images"
verdicts = (LOST, GAINED, NEITHER)
change_chart(drawn_earlier, chapter.names, lost_title, verdicts)

# %% tags=["hide-input"]
file(chapter.named(earlier), "An earlier layer against the last one")

# %% tags=["hide-input"]
single = earlier.filter(like="correct at").mean()
lost, gained = ((earlier["verdict"] == word).sum() for word in verdicts[:2])

# %% tags=["hide-input"]
say(
    f"The last layer ranks significantly worse in {lost} and significantly",
    f"better in {gained} of {len(earlier)} cases (both stages). On average",
    f"{single.iloc[0]:.1f} % of the images are correct at the best layer",
    f"only, and {single.iloc[1]:.1f} % at the last layer only.",
)

# %% [markdown]
# These statements are about these weights, on new images. Where as many images change in one direction as in the other,
# nothing is lost on the whole.

# %% [markdown] tags=["needs-question-first"]
# ## Question first
#
# The paper blames causal attention: in an LLM that reads from left to right, image tokens that come first never see the
# question. If this keeps comprehension down, putting the **question first** should raise it. But whatever comes first also
# moves the image to later positions. So there is a control: irrelevant text first, as long as the question in the model's own
# tokens. Each order has a fine-tuning of its own, with the same images, steps and seed.

# %%
part = chapter.discussion("question-first")
of_part = part.selection, part.image_sets
orders = evaluated(*of_part, comprehension.outcomes_of_orders)
moved = comprehension.order_differences(orders)

# %% [markdown]
# `data/discussions/question-first.yml` names the models and data sets. The three prompts of the first model:

# %%
from mlprobe_utils.evaluation.question import ORDER_NAMES
from mlprobe_utils.pipeline.results import ORDER, prompts
from mlprobe_utils.pipeline.variants import of_value

of_orders = [of_value(part.selection, ORDER, order) for order in ORDER_NAMES]
texts = [prompts(own)["prompt"].iloc[0] for own in of_orders]

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import show

show(pd.DataFrame({"order": ORDER_NAMES.values(), "prompt": texts}))

# %%
from mlprobe_utils.plots.charts import order_curves

by_order = comprehension.order_curves(orders)
tuned_orders = by_order[by_order["stage"] == "finetuned"]
order_curves(tuned_orders, chapter.names)

# %% tags=["hide-input"]
import numpy as np

largest = 0.0
for own_orders in orders:
    of = own_orders.outcomes
    of_all = [of["pretrained", order, "all points"] for order in ORDER_NAMES]
    before = [point for point in of_all[0].points if point[0] in "VC"]
    right = [one.at(*before).correct.mean(axis=(0, 2)) for one in of_all]
    largest = max(largest, 100 * float(np.ptp(right, axis=0).max()))

# %% tags=["hide-input"]
say(
    "Before fine-tuning the curves of the vision tower and the connector",
    f"differ by at most {largest:.1f} pp, as no text has reached them. What",
    "differs in the LLM is compared in pairs, at places fixed beforehand:",
)

# %%
from mlprobe_utils.stats.paired import WORDS

tuned = moved[moved["stage"] == "finetuned"].replace(ORDER_NAMES)
two = tuned["order"] + " - " + tuned["minus"]
tuned = tuned.assign(statement=tuned["site"] + ": " + two)
with_question = tuned[tuned["order"] == "question first"]
order_title = "Question first - another order, after fine-tuning"
change_chart(with_question, chapter.names, order_title, WORDS)

# %%
file(chapter.named(moved.replace(ORDER_NAMES)), "Orders compared")

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.names import IMAGE_TOKENS

at_tokens = tuned[tuned["site"] == IMAGE_TOKENS]
pairs_of = at_tokens.groupby(["order", "minus"], sort=False)
said = [f"*{a} - {b}*: {mean_in_words(own)}." for (a, b), own in pairs_of]
say("In the image tokens at the end of the LLM, accuracy differs:", *said)

# %% [markdown]
# The intervals of probes allow for new seeds of the probes. Answers come from one adapter per order, so their intervals hold
# for *fixed model* only. Two limits remain. A model that was always trained with the image first may need more than this
# fine-tuning to use the question, so no gain here does not acquit causal attention. And all images of a data set
# share one question: seeing it gives the tokens of one image nothing that those of another would not get.

# %% [markdown]
# ## What it cannot tell
#
# - **What the LLM uses.** Both curves show what a probe can decode, not what the next layer uses
#   ([chapter 7](07_is_it_used.ipynb)).
# - **What single tokens hold.** A probe of something other than the mean may find more.
# - **What the lens misses.** It applies a head that was trained for the last layer to early ones.
# - **Why utilization rises.** A probe does not separate transport of the image's information from understanding.
#
# ## Takeaways

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import answer

after = at_best[STAGE_NAMES["finetuned"]]
refuted = (after["verdict"] == ABOVE).any()
words = "refutes" if refuted else "neither refutes nor proves"

# %% tags=["hide-input", "answer"]
answer(
    "After fine-tuning, utilization minus comprehension, each at its best",
    f"layer, is {mean_in_words(after)} (mean with 95 % interval).",
    f"So this run {words} the paper's claim that comprehension is a ceiling.",
)

# %% [markdown]
# - Compare two curves of the same images in pairs, see [where the curves cross](#where-the-curves-cross).
# - Test a ceiling at layers that were picked on other images, see [is comprehension a ceiling](#is-comprehension-a-ceiling).
# - Test "the answer was there, and lost" against a layer that was picked on other images, see
#   [was the answer there, and lost](#was-the-answer-there-and-lost).
# - An effect of what comes first needs a control of the same length, see [question first](#question-first).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("11_comprehension_utilization")
