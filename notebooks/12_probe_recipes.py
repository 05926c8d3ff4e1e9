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
# # 12. What the probe's recipe decides
#
# **Question.** How much of a probing curve is the model's, and how much is the probe's: its form, its scale, the layer it
# was fitted at, and the number of images it learned from?
#
# *Prerequisites:* [chapter 3](03_probing). *Time:* 20 minutes to read; half a minute to run once the probes exist.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: those of data/book.yml
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper
metric: str = ""  # accuracy, or balanced accuracy of very unequal classes; or f1, mcc, …

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import start

chapter = start(globals())
chapter.opening()

# %% [markdown]
# ## The recipes
#
# The same features, of the first run, are read by several probes. They are variants of the protocol's probe: each changes
# one thing, the steps of the training following where it must.

# %% tags=["hide-input"]
recipes, differs = chapter.protocol.probes, {}
main = recipes["main"].model_dump()
for name, probe in recipes.items():
    own = {key: v for key, v in probe.model_dump().items() if v != main[key]}
    said = [f"{key} {v} (main: {main[key]})" for key, v in own.items()]
    said = ", ".join(said).replace("_", " ")
    differs[name] = said or "nothing: it is the one of all other chapters"

# %% tags=["hide-input"]
import pandas as pd
from mlprobe_utils.plots.tables import show

show(pd.DataFrame(differs.items(), columns=["recipe", "differs in"]))

# %% [markdown]
# What each gives beyond the main recipe: accuracy on the image tokens, mean over the points of a module, after
# fine-tuning, on the same test images. *places* is the main recipe on the second pooling, which keeps where in the image
# a token is ({term}`places`); all others read the mean. *Significant* are the changes for which an exact paired test says so, corrected
# for their number over the whole file ({term}`Holm <Holm correction>`). Probes with fewer images have a table below.

# %%
from mlprobe_utils.analysis.probe_recipes import recipe_changes
from mlprobe_utils.evaluation.points import PLACES
from mlprobe_utils.pipeline import results

# %%
of = {"stage": "finetuned", "run": 0, "pooling": "image_mean"}
select = chapter.selection
rows = {name: results.probe_rows(select, name, **of) for name in recipes}
of_places = results.probe_rows(select, **of | {"pooling": PLACES})
rows["places"] = of_places
changes = recipe_changes(rows, chapter.image_sets, split_rule)

# %%
from mlprobe_utils.stats.paired import ALPHA, counted

shares = {name: probe.training_fraction for name, probe in recipes.items()}
share = changes["recipe"].map(shares)
few = share[share < shares["main"]]
few = few.sort_values(ascending=False, kind="stable").index
by = ["dataset", "recipe", "module"]
others = counted(changes.drop(index=few), "change", by)
show(chapter.named(others))

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import file

file(chapter.named(changes), "What each recipe gives, with intervals")

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import glue

told = changes[changes["p (Holm)"] < ALPHA]
glue("changes", len(changes))
glue("told", len(told))
glue(
    "widest",
    (changes["high"] - changes["low"]).mean() if len(changes) else 0.0,
)

# %% [markdown]
# {glue:text}`told` of {glue:text}`changes` changes are significant; an interval is {glue:text}`widest:.1f` points wide on
# average. They hold for these probes on new images.
#
# The curves of the model that a recipe changes most:

# %%
from mlprobe_utils.pipeline import scoring
from mlprobe_utils.plots import charts

by_size = changes.sort_values("change", key=abs, ascending=False)
first = [*by_size["model"], *chapter.selection.models][0]
scores = {name: scoring.probe_scores(select, name) for name in recipes}
own = f"run == 0 and model == '{first}' and pooling == 'image_mean'"
scores = {name: of_all.query(own) for name, of_all in scores.items()}
charts.recipe_curves(scores, chapter.names, chapter.metric)

# %% [markdown]
# ### Information or scale
#
# The paper does not say that features are {term}`standardised` before a probe sees them. Without it (*raw*), a probe that is
# trained with one learning rate for all layers also measures how large a layer's features are. The features are the
# same to the last bit, so that no difference of the two is one of information.

# %%
from mlprobe_utils.analysis.probe_recipes import extremes

show(chapter.named(extremes(changes, "raw")))

# %% [markdown]
# These are the largest changes in each data set, with their intervals.
#
# ### Linear or not
#
# A linear probe asks whether the classes lie on two sides of a plane; the paper's two layers can bend it. What only the
# second finds is there, and the next linear layer of the model cannot take it up as it is.

# %%
show(chapter.named(extremes(changes, "linear")))

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import in_words

linear = changes[changes["recipe"] == "linear"]
certain = linear.loc[linear["p (Holm)"] < ALPHA, "change"]
glue("linear", in_words(linear, "change"))
glue("linear_lower", int((certain < 0).sum()))
glue("linear_higher", int((certain > 0).sum()))
glue("linear_all", len(linear))

