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
# # 9. Comprehension and utilization
#
# **Question.** How well do the image tokens hold the class inside the LLM, how well does the place where it answers, and
# does the second ever exceed the first?
#
# *Prerequisites:* [chapter 3](03_probing). *Time:* 20 minutes to read; half a minute to run once the probes exist.

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
# ## Two readings of one layer
#
# Section 5 of {cite:t}`zhu-2026` asks two things of an LLM: **{term}`comprehension`**, what a probe reads in the mean of
# the image tokens, and **{term}`utilization`**, what it reads in the {term}`last token`, from which the answer comes. The
# paper reads off its figure 5 that utilization begins lower, catches up in deeper layers, and cannot exceed
# comprehension, which is its ceiling.
#
# Probes of several seeds read the same images, so that the two curves can be compared layer by layer, in pairs.

# %%
from mlprobe_utils.analysis import comprehension
from mlprobe_utils.pipeline.tested import evaluated

selected = chapter.selection, chapter.image_sets
readings = evaluated(*selected, comprehension.outcomes_of)
told = comprehension.differences(readings)

# %% [markdown]
# Figure 5 shows two models of one series; here are those of this run that it shows, or else the first one.

# %%
from mlprobe_utils.pipeline.cards import original
from mlprobe_utils.plots.charts import both_curves

names = {slug: original(card).name for slug, card in chapter.models.items()}
shown = [
    s for s, name in names.items() if name in ("Lingshu-7B", "Lingshu-32B")
]
shown = shown or [*names][:1]
both_curves(told[told["model"].isin(shown)], chapter.names)

# %% [markdown]
# ## Where the curves cross
#
# The difference of the two, for every model: below 0 the image tokens tell more, above it the last token does. The area
# is a {term}`simultaneous band` of the {term}`retrained probe`, which holds a whole curve at once; what is
# {term}`significant` is decided by the p of each layer, corrected for all layers of all curves. All of this is of these
# weights: one fine-tuning of each model, whose probes are fitted anew.

# %%
from mlprobe_utils.plots.charts import difference_curves

difference_curves(told, chapter.names)

# %%
from mlprobe_utils.plots.tables import show

counted = comprehension.course(told)
show(chapter.named(counted))

# %% tags=["hide-input"]
from mlprobe_utils.analysis.comprehension import ABOVE, BELOW
from mlprobe_utils.book.chapter import glue

by_place = counted.groupby(["stage", "where"])[["models", BELOW, ABOVE]].sum()
for stage in ("pretrained", "finetuned"):
    for where in ("first", "last", "any"):
        found = by_place.loc[(stage, f"{where} layer")]
        glue(f"below_{where}_{stage}", int(found[BELOW]))
        glue(f"above_{where}_{stage}", int(found[ABOVE]))

# %% tags=["hide-input"]
glue("curves", int(by_place.loc[("finetuned", "first layer"), "models"]))

# %% [markdown]
# Of {glue:text}`curves` curves in each stage, utilization begins below comprehension in
# {glue:text}`below_first_pretrained` before fine-tuning and {glue:text}`below_first_finetuned` after it. At the last layer
# it is still below in {glue:text}`below_last_pretrained` and {glue:text}`below_last_finetuned`, and *above* in
# {glue:text}`above_last_pretrained` and {glue:text}`above_last_finetuned` ({term}`significant`). The rest cannot be decided
# on this many images.
#
# Where the curves cross, utilization is above from some layer on. The first layer at which it significantly is:

# %%
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.plots.tables import file

above = told[told["verdict"] == ABOVE].drop_duplicates(STATE)
file(chapter.named(above), "Where utilization is first above")

# %% [markdown]
# There is one in {glue:text}`above_any_pretrained` of {glue:text}`curves` cases before fine-tuning, and in
# {glue:text}`above_any_finetuned` after it. That two mean curves meet says little by itself: two noisy curves that run
# side by side meet somewhere by chance.
#
# ## Is comprehension a ceiling?
#
# A ceiling is a statement about the best that each can do. Picking the best of many layers on the test images would
# flatter both ([chapter 5](05_diagnosis)); so each reading's layer is picked on the **validation** images, and the two are
# compared on the test images.

# %%
best = comprehension.ceilings(readings)
for_page = best.drop(columns=["p"]).sort_values("difference", ascending=False)
show(chapter.named(for_page[for_page["stage"] == "finetuned"]))

# %% tags=["hide-input"]
file(chapter.named(best), "Best of comprehension and of utilization")

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import in_words

for stage, own in best.groupby("stage"):
    glue(f"exceeds_{stage}", int((own["verdict"] == ABOVE).sum()))
    glue(f"short_{stage}", int((own["verdict"] == BELOW).sum()))
    glue(f"difference_{stage}", in_words(own, "difference"))

