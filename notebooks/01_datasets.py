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
# # 1. The data sets
#
# **Question.** What are the images, which question is put to the model, and what could it score without looking at them?
#
# *Prerequisites:* none. *Time:* 15 minutes to read; seconds to run.

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
# ## The classes
#
# One image of each class, as it is after decoding and resizing: what the models' own processors receive. Of the paper's
# three sets, these are figures S1 to S3 of {cite:t}`zhu-2026`.

# %% tags=["hide-input"]
from IPython.display import display
from mlprobe_utils.plots.tables import class_samples

image_sets = chapter.image_sets
for image_set in image_sets.values():
    display(class_samples(image_set, split_rule))

# %% [markdown]
# Each caption is the answer that the data set counts as true. The instruction is the same for every image of a set, and
# names the options; of the paper's sets and their phantoms, these are the words of its appendix A.

# %%
import pandas as pd
from mlprobe_utils.plots.tables import show

cards = chapter.datasets.values()
instructions = [
    {"data set": card.name, "instruction": card.template} for card in cards
]
show(pd.DataFrame(instructions))

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import glue

words = [
    f"{', '.join(own)} for {option}"
    for card in cards
    for option, own in card.synonyms.items()
]
glue("synonyms", "; ".join(words) or "none")

# %% [markdown]
# An answer counts if it names exactly one option as a word, without regard to case. Other words that count, by the data
# cards: {glue:text}`synonyms`.

# %% [markdown]
# A model never reads that text alone: its own chat template wraps it, and its processor replaces the image placeholder
# by one {term}`image token` for each patch that leaves the {term}`connector`. This is the whole question as the first
# model reads it.

# %%
from mlprobe_utils.pipeline import results

prompts = results.prompts(chapter.selection)
print(prompts["prompt"].iloc[0])

# %% [markdown]
# ## How many images there are
#
# Where images and splits come from, by the data cards. *Left out* are files that a card's patterns exclude, such as masks
# beside the images; *accepted* is what it allows in a folder of one's own: `patients` of several classes or splits,
# `copies` of a file.

# %%
from mlprobe_utils.datasets.summary import origins

show(origins(image_sets))

# %% [markdown]
# Counts of the images that were found, beside those of the release; empty where a card states none.

# %%
from mlprobe_utils.datasets.summary import counts

counted = counts(image_sets)
show(counted)

# %% tags=["hide-input"]
differs = counted["found"] != counted["released"]
missing = counted[differs.fillna(False)]
glue("differences", len(missing))
show(missing)

# %% [markdown]
# Number of cells (class and official split) that differ from the release in this run: {glue:text}`differences`. A
# difference is not an error here: public copies of these sets differ, and shrunk ones travel. It is kept with the
# results.
#
# What the files are: *white* is the largest grey level of a file, 255 where it holds 8 bits, 4095 for 12 and 65535 for 16.

# %%
from mlprobe_utils.datasets.summary import file_facts

show(file_facts(image_sets))

# %% [markdown]
# ## Splits
#
# A {term}`split` says which images train, validate and test. `paper` uses the official test sets; for BUSI, which has
# none, it draws the one composition that the paper's printed figures allow. `clean` starts from it, drops images whose
# duplicates carry another label, and lets no {term}`duplicate group` and no patient cross from training to test.
# Validation comes out of the training images in both; a release's own validation images are not used.

# %%
from mlprobe_utils.datasets.summary import split_sizes

show(split_sizes(image_sets))

# %% tags=["hide-input"]
smallest = min(
    len(s.rows_of(split_rule, "test")) for s in image_sets.values()
)
glue("smallest_test", smallest)
glue("one_image", 100 / smallest)

# %% [markdown]
# The smallest test set of this page has {glue:text}`smallest_test` images, so that one image more or less is
# {glue:text}`one_image:.2f` percentage points. Keep that in mind when two curves differ by a point.
#
# ## Duplicates and leaks
#
# Duplicates are found by their bytes and by a perceptual hash, confirmed on a small grey copy. A {term}`leak` is a
# group, or a patient, with images on both sides of a split; a label conflict is a picture that appears under two
# labels.

# %%
from mlprobe_utils.datasets.summary import duplicate_counts, leak_counts

show(duplicate_counts(image_sets))

# %%
show(leak_counts(image_sets))

# %% [markdown]
# Every row counts groups that a model could profit from, or be punished for, without having learnt any medicine. Under
# `clean` nothing may be left in the rows that cross a split.
#
# ## What the file format alone scores
#
# A rule that sees only a file's pixel mode, format and extension, fitted on all images outside the test set. It should
# score no better than the majority class. Where it does, the way the images were collected gives the label away.

# %%
from mlprobe_utils.datasets.summary import format_shortcuts

shortcuts = format_shortcuts(image_sets, split_rule)
show(shortcuts)

# %% tags=["hide-input"]
gain = shortcuts["format alone (%)"] - shortcuts["majority class (%)"]
worst = shortcuts.loc[gain.idxmax()]
glue("shortcut_set", worst["data set"])
glue("shortcut_accuracy", worst["format alone (%)"])
glue("shortcut_majority", worst["majority class (%)"])

# %% [markdown]
# The largest gain is on {glue:text}`shortcut_set`: {glue:text}`shortcut_accuracy:.1f` % from the format alone, against
# {glue:text}`shortcut_majority:.1f` % for the majority class. Any accuracy on that set has to be read against the
# higher of the two.
#
# ## What grey levels alone score
#
# A good part of the class may be read off statistics of the grey levels, without any structure: see
# [the controls](03_probing). A model that does no better on them need not have seen a shape. For the
# opposite case there is one phantom set more, `whirlpool-phantom`, which no run has unless it is named in `DATASETS`. Its
# two classes are mirror images: a whirl of bowel and vessels that turns clockwise, a sign of a twisted midgut
# {cite:p}`shimanuki-1996`, or counterclockwise. Place, phase, gain and speckle are drawn alike for both, so that grey
# levels, their changes and spectra have one distribution, and all the difference is in how the parts lie to each other.
# What its controls score on it, what a small network learns from it, and what miniatures do, was measured once:
# `benchmarks/README.md` holds the figures, with date and command.
#
# ## Takeaways
#
# - The instruction and its options are fixed: see [the classes](#the-classes).
# - Small test sets make single points meaningless: see [splits](#splits).
# - Duplicates, conflicts, file formats and grey levels are ways to score without seeing a shape: see
#   [duplicates and leaks](#duplicates-and-leaks), [the file format](#what-the-file-format-alone-scores) and
#   [grey levels](#what-grey-levels-alone-score).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("01_datasets")
