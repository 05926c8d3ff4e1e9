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
# # 10. The vision tower
#
# **Question.** Does it help to fine-tune the vision tower with the rest of the model, and would the same tower, trained
# alone as a classifier, be more accurate than the whole model?
#
# *Prerequisites:* [chapter 2](02_fine_tuning.ipynb), [chapter 3](03_probing.ipynb). *Time:* 20 minutes to read; seconds to
# run once the models are fine-tuned.

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
# ## Two tables of the paper
#
# Section 5 of [Zhu et al. (2026)](../book/bibliography.md#zhu-2026) calls the [vision
# tower](../book/glossary.md#vision-tower) suboptimal, for two reasons. Table 2: models fine-tuned with a frozen vision tower
# are hardly worse. Table 3: the vision tower alone, trained as a classifier with
# [cross-entropy](../book/glossary.md#cross-entropy), is far better than the whole model. Each table compares two models.
# This page repeats both comparisons with the models of the run, or [miniatures](../book/glossary.md#miniature) of
# them.

# %% tags=["hide-input"]
import pandas as pd
from mlprobe_utils.pipeline.variants import load_discussion, taking_part

slugs = {"Table 2": "frozen-vision-tower", "Table 3": "training-paradigms"}
cards = {table: load_discussion(slug) for table, slug in slugs.items()}
taking = {t: taking_part(own, chapter.models) for t, own in cards.items()}

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import say
from mlprobe_utils.pipeline.cards import PUBLISHED

recomputed = PUBLISHED / "recomputed"  # by benchmarks/printed_numbers.py
findings = {}  # what the sections below find, for the answer
by = {t: ", ".join(map(chapter.names.get, own)) for t, own in taking.items()}
say("Models: " + "; ".join(f"{t}, {own or 'none'}" for t, own in by.items()))

# %% [markdown] tags=["needs-frozen-vision-tower"]
# ## Frozen or adapted
#
# Two fine-tunings differ in one setting of the protocol, `vision_tower`: [LoRA](../book/glossary.md#lora) on every linear
# layer of the model, or on all layers but those of the vision tower. Images, steps and seeds are the same. Both models
# answer the same test images. The scores are accuracy and F1 of the positive class, or the mean F1 of all classes where
# none is positive.

# %%
from mlprobe_utils.analysis import vision_tower
from mlprobe_utils.pipeline.tested import evaluated

frozen = chapter.discussion("frozen-vision-tower")
selected = frozen.selection, frozen.image_sets
compared = evaluated(*selected, vision_tower.outcomes_of_towers)
changes = vision_tower.changes(compared)

# %% tags=["hide-input"]
from mlprobe_utils.analysis.vision_tower import LOWERED, NEITHER, RAISED
from mlprobe_utils.plots.forest import change_chart

of_accuracy = changes[changes["metric"] == "accuracy"]
label = "frozen - adapted: " + of_accuracy["scope"]
title = "Accuracy with a frozen vision tower minus that with an adapted one"
shown = of_accuracy.assign(statement=label), chapter.names, title
change_chart(*shown, (LOWERED, RAISED, NEITHER))

# %%
from mlprobe_utils.plots.tables import show

largest_first = changes.sort_values("change", key=abs, ascending=False)
largest_first = largest_first.replace(chapter.names)
show(largest_first.drop(columns="p"), title="Frozen minus adapted")

# %% tags=["hide-input"]
changed = changes.replace(chapter.names)
findings["frozen"] = vision_tower.summary(changed)
scopes = ", ".join(changes["scope"].unique())
say(
    f"{findings['frozen']} Not significant does not mean equal.",
    f"Scope: *{scopes}*.",
)

# %% [markdown]
# [Significant](../book/glossary.md#significant) means: after correction for all comparisons of the table. In the scope
# *retrained model* (several runs of each training) the result is about two ways to train. In the scope *fixed model*
# intervals and tests allow for other test images only, with the adapters as they are; another training may differ.

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import collapsed_in_words
from mlprobe_utils.pipeline.variants import tower_rows

collapsed = [
    f"{word}: {collapsed_in_words(own, chapter.names)}"
    for word, tower in vision_tower.TOWERS.items()
    for own in [tower_rows(frozen.selection, tower)]
]

# %% tags=["hide-input"]
say(
    "Collapsed runs (one answer to more than 90 % of the images, or a class",
    f"that is never named): {'. '.join(collapsed)}.",
)

# %% [markdown]
# ### One average gap, two units
#
# The paper summarises a model in one number, an "average gap" in percent, and does not define it. It can be the mean
# *relative change* of accuracy and F1, in percent of the adapted model's score, or the mean *difference* in percentage
# points (pp):

# %%
relative = 100 * (changes["frozen"] / changes["adapted"] - 1)
difference = changes["frozen"] - changes["adapted"]
say(f"{relative.mean():+.2f} %, or {difference.mean():+.2f} pp")

# %% [markdown]
# Both definitions for every model of this run, with 95 % intervals that hold however the scores are correlated (accuracy
# and F1 come from the same answers):

