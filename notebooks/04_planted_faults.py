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
# # 4. Planted faults
#
# **Question.** If we damage a model at a place that we know, does its curve fall there, and not before?
#
# *Prerequisites:* [chapter 3](03_probing.ipynb). *Time:* 20 minutes to read; a minute or two to run once a model is
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
# Nobody knows where a real model loses the class. So nobody can check a method that claims to find the place. Here we
# know the place, because we choose it: one fine-tuned model is damaged at one place at a time by a
# [planted fault](../book/glossary.md#planted-fault). Each damaged model then goes through the same steps as a healthy
# one.
#
# A fault is a hook that changes states while the model runs. No weight changes. In outline:
#
# ```python
# def hook(module, inputs, states):  # at the output of one layer
#     noise = torch.randn(states.shape, generator=of_this_image)
#     return (1 - severity) ** 0.5 * states + severity ** 0.5 * spread * noise
# ```
#
# The noise of an image depends on a seed and on that image alone. `data/book.yml` says in which model the faults are
# planted, and how strong they are.

# %%
import pandas as pd
from mlprobe_utils.analysis.fault_effects import PLACES
from mlprobe_utils.pipeline.fault_card import all_faults, book_faults
from mlprobe_utils.plots.tables import show

damaged, faults = chapter.damaged(), book_faults()
rows = [(f.name, PLACES[f.module], f.depth) for f in faults]
show(pd.DataFrame(rows, columns=["fault", "module", "relative depth"]))

# %% [markdown]
# - In the **vision tower** and in the **LLM**, the states of the image tokens are mixed with noise of the same mean and
#   spread. All later layers see only the mixture.
# - The output of the **connector** collapses: it is projected onto a few directions around its mean.
# - The **semantic mapping** from the last state to the answer is broken: for some images, the scores of the options are
#   swapped. All states stay as they were.
#
# Faults are planted on phantoms, because their cost is measured on fresh images, and only phantoms can be drawn afresh.
# If a run has real images only, the phantom set with the same layout stands in, and the model is fine-tuned on that.

# %% [markdown] tags=["needs-planted-faults"]
# ## Destroyed or unusable
#
# Noise and collapse **destroy** the class: nothing after them can decode it. Other faults **keep** the class in a form
# that the model cannot use: a probe trained after the fault decodes it as well as before. All kinds of fault:

# %% tags=["hide-output"]
from mlprobe_utils.analysis.fault_effects import kind_table

kinds = kind_table()
show(kinds)

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import answer, say

keeping = (kinds["class information"] == "kept").sum()
say(
    f"The project has {len(all_faults())} faults of {len(kinds)} kinds;",
    f"{keeping} kinds keep the class. This chapter plants {len(faults)}",
    "of them. [Chapter 6](06_diagnosis.ipynb) tests a diagnosis on all.",
)

# %% [markdown] tags=["needs-planted-faults"]
# ## What a fault costs
#
# The strength of a fault is the accuracy that it costs a [reference measurement](../book/glossary.md#reference-measurement), which
# shares nothing with our probes and scores: a linear discriminant at the damaged place. It is fitted on fresh phantoms
# that passed through the same damage and tested on others. For the semantic mapping, and for faults that keep the
# class, it is the option that the model prefers.

# %%
from mlprobe_utils.analysis.fault_effects import strength_table, strengths_of

strengths = strengths_of(damaged.healthy, damaged.planted)
show(damaged.named(strength_table(strengths)).drop(columns="dataset"))

# %% tags=["hide-input"]
missed = (~strengths["reached"]).sum()
few = f"{missed} of the {len(strengths)} targets are out of reach"
say(
    f"On {strengths['images'].iloc[0]} fresh phantoms, the faults cost",
    f"{strengths['lost'].min():.1f} to {strengths['lost'].max():.1f} pp",
    f"in {damaged.model.name}. {few if missed else 'All targets are reached'}",
    "in this model at any severity." if missed else "in this model.",
)

# %% [markdown] tags=["needs-planted-faults"]
# ## The curves
#
# Here are the probes of chapter 3, trained anew on the features of each damaged model: the mean of the image tokens up
# to the end of the LLM, then the generated answer.

# %%
from mlprobe_utils.analysis.fault_effects import effects
from mlprobe_utils.plots.charts import fault_curves

table = effects(damaged.healthy, damaged.selection, damaged.planted)
fault_curves(table, damaged.planted, damaged.names)

