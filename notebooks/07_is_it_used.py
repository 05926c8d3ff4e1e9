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
# # 7. Is it used?
#
# **Question.** A probe shows what can be decoded from a state. Does the model use it, and where does it stop being used?
#
# *Prerequisites:* [chapter 4](04_planted_faults.ipynb), [chapter 6](06_diagnosis.ipynb). *Time:* 25 minutes to read;
# seconds to run once the interventions exist.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: those of data/book.yml
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import answer, say, start

chapter = start(globals())
chapter.opening()

# %% [markdown] tags=["needs-interventions"]
# ## Change a state and observe the answer
#
# So far we have only measured. A [probe](../book/glossary.md#probe) that decodes the class at a layer shows that the
# class is there. It does not show whether later layers use it. To find out, we change the state and observe the answer.
# Such a change is an [intervention](../book/glossary.md#intervention). It is a hook that returns something else:
#
# ```python
# def hook(module, inputs, output):
#     return output + direction   # instead of only recording it
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
# Here we edit the states of one model and, to know what a fault looks like, of copies of it with a
# [planted fault](../book/glossary.md#planted-fault). Images come in pairs of two classes that differ in little else,
# which phantoms allow: the same examination, once with the signs of one class and once with those of another.

# %%
from mlprobe_utils.analysis import interventions
from mlprobe_utils.pipeline import results

edited = chapter.edited()
rows = results.intervention_rows(edited.selection)
found = interventions.effects(rows)
first = edited.selection.models[0]
name = edited.names[first]

# %% tags=["hide-input"]
edits = rows.groupby(["edit", "point", "tokens"], dropna=False).ngroups
of_images = rows.groupby("images")["image"].nunique()
say(
    f"We edit {of_images['pairs'] // 2} pairs and, further below,",
    f"{of_images['test']} test images, in {edits} ways. The answer is the",
    "option that the model finds most probable. Intervals (95 %) are for",
    "other images, with these weights.",
)

# %% [markdown] tags=["needs-interventions"]
# ## From which layer on does the answer no longer depend on the image?
#
# We cut attention: from a layer on, text tokens no longer see the image tokens (*knock-out*,
# [Geva et al. (2023)](../book/bibliography.md#geva-2023)). They keep what they have already taken from them. If hardly
# any answer changes, text takes nothing more from the image from there on that matters.

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
deciding = interventions.deciding_layers(found)
layers = readers.rename(columns={"layer": "image needed until"})
layers["last token decides from"] = deciding["layer"]
show(edited.named(layers.drop(columns="stage")))

# %% tags=["hide-input"]
size = "{0.value:.0f} % [{0.low:.0f}, {0.high:.0f}]".format
start_of = {"band_low": "low", "band_high": "high"}
at_start = cut[cut["model"] == first].rename(columns=start_of)
at_start = at_start.groupby("series", sort=False).head(1)
blind = {row.series: size(row) for row in at_start.itertuples()}
until = readers.set_index("model")["layer"].get(first)

# %% tags=["hide-input"]
needed = f"the text needs the image up to {until}"
needed = needed if until else "no answer depends on what the text sees"
say(
    f"In {name}, {needed}. With text cut off from the image in all layers,",
    f"{blind['all text']} of the answers change; with only the last token cut",
    f"off, {blind['the last token alone']}. The last token does not have to",
    "see the image itself if other text has seen it and passes it on.",
)

# %% [markdown]
# If the answers of a model never depend on what its text sees, the class was lost before.
#
# ## From which layer on does the last token decide?
#
# At a layer, we replace states by those of the other image of the pair, which shows another class (*activation
# patching*, [Vig et al. (2020)](../book/bibliography.md#vig-2020) and
# [Meng et al. (2022)](../book/bibliography.md#meng-2022)). Among the images answered correctly, how many answers become
# the other image's label?

# %%
patched = interventions.curves(found, interventions.FROM_PARTNER)
title_patched = "Answers that follow states of an image of another class"
edit_curves(patched, edited.names, "answers that follow (%)", title_patched)

