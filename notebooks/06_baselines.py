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
# # 6. Traditional classifiers
#
# **Question.** Do MLLMs fall short of networks that are built for nothing but classification, by how much, and how
# much of that is the way in which those networks were chosen?
#
# *Prerequisites:* [chapter 2](02_fine_tuning). *Time:* 20 minutes to read; seconds to run once the networks are
# trained.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: those of data/book.yml
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import start

chapter = start(globals()).with_baselines()
chapter.opening()

# %% [markdown]
# ## Who is in the list
#
# Figure 1 of {cite:t}`zhu-2026` sets bars of traditional methods, in four categories, beside those of medical MLLMs.
# It prints no numbers, and no table names the methods: the text cites a part of them and says that it follows the
# comparison of {cite:t}`ren-2025`. So every {term}`baseline` here carries its status.

# %%
import pandas as pd
from mlprobe_utils.evaluation.names import CATEGORIES
from mlprobe_utils.pipeline.baseline_card import STATUSES, all_baselines

listed = all_baselines()
kinds = pd.DataFrame([(card.status, card.category) for card in listed])
counts = pd.crosstab(kinds[0], kinds[1])
counts = counts.reindex([*STATUSES], columns=[*CATEGORIES], fill_value=0)

# %%
from mlprobe_utils.plots.tables import show

counted = counts.assign(all=counts.sum(axis=1)).rename_axis("status")
counted.insert(0, "meaning", [*STATUSES.values()])
show(counted.rename_axis(columns=None).reset_index())

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import glue
from mlprobe_utils.pipeline.cards import load_protocol

recipe_of_run = chapter.protocol.baselines
glue("listed", len(listed))
glue("cited", sum(card.status == "cited" for card in listed))
glue("guessed", sum(card.status == "inferred" for card in listed))
glue("paper_side", load_protocol("paper").baselines.side)

# %%
from mlprobe_utils.analysis.baselines import baseline_table

show(baseline_table(listed))

# %% [markdown]
# Of {glue:text}`listed` architectures {glue:text}`cited` are certain and {glue:text}`guessed` are candidates that we
# chose to fill their category. The table says how each is built in the size of its original, as the `paper` protocol
# does for images of {glue:text}`paper_side` pixels. This run trains these:

# %%
from mlprobe_utils.analysis.baselines import trained

slugs = [card.slug for card in chapter.baselines]
networks = trained(chapter.selection, slugs)

# %%
variant = recipe_of_run.variant
show(baseline_table(chapter.baselines, variant, networks))

# %% tags=["hide-input"]
start_of = "from the hub" if recipe_of_run.pretrained else "random"
left_out = ", ".join(recipe_of_run.left_out) or "none"
glue("trained", len(chapter.baselines))
glue("start_of", start_of)
glue("left_out", left_out)

# %% [markdown]
# These are {glue:text}`trained` of the {glue:text}`listed`; named by the protocol as left out: {glue:text}`left_out`.
# Their first weights are {glue:text}`start_of`. Whether those of {cite:t}`ren-2025` were pretrained is not said
# there, and it matters much on a few hundred images. **Small networks, trained from scratch, say nothing about their
# originals.**
#
# The recipe, with that of the `paper` protocol:

# %%
show(chapter.recipe("baselines"))

# %% [markdown]
# ## Bars by category
#
# Accuracy on the test images: of networks at the epoch that the protocol chooses, of MLLMs the final output after
# fine-tuning, each the mean over its runs. The scope of this page is *{glue:text}`scope`*: only where networks and MLLMs
# both have several runs (*retrained model*) do intervals allow for another training; of *these weights* they hold for
# other images from where these came from (whole patients and {term}`duplicate groups <duplicate group>` are drawn) and say
# nothing of the training. Collapsed runs of MLLMs: {glue:text}`collapsed`. General models that
# others were adapted from are left out, as in the paper. Beside them stands what needs no LLM: each model's vision tower,
# frozen as it was pretrained, with a linear head on the mean of its last tokens. The authors of MedSigLIP, the tower of
# MedGemma, recommend it in this way where images are to be classified.

# %%
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.cards import bases

predicted = results.prediction_rows(chapter.selection)
general = bases(chapter.models)
medical = predicted[~predicted["model"].isin(general)]
answers = medical[medical["stage"] == "finetuned"]

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import collapsed_in_words