# %% [markdown]
# Utilization at its best less comprehension at its best is {glue:text}`difference_pretrained` points on average before
# fine-tuning and {glue:text}`difference_finetuned` after it. It {term}`significantly <significant>` exceeds comprehension in {glue:text}`exceeds_pretrained` and
# {glue:text}`exceeds_finetuned` of {glue:text}`curves` cases, and falls short of it in {glue:text}`short_pretrained` and
# {glue:text}`short_finetuned`.
#
# One case above is enough to say that comprehension, *so measured*, is no ceiling. There is a reason why it need not be:
# a probe of the mean reads what the tokens have in common, while attention can take from each token what that token knows. The
# last token can hold what the mean has averaged away. No case above would not prove a ceiling.
#
# ## Where the answer appears
#
# The {term}`logit lens` reads the last token of every layer with the model's own output head, instead of a probe. First the
# probability that it gives to the true option, among the options, in the models of figure 5 again:

# %%
from mlprobe_utils.analysis.comprehension import true_option
from mlprobe_utils.pipeline import results
from mlprobe_utils.plots.charts import lens_curves

lens = results.lens_rows(chapter.selection)
chances = true_option(lens)
drawn = chances[chances["model"].isin(shown)]
title = "Probability of the true option through the logit lens"
lens_curves(drawn, chapter.names, "probability", title)

# %% [markdown]
# And the share of test images whose answer has *settled*: from this layer on, the option ranked first is the one that the
# last layer ranks first.

# %%
from mlprobe_utils.analysis.comprehension import settled, settling_layers

fixed = settled(lens)
drawn = fixed[fixed["model"].isin(shown)]
title = "Test images whose option no longer changes"
lens_curves(drawn, chapter.names, "settled", title)

# %% tags=["hide-input"]
by_layer = chances.rename(columns={"value": "probability"})
by_layer = by_layer.merge(fixed.rename(columns={"value": "settled"}))
file(chapter.named(by_layer), "Both, for every model and layer")

# %% tags=["hide-input"]
at = settling_layers(fixed)
file(chapter.named(at), "By which layer half of the images have settled")

# %% tags=["hide-input"]
for stage, own in at.groupby("stage"):
    glue(f"settled_{stage}", own["layers before the last"].mean())
    glue(
        f"settled_last_{stage}",
        int((own["layers before the last"] == 0).sum()),
    )

# %% [markdown]
# Half of the images have settled {glue:text}`settled_pretrained:.1f` layers before the last one on average before
# fine-tuning, and {glue:text}`settled_finetuned:.1f` after it; in {glue:text}`settled_last_pretrained` and
# {glue:text}`settled_last_finetuned` of {glue:text}`curves` cases only the last layer decides.
#
# ### Was it there, and lost?
#
# An earlier layer that ranks the options better than the last would have held an answer that was then lost. The layer is
# picked on the validation images, and compared with the last one on the test images.

# %%
from mlprobe_utils.analysis.comprehension import GAINED, LOST, lost_on_the_way

way = lost_on_the_way(lens, chapter.image_sets, split_rule)
by_change = way[way["stage"] == "finetuned"].sort_values("change")
show(chapter.named(by_change.drop(columns="p")))

# %% tags=["hide-input"]
file(chapter.named(way), "An earlier layer against the last one")

# %% tags=["hide-input"]
for stage, own in way.groupby("stage"):
    glue(f"lost_{stage}", int((own["verdict"] == LOST).sum()))
    glue(f"gained_{stage}", int((own["verdict"] == GAINED).sum()))
    glue(f"alone_{stage}", own["correct there alone"].mean())

# %% [markdown]
# Of these weights, the last layer ranks {term}`significantly <significant>` worse than the earlier one in {glue:text}`lost_pretrained` of {glue:text}`curves` cases before
# fine-tuning and in {glue:text}`lost_finetuned` after it; better in {glue:text}`gained_pretrained` and
# {glue:text}`gained_finetuned`. Single images are right at the earlier layer and wrong at the last in
# {glue:text}`alone_pretrained:.1f` and {glue:text}`alone_finetuned:.1f` % on average, but as many may go the other way: the
# table has both. A layer that changes its mind about single images has lost nothing on the whole.

# %% [markdown] tags=["needs-question-first"]
# ## Question first
#
# The paper blames causal attention: in an LLM that reads from left to right, image tokens that come first never see the
# question. If that were what keeps comprehension down, putting the **question first** should raise it. But whatever
# comes first also moves the image to later positions; so there is a third order, with text first that is as long as the
# question, in the model's own tokens, and says nothing of it. Each order is fine-tuned for itself, with the same
# images, steps and seed.

# %%
part = chapter.discussion("question-first")
selected = part.selection, part.image_sets
orders = evaluated(*selected, comprehension.outcomes_of_orders)
moved = comprehension.order_differences(orders)

# %% [markdown]
# `data/discussions/question-first.yml` names the models and data sets; in Lingshu-7B a token sees what stands before it
# and nothing behind it. The question as the first of the run's models reads it:

# %%
from mlprobe_utils.evaluation.question import ORDER_NAMES
from mlprobe_utils.pipeline.results import ORDER, prompts
from mlprobe_utils.pipeline.variants import of_value

