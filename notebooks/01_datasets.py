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
# **Question.** What do the images show, which question is put to the model, and what can be scored without recognising any
# structure in them?
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
# One image of each class, decoded and resized as the models' processors receive it. For the paper's three data sets,
# these are figures S1 to S3 of [Zhu et al. (2026)](../book/bibliography.md#zhu-2026).

# %% tags=["hide-input"]
from IPython.display import display
from mlprobe_utils.plots.tables import class_samples

image_sets = chapter.image_sets
for image_set in image_sets.values():
    display(class_samples(image_set, split_rule))

# %% [markdown]
# The caption is the correct answer. Every image of a data set comes with the same instruction, which lists the options;
# the paper's data sets and their phantoms have the wording of the paper's appendix A.

# %%
import pandas as pd
from mlprobe_utils.plots.tables import show

cards = chapter.datasets.values()
instructions = [
    {"data set": card.name, "instruction": card.template} for card in cards
]
show(pd.DataFrame(instructions))

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import answer, say

synonyms = [
    f"{', '.join(own)} for {option}"
    for card in cards
    for option, own in card.synonyms.items()
]
accepted = f"As synonyms count {'; '.join(synonyms)}." if synonyms else ""

# %% tags=["hide-input"]
say(
    "An answer counts if it names exactly one option, as a whole word in upper or",
    "lower case.",
    accepted or "The data cards give no synonyms.",
)

# %% [markdown]
# A model is never given this text alone. Its chat template wraps the text, and its processor replaces the image
# placeholder by one [image token](../book/glossary.md#image-token) for each vector that leaves the
# [connector](../book/glossary.md#connector). The whole prompt of the first model:

# %%
from mlprobe_utils.pipeline import results

prompts = results.prompts(chapter.selection)
print(prompts["prompt"].iloc[0])

# %% [markdown]
# ## How many images there are
#
# Where images and splits come from, according to the data cards. *Files left out* match a pattern that the card
# excludes, such as masks beside the images; *accepted* is what the card allows in a folder of your own: `patients` with
# several classes or splits, `copies` of a file.

# %%
from mlprobe_utils.datasets.summary import origins

show(origins(image_sets))

# %% [markdown]
# Images found, beside the number in the release (empty where the card states none). Differences come first:

# %%
from mlprobe_utils.datasets.summary import counts

counted = counts(image_sets)
differs = (counted["found"] != counted["released"]).fillna(False)
first = differs.sort_values(ascending=False, kind="stable").index
show(counted.loc[first], title="Images found and released")

# %% tags=["hide-input"]
say(
    f"The numbers differ from the release in {differs.sum()} of {len(counted)} rows."
)

# %% [markdown]
# A difference is not an error: public copies of these data sets differ. It is kept with the results.
#
# The files themselves; *white* is the largest grey level of a file: 255 at 8 bits, 4095 at 12, 65535 at 16.

# %%
from mlprobe_utils.datasets.summary import file_facts

show(file_facts(image_sets))

# %% [markdown]
# ## Splits
#
# A [split](../book/glossary.md#split) assigns each image to training, validation or test. `paper` uses the official test
# sets; for BUSI, which has none, it draws the one composition that fits the paper's published figures. `clean` starts
# from it, drops images whose duplicates have another label, and keeps every
# [duplicate group](../book/glossary.md#duplicate-group) and every patient on one side. Validation images are drawn from
# the training images; a release's own validation images are not used.

# %%
from mlprobe_utils.datasets.summary import split_sizes

show(split_sizes(image_sets))

# %% tags=["hide-input"]
tests = {
    slug: len(own.rows_of(split_rule, "test"))
    for slug, own in image_sets.items()
}
smallest = min(tests, key=tests.get)

# %% tags=["hide-input"]
images, widest = tests[smallest], 196 / tests[smallest] ** 0.5 / 2
say(
    f"The smallest test set ({chapter.names[smallest]}) has {images} images, so one",
    f"image is worth {100 / images:.2f} pp. The 95 % interval of an accuracy near",
    f"50 % reaches about {widest:.0f} pp to either side, more if images belong",
    "together. Keep that in mind when two curves differ by a few pp.",
)

# %% [markdown]
# ## Duplicates and leaks
#
# Duplicates are files with equal bytes, or images with a similar perceptual hash, confirmed on a small grey copy. A
# [leak](../book/glossary.md#leak) is a duplicate group or a patient with images on both sides of a split; a label
# conflict is a picture that appears under two labels.

# %%
from mlprobe_utils.datasets.summary import duplicate_counts, leak_counts

show(duplicate_counts(image_sets))

# %%
leaks = leak_counts(image_sets)
leaks = leaks.sort_values("images", ascending=False, kind="stable")
show(leaks, title="Leaks")

# %% [markdown]
# A model could gain from such groups, or be penalised for them, without having learned any medicine. Under `clean`, no
# leak may be left.