glue("collapsed", collapsed_in_words(medical, chapter.names))

# %%
from mlprobe_utils.analysis.baselines import OF_PROTOCOL, comparisons

rule = OF_PROTOCOL[recipe_of_run.chosen]
given = chapter.baselines, chapter.image_sets, split_rule
towers = results.frozen_tower_rows(chapter.selection)
compared = comparisons(networks, answers, towers, *given, rule)

# %% tags=["hide-input"]
from mlprobe_utils.analysis.baselines import accuracies, group_means
from mlprobe_utils.evaluation.metrics import control_scores
from mlprobe_utils.evaluation.names import MAJORITY

each, means = accuracies(compared), group_means(compared)
of_images = results.image_control_rows(chapter.selection)
scores = control_scores(of_images, chapter.positives)
blind = scores[scores["control"] == MAJORITY]
majority = dict(zip(blind["dataset"], blind["accuracy"], strict=True))

# %%
from mlprobe_utils.analysis.baselines import TOWER_OF
from mlprobe_utils.plots.forest import accuracy_chart

title, names = "Traditional classifiers and MLLMs", dict(chapter.names)
names |= {TOWER_OF + m: f"tower of {names[m]}" for m in chapter.models}
accuracy_chart(each, means, majority, names, title)

# %%
scopes = {comparison.scope for comparison in compared.values()}
glue("scope", ", ".join(sorted(scopes)))
show(chapter.named(means))

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.names import FROZEN_TOWER, MLLM

above = each["low"] > each["dataset"].map(majority)
kind = each["group"].map({MLLM: "mllms", FROZEN_TOWER: "towers"})
for one in ("networks", "mllms", "towers"):
    own = above[kind.fillna("networks") == one]
    glue(f"{one}_above", int(own.sum()))
    glue(f"{one}_all", len(own))

# %% [markdown]
# A bar is worth little below the accuracy of naming the most frequent class. Each by itself, its 95 % interval lies above it for
# {glue:text}`networks_above` of {glue:text}`networks_all` networks and for {glue:text}`mllms_above` of
# {glue:text}`mllms_all` MLLMs (pairs with a data set), and for {glue:text}`towers_above` of {glue:text}`towers_all`
# frozen towers.
#
# ## Do MLLMs match the average?
#
# Section 1 of the paper reads figure 1 so: MLLMs *struggle to match the average performance of traditional deep
# learning methods*. Here that is a difference on the same test images, mean of the MLLMs less mean of all networks,
# in points. It is negative where the sentence holds; what is {term}`significant` is decided among all data sets.

# %%
from mlprobe_utils.analysis.baselines import claims

stated = claims(compared)
show(chapter.named(stated))

# %% tags=["hide-input"]
from mlprobe_utils.analysis.baselines import ABOVE, BELOW, NEITHER

verdicts = stated["verdict"].value_counts()
for name, word in (("below", BELOW), ("above", ABOVE), ("open", NEITHER)):
    glue(f"sets_{name}", int(verdicts.get(word, 0)))
glue("sets", len(stated))
glue("alone_below", int(stated["MLLMs below"].sum()))
glue("alone_all", int(stated["MLLMs"].sum()))

# %% [markdown]
# On {glue:text}`sets_below` of {glue:text}`sets` data sets the MLLMs of this run lie below the average, on
# {glue:text}`sets_above` above it, and on {glue:text}`sets_open` the images cannot tell. Each for itself,
# {glue:text}`alone_below` of {glue:text}`alone_all` MLLMs lie significantly below.
#
# An average hides who is in it. The same difference from each category:

# %%
from mlprobe_utils.analysis.baselines import gaps

apart = gaps(compared)
show(chapter.named(apart))

# %% tags=["hide-input"]
glue("categories_below", int((apart["verdict"] == BELOW).sum()))
glue("categories_above", int((apart["verdict"] == ABOVE).sum()))
glue("categories_all", len(apart))

# %% [markdown]
# Of {glue:text}`categories_all` differences {glue:text}`categories_below` are significantly below 0 and
# {glue:text}`categories_above` above it. Where categories differ, the methods that are in a list, and how many
# of each category, decide a part of its average.
#
# ## Choosing on test
#
# The published code of {cite:t}`ren-2025` evaluates on the test folder after every epoch and keeps the best epoch.
# Bars that were made so are the highest of many, picked with the answers at hand. Here every network was evaluated on
# validation and test images after each epoch, so that three choices can be compared on the same training: the last
# epoch, the best on validation, the best on test.

