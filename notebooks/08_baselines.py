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
# # 8. Traditional classifiers
#
# **Question.** Are MLLMs less accurate than networks built for nothing but classification, by how much, and how much of the
# difference comes from the way in which those networks were chosen?
#
# *Prerequisites:* [chapter 2](02_fine_tuning.ipynb). *Time:* 20 minutes to read; seconds to run once the networks are
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
# Figure 1 of [Zhu et al. (2026)](../book/bibliography.md#zhu-2026) shows bars of traditional classifiers, in four
# categories, beside bars of medical MLLMs. Section 1 concludes that MLLMs *struggle to match the average performance of
# traditional deep learning methods*. This page makes the same comparison with its own networks and MLLMs. Which methods
# figure 1 contains is partly a guess: see [which methods](#which-methods).
#
# ## Accuracy by category
#
# The chart shows accuracy on the test images: for networks at the epoch that the protocol selects, for MLLMs the [final
# output](../book/glossary.md#final-output) after fine-tuning, averaged over runs. General models from which others were
# adapted are left out, as in the paper. For comparison, the chart has what needs no LLM: each model's frozen vision tower
# with a linear head on the mean of its last tokens, as the authors of MedSigLIP recommend it for classification.

# %%
import pandas as pd
from mlprobe_utils.analysis.baselines import trained
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.cards import bases

slugs = [card.slug for card in chapter.baselines]
networks = trained(chapter.selection, slugs)
predicted = results.prediction_rows(chapter.selection)
medical = predicted[~predicted["model"].isin(bases(chapter.models))]

# %%
from mlprobe_utils.analysis.baselines import OF_PROTOCOL, comparisons

settings = chapter.protocol.baselines
rule = OF_PROTOCOL[settings.chosen]
given = chapter.baselines, chapter.image_sets, split_rule
towers = results.frozen_tower_rows(chapter.selection)
answers = medical[medical["stage"] == "finetuned"]
compared = comparisons(networks, answers, towers, *given, rule)

# %% tags=["hide-input"]
from mlprobe_utils.analysis.baselines import accuracies, group_means
from mlprobe_utils.evaluation.metrics import control_scores
from mlprobe_utils.evaluation.names import MAJORITY

each, means = accuracies(compared), group_means(compared)
of_images = results.image_control_rows(chapter.selection)
scores = control_scores(of_images, chapter.positives).set_index("control")
majority = scores.loc[[MAJORITY]].set_index("dataset")["accuracy"].to_dict()

# %% tags=["hide-input"]
from mlprobe_utils.analysis.baselines import TOWER_OF
from mlprobe_utils.plots.forest import accuracy_chart

title, names = "Traditional classifiers and MLLMs", dict(chapter.names)
names |= {TOWER_OF + m: f"vision tower of {names[m]}" for m in chapter.models}
accuracy_chart(each, means, majority, names, title)

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import show

cell = "{r.value:.1f} ({r.low:.1f} to {r.high:.1f})".format
grid = chapter.named(means)
grid["mean"] = [cell(r=row) for row in grid.itertuples()]
grid = grid.set_index(["group", "members", "dataset"])["mean"]
show(grid.unstack(sort=False).rename_axis(columns=None).reset_index())

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import collapsed_in_words

scopes = ", ".join(sorted({own.scope for own in compared.values()}))
say_scope = (
    f"Mean accuracy in percent with its 95 % interval; scope: *{scopes}*."
)
no_runs = collapsed_in_words(medical, chapter.names)

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import say

say(say_scope, f"Collapsed runs of MLLMs: {no_runs}.")

# %% [markdown]
# In the scope *retrained model*, which needs several runs of all networks and MLLMs, intervals allow for another training.
# In the scope *fixed model* they allow for other test images only (whole patients and [duplicate
# groups](../book/glossary.md#duplicate-group) are resampled).
#
# A classifier is of little use if it is not more accurate than always naming the most frequent class:

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.names import CATEGORIES, FROZEN_TOWER, MLLM

kinds = {MLLM: "MLLMs", FROZEN_TOWER: "frozen towers"}
kinds |= dict.fromkeys(CATEGORIES, "traditional networks")
above = each["low"] > each["dataset"].map(majority)
by_kind = above.groupby(each["group"].map(kinds), sort=False)

# %% tags=["hide-input"]
say(
    "The 95 % interval lies above the majority class for",
    ", ".join(f"{int(own.sum())} of {len(own)} {k}" for k, own in by_kind),
    "(pairs with a data set, each by itself).",
)

