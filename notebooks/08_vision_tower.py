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
# # 8. The vision tower
#
# **Question.** Does it help to fine-tune the vision tower with the rest, and would the same tower, trained on the class
# alone, do better than the whole model?
#
# *Prerequisites:* [chapter 2](02_fine_tuning), [chapter 3](03_probing). *Time:* 20 minutes to read; seconds to run once
# the fine-tunings exist, which take a minute a model here.

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
# ## Who is compared
#
# Section 5 of {cite:t}`zhu-2026` calls the {term}`vision tower` suboptimal, on two grounds. Table 2: fine-tuned with
# the vision tower frozen, models are hardly worse. Table 3: the vision tower alone, trained as a classifier with
# {term}`cross-entropy`, is far better than the whole model. Each table compares two models. The cards of
# `data/discussions/` name the models that take part, or their {term}`miniatures <miniature>`; these are the run's.

# %%
import pandas as pd
from mlprobe_utils.pipeline.variants import load_discussion, taking_part
from mlprobe_utils.plots.tables import show

slugs = {"Table 2": "frozen-vision-tower", "Table 3": "training-paradigms"}
cards = {table: load_discussion(slug) for table, slug in slugs.items()}

# %%
from mlprobe_utils.pipeline.cards import PUBLISHED

recomputed = PUBLISHED / "recomputed"  # by benchmarks/printed_numbers.py
run, names = chapter.selection.models, chapter.names
taking = {table: taking_part(card, run) for table, card in cards.items()}
rows = [(t, ", ".join(map(names.get, own))) for t, own in taking.items()]
show(pd.DataFrame(rows, columns=["table", "models of this run"]))

# %% [markdown] tags=["needs-frozen-vision-tower"]
# ## Frozen or adapted
#
# Two fine-tunings that differ in one setting of the protocol, `vision_tower`: {term}`LoRA` on every linear layer of the
# model, or on all but the vision tower's. Images, steps and seeds are the same. Both answer the same test images; what
# counts is how many of these each has right, and F1 of the positive class, or of all classes where none is positive.

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

drawn = changes[changes["metric"] == "accuracy"]
drawn = drawn.assign(statement="frozen less adapted: " + drawn["scope"])
title = "Accuracy with a frozen vision tower less that with an adapted one"
change_chart(drawn, chapter.names, title, (LOWERED, RAISED, NEITHER))

# %%
show(chapter.named(changes.drop(columns="p")))

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import glue
from mlprobe_utils.evaluation.metrics import collapsed_in_words
from mlprobe_utils.pipeline.variants import tower_rows

for tower in ("lora", "frozen"):
    rows_of_tower = tower_rows(frozen.selection, tower)
    glue(f"collapsed_{tower}", collapsed_in_words(rows_of_tower, names))

# %% tags=["hide-input"]

glue("changes", len(changes))
glue("frozen_better", int((changes["verdict"] == RAISED).sum()))
glue("frozen_worse", int((changes["verdict"] == LOWERED).sum()))
glue("widest", (changes["high"] - changes["low"]).max() / 2)
glue("scope", ", ".join(changes["scope"].unique()))

# %% [markdown]
# Of {glue:text}`changes` comparisons (two metrics of every model and data set), freezing raises
# {glue:text}`frozen_better` and lowers {glue:text}`frozen_worse` ({term}`significant`). The rest are not significant, which
# is not the same as equal: the widest interval reaches {glue:text}`widest:.1f` points to either side. Scope:
# *{glue:text}`scope`*. Only with several runs of each (*retrained model*) is it a statement about two ways to train; of
# *these weights* intervals and tests hold for other images, with the adapters as they are, and of the training nothing is
# said. Collapsed runs (one answer to more than 90 % of the images, or a class that is never named): adapted,
# {glue:text}`collapsed_lora`; frozen, {glue:text}`collapsed_frozen`.
#
# ### One average gap, two sizes
#
# The paper sums a model up in one number, an "average gap" in percent. It does not say of what. Two readings: the mean
# *relative* change of accuracy and F1, in percent of the adapted model's, or the mean difference in points.

# %%
printed = pd.read_csv(recomputed / "average_gaps.csv")
show(printed, decimals=2)

# %% tags=["hide-input"]
glue("readings", ", ".join(printed["meaning"].unique()))
glue("largest_printed", printed["printed"].abs().max())
glue("largest_points", printed["mean difference"].abs().max())

# %% [markdown]
# What the printed numbers are, recomputed from the table itself: the {glue:text}`readings`. The gaps in points are
# others; the larger of the two printed ones, {glue:text}`largest_printed:.2f` % in size, is at most
# {glue:text}`largest_points:.2f` points. And accuracy and F1 of one data set are two views of the same answers, so that
# six numbers are not six independent ones. Both readings for this run, with the mean of the single intervals, which holds
# however the numbers depend on each other:

