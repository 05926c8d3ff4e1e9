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
# # Explore
#
# **Question.** Which images are lost, where, and what do they look like?
#
# A curve shows how many images are decoded at each point. Here you can follow each of them: choose a model and a data
# set, pick an image, and see the probability of each option from the first vision block to the answer.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: those of data/book.yml
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import answer, start

chapter = start(globals())
chapter.opening()

# %% tags=["hide-input"]
from mlprobe_utils.analysis import explorer as explored
from mlprobe_utils.pipeline.fault_card import damaged_models

shown = [chapter]
if damaged_models(chapter.models):  # copies with a fault at a known place
    shown.append(chapter.damaged())
found = explored.followed(*(own.selection for own in shown))

# %% tags=["hide-input"]
from mlprobe_utils.plots.explorer import pictured
from mlprobe_utils.plots.tables import is_shown

options = {key[1]: own.options for key, own in found.items()}
pictures = {}
for slug, own in chapter.image_sets.items():
    given = own.rows_of(split_rule, "test"), options[slug]
    pixels = own.pixels if is_shown(own) else None
    pictures[f"images/{slug}"] = pictured(*given, pixels)

# %% tags=["hide-input"]
from mlprobe_utils.plots.explorer import explorer

names = shown[-1].names | chapter.names
order = dict.fromkeys(key[0] for key in found)
explorer(
    pictures | explored.payloads(found),
    {slug: names[slug] for slug in order},
    {slug: names[slug] for slug in chapter.image_sets},
)

# %% [markdown]
# An image counts as decodable at a point if the most probable option of a [probe](../book/glossary.md#probe) there is the
# true one, and as lost behind the last [module](03_probing.ipynb#where-each-module-ends) at whose end it still is, by the
# mean of the image tokens, by their [places](../book/glossary.md#position-preserving-pooling) or, in the LLM, by the
# [last token](../book/glossary.md#last-token). A single image is one draw: probes are wrong about some images for no
# reason in the model. Whether a module loses more than that is tested in [chapter 6](06_diagnosis.ipynb).
# `make book PUBLISH=1` leaves out the pictures and file names of real images.
#
# ## Outcomes by model
#
# The number of test images of each outcome after the first fine-tuning; the file has all runs, and the models before
# fine-tuning, where probes are those of the first seed.

# %%
from mlprobe_utils.plots.explorer import outcome_table
from mlprobe_utils.plots.figures import MOST_ROWS
from mlprobe_utils.plots.tables import file

counts = explored.counted(found)
tuned = counts[counts["stage"] == "finetuned"]
outcome_table(tuned[tuned["run"] == 0].head(MOST_ROWS), names)

# %% tags=["hide-input"]
file(counts.replace(names), "Outcomes by model")

# %% [markdown]
# ## Largest drops
#
# The images of healthy models whose true class loses most probability from one point to the next, by the mean of the
# image tokens and, at the end, in the answer; those of every model and stage are in the file.

# %%
from mlprobe_utils.plots.explorer import drop_table

drops = explored.largest_drops(found, 10)
healthy = drops[drops["model"].isin([*chapter.models])]
healthy = healthy[healthy["stage"] == "finetuned"].nlargest(10, "drop")
drop_table(healthy, names)

# %% tags=["hide-input"]
hidden = [
    slug for slug, own in chapter.image_sets.items() if not is_shown(own)
]
drops.loc[drops["dataset"].isin(hidden), "image"] = ""
file(drops.replace(names), "Largest drops")

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.fates import CORRECT, FATES, READ_OUT

of_healthy = tuned[tuned["model"].isin([*chapter.models])]
images_of = of_healthy[[*FATES.values()]].sum()

# %% tags=["hide-input", "answer"]
answer(
    f"In healthy models after fine-tuning, {images_of[FATES[CORRECT]]:,} of",
    f"{images_of.sum():,} cases (a test image in one run) are answered correctly;",
    f"{images_of[FATES[READ_OUT]]:,} are decodable at the LLM's end and answered",
    "incorrectly. These counts describe this run and have no interval.",
)

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("explore")
