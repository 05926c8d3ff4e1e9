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
# # 11. Planted faults
#
# **Question.** If a model is damaged at a place that we know, does its curve fall there, and not before?
#
# *Prerequisites:* [chapter 3](03_probing). *Time:* 20 minutes to read; a minute or two to run once a model is
# fine-tuned.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: all 16 miniatures
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images: all real sets are the default then

# %% tags=["hide-input"]
from mlprobe_utils.chapter import start

chapter = start(globals()).laboratory()
chapter.opening()

# %% [markdown]
# ## A laboratory
#
# Nobody knows where a real model loses the class; so nobody can tell whether a method that claims to find the place is
# right. Here the place is known, because we make it: one fine-tuned model is damaged at one place at a time by a
# {term}`planted fault`, and goes through the same steps as before. Faults are planted in one model and on phantoms: how
# much a fault costs is measured on thousands of fresh images, and only phantoms can be drawn afresh. Where a run names
# real images alone, the phantom set of the same layout stands in, and the model is fine-tuned on that.

# %%
from mlprobe_utils.faults.tables import fault_table
from mlprobe_utils.tables import show

faults = chapter.faults
show(fault_table(faults))

# %% [markdown]
# - In the **vision tower** and in the **LLM**, states of image tokens are mixed with noise of the same mean and
#   spread at the output of one layer. Whatever comes later reads only what is left.
# - The **connector** collapses: its output is projected on a few directions around its mean.
# - The **semantic mapping** from the last state to the answer is broken: for some images, the model's scores of the
#   options are swapped. Every state is as before.
#
# No weight is changed. All four act through hooks while a pass lasts, and the noise of an image depends on a seed and
# on that image alone.
#
# ## What a fault costs
#
# The strength of a fault is the accuracy that an {term}`oracle` loses. It knows nothing of our probes and scores: a
# linear discriminant reads the damaged place, fitted on fresh phantoms that passed through the same damage and tested
# on others. For the semantic mapping, it is the option that the model prefers.

# %%
from mlprobe_utils.faults.strengths import fault_strengths
from mlprobe_utils.faults.tables import strength_table

slugs = [fault.slug for fault in faults]
strengths = fault_strengths(chapter.selection, slugs)
names = {fault.slug: fault.name for fault in faults}
show(strength_table(strengths, names))

# %% tags=["hide-input"]
from mlprobe_utils.chapter import glue

deciding = strengths[strengths["decides"]].set_index("fault")
glue("images", int(deciding["images"].iloc[0]))
glue("least_lost", -deciding["change"].max())
glue("most_lost", -deciding["change"].min())
glue("not_reached", int((~deciding["reached"]).sum()))
glue("model", chapter.model.name)

# %% [markdown]
# On {glue:text}`images` fresh phantoms the oracle loses between {glue:text}`least_lost:.1f` and
# {glue:text}`most_lost:.1f` points at the damaged places of {glue:text}`model`. Of the wanted strengths,
# {glue:text}`not_reached` cannot be had in this model, whatever the severity.
#
# ## Each pooling for itself
#
# What a fault costs further on depends on who reads. Text tokens that come after the image have read it in every layer
# before the fault, and keep what they hold.

# %%
from mlprobe_utils.faults.tables import reading_table

show(reading_table(strengths, names))

# %% tags=["hide-input"]
from mlprobe_utils.faults.tables import at_the_end

llm = next(fault.slug for fault in faults if fault.module == "L")
changes = at_the_end(strengths, llm)
glue("llm_image", changes["image_mean"])
glue("llm_text", changes["last_token"])
glue("llm_answer", changes["answer"])

# %% [markdown]
# The LLM's fault changes what image tokens hold at the last layer by {glue:text}`llm_image:+.1f` points, what the last
# token holds by {glue:text}`llm_text:+.1f`, and the answer by {glue:text}`llm_answer:+.1f`. Where the last two are near
# 0, the class had reached the text before the fault began: image tokens of later layers are then read by nobody.
#
# ## The curves
#
# The probes of chapter 3, trained anew on the features of each damaged model.

# %%
from mlprobe_utils.faults.charts import fault_curves
from mlprobe_utils.faults.effects import effects

table = effects(chapter.selection, faults)
name = chapter.names[chapter.selection.models[0]]
fault_curves(table, names, name)

# %% [markdown]
# Image tokens up to the end of the LLM, then the generated answer. The same for the last token, which has a state in
# the LLM only:

# %%
fault_curves(table, names, name, "last_token")

# %% [markdown]
# ## Before, at and after
#
# Changes are of the same images and the same seed of the probe, with 95 % intervals (bootstrap over images, in pairs).

# %%
from mlprobe_utils.faults.effects import around
from mlprobe_utils.faults.tables import around_table

near = around(table)
show(around_table(near, names))

# %% tags=["hide-input"]
at = near[near["where"] == "at"]
of_images = at[at["pooling"] != "last_token"]
before = table.loc[table["where"] == "before", "change"]
glue("before_most", before.abs().max())
glue("faults", len(of_images))
glue("fallen", int((of_images["high"] < 0).sum()))

# %% [markdown]
# Over all points before the damaged places the largest change is {glue:text}`before_most:.1f` points: what lies before is
# computed as ever. At the place, the interval lies below 0 for {glue:text}`fallen` of {glue:text}`faults` faults (image tokens, or
# the answer).
#
# ## Which module falls first
#
# The first point on the way from the vision tower to the answer whose interval lies below 0.

# %%
from mlprobe_utils.faults.effects import first_drop

first = first_drop(table)
show(chapter.named(first.replace({"fault": names})))

# %% tags=["hide-input"]
glue("found", int((first["damaged at"] == first["first drop"]).sum()))

# %% [markdown]
# For {glue:text}`found` of {glue:text}`faults` faults this is the damaged place itself. A fault that costs less than the
# test set can show would be found later or not at all: the test set is far smaller than the oracle's.
#
# ## Takeaways
#
# - A damage is seen where it is done and not before it: see [before, at and after](#before-at-and-after).
# - What is lost on one path may have arrived by another: see [each pooling for itself](#each-pooling-for-itself).
# - An answer can be wrong while every layer is right: in the semantic mapping, see [the curves](#the-curves).
# - A strength is only worth what measured it: see [what a fault costs](#what-a-fault-costs).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("11_planted_faults")