# %%
gaps = vision_tower.gaps(changes)
show(gaps.replace(chapter.names), decimals=2)

# %% tags=["hide-input"]
average_gap = vision_tower.gaps_in_words(gaps)
findings["gap"] = f"The average gap, frozen minus adapted, is {average_gap}."
say(findings["gap"])

# %% [markdown]
# The paper's two gaps, computed both ways from its Table 2:

# %%
published = pd.read_csv(recomputed / "average_gaps.csv")
show(published, decimals=2)

# %% tags=["hide-input"]
meanings = ", ".join(published["meaning"].unique())
in_percent = published["published"].abs().max()
in_points = published["mean difference"].abs().max()
say(
    f"The published numbers are the {meanings}. The larger one has a size of",
    f"{in_percent:.2f} %; as differences, both are at most",
    f"{in_points:.2f} pp.",
)

# %% [markdown]
# The paper gives no intervals, and none can be computed from its tables, which do not say how many images two models
# disagree on. But the differences can be counted in images. The p value is smallest if the models disagree on no other
# image; this lower bound is in the table.

# %%
in_images = pd.read_csv(recomputed / "table2_in_images.csv")
in_images = in_images.rename(columns={"p (least)": "p (lower bound)"})
show(in_images.sort_values("images", key=abs, ascending=False), decimals=2)

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import ALPHA

small = int((in_images["p (lower bound)"] >= ALPHA).sum())
say(
    f"The largest published difference is {in_images['images'].abs().max()}",
    f"images. In {small} of {len(in_images)} comparisons no test could find",
    "the difference significant.",
)

# %% [markdown]
# So "does not reliably improve" is supported, and "is as good without" is not.

# %% [markdown] tags=["needs-training-paradigms"]
# ## Training the tower alone
#
# A [probe](../book/glossary.md#probe) at the end of the vision tower leaves the tower as it is. Fine-tuning the whole model
# trains the tower through the words of the answer. The third way leaves out connector and
# [LLM](../book/glossary.md#llm): a linear layer on the mean of the tower's last tokens $h_1, \dots, h_T$ predicts the
# class, and tower and layer are trained with cross-entropy,
#
# $$\bar{h} = \frac{1}{T} \sum_{t=1}^{T} h_t, \qquad p = \mathrm{softmax}(W \bar{h} + b), \qquad
# \mathrm{loss} = -\log p_{\mathrm{true\ class}},$$
#
# once with all weights of the tower and once with LoRA. A frozen tower with a linear head is shown for comparison, as the
# authors of MedSigLIP recommend it for classification.

# %%
from mlprobe_utils.analysis import vision_tower
from mlprobe_utils.pipeline.tested import evaluated

alone = chapter.discussion("training-paradigms")
chosen = alone.selection, alone.image_sets
outcomes = evaluated(*chosen, vision_tower.outcomes_of_paradigms)
differences = vision_tower.differences(outcomes)

# %% tags=["hide-input"]
from mlprobe_utils.plots.forest import change_chart
from mlprobe_utils.stats.paired import WORDS

ways = differences["paradigm"] + " - " + differences["reference"]
statement = ways + ": " + differences["scope"]
heading = "Accuracy of one way to train minus that of another"
drawn = differences.assign(statement=statement), chapter.names, heading
change_chart(*drawn, WORDS)

# %% [markdown]
# Over all models and data sets (the chart's fold and the CSV have every single difference):

# %%
from mlprobe_utils.plots.tables import file, show
from mlprobe_utils.stats.paired import counted

sides = ["paradigm", "reference"]
show(overall := counted(differences, "difference", sides))

# %% tags=["hide-input"]
file(chapter.named(differences), "Ways to train a vision tower")

# %% tags=["hide-input"]
against = overall[overall["reference"] == vision_tower.FINE_TUNED]
short = {"significantly higher": "up", "significantly lower": "down"}
words = (
    "{r.paradigm}: {r.difference:+.1f} pp ({r.low:+.1f} to {r.high:+.1f}),"
    " significantly higher in {r.up} and lower in {r.down} of {r.pairs} pairs"
)
rows_of_ways = against.rename(columns=short).itertuples()
listed_ways = "; ".join(words.format(r=row) for row in rows_of_ways)

# %% tags=["hide-input"]
findings["alone"] = (
    "Accuracy minus that of the fine-tuned MLLM, mean over models and data"
    f" sets: {listed_ways}."
)
tested_in = ", ".join(differences["scope"].unique())
say(findings["alone"], f"Scope: *{tested_in}*.")

# %% [markdown]
# Where each side was trained several times the scope is *retrained model*. Otherwise it is *fixed model*: every run is
# paired with every run or probe of the other side, and another training may differ. The paper does not say whether its
# probes belong to the model before or after fine-tuning, so both are shown.

# %%
levels = chapter.named(vision_tower.levels(outcomes))
cell = "{r.accuracy:.1f} ({r.low:.1f} to {r.high:.1f})".format
levels["interval"] = [cell(r=row) for row in levels.itertuples()]
places = levels.set_index(["model", "paradigm", "dataset"])["interval"]
show(places.unstack(sort=False).rename_axis(columns=None).reset_index())

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import collapsed_in_words
from mlprobe_utils.pipeline.variants import classifier_rows

