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
# # 13. Is it used?
#
# **Question.** A probe shows what can be read from a state. Does the model use it, and where does it stop being used?
#
# *Prerequisites:* [chapter 5](05_diagnosis), [chapter 11](11_planted_faults). *Time:* 25 minutes to read; seconds to
# run once the interventions exist, which take about a quarter of a minute a model here.

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

# %% [markdown] tags=["needs-interventions"]
# ## Change it, and see
#
# Every chapter before this one has only read. A {term}`probe` that finds the class at a layer says that it is there; it
# says nothing of whether the layers behind look at it. To know that, one has to change the state and see what becomes of
# the answer. Such a change is called an {term}`intervention`, and it is a hook that returns something else than it was
# given:
#
# ```python
# def hook(module, inputs, output):
#     return output + direction   # instead of only looking at it
# ```
#
# With the package, for any model and point:
#
# ```python
# import mlprobe_utils as mp
#
# model = mp.load("Qwen/Qwen2.5-VL-7B-Instruct", "bfloat16")
# images = mp.image_folder("scans/")
# question = mp.Question("<image> Is it ill?", {"normal": "No", "ill": "Yes"})
# donor = mp.edits.states(model, images[:1], question, "L.20", "last_token")
# with mp.intervene(model, mp.edits.Patch("L.20", donor[0], "last_token")):
#     patched = mp.answer(model, images, question)
# plain = mp.answer(model, images, question)
# print((patched["parsed"] != plain["parsed"]).mean())
# ```
#
# The states of one model are edited here, and, to know what a fault looks like, those of two copies of it with a
# {term}`planted fault`. Images come in pairs of two classes that differ in little else. Phantoms can be drawn that way:
# the same examination, once with the signs of one class and once with those of another.

# %%
from mlprobe_utils.analysis import interventions
from mlprobe_utils.pipeline import results

edited = chapter.edited()
rows = results.intervention_rows(edited.selection)
found = interventions.effects(rows)

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import glue

