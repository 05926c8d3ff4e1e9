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
models: list[str] = []  # model cards; empty: those of data/book.yml
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import start

chapter = start(globals())
chapter.opening()

# %% [markdown] tags=["needs-planted-faults"]
# ## Faults at known places
#
# Nobody knows where a real model loses the class; so nobody can tell whether a method that claims to find the place is
# right. Here the place is known, because we make it: one fine-tuned model is damaged at one place at a time by a
# {term}`planted fault`, and each damaged model goes through the same steps as a healthy one. Faults are planted on
# phantoms: how much a fault costs is measured on fresh images, and only phantoms can be drawn afresh. Where a run names
# real images alone, the phantom set of the same layout stands in, and the model is fine-tuned on that.

# %%
import pandas as pd
from mlprobe_utils.analysis.fault_effects import PLACES
from mlprobe_utils.pipeline.fault_card import all_faults, book_faults
from mlprobe_utils.plots.tables import show

damaged, faults = chapter.damaged(), book_faults()
rows = [(f.name, PLACES[f.module], f.depth, str(f.seed)) for f in faults]
show(pd.DataFrame(rows, columns=["fault", "module", "depth", "seed"]))

# %% [markdown]
# - In the **vision tower** and in the **LLM**, states of image tokens are mixed with noise of the same mean and
#   spread at the output of one layer. Whatever comes later reads only what is left.
# - The **connector** collapses: its output is projected on a few directions around its mean.
# - The **semantic mapping** from the last state to the answer is broken: for some images, the model's scores of the
#   options are swapped. Every state is as before.
#
# No weight is changed. All four act through hooks while a pass lasts, and the noise of an image depends on a seed and
# on that image alone. `data/book.yml` says in which model they are planted, and how strong.

# %% [markdown] tags=["needs-planted-faults"]
# ## What is lost, and what is only out of use
#
# Noise and collapse destroy the class: nothing behind them can have it. Other damages keep it, and the model cannot use
# it: a probe that is fitted anew behind them decodes it as before. [Chapter 5](05_diagnosis) judges the diagnosis on
# both sorts, of all these kinds, which the laboratory draws for every model:

# %%
from mlprobe_utils.analysis.fault_effects import kind_table

kinds = kind_table()
show(kinds)

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import glue

glue("kinds", len(kinds))
glue("keeping", int((kinds["the class is"] == "kept").sum()))
glue("cards", len(all_faults()))

# %% [markdown]
# Of {glue:text}`kinds` kinds, which {glue:text}`cards` faults are made of, {glue:text}`keeping` keep the class. In the
# LLM these change the states of text as well: text has read the image early on, and would answer from that.

# %% [markdown] tags=["needs-planted-faults"]
# ## What a fault costs
#
# The strength of a fault is the accuracy that an {term}`oracle` loses. It knows nothing of our probes and scores: a
# linear discriminant reads the damaged place, fitted on fresh phantoms that passed through the same damage and tested
# on others. For the semantic mapping, and for whatever keeps the class, it is the option that the model prefers.

# %%
from mlprobe_utils.analysis.fault_effects import strength_table, strengths_of

strengths = strengths_of(damaged.healthy, damaged.planted)
show(damaged.named(strength_table(strengths)).drop(columns="dataset"))

# %% tags=["hide-input"]
glue("images", int(strengths["images"].iloc[0]))
glue("least_lost", strengths["lost"].min())
glue("most_lost", strengths["lost"].max())
glue("not_reached", int((~strengths["reached"]).sum()))
glue("strengths", len(strengths))
glue("model", damaged.model.name)
glue("dataset", next(iter(damaged.datasets.values())).name)

# %% [markdown]
# On {glue:text}`images` fresh phantoms of {glue:text}`dataset`, the oracle loses between {glue:text}`least_lost:.1f` and
# {glue:text}`most_lost:.1f` points at the damaged places of {glue:text}`model`. Of the {glue:text}`strengths` wanted
# strengths, {glue:text}`not_reached` cannot be had in this model, whatever the severity.

