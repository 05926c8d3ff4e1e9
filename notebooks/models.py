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
# # The models
#
# **Question.** What are the models made of, where do they come from, and what were they taught?
#
# *Prerequisites:* none. *Time:* 5 minutes to read; seconds to run.

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
# ## Every model that has a card
#
# A card is a file in `data/models/`. What is empty is not said by the card; the memory of the weights is their number
# times the bytes of their precision. The shape and the training of a miniature are read off its recipe, and its
# parameters are counted in its weights if these are made already.

# %%
from mlprobe_utils.book.model_table import model_table
from mlprobe_utils.pipeline.cards import ModelCard, load_model_card, slugs
from mlprobe_utils.synthetic.miniatures.recipe import described

cards = [described(load_model_card(slug)) for slug in slugs(ModelCard)]
model_table(cards, chapter.selection.models)

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import glue

glue("cards", len(cards))
glue("of_run", len(chapter.models))
glue("miniatures", sum(card.is_miniature for card in cards))

# %% [markdown]
# Of the {glue:text}`cards` models with a card, {glue:text}`miniatures` are miniatures, made here; the weights of all
# others are where `source` says, and are read once a run names them. This run follows {glue:text}`of_run`: the page of
# each shows its curves and scores, and chapters [2](02_fine_tuning), [3](03_probing) and [4](04_feature_health) set
# them beside each other.
#
# ## What a user of each model meets first
#
# The models that are not made here: who may download them, how large they are, how they read an image, how long they
# think before they answer, and what else there is to know.

# %%
from mlprobe_utils.book.model_table import first_met
from mlprobe_utils.pipeline.cards import load_protocol

real = [card for card in cards if not card.is_miniature]
first_met(real, load_protocol("paper"))

# %% [markdown]
# A model that thinks needs long answers, and each token takes a pass through the LLM. A thought that reaches the limit
# leaves the answer {term}`unparsed`; [chapter 2](02_fine_tuning) gives the share.
#
# ## The paper's own table
#
# Table S1 of {cite:t}`zhu-2026` as it is printed, without its columns of prose. B stands for billion. The cards
# above use its words, but name the very checkpoint as base model. Their parameters are counted from the architectures,
# which `python benchmarks/parameter_counts.py` does again, part by part.

# %%
from mlprobe_utils.pipeline.published import published
from mlprobe_utils.plots.tables import show

paper = published()
show(paper)

# %% tags=["hide-input"]
from mlprobe_utils.book.model_table import parameters_of
from mlprobe_utils.pipeline.published import short

billions = paper["parameters"].str.removesuffix("B").astype(float)
counted = [parameters_of(card) for card in chapter.models.values()]
known = [short(count) for count in sorted(filter(None, counted))]
glue("paper_models", len(paper))
glue("smallest", f"{billions.min():.2f}B")
glue("largest", f"{billions.max():.2f}B")

# %% tags=["hide-input"]
sizes = " to ".join(dict.fromkeys([known[0], known[-1]])) if known else ""
glue("sizes", sizes or "an unknown number of parameters")
with_card = paper["model"].isin([card.name for card in cards])
glue("with_card", with_card.sum())

# %% [markdown]
# The {glue:text}`paper_models` models of the paper, {glue:text}`with_card` of them with a card, have
# {glue:text}`smallest` to {glue:text}`largest` parameters; those of this run have {glue:text}`sizes`. A miniature,
# counted in millions (M), has the layout of the large ones and nothing of what they know.

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("models")