# %%
from mlprobe_utils.analysis.baselines import additions
from mlprobe_utils.stats.paired import ALPHA

drawn = {slug: comparison.drawn for slug, comparison in compared.items()}
added = additions(networks, drawn)
show(chapter.named(added))

# %% tags=["hide-input"]
glue("added_least", added["added"].min())
glue("added_most", added["added"].max())
glue("left_least", added["left"].min())
glue("left_most", added["left"].max())
told = (added["p (Holm)"] < ALPHA) & (added["left"] > 0)
glue("left_told", int(told.sum()))

# %% [markdown]
# Choosing on test would have added {glue:text}`added_least:.1f` to {glue:text}`added_most:.1f` points to the mean of
# the networks over choosing on validation (intervals: the choice made anew in every resample). It cannot be less than
# nothing, so that its interval proves nothing. What is *left* can: the same choice made on one half of the test images
# and counted on the other, {glue:text}`left_least:+.1f` to {glue:text}`left_most:+.1f` points, significantly more than nothing on
# {glue:text}`left_told` of {glue:text}`sets` data sets. What is added and not left was never a property of the network.
# What is left is one, and still not fair: where test images are of another mix than those that train and validate, as
# with Chest-Xray ([chapter 1](01_datasets)), some epochs suit that mix better, and only who looks at the test set can
# know which.
#
# For each network, with the epochs that were chosen:

# %%
from mlprobe_utils.analysis.baselines import addition_of_each
from mlprobe_utils.plots.tables import file

of_each = addition_of_each(networks, drawn)
by_name = of_each.replace({"baseline": chapter.names})
file(chapter.named(by_name), "Choosing an epoch on test")

# %% [markdown]
# Something is added even if all epochs are equally good, because the highest of several noisy numbers is too high.
# Simulated: so many epochs, every one with the same true accuracy, on test sets of the paper's sizes, and the
# correlation between what two of them get right as given.

# %%
from mlprobe_utils.pipeline.published import origin, simulated

chance = simulated("best_epoch")
show(chance, decimals=2)

# %% tags=["hide-input"]
by_epochs = chance.groupby("epochs")["added"].agg(["min", "max"])
for name, end in (("few", 0), ("many", -1)):
    glue(f"epochs_{name}", by_epochs.index[end])
    glue(f"{name}_least", by_epochs["min"].iloc[end])
    glue(f"{name}_most", by_epochs["max"].iloc[end])
glue("chance_origin", origin("best_epoch"))

# %% [markdown]
# With {glue:text}`epochs_few` epochs to choose from, nothing but chance adds {glue:text}`few_least:.1f` to
# {glue:text}`few_most:.1f` points, the more the smaller the test set is and the less epochs agree; with
# {glue:text}`epochs_many`, {glue:text}`many_least:.1f` to {glue:text}`many_most:.1f`. A difference of that size between a
# method that was chosen on test and one that was not says nothing. (Simulated {glue:text}`chance_origin`.)
#
# ## What it cannot tell
#
# - **Which methods figure 1 shows.** Half of the list is our guess, and a guess that changes a category changes its
#   mean.
# - **What the bars of figure 1 are.** It prints no numbers; whether its networks were pretrained, and how their
#   epochs were chosen, is not said.
# - **What other trainings would give**, where the scope is *these weights*. And one recipe served all networks, tuned for
#   none.
# - **Who would win on equal terms.** An MLLM brings what it was pretrained on, a miniature too; a network of random first
#   weights has seen nothing but the training images.
# - **Anything of the originals**, where the page is of small variants or of phantoms, or of the MLLMs that miniatures
#   stand for.
#
# ## Takeaways
#
# - A list of competitors is part of the result: say who is in it and why, see [who is in the
#   list](#who-is-in-the-list).
# - "Below the average" is a difference with an interval, see [do MLLMs match the average](#do-mllms-match-the-average).
# - The best of many epochs on the test images is too high by construction, see [choosing on test](#choosing-on-test).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("06_baselines")