# %% [markdown]
# ## Do MLLMs match the average?
#
# The claim is about a difference on the same test images: mean of the MLLMs minus mean of all networks, in percentage
# points. It is negative where the claim holds. [Significance](../book/glossary.md#significant) is corrected for all data
# sets.

# %%
from mlprobe_utils.analysis.baselines import claims

stated = claims(compared)
show(chapter.named(stated).drop(columns="p"))

# %% tags=["hide-input"]
from mlprobe_utils.analysis.baselines import ABOVE, BELOW

verdicts = stated["verdict"].value_counts()
fewer, more = (int(verdicts.get(word, 0)) for word in (BELOW, ABOVE))
gap = "{r.difference:+.1f} pp ({r.low:+.1f} to {r.high:+.1f}) on {r.dataset}"
listed = chapter.named(stated).itertuples()
by_set = ", ".join(gap.format(r=row) for row in listed)

# %% tags=["hide-input"]
finding = (
    f"On {fewer} of {len(stated)} data sets the MLLMs of this run are"
    f" significantly below the average of the traditional networks, on"
    f" {more} significantly above it: {by_set}."
)
alone = f"{stated['MLLMs below'].sum()} of {stated['MLLMs'].sum()}"
say(finding, f"Individually significantly below: {alone} MLLMs.")

# %% [markdown]
# An average hides its members. Here is the difference from each category:

# %% tags=["hide-input"]
from mlprobe_utils.analysis.baselines import SIDES, gaps
from mlprobe_utils.plots.forest import change_chart

apart = gaps(compared)
blocks = "MLLMs - " + apart["category"] + ": " + apart["scope"]
rows = apart.assign(model="mean of the MLLMs", statement=blocks)
heading = "Mean accuracy of the MLLMs minus that of each category"
change_chart(rows, chapter.names, heading, SIDES)

# %% tags=["hide-input"]
counts = apart["verdict"].value_counts()
down, up = (int(counts.get(word, 0)) for word in (BELOW, ABOVE))
say(
    f"Of {len(apart)} differences {down} are significantly below 0 and {up}",
    "significantly above. Where categories differ, the average depends on",
    "which methods are in the list, and on how many of each category.",
)

# %% [markdown]
# ## Choosing the epoch on test images
#
# The published code of [Ren et al. (2025)](../book/bibliography.md#ren-2025), whose comparison the paper follows, evaluates
# on the test folder after every epoch and keeps the best epoch. Such a bar is the highest of many values. Here every
# network was evaluated on validation and test images after each epoch, so three rules can be compared on the same
# training:

# %%
from itertools import product

from mlprobe_utils.analysis import baselines

rules = baselines.LAST, baselines.ON_VALIDATION, baselines.ON_TEST
chosen = [
    (dataset, one.slug, rule, baselines.epochs_chosen(one, rule))
    for dataset, own in networks.items()
    for one, rule in product(own, rules)
]

# %% tags=["hide-input"]
columns = ["dataset", "network", "rule", "epoch"]
epochs = pd.DataFrame(chosen, columns=columns).replace(chapter.names)
epochs["epoch"] = [", ".join(map(str, own + 1)) for own in epochs["epoch"]]
epochs = epochs.set_index(columns[:-1])["epoch"].unstack(sort=False)
epochs = epochs.rename_axis(columns=None).reset_index()
show(epochs, title="Epochs chosen")

# %% [markdown]
# The *apparent gain* is the accuracy of the test-chosen epoch minus that of the validation-chosen one, averaged over the
# networks. It cannot be negative, so an interval above 0 proves nothing. The *held-out gain* can be negative: the epoch is
# chosen on one half of the test images and evaluated on the other. All intervals are for these networks as they were
# trained.

# %%
from mlprobe_utils.analysis.baselines import APPARENT, HELD_OUT, additions

drawn = {slug: comparison.drawn for slug, comparison in compared.items()}
added = additions(networks, drawn)
show(chapter.named(added).drop(columns="p"))

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import ALPHA

held = (added["p (Holm)"] < ALPHA) & (added[HELD_OUT] > 0)
most = chapter.named(added.nlargest(1, APPARENT)).iloc[0]
ends = [f"{most[f'{APPARENT}, {end}']:.1f}" for end in ("low", "high")]
largest = (
    f"{most[APPARENT]:.1f} pp ({' to '.join(ends)}) on {most['dataset']}"
)
rest = f"{added[HELD_OUT].min():+.1f} to {added[HELD_OUT].max():+.1f} pp"