# %% [markdown]
# On average linear probes differ from the main ones by {glue:text}`linear` points. They are significantly worse in
# {glue:text}`linear_lower` and better in {glue:text}`linear_higher` of {glue:text}`linear_all` cases. Better is possible:
# on few images, a probe that can bend may bend to what is chance.
#
# ### Mean or places
#
# The mean over an image's tokens forgets which token is where. What a probe finds in the places and not in the mean is
# there, and [chapter 3](03_probing) shows what that does to a curve.

# %%
show(chapter.named(extremes(changes, "places")))

# %% tags=["hide-input"]
placed = changes[changes["recipe"] == "places"]
gained = placed[placed["p (Holm)"] < ALPHA].groupby("module")["change"]
parts = gained.agg(["size", "mean"]).itertuples()
by_module = [f"{m}: {int(n)}, {v:+.1f} on average" for m, n, v in parts]
glue("placed", "; ".join(by_module) or "none")
glue("placed_of", len(placed) // 3)

# %% [markdown]
# Significant changes by module, of {glue:text}`placed_of` pairs of model and data set each, and their mean in points:
# {glue:text}`placed`.
#
# ## Fewer labels
#
# A representation in which the class lies open needs few examples. The same probes with a share of the training
# images, of each class; smaller shares are part of larger ones, and about as many steps are taken.

# %%
fewer = counted(changes.loc[few], "change", by)
show(chapter.named(fewer))

# %% tags=["hide-input"]
groups = fewer.groupby("recipe", sort=False)
said = [f"{name}: {in_words(own, 'change')} points" for name, own in groups]
glue("fewer", "; ".join(said) or "this protocol has no such recipe")

# %% [markdown]
# Mean over models and data sets: {glue:text}`fewer`. If a module loses less than the one before it, it has brought the
# class into a form that is easier to learn, even where the curve with all images is flat. One draw of images was made; another would
# give somewhat other numbers, and the interval does not allow for that.
#
# ## A probe of one layer, read at another
#
# The class may be there at two layers and be written differently. So each LLM layer's probe also reads the other layers:
# their features are standardised by their own statistics, and nothing is fitted again.

# %%
from mlprobe_utils.analysis.probe_recipes import transfer_scores
from mlprobe_utils.plots.squares import transfer_squares

tuned = results.transfer_rows(chapter.selection, stage="finetuned")
of_first = tuned[tuned["model"] == first]
transfer_squares(transfer_scores(of_first), chapter.names)

# %% [markdown]
# The diagonal holds each layer's own probe. Of all models, the accuracy with another layer's probe less that with the
# layer's own:

# %%
from mlprobe_utils.analysis.probe_recipes import transfer_losses
from mlprobe_utils.evaluation.points import POOLING_NAMES
from mlprobe_utils.stats.paired import of_mean

lost = transfer_losses(tuned, chapter.image_sets, split_rule)
summary = of_mean(lost, "change", ["pooling", "probe of"])
show(summary.replace({"pooling": POOLING_NAMES}))

# %% tags=["hide-input"]
file(chapter.named(lost), "Probes read at other layers, with intervals")

# %% tags=["hide-input"]
from itertools import product

names = {"image": "image_mean", "last": "last_token"}
kinds = {"next": "the layer before", "far": "the first layer, at the last"}
for (name, pooling), (word, kind) in product(names.items(), kinds.items()):
    own = lost[(lost["pooling"] == pooling) & (lost["probe of"] == kind)]
    told = own[(own["p (Holm)"] < ALPHA) & (own["change"] < 0)]
    glue(f"{name}_{word}", in_words(own, "change"))
    glue(f"{name}_{word}_told", len(told))

# %% tags=["hide-input"]
glue("pairs", len(lost.drop_duplicates(["dataset", "model"])))

# %% [markdown]
# With the probe of the layer before, image tokens give {glue:text}`image_next` points and the last token
# {glue:text}`last_next`, a significant loss in {glue:text}`image_next_told` and {glue:text}`last_next_told` of
# {glue:text}`pairs` pairs of model and data set; with the first layer's probe at the last layer {glue:text}`image_far`
# and {glue:text}`last_far` points, significant in {glue:text}`image_far_told` and {glue:text}`last_far_told`. Where a probe
# carries over, layers share a code for the class; where it does not, the class was rewritten and not lost, since the layer's own
# probe still reads it.
#
# ## What it cannot tell
#
# - **Which recipe is right.** Each answers another question. What matters is that all layers are probed with the same one.
# - **What a larger probe would find**, or one that reads single tokens.
# - **How many labels the model itself would need**: the features of these curves are of a model that was fine-tuned on
#   all training images.
# - **That two layers mean the same**, because a probe carries over: it reads one direction of many.
#
# ## Takeaways
#
# - A curve has a recipe, and a claim about a layer should survive another: see [the recipes](#the-recipes).
# - Without standardising, a probe measures scale as well: see [information or scale](#information-or-scale).
# - What is there need not be written in one code: see
#   [a probe of one layer, read at another](#a-probe-of-one-layer-read-at-another).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("12_probe_recipes")