# %% tags=["hide-input"]
own = patched[patched["model"] == first].rename(columns=start_of)
by_line = own.dropna(subset="value").groupby("series")
ends = {"first": by_line.head(1), "last": by_line.tail(1)}
follow = {
    (end, row.series): size(row)
    for end, shown in ends.items()
    for row in shown.itertuples()
}

# %% tags=["hide-input"]
from_on = deciding.set_index("model")["layer"].get(first) or "no layer"
alone, none = "the last token alone", "no answer can follow"
text, image = (
    follow.get(("first", t), none) for t in ("all text", "image tokens")
)
at_end = follow.get(("last", alone), none)

# %% tags=["hide-input"]
say(
    f"In {name}, the last token decides most answers from {from_on} on. After",
    f"the first layer, {text} follow the states of the text and {image} those",
    f"of the image tokens. At the last layer, {at_end} follow the last token.",
)

# %% [markdown]
# Where few answers follow the image tokens, a later probe there decodes a copy that no layer uses any more. A model
# that gives all images the same answer has no class to hand over.
#
# ## Decodable, and used?
#
# A probe of the mean decodes along a direction. So we move the states along it: by the difference between the mean
# states of two classes in the training images of this very model and, for comparison, by as large a step elsewhere
# (*steering*, [Turner et al. (2023)](../book/bibliography.md#turner-2023)). If the model uses the direction, the answer
# follows.

# %%
moved = interventions.curves(found, interventions.IMAGE_MOVED)
title_moved = "Answers that follow image tokens moved to another class"
edit_curves(moved, edited.names, "answers that follow (%)", title_moved)

# %%
moved_last = interventions.curves(found, interventions.LAST_MOVED)
title_last = "Answers that follow a last token moved to another class"
edit_curves(moved_last, edited.names, "answers that follow (%)", title_last)

# %% [markdown]
# Conversely, we remove the directions between the class means from the states. Where accuracy falls to chance, the
# answer depended on them; where it stays, the model has the class from elsewhere. (`mp.edits.Erase.leace` removes all
# that any linear probe could decode, [Belrose et al. (2023)](../book/bibliography.md#belrose-2023).)

# %% tags=["hide-output"]
erased = interventions.curves(found, interventions.CLASSES_ERASED)
title_erased = "Accuracy of the answers without the classes' directions"
edit_curves(erased, edited.names, "accuracy (%)", title_erased)

# %% [markdown]
# Patching and steering together distinguish three cases at each layer of the LLM and each kind of token. *Used*: the
# answer follows the direction. *Used, but not along this direction*: it follows the whole state of the other image
# only. *Not used*: neither; the class can be decoded there, and nothing later depends on it. Answers that
# follow (%), with their intervals in the charts above:

# %%
uses = interventions.uses(found)
kind = {"image_tokens": "image tokens", "last_token": "last token"}
uses["tokens"] = uses["tokens"].replace(kind)
columns = ["point", "tokens", "patched", "moved", "moved at random", "use"]
show(uses.loc[uses["model"] == first, columns])

# %%
from mlprobe_utils.plots.tables import file

file(edited.named(uses), "Use of the class in all edited models")

# %% tags=["hide-input"]
of_use = uses.loc[uses["model"] == first, "use"]
kinds = (interventions.USED, interventions.ELSEWHERE, interventions.UNUSED)
tally = "; ".join(f"{(of_use == kind).sum()} {kind}" for kind in kinds)
say(
    f"Of {of_use.notna().sum()} places in the LLM of {name}: {tally}.",
    "Probe curves do not show this difference. *Not used* means that no",
    "effect is certain on these images.",
)

# %% [markdown] tags=["needs-interventions"]
# ## Which block does harm?
#
# None of this shows *where* a model is broken. After a fault, the model does not understand the direction that a probe
# decodes; before it, what the model understands does not get through. On both sides the answer does not follow. But a
# harmful block can be skipped. It then passes on its input, and in a residual network the other blocks can often work
# with that. So we skip each block in turn.

# %%
skipped = interventions.curves(found, interventions.WITHOUT)
title_skipped = "Accuracy of the answers if one block is skipped"
edit_curves(skipped, edited.names, "accuracy (%)", title_skipped)