per_set = classifier_rows(alone.selection).groupby(["probe", "dataset"])
one_answer = [
    f"{vision_tower.ALONE[way]}: {words}"
    for (way, _), own in per_set
    if (words := collapsed_in_words(own, chapter.names)) != "none"
]

# %% tags=["hide-input"]
say(
    "Accuracy in percent with its 95 % interval. Collapsed runs of a tower",
    f"trained alone: {'; '.join(one_answer) or 'none'}.",
)

# %% [markdown]
# All ways to train see the same images for the same number of steps, as the model's own fine-tuning does:

# %%
budget, of_set = chapter.protocol.fine_tuning, alone.image_sets.items()
images = {slug: len(own.rows_of(split_rule, "train")) for slug, own in of_set}
table = pd.DataFrame(images.items(), columns=["dataset", "training images"])
table["epochs"], table["images per step"] = budget.epochs, budget.batch_size
steps = -(-table["training images"] // budget.batch_size)  # rounded up
show(chapter.named(table.assign(steps=budget.epochs * steps)))

# %%
show(chapter.recipe("vision_training"), decimals=4)

# %% [markdown]
# ### Checking Table 3, cell by cell
#
# Every accuracy is a whole number of correct answers, so each cell of Table 3 can be checked. These cells do not fit
# their own data set:

# %%
whole = {"correct": "Int64"}
cells = pd.read_csv(recomputed / "table3_cells.csv", dtype=whole)
odd = cells[cells["correct"].isna()].drop(columns="correct")
show(odd, decimals=2)

# %% tags=["hide-input"]
file(cells, "Table 3 cell by cell")

# %% tags=["hide-input"]
swapped = int(cells["swapped with"].notna().sum())
say(
    f"{len(odd)} of {len(cells)} cells are no whole number of test images.",
    f"{swapped} of them fit the data set of another cell: these were almost",
    "surely exchanged, and the column *corrected* swaps them back.",
)

# %% tags=["hide-input"]
from mlprobe_utils.pipeline.published import paper_profiles

first = paper_profiles()[["model", "dataset", "P_final"]]
third = cells[cells["paradigm"] == "MLLM SFT"].merge(first, how="left")
other = third[third["published"] != third["P_final"]]
pair = "{r.model} on {r.dataset}, {r.published:.2f} and {r.P_final:.2f} %"
listed = "; ".join(pair.format(r=row) for row in other.itertuples())

# %% tags=["hide-input"]
say(
    "Cells in which Table 3 and Table 1 disagree on the accuracy of the same",
    f"fine-tuned model: {listed or 'none'}.",
)

# %% [markdown]
# With the exchanged cells swapped back, the tower alone gains over the fine-tuned model (p as above, its lower bound):

# %%
gains = pd.read_csv(recomputed / "table3_differences.csv")
gains = gains.rename(columns={"p (least)": "p (lower bound)"})
corrected = gains.query("cells == 'corrected' and reference == 'MLLM SFT'")
corrected = corrected.sort_values("difference", ascending=False)
show(corrected.drop(columns=["cells", "reference"]), decimals=2)

# %% tags=["hide-input"]
file(gains, "Differences in Table 3")

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import ALPHA

too_small = int((corrected["p (lower bound)"] >= ALPHA).sum())
ends = corrected["difference"].min(), corrected["difference"].max()
say(
    f"These gains range from {ends[0]:.1f} to {ends[1]:.1f} pp.",
    f"{too_small} of {len(corrected)} could not be significant in any test.",
)

# %% [markdown]
# ## Limits
#
# - **Cross-entropy need not be the cause.** The tower alone differs from the fine-tuned model in its loss, its head, the
#   number of trained weights and the path of the gradient. LoRA against all weights removes one of these differences.
# - **The tower need not be suboptimal.** A classifier trained for one task is better at that task, and can no longer
#   answer anything else.
# - **Other budgets.** The number of steps is equal here. A learning rate that suits one way need not suit another; each was
#   chosen on validation images.
# - **Other trainings**, wherever the scope is *fixed model*.
# - **The original models**, where the page shows miniatures.
#
# ## Takeaways

# %% tags=["hide-input", "answer"]
from mlprobe_utils.book.chapter import answer

none = "No model of this run takes part in either comparison."
answer(*(findings.values() or [none]))

# %% [markdown]
# - A difference that is not significant is not zero; its interval says how large it may be: see [frozen or
#   adapted](#frozen-or-adapted).
# - Percent and percentage points are different numbers, and scores of the same answers are not independent: see [one average
#   gap, two units](#one-average-gap-two-units).
# - Compare ways to train on the same images and steps, and say so: see [training the tower
#   alone](#training-the-tower-alone).
# - A published accuracy can be checked against its number of test images: see [checking Table 3, cell by
#   cell](#checking-table-3-cell-by-cell).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("10_vision_tower")
