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
# **Question.** What are the models made of, where do they come from, and how were they trained?
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
# A card is a file in `data/models/`. An empty cell is a fact that the card does not give. The memory of the weights is
# the number of parameters times the bytes of their precision. The shape and training of a miniature are set in
# `data/`, and its parameters are counted in its weights once these are made.

# %%
from mlprobe_utils.book.model_table import model_table
from mlprobe_utils.pipeline.cards import ModelCard, load_model_card, slugs
from mlprobe_utils.synthetic.miniatures.recipe import described

cards = [described(load_model_card(slug)) for slug in slugs(ModelCard)]
model_table(cards, chapter.selection.models)

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import say

made = sum(card.is_miniature for card in cards)
say(
    f"{made} of the {len(cards)} models with a card are miniatures, made",
    "here. The weights of the others are where `source` says, and are loaded when a",
    f"run names them. Models in this run: {len(chapter.models)}. The page of",
    "each shows its curves and scores.",
)

# %% [markdown]
# Chapters [2](02_fine_tuning.ipynb), [3](03_probing.ipynb) and [5](05_feature_health.ipynb) compare the models of this run.
#
# ## Before you run a full-size model
#
# Who may download it, how large it is, at which size it receives an image, how long it thinks before it answers, and what else
# to know.

# %%
from mlprobe_utils.book.model_table import first_met
from mlprobe_utils.pipeline.cards import load_protocol

real = [card for card in cards if not card.is_miniature]
first_met(real, load_protocol("paper"))

# %% [markdown]
# A model that thinks needs long answers, and each token takes a forward pass of the LLM. A thought that reaches the limit
# leaves the answer [unparsed](../book/glossary.md#unparsed); [chapter 2](02_fine_tuning.ipynb) gives the share.
#
# ## The paper's own table
#
# Table S1 of [Zhu et al. (2026)](../book/bibliography.md#zhu-2026) as published, without its columns of prose. B stands for billion. The
# cards above use its words, but name the exact checkpoint as base model. Their parameters are counted from the architectures:
# `python benchmarks/parameter_counts.py` does it again, part by part.

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
sizes = " to ".join(dict.fromkeys([known[0], known[-1]])) if known else "?"

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import answer

with_card = paper["model"].isin([card.name for card in cards]).sum()

# %% [markdown]
# ## Takeaways

# %% tags=["hide-input", "answer"]
answer(
    f"The paper's {len(paper)} models have {billions.min():.2f}B to",
    f"{billions.max():.2f}B parameters, and {with_card} of them have a card",
    f"here. Those of this run have {sizes} parameters. A miniature, counted",
    "in millions (M), has the layout of a large model and nothing of its",
    "knowledge.",
)

# %% [markdown]
# - A card says what a model is and what it takes to run it: see [every model that has a card](#every-model-that-has-a-card).
# - Full-size models differ in access, image size and length of their answers: see
#   [before you run a full-size model](#before-you-run-a-full-size-model).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("models")