of_orders = [of_value(part.selection, ORDER, order) for order in ORDER_NAMES]
asked = [prompts(own)["prompt"].iloc[0] for own in of_orders]

# %% tags=["hide-input"]
import pandas as pd
from mlprobe_utils.plots.tables import file, show

show(pd.DataFrame({"order": ORDER_NAMES.values(), "prompt": asked}))

# %%
from mlprobe_utils.plots.charts import order_curves

curves = comprehension.order_curves(orders)
order_curves(curves[curves["stage"] == "finetuned"], chapter.names)

# %% tags=["hide-input"]
import numpy as np

largest = 0.0
for own in orders:
    of = own.outcomes
    of_all = [of["pretrained", order, "all points"] for order in ORDER_NAMES]
    before = [point for point in of_all[0].points if point[0] in "VC"]
    right = [one.at(*before).correct.mean(axis=(0, 2)) for one in of_all]
    largest = max(largest, 100 * float(np.ptp(right, axis=0).max()))

# %% tags=["hide-input"]
glue("before_the_llm", largest)

# %% [markdown]
# Before fine-tuning the curves of vision tower and connector differ by at most {glue:text}`before_the_llm:.1f` points:
# no text has been read there yet. What differs in the LLM is compared at sites that were fixed before, in pairs:

# %% tags=["hide-input"]
from mlprobe_utils.plots.forest import change_chart
from mlprobe_utils.stats.paired import WORDS

tuned = moved[moved["stage"] == "finetuned"]
tuned = tuned.assign(statement=tuned["site"])
drawn = tuned.query("order == 'question_first' and less == 'image_first'")
title = "Question first less image first, after fine-tuning"
change_chart(drawn, chapter.names, title, WORDS)

# %% tags=["hide-input"]
drawn = tuned.query(
    "order == 'question_first' and less == 'irrelevant_first'"
)
title = "Question first less irrelevant text first, after fine-tuning"
change_chart(drawn, chapter.names, title, WORDS)

# %%
file(chapter.named(moved.replace(ORDER_NAMES)), "Orders compared")

# %%
from mlprobe_utils.stats import paired

of_pairs = paired.counted(tuned, "difference", ["order", "less", "site"])
show(of_pairs.replace(ORDER_NAMES))

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.names import IMAGE_TOKENS

at_tokens = tuned[tuned["site"] == IMAGE_TOKENS]
for (order, less), own in at_tokens.groupby(["order", "less"]):
    name = f"{order.split('_')[0]}_{less.split('_')[0]}"
    glue(f"higher_{name}", int((own["verdict"] == "higher").sum()))
    glue(f"lower_{name}", int((own["verdict"] == "lower").sum()))
    glue(f"mean_{name}", in_words(own, "difference"))

# %% tags=["hide-input"]
glue("ordered", len(at_tokens.groupby(["model", "dataset"])))

# %% [markdown]
# Of {glue:text}`ordered` pairs of model and data set, what a probe reads in the image tokens is significantly higher
# with the question first in {glue:text}`higher_question_image` and lower in {glue:text}`lower_question_image`
# ({glue:text}`mean_question_image` points on average); with irrelevant text first in
# {glue:text}`higher_irrelevant_image` and {glue:text}`lower_irrelevant_image`
# ({glue:text}`mean_irrelevant_image`). The question itself, beyond any text that comes first: higher in
# {glue:text}`higher_question_irrelevant`, lower in {glue:text}`lower_question_irrelevant`
# ({glue:text}`mean_question_irrelevant`). The table counts the same at the last token and for the answers.
#
# Probes are fitted anew with several seeds, and their intervals allow for that. Answers are one adapter's each: their scope
# is *these weights*, and of another training no statement is made. What this can say: whether image tokens that *can* see the question hold more of the
# class. What it cannot: a model that was always trained with the image first may need more than this fine-tuning to use
# the question, so that finding no gain here does not acquit causal attention. And as all images of a data set share one
# question, seeing it gives the tokens of one image nothing that those of another would not get.

# %% [markdown]
# ## What it cannot tell
#
# - **What the LLM uses.** Both curves say what a probe can read, not what the next layer reads.
# - **What single tokens hold.** The mean is one reading of the image tokens; another may find more.
# - **What the lens does not see.** It reads early layers with a head that was trained for the last one.
# - **Why a curve rises.** The last token sees the question as well as the image, and by itself it could hold nothing of
#   the image; how much of its rise is transport and how much is understanding, no probe tells.
#
# ## Takeaways
#
# - Two curves on the same images are compared in pairs: see [where the curves cross](#where-the-curves-cross).
# - A ceiling is tested at layers that were picked elsewhere: see [is comprehension a ceiling](#is-comprehension-a-ceiling).
# - An explanation by what comes first needs a control that is as long: see [question first](#question-first).
# - "It was there and lost" is a statement about a layer fixed beforehand: see
#   [was it there, and lost](#was-it-there-and-lost).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("09_comprehension_utilization")