# %% [markdown] tags=["needs-planted-faults"]
# ## The curves
#
# The probes of chapter 3, trained anew on the features of each damaged model.

# %%
from mlprobe_utils.analysis.fault_effects import effects
from mlprobe_utils.plots.charts import fault_curves

table = effects(damaged.healthy, damaged.selection, damaged.planted)
fault_curves(table, damaged.planted, damaged.names)

# %% [markdown]
# Image tokens up to the end of the LLM, then the generated answer. The same for the last token, which has a state in
# the LLM only:

# %%
fault_curves(table, damaged.planted, damaged.names, "last_token")

# %% [markdown] tags=["needs-planted-faults"]
# ## Each pooling for itself
#
# What a fault costs further on depends on who reads. Text tokens that come after the image have read it in every layer
# before the fault, and keep what they hold. At the LLM's last layer, and in the answer, of the strongest faults:

# %%
from mlprobe_utils.analysis.fault_effects import effect_table
from mlprobe_utils.evaluation.points import ANSWER

strong = damaged.planted[-1].strength
of_strong = [one.slug for one in damaged.planted if one.strength == strong]
last = table.loc[table["point"].str.startswith("L"), "point"].max()
ends = table[table["point"].isin([last, ANSWER])]
ends = ends[ends["model"].isin(of_strong)]
show(damaged.named(effect_table(ends)).drop(columns="where"))

# %% tags=["hide-input"]
planted = {one.slug: one for one in damaged.planted}
llm = next(slug for slug in of_strong if planted[slug].fault.module == "L")
of_llm = ends[ends["model"] == llm].fillna({"pooling": "answer"})
changes = of_llm.set_index("pooling")["change"]
for name in ("image_mean", "last_token", "answer"):
    glue(f"llm_{name}", changes[name])

# %% [markdown]
# The LLM's fault changes what image tokens hold at the last layer by {glue:text}`llm_image_mean:+.1f` points, what the
# last token holds by {glue:text}`llm_last_token:+.1f`, and the answer by {glue:text}`llm_answer:+.1f`. Where the last two
# are near 0, the class had reached the text before the fault began: image tokens of later layers are then read by nobody.

# %% [markdown] tags=["needs-planted-faults"]
# ## Before, at and after
#
# Changes are of the same images and the same seed of the probe, with 95 % intervals (bootstrap over images, in pairs);
# of the strongest faults.

# %%
from mlprobe_utils.analysis.fault_effects import around

near = around(table)
show(damaged.named(effect_table(near[near["model"].isin(of_strong)])))

# %% tags=["hide-input"]
at = near[(near["where"] == "at") & (near["pooling"] != "last_token")]
before = table.loc[table["where"] == "before", "change"]
glue("before_most", before.abs().max())
glue("faults", len(at))
glue("fallen", int((at["high"] < 0).sum()))

# %% [markdown]
# Over all points before the damaged places, of weak and strong faults, the largest change is
# {glue:text}`before_most:.1f` points: what lies before is computed as ever. At the place, the interval lies below 0 for
# {glue:text}`fallen` of {glue:text}`faults` damaged models (image tokens, or the answer).

# %% [markdown] tags=["needs-planted-faults"]
# ## Which module falls first
#
# The first point on the way from the vision tower to the answer whose interval lies below 0.

# %%
from mlprobe_utils.analysis.fault_effects import first_drop

first = first_drop(table)
show(damaged.named(first).drop(columns="dataset"))

# %% tags=["hide-input"]
glue("found", int((first["damaged at"] == first["first drop"]).sum()))

# %% [markdown]
# For {glue:text}`found` of {glue:text}`faults` damaged models this is the damaged place itself. A fault that costs less
# than the test set can show would be found later or not at all: the test set is far smaller than the oracle's.

# %% [markdown] tags=["needs-planted-faults"]
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