# %% tags=["hide-input"]
optimism = (
    f"Choosing the epoch on test images raises the mean of the networks by at"
    f" most {largest}. On test images that had no part in the choice,"
    f" {rest} remain,"
    f" significantly more than 0 on {held.sum()} of {len(added)} data sets."
)
say(optimism)

# %% [markdown]
# The part that does not remain was never a property of the network. The part that remains is one, and still unfair: where
# test images have another mix than those for training and validation, as in Chest-Xray ([chapter 1](01_datasets.ipynb)),
# some epochs suit this mix better, and only somebody who looks at the test set can know which.
#
# ### How much chance alone adds
#
# Even if all epochs are equally good, the best of several noisy values is too high. We simulated epochs of one true
# accuracy on test sets of the paper's sizes; *correlation* says how much two epochs agree on which images they classify
# correctly.

# %%
from mlprobe_utils.pipeline.published import origin, simulated

chance = simulated("best_epoch")
meanings = {"added": "apparent gain", "error": "standard error"}
few, many = chance["epochs"].min(), chance["epochs"].max()
show(chance.rename(columns=meanings), decimals=2)

# %% tags=["hide-input"]
spans = chance.groupby("epochs")["added"].agg(["min", "max"])
span = "{r[min]:.1f} to {r[max]:.1f} pp"
say(
    f"With {few} epochs to choose from, chance alone adds",
    f"{span.format(r=spans.loc[few])}: more on small test sets and where",
    f"epochs agree less; with {many} epochs, {span.format(r=spans.loc[many])}.",
    f"(Simulated {origin('best_epoch')}.)",
)

# %% [markdown]
# A difference of that size between a method chosen on test images and one that was not is no evidence.
#
# ## Which methods
#
# Figure 1 publishes no numbers, and no table lists its methods: the text cites some of them and refers to the comparison of
# [Ren et al. (2025)](../book/bibliography.md#ren-2025). So every [baseline](../book/glossary.md#baseline) here carries a
# status.

# %%
from mlprobe_utils.pipeline.baseline_card import STATUSES, all_baselines

known = all_baselines()
status = pd.DataFrame([(c.status, c.category) for c in known])
table = pd.crosstab(status[0], status[1])
table = table.reindex([*STATUSES], columns=[*CATEGORIES], fill_value=0)

# %% tags=["hide-input"]
counted = table.assign(all=table.sum(axis=1)).rename_axis("status")
counted.insert(0, "meaning", [*STATUSES.values()])
show(counted.rename_axis(columns=None).reset_index())

# %% tags=["hide-input"]
from mlprobe_utils.analysis.baselines import baseline_table
from mlprobe_utils.plots.tables import file

file(baseline_table(known), "Traditional classifiers")

# %% [markdown]
# This run trains the following, with the settings below. Whether the networks of
# [Ren et al. (2025)](../book/bibliography.md#ren-2025) were pretrained is not reported, and it matters on a few hundred
# images.

# %%
show(baseline_table(chapter.baselines, settings.variant, networks))

# %% tags=["hide-input"]
start_of = "from the hub" if settings.pretrained else "random"
omitted = ", ".join(settings.left_out) or "none"
say(
    f"Trained: {len(chapter.baselines)} of {len(known)}. Initial weights:",
    f"{start_of}. Left out by the protocol: {omitted}.",
)

# %%
show(chapter.recipe("baselines"))

# %% [markdown]
# ## Limits
#
# - **Which methods figure 1 shows.** A part of the list is our guess, and a guess that changes a category changes its mean.
# - **What the bars of figure 1 are.** It publishes no numbers, and not how epochs were chosen or whether networks were
#   pretrained.
# - **Other trainings**, where the scope is *fixed model*. All networks share one training setup, tuned for none.
# - **Equal terms.** An MLLM brings what it was pretrained on, a miniature too; a network with random initial weights has
#   seen nothing but the training images.
# - **The originals.** Small networks trained from scratch on phantoms say nothing about the full networks, and miniatures
#   say nothing about the MLLMs they stand for.
#
# ## Takeaways

# %% tags=["hide-input", "answer"]
from mlprobe_utils.book.chapter import answer

answer(finding, optimism)

# %% [markdown]
# - "Below the average" is a difference with an interval: see [do MLLMs match the average](#do-mllms-match-the-average).
# - The best of many epochs on the test images is too high by construction: see [choosing the epoch on test
#   images](#choosing-the-epoch-on-test-images).
# - The list of competitors is part of the result, so say who is in it and why: see [which methods](#which-methods).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("08_baselines")