edits = rows.groupby(["edit", "point", "tokens"], dropna=False).ngroups
of_images = rows.groupby("images")["image"].nunique()
glue("pairs", int(of_images["pairs"] // 2))
glue("tested", int(of_images["test"]))
glue("edits", int(edits))

# %% [markdown]
# {glue:text}`pairs` pairs, and further below {glue:text}`tested` test images, are answered under {glue:text}`edits` edits.
# The answer is the option that the model finds most probable, which is what it would write if it had to write one of them.
# Intervals are of other images, with these weights.
#
# ## From which layer on does the answer no longer depend on the image?
#
# Attention is cut: from a layer on, text no longer sees the image tokens (*knock-out*, {cite:t}`geva-2023`). What it has
# taken from them before, it keeps. If hardly any answer changes, nothing was taken from there on that mattered.

# %%
from mlprobe_utils.plots.charts import edit_curves

cut = interventions.curves(found, interventions.BLIND)
title = (
    "Answers that change if, from a layer on, text no longer sees the image"
)
edit_curves(cut, edited.names, "answers that change (%)", title)

# %%
from mlprobe_utils.plots.tables import show

readers = interventions.last_readers(found)
show(edited.named(readers.rename(columns={"layer": "image read until"})))

# %% tags=["hide-input"]
first = edited.selection.models[0]
layer = readers.set_index("model")["layer"].get(first)
glue("read_until", layer or "none")
of_first = cut[(cut["model"] == first)].set_index(["series", "point"])
at_start = of_first["value"].xs(of_first.index[0][1], level="point")
glue("blind_text", at_start["all text"])
glue("blind_last", at_start["the last token alone"])

# %% tags=["hide-input"]
glue("first_model", edited.names[first])

# %% [markdown]
# In the {glue:text}`first_model`, the last layer whose look at the image still matters is {glue:text}`read_until`. Cut off from
# the image in all layers, {glue:text}`blind_text:.0f` % of its answers change. If the last token alone is cut off, it is
# {glue:text}`blind_last:.0f` %: it need not look at the image itself where other text has looked before, and hands it on.
# A model that never depends on what its text sees has lost the image before.
#
# ## From which layer on does the last token decide?
#
# At a layer, states are replaced by those of the other image of the pair, which shows another class (*activation
# patching*, {cite:t}`vig-2020,meng-2022`). Of the images that are answered right, how many answers become the other
# image's label?

# %%
patched = interventions.curves(found, interventions.FROM_PARTNER)
title = "Answers that follow states of an image of another class"
edit_curves(patched, edited.names, "answers that follow (%)", title)

# %%
deciding = interventions.deciding_layers(found)
show(edited.named(deciding.rename(columns={"layer": "decides from"})))

# %% tags=["hide-input"]
glue("decides", deciding.set_index("model")["layer"].get(first) or "none")
of_patched = patched[patched["model"] == first].set_index(["series", "point"])
ends = of_patched["value"].unstack()
glue("patched_image", ends.iloc[:, 0]["image tokens"])
glue("patched_text", ends.iloc[:, 0]["all text"])
glue("patched_last", ends.iloc[:, -1]["the last token alone"])

# %% [markdown]
# In the {glue:text}`first_model`, the state of the last token decides most answers from {glue:text}`decides` on. Already behind
# the first layer, the states of the text make {glue:text}`patched_text:.0f` % follow and those of the image tokens
# {glue:text}`patched_image:.0f` %: where that is little, what a later probe decodes in the image tokens is a copy that
# nobody reads any more. At the last layer, {glue:text}`patched_last:.0f` % follow the last token. Those that do not, and
# every state of a model that answers all images alike, have no class to hand over.
#
# ## Decodable, and used?
#
# A probe of the mean decodes along a direction. So the states are moved along it: by the difference between the mean
# states of the two classes in the training images, as measured in this very model, and, to compare, by as large a step
# elsewhere (*steering*, {cite:t}`turner-2023`). If the direction is what the model uses, the answer follows it.

# %%
moved = interventions.curves(found, interventions.IMAGE_MOVED)
title = "Answers that follow image tokens moved to another class"
edit_curves(moved, edited.names, "answers that follow (%)", title)

# %%
moved_last = interventions.curves(found, interventions.LAST_MOVED)
title = "Answers that follow a last token moved to another class"
edit_curves(moved_last, edited.names, "answers that follow (%)", title)

# %% [markdown]
# And the other way round: the directions between the classes are taken out of the states. Where accuracy falls to chance,
# the answer hung on them; where it stays, the model has the class from somewhere else.

# %%
erased = interventions.curves(found, interventions.CLASSES_ERASED)
title = "Accuracy of the answers without the classes' directions"
edit_curves(erased, edited.names, "accuracy (%)", title)

# %% [markdown]
# Both together tell three cases apart, at each layer of the LLM and each kind of token. *Used*: the answer follows the
# direction. *Used, but not along this direction*: it follows the whole state of the other image, and not the direction.
# *Not used*: neither; the class can be decoded there and nothing behind depends on it.

# %%
uses = interventions.uses(found)
columns = ["model", "point", "tokens", "patched", "moved", "at random", "use"]
show(edited.named(uses)[columns])

# %% tags=["hide-input"]
counts = uses[uses["model"] == first]["use"].value_counts()
glue("n_used", int(counts.get(interventions.USED, 0)))
glue("n_elsewhere", int(counts.get(interventions.ELSEWHERE, 0)))
glue("n_unused", int(counts.get(interventions.UNUSED, 0)))

# %% [markdown]
# Of the places in the LLM of the {glue:text}`first_model`, {glue:text}`n_used` are used along the direction,
# {glue:text}`n_elsewhere` otherwise, and {glue:text}`n_unused` not at all. A curve of probes does not show the difference.
#
# ## Which block does harm?
#
# None of this says *where* a model is broken. Behind a damage, the direction that is decoded is one that the model does
# not understand; before it, what the model understands no longer gets through: on both sides the answer does not follow.
# But a block that does harm can be left out. It then passes on what it was given, and in a residual network the others can
# often work with that. So each block is skipped in turn.

# %%
skipped = interventions.curves(found, interventions.WITHOUT)
title = "Accuracy of the answers if one block is skipped"
edit_curves(skipped, edited.names, "accuracy (%)", title)

# %% [markdown]
# A block whose absence makes answers better did harm. One more part can be checked without a twin: the output. The
# options are ranked by the output layer's own weights, applied to the last token's last state (the {term}`logit lens`). If
# that ranking is right more often than the answer, the class has arrived, and is not mapped to the right word. The
# connector cannot be left out. It remains where neither a block nor the output can explain what is missing.

# %%
from mlprobe_utils.analysis.diagnosis_tables import of_edited
from mlprobe_utils.pipeline import laboratory_results

laboratory = laboratory_results.read()

# %%
shares = laboratory.shares(results.families(edited.selection))
given = edited.selection, edited.healthy, edited.image_sets
probed = results.end_rows(edited.selection)
placed = interventions.placed(rows, probed, of_edited(*given), shares)
reasons = ["model", "named", "missing", "place", "why", "by twin"]
show(edited.named(placed)[reasons])

# %% [markdown]
# *Named* are the failure modes that probes and answers show ([chapter 5](05_diagnosis)), *missing* what can be decoded
# somewhere and is not answered. A place is looked for where something is named: it is the part whose worst block, left
# out, brings back a large enough share of what is missing. *Inconclusive* where none does for certain and some may, or
# two parts do about equally.
#
# How often is that right? [Below](#how-often-is-it-right), on faults whose place is known.
#
# ## With a twin, one knows more
#
# Where there is an intact twin (the model before it was changed, a base, another run), its states can be put back: those
# of the vision tower first, then those up to the end of the connector, and so on. The first part that brings back the
# twin's answers is where the two models differ in what matters. No probe can say that, and no model that comes alone.

# %%
restored = interventions.restored(found)
show(edited.named(restored))

# %% tags=["hide-input"]
glue("twins", len(restored))

# %% [markdown]
# For {glue:text}`twins` states there is one here. The damaged copies have the intact model as their twin. The model before
# fine-tuning has the fine-tuned one: how much of what fine-tuning brought comes with each part.
#
# ## How often is it right?
#
# Cases of the laboratory that keep the class and make it unusable, and cost 10 points or more; judged by shares that were
# set on cases of other families and other kinds of fault. Without any twin:

# %%
show(laboratory.placements())

# %%
show(laboratory.placements(twin=True))

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import note

note(laboratory.placement_words())

# %% [markdown]
# Only the first of the two tables is of any use for a model of your own: it has no twin with a known difference.
#
# ## What it costs
#
# An edit takes one forward pass of what lies behind it: at layer *l* of *n*, (*n* − *l*)/*n* of the LLM, and nothing of
# the vision tower; at a vision block, the rest of the tower and the whole LLM. All edits of this page together are about
# as many passes as `edits`, half of them whole. For a model of 7 billion parameters the protocol `paper` edits every
# second layer, on 100 pairs.
#
# ## Takeaways
#
# - What can be decoded need not be used: see [decodable, and used?](#decodable-and-used).
# - The class leaves the image tokens early: see
#   [from which layer on](#from-which-layer-on-does-the-answer-no-longer-depend-on-the-image).
# - A block that does harm shows by being left out: see [which block does harm?](#which-block-does-harm).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("13_is_it_used")