# %% [markdown]
# The same for the last token, whose state exists in the LLM only:

# %% tags=["hide-output"]
fault_curves(table, damaged.planted, damaged.names, "last_token")

# %% [markdown] tags=["needs-planted-faults"]
# ## Before, at and after
#
# The healthy and the damaged model are compared on the same test images and with the same seed of the probe. Intervals
# (95 %) come from a paired bootstrap over images. The table shows the strongest faults.

# %%
from mlprobe_utils.analysis.fault_effects import around, effect_table

strong = damaged.planted[-1].strength
of_strong = [one.slug for one in damaged.planted if one.strength == strong]
near = around(table)
show(damaged.named(effect_table(near[near["model"].isin(of_strong)])))

# %% tags=["hide-input"]
at = near[(near["where"] == "at") & (near["pooling"] != "last_token")]
fallen = (at["high"] < 0).sum()
before = table.loc[table["where"] == "before", "change"].abs().max()
say(
    f"At the damaged place, the interval lies below 0 for {fallen} of the",
    f"{len(at)} damaged models, weak and strong. Before it, accuracies",
    f"change by at most {before:.1f} pp: no hook has acted yet.",
)

# %% [markdown]
# The first point on the way from the vision tower to the answer whose interval lies below 0:

# %%
from mlprobe_utils.analysis.fault_effects import first_drop

first = first_drop(table)
show(damaged.named(first).drop(columns="dataset"))

# %% tags=["hide-input"]
found = (first["damaged at"] == first["first drop"]).sum()
say(
    f"For {found} of the {len(first)} damaged models this is the damaged",
    f"place. The test set has {table['images'].max()} images: a fault",
    "that costs less than they can show is found later, or not at all.",
)

# %% [markdown] tags=["needs-planted-faults"]
# ## What later layers still see
#
# How much a fault costs further on depends on the path. Text tokens after the image attend to it in every layer before
# the fault, and they keep what they have taken. The strongest faults, at the LLM's last layer and in the answer:

# %%
from mlprobe_utils.evaluation.points import ANSWER

last = table.loc[table["point"].str.startswith("L"), "point"].max()
ends = table[table["point"].isin([last, ANSWER])]
ends = ends[ends["model"].isin(of_strong)]
show(damaged.named(effect_table(ends)).drop(columns="where"))

# %% tags=["hide-input"]
of_slug = {one.slug: one.fault.module for one in damaged.planted}
llm = next((slug for slug in of_strong if of_slug[slug] == "L"), None)
of_llm = ends[ends["model"] == llm].fillna({"pooling": "answer"})
words = "{0.change:+.1f} pp [{0.low:+.1f}, {0.high:+.1f}]".format
drop = "{0:.1f} pp [{1:.1f}, {2:.1f}]".format
paths = {row.pooling: words(row) for row in of_llm.itertuples()}

# %% tags=["hide-input"]
late = "No fault of this run is in the LLM."
if paths:
    late = (
        f"The fault in the LLM changes the mean of the image tokens at the "
        f"last layer by {paths['image_mean']}, the last token by "
        f"{paths['last_token']} and the answer by {paths['answer']}."
    )
say(late)

# %% [markdown]
# Where the last two changes are near 0, the class had reached the text before the fault. The model no longer uses the
# image tokens of later layers.

# %% [markdown] tags=["needs-planted-faults"]
# ## Takeaways

# %% tags=["hide-input", "answer"]
lost = -at.sort_values("change")[["change", "high", "low"]].to_numpy()
sizes = [drop(*row) for row in lost]
answer(
    f"In {fallen} of {len(at)} damaged copies of {damaged.model.name}, accuracy",
    f"falls at the damaged place: by {sizes[-1]} for the mildest fault,",
    f"by {sizes[0]} for the most severe one (95 % intervals). Before it,",
    f"accuracies change by at most {before:.1f} pp. {late}",
)

# %% [markdown]
# - The curve falls where the damage is, and not before: see [before, at and after](#before-at-and-after).
# - A loss on one path does not have to reach the answer: see
#   [what later layers still see](#what-later-layers-still-see).
# - An answer can be incorrect although every layer holds the class, as with the semantic mapping: see
#   [the curves](#the-curves).
# - State how a fault's strength was measured: see [what a fault costs](#what-a-fault-costs).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("04_planted_faults")