# %% tags=["hide-input"]
crossing = leaks.groupby("split rule")["groups"].sum()
say(
    f"Groups with a leak or a label conflict: {crossing.get('paper', 0)} under",
    f"`paper`, {crossing.get('clean', 0)} under `clean`.",
)

# %% [markdown]
# ## What the file format alone scores
#
# This rule sees only a file's pixel mode, format and extension, and is fitted on all images outside the test set. It
# should score no better than the majority class. Where it does, the way the images were collected gives the label away.

# %%
from mlprobe_utils.datasets.summary import format_shortcuts

shortcuts = format_shortcuts(image_sets, split_rule)
gain = shortcuts["format alone (%)"] - shortcuts["majority class (%)"]
shortcuts = shortcuts.loc[gain.sort_values(ascending=False).index]
show(shortcuts)

# %% [markdown]
# ## What simple controls score
#
# Accuracy on the test images of rules that use no model, with 95 % intervals; *pixel statistics* are mean, spread and
# percentiles of the grey levels and how they change between neighbouring pixels. The classical classifier is a support
# vector machine on grey levels, edges and textures. It does look for structure.

# %%
from mlprobe_utils.evaluation.names import CLASSICAL, WITHOUT_MODEL
from mlprobe_utils.evaluation.outcomes import single_outcomes
from mlprobe_utils.pipeline.tested import groups
from mlprobe_utils.stats.intervals import intervals
from mlprobe_utils.stats.resampling import accuracy

rows = results.image_control_rows(chapter.selection)

# %%
by, found = ["dataset", "control"], []
for where, own, drawn, tested in groups(rows, by, image_sets, split_rule):
    correct = single_outcomes(own, tested, where["control"])[None]
    ends = intervals(accuracy(correct, drawn)).loc[
        0, ["value", "low", "high"]
    ]
    found.append([*where.values(), *ends])

# %%
scored = pd.DataFrame(found, columns=[*by, "accuracy", "low", "high"])
scored["cell"] = [
    f"{value:.1f} ({low:.1f} to {high:.1f})"
    for value, low, high in scored[["accuracy", "low", "high"]].to_numpy()
]
table = scored.pivot(index="dataset", columns="control", values="cell")
table = table.reindex(columns=[*WITHOUT_MODEL, CLASSICAL])
show(chapter.named(table.rename_axis(columns=None).reset_index()))

# %% tags=["hide-input"]
blind = scored[scored["control"].isin(WITHOUT_MODEL)]
top = blind.loc[blind["accuracy"].idxmax()]
rule, top_set = top["control"], chapter.names[top["dataset"]]

# %% tags=["hide-input"]
say(
    f"The best rule without structure reaches {top['cell']} % on {top_set}:",
    f"{rule}. An accuracy should be compared with the best rule on its data set;",
    "[chapter 3](03_probing.ipynb#controls-and-baselines) does so.",
)

# %% [markdown]
# A model that does no better than pixel statistics need not have recognised a shape. For the opposite case there is one
# more phantom set, `whirlpool-phantom`, which a run includes only if `DATASETS` names it. Its two classes are mirror
# images: a whirl of bowel and vessels that turns clockwise, a sign of a twisted midgut
# ([Shimanuki et al., 1996](../book/bibliography.md#shimanuki-1996)), or counterclockwise. Everything else is drawn alike
# for both classes, so that grey levels and spectra have one distribution and only the arrangement of the parts differs.
# `benchmarks/README.md` holds what controls, a small network and miniatures score on it.
#
# ## Takeaways

# %% tags=["hide-input"]
numbers = [
    f"{count} ({chapter.names[slug]})" for slug, count in tests.items()
]
of = dict(iter(scored.groupby("control")["accuracy"]))
ends_of = {
    n: [f"{own.min():.0f}", f"{own.max():.0f}"] for n, own in of.items()
}
ranges = {name: " to ".join(dict.fromkeys(e)) for name, e in ends_of.items()}

# %% tags=["hide-input", "answer"]
answer(
    "Each data set asks for one diagnosis from one kind of image, to be named in",
    f"words. Test images: {', '.join(numbers)}. Without any structure, always",
    f"naming the most frequent class scores {ranges['majority class']} %, and",
    f"grey-level statistics score {ranges['pixel statistics']} % (at best",
    f"{top['cell']}, 95 % interval). A model has to be compared with these.",
)

# %% [markdown]
# - The instruction and its options are the same for all images of a data set: see [the classes](#the-classes).
# - A difference of a few pp is within chance on test sets of this size: see [splits](#splits).
# - Duplicates and file formats can give a label away: see [duplicates and leaks](#duplicates-and-leaks) and
#   [the file format](#what-the-file-format-alone-scores).
# - Grey levels alone can go far: see [what simple controls score](#what-simple-controls-score).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("01_datasets")