# %% [markdown]
# If answers are better without a block, it did harm. The output can be checked, too: the output layer's own weights
# rank the options from the last state of the last token (the [logit lens](../book/glossary.md#logit-lens)). If this
# ranking is correct more often than the answer, the class arrives and is mapped to the wrong word. The connector cannot
# be skipped; it remains if neither a block nor the output can explain what is missing.

# %%
from mlprobe_utils.analysis.diagnosis_tables import of_edited
from mlprobe_utils.pipeline import laboratory_results

benchmark = laboratory_results.read()
shares = benchmark.shares(results.families(edited.selection))
given = edited.selection, edited.healthy, edited.image_sets
probed = results.end_rows(edited.selection)
placed = interventions.placed(rows, probed, of_edited(*given), shares)

# %%
reasons = ["model", "detected", "missing (pp)", "place", "why", "by twin"]
show(edited.named(placed)[reasons])

# %% [markdown]
# *Detected* are the failure modes of [chapter 6](06_diagnosis.ipynb); *missing* is the accuracy that can be decoded
# somewhere and is not answered. If a mode is detected, we look for its place: the part whose most harmful block, when
# skipped, restores a large enough share of what is missing. *Inconclusive*: no part does for certain and some may, or
# two parts do about equally.
#
# ## With a twin, more can be known
#
# If an intact [twin](../book/glossary.md#twin) exists (the model before it was changed, a base, another run), its
# states can be put back: first those of the vision tower, then those up to the end of the connector, and so on. The
# first part that restores the twin's answers is where the two models differ in what matters. No probe can show this,
# and a model of your own has no twin with a known difference. Accuracy of the answers (%):

# %%
restored = interventions.restored(found)
show(edited.named(restored))

# %% [markdown]
# The damaged copies have the intact model as their twin. The model before fine-tuning has the fine-tuned one: its row
# shows how much of what fine-tuning brought comes with each part.
#
# ## How often is the place correct?
#
# The [fault-injection benchmark](06_diagnosis.ipynb#how-far-the-diagnosis-can-be-trusted) has faults that keep the class
# and make it unusable. They are placed by limits that were set on other families and other kinds of fault.

# %% tags=["hide-input"]
say(
    f"Cases that cost {laboratory_results.LEAST_LOST:g} pp or more, without a",
    "twin; rows: where the fault is, columns: where it was placed.",
)

# %%
show(benchmark.placements())

# %% [markdown]
# With a twin:

# %% tags=["hide-output"]
show(benchmark.placements(twin=True))

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import note

note(benchmark.placement_words())

# %% [markdown] tags=["needs-interventions"]
# ## What it costs
#
# An edit takes one forward pass of what comes after it: at layer *l* of *n*, (*n* − *l*)/*n* of the LLM, and nothing of
# the vision tower; at a vision block, the rest of the tower and the whole LLM. With a full-size model, the protocol
# `paper` edits fewer layers, and more pairs.
#
# ## Takeaways

# %% tags=["hide-input"]
table = benchmark.placements().set_index("planted in")
total = int(table.to_numpy().sum())
hits = sum(int(table.at[part, part]) for part in table.index)
low, high = laboratory_results.exact_interval(hits, total)
rate = (
    f"{hits} of {total} ({100 * hits / total:.0f} % [{low:.0f}, {high:.0f}])"
)

# %% tags=["hide-input", "answer"]
answer(
    f"In {name}, {needed}, and the last token decides from {from_on} on. Of",
    f"{of_use.notna().sum()} places in the LLM: {tally}. Without a twin,",
    f"interventions place {rate} of the benchmark's faults that keep the class",
    "and make it unusable at the correct part (exact 95 % interval).",
)

# %% [markdown]
# - Decodable does not mean used: see [decodable, and used?](#decodable-and-used).
# - The text takes the class from the image tokens early: see
#   [from which layer on](#from-which-layer-on-does-the-answer-no-longer-depend-on-the-image).
# - Skip a block to see whether it does harm: see [which block does harm?](#which-block-does-harm).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("07_is_it_used")