# %%
gaps = vision_tower.gaps(changes)
show(chapter.named(gaps), decimals=2)

# %% tags=["hide-input"]
glue("half_gap", (gaps["high"] - gaps["value"]).mean())

# %% [markdown]
# The intervals reach {glue:text}`half_gap:.1f` to either side on average. The paper's gaps have none,
# but its accuracies can be counted in images:

# %%
in_images = pd.read_csv(recomputed / "table2_in_images.csv")
show(in_images, decimals=2)

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import ALPHA

small = in_images["p (least)"] >= ALPHA
glue("printed_changes", len(in_images))
glue("cannot_tell", int(small.sum()))
glue("most_images", int(in_images["images"].abs().max()))

# %% [markdown]
# The largest printed difference is {glue:text}`most_images` images. In {glue:text}`cannot_tell` of
# {glue:text}`printed_changes` cases no test could find it significant, even if the two disagreed on no other image: that
# is the *least p* there can be. "Does not reliably improve" is right, and "is as good without" does not follow.

# %% [markdown] tags=["needs-training-paradigms"]
# ## Three ways to train a tower
#
# A {term}`probe` at the vision tower's end is trained on the tower as it is. Fine-tuning the whole model trains it
# through the words of the answer. The third way leaves connector and {term}`LLM` out: a linear layer on the mean of the
# tower's last tokens, and the cross-entropy of the class, once with all weights of the tower and once with LoRA.

# %%
show(chapter.recipe("vision_training"), decimals=4)

# %%
alone = chapter.discussion("training-paradigms")
budget, of_set = chapter.protocol.fine_tuning, alone.image_sets.items()
images = {slug: len(own.rows_of(split_rule, "train")) for slug, own in of_set}
table = pd.DataFrame(images.items(), columns=["dataset", "training images"])
table["epochs"], table["images a step"] = budget.epochs, budget.batch_size
steps = -(-table["training images"] // budget.batch_size)  # rounded up
show(chapter.named(table.assign(steps=budget.epochs * steps)))

# %% [markdown]
# All else is what the model's own fine-tuning has: the same images, epochs, batch and schedule, as the table says. The
# paper does not say what the tower was trained with, nor whether its probes are of the model before fine-tuning or
# after it; so both are shown. The reference is the tower frozen, with a linear head, as the authors of MedSigLIP
# recommend it for classification.

# %%
from mlprobe_utils.pipeline.tested import evaluated

selected = alone.selection, alone.image_sets
readings = evaluated(*selected, vision_tower.outcomes_of_paradigms)
levels = vision_tower.levels(readings)
show(chapter.named(levels))

# %%
told = vision_tower.differences(readings)
ways = (
    told["paradigm"]
    + " less "
    + told["less"].str.removesuffix(" fine-tuning")
    + (": " + told["scope"])
)

# %% tags=["hide-input"]
from mlprobe_utils.analysis.vision_tower import ALONE, FINE_TUNED
from mlprobe_utils.stats.paired import HIGHER, LOWER, WORDS

# %% tags=["hide-input"]
title = "Accuracy of one way to train less that of another"
change_chart(told.assign(statement=ways), chapter.names, title, WORDS)

# %% tags=["hide-input"]
from mlprobe_utils.pipeline.variants import classifier_rows
from mlprobe_utils.plots.tables import file

classified = classifier_rows(alone.selection)
for way in ALONE:
    of_probe = classified[classified["probe"] == way]
    glue(f"one_answer_{way}", collapsed_in_words(of_probe, names))
file(chapter.named(told), "Ways to train a vision tower")

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import in_words

against = told[told["less"] == FINE_TUNED]
glue("pairs", len(readings))
for way, name in ALONE.items():
    of_way = against[against["paradigm"] == name]
    glue(f"higher_{way}", int((of_way["verdict"] == HIGHER).sum()))
    glue(f"lower_{way}", int((of_way["verdict"] == LOWER).sum()))
    glue(f"mean_{way}", in_words(of_way, "difference"))

# %% tags=["hide-input"]
probes = told[(told["paradigm"] == FINE_TUNED)]
for stage, name in vision_tower.PROBES.items():
    of_stage = probes[probes["less"] == name]
    glue(f"above_{stage}", int((of_stage["verdict"] == HIGHER).sum()))
    glue(f"below_{stage}", int((of_stage["verdict"] == LOWER).sum()))

# %% [markdown]
# Of {glue:text}`pairs` pairs of model and data set, the tower alone is {term}`significantly <significant>` better than the fine-tuned model in
# {glue:text}`higher_all` with all weights ({glue:text}`mean_all` points on average) and in
# {glue:text}`higher_lora` with LoRA ({glue:text}`mean_lora`), and worse in {glue:text}`lower_all` and
# {glue:text}`lower_lora`. The fine-tuned model is better than a probe of the tower before fine-tuning in
# {glue:text}`above_pretrained` and worse in {glue:text}`below_pretrained`; than one after it, in
# {glue:text}`above_finetuned` and {glue:text}`below_finetuned`. Where each was trained several times, the scope is the
# *retrained model*; else it is *these weights*: every run is paired with every run or probe of the other, and nothing is
# said of another training. Collapsed among the towers trained alone, with all weights: {glue:text}`one_answer_all`; with
# LoRA: {glue:text}`one_answer_lora`.
#
# ### Cell by cell
#
# Every accuracy is a whole number of right answers. So each cell of table 3 can be checked:

# %%
whole = {"correct": "Int64"}
cells = pd.read_csv(recomputed / "table3_cells.csv", dtype=whole)
show(cells, decimals=2)

# %% tags=["hide-input"]
odd = cells[cells["correct"].isna()]
glue("cells", len(cells))
glue("odd", len(odd))
glue("swapped", int((cells["swapped with"].notna()).sum()))
where = odd["model"] + ", " + odd["paradigm"] + ", " + odd["dataset"]
glue("odd_cells", "; ".join(where) or "none")

# %% [markdown]
# Of {glue:text}`cells` cells {glue:text}`odd` are no whole number of their data set's test images
# ({glue:text}`odd_cells`). {glue:text}`swapped` of them are explained by each other's data set: these two cells are
# almost surely exchanged, and *corrected* has them the other way round. Table 1 prints some of the same accuracies:

# %%
from mlprobe_utils.pipeline.published import paper_profiles

first = paper_profiles()[["model", "dataset", "P_final"]]
third = cells[cells["paradigm"] == "MLLM SFT"]
third = third[["model", "dataset", "printed"]].merge(first, how="left")
tables = {"printed": "Table 3", "P_final": "Table 1"}
other = third[third["printed"] != third["P_final"]].rename(columns=tables)
show(other, decimals=2)

# %% tags=["hide-input"]
glue("disagreements", len(other))

# %% [markdown]
# In {glue:text}`disagreements` case the two tables disagree on the same fine-tuned model. What the tower alone gains,
# as printed and with the exchanged cells put back:

# %%
gains = pd.read_csv(recomputed / "table3_differences.csv")
show(gains, decimals=2)

# %% tags=["hide-input"]
put_back = gains.query("cells == 'corrected' and less == 'MLLM SFT'")
glue("least_gain", put_back["difference"].min())
glue("largest_gain", put_back["difference"].max())
glue("gain_set", put_back.loc[put_back["difference"].idxmax(), "dataset"])
glue("gains", len(put_back))
glue("too_small", int((put_back["p (least)"] >= ALPHA).sum()))

# %% [markdown]
# Put back, the tower alone gains {glue:text}`least_gain:.1f` to {glue:text}`largest_gain:.1f` points over the
# fine-tuned model, most on {glue:text}`gain_set`. {glue:text}`too_small` of these {glue:text}`gains` gains are of so
# few images that no test could find them significant, whatever else the two answered. The paper prints no intervals, and
# none can be made from its table; those of this run stand beside each difference.

# %% [markdown]
# ## What it cannot tell
#
# - **That cross-entropy is the cause.** The tower alone differs from the fine-tuned model in its loss, in its head, in
#   how many weights are trained, and in the path of the gradient. LoRA against all weights takes one of these out, the
#   others stay.
# - **That the tower was suboptimal.** A classifier that was trained on one task is better at that task; it can no
#   longer answer anything else.
# - **What another budget would give.** Steps are equal here. A rate that suits one way need not suit another; each was
#   chosen on validation images.
# - **What another fine-tuning would give**, wherever the scope is *these weights*.
# - **Anything of the original models**, where the page is of miniatures.
#
# ## Takeaways
#
# - Not significantly different is not equal: see [frozen or adapted](#frozen-or-adapted).
# - "Average gap" has two sizes, and half a dozen numbers of the same answers are not independent: see [one average gap,
#   two sizes](#one-average-gap-two-sizes).
# - Same data and same steps are stated, or a comparison of trainings says little: see [three ways to train a
#   tower](#three-ways-to-train-a-tower).
# - A printed accuracy can be checked, cell by cell: see [cell by cell](#cell-by-cell).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("08_vision_tower")
