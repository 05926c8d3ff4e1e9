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
# # 2. Fine-tuning
#
# **Question.** How accurate are a model's answers before and after it is fine-tuned on a data set, and what does
# fine-tuning change in the model?
#
# *Prerequisites:* [chapter 1](01_datasets.ipynb). *Time:* 15 minutes to read; the fine-tuning itself is most of a run.

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
# ## How a model is fine-tuned
#
# The model is given an image and a question, and is trained to write one of the options. Its own weights $W$ stay as
# they are. Beside every linear layer, two small matrices $A$ and $B$ of rank $r$ are trained
# ([LoRA](../book/glossary.md#lora), [Hu et al. (2021)](../book/bibliography.md#hu-2021)):
#
# $$ y = W x + \frac{\alpha}{r} \, B A x $$
#
# In PyTorch, this is the update of one layer for one batch:
#
# ```python
# output = linear(x) + alpha / rank * (x @ A.T @ B.T)  # linear is frozen
# loss = torch.nn.functional.cross_entropy(answer_logits, answer_tokens)
# loss.backward()  # gradients of A and B alone
# ```
#
# [Chapter 0](00_by_hand.ipynb#lora-on-one-layer) runs this for one layer; `mp.fine_tune(loaded, images, question)` does
# it for all of them, on images of your own. The settings:

# %%
from mlprobe_utils.plots.tables import show

show(chapter.recipe("fine_tuning"))

# %% [markdown]
# Where the two columns differ, this run makes a concession to the size of its models or of the machine. What the paper
# does not state is marked in the [protocol](../book/glossary.md#protocol)'s file. Two decisions are in no table:
#
# - **Only the answer's tokens count in the loss.** Image and question are given, not predicted. Logits over a
#   real model's vocabulary at every image token would also fill the memory for nothing.
# - **The last epoch is used, not the best.** Choosing an epoch on the test images would bias the test; the validation
#   loss below shows what a choice might have gained.
#
# ## What is trained

# %%
from mlprobe_utils.evaluation.points import PROBED
from mlprobe_utils.pipeline import results

adapted = results.adapted_layers(chapter.selection)
adapted["module"] = adapted["module"].replace(PROBED)
by_module = adapted.groupby("module", sort=False)
trained = by_module[["layers", "parameters"]].agg(["min", "max"])
trained.columns = [f"{name}, {end}" for name, end in trained.columns]
show(trained.assign(models=by_module.size()).reset_index())

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import answer, say

per_model = adapted.groupby("model")["parameters"].sum()
trained_numbers = per_model.agg(["min", "max"]).map("{:,}".format)
megabytes = (per_model * 4 / 1e6).agg(["min", "max"]).map("{:.1f}".format)
size = " to ".join(dict.fromkeys(megabytes))

# %% tags=["hide-input"]
say(
    "All that fine-tuning leaves is an [adapter](../book/glossary.md#adapter)",
    f"of {' to '.join(dict.fromkeys(trained_numbers))} parameters per model:",
    f"{size} MB at four bytes each. It reaches {', '.join(trained.index)}.",
)

# %% [markdown]
# A curve that changes in [chapter 3](03_probing.ipynb) can therefore have changed in that module or in any before it.
#
# ## Learning curves

# %%
from mlprobe_utils.plots import charts, squares

curves = results.learning_curves(chapter.selection)
charts.learning_curves(curves, chapter.names)

# %% tags=["hide-input"]
final = curves[curves["epoch"] == curves["epoch"].max()]
of_adapter = curves.groupby(["model", "dataset", "run"])
lowest = of_adapter["validation_loss"].transform("min")[final.index]
rises = final["validation_loss"] > 1.05 * lowest

# %% tags=["hide-input"]
losses = final[["training_loss", "validation_loss"]].mean()
say(
    f"After {final['epoch'].max():.0f} epochs the mean loss is",
    f"{losses.iloc[0]:.2f} on the training images and {losses.iloc[1]:.2f} on",
    f"the validation images. For {rises.sum()} of {len(rises)} adapters, the",
    "validation loss ends more than 5 % above its minimum, a sign of",
    "overfitting.",
)

# %% [markdown]
# ## The final output, before and after
#
# The answer, or [final output](../book/glossary.md#final-output), is generated greedily. It counts as correct if it
# names the right option and no other; an answer that names none or several is
# [unparsed](../book/glossary.md#unparsed) and counts as incorrect. Accuracy with its 95 % interval, mean over runs;
# the least accurate after fine-tuning come first.

# %%
from mlprobe_utils.analysis import certainty
from mlprobe_utils.evaluation.names import OUTPUT
from mlprobe_utils.pipeline.tested import evaluated, means_over_runs

of_run = chapter.selection, chapter.image_sets
measured = evaluated(*of_run, certainty.outcomes_of)
tests = certainty.before_and_after(measured)
place = ["dataset", "model"]
changed = tests[tests["site"] == OUTPUT].groupby(place, sort=False).last()

# %%
from mlprobe_utils.stats.intervals import intervals, scope_of

numbers, accuracy = ["value", "low", "high"], {}
stages = [(stage, OUTPUT) for stage in ("pretrained", "finetuned")]
for (*where, stage, _), mean in means_over_runs(measured, *stages).items():
    own = intervals(mean, scope_of([mean])).loc[0, numbers]
    accuracy[*where, stage] = "{:.1f} ({:.1f} to {:.1f})".format(*own)

# %%
from mlprobe_utils.pipeline import scoring

outputs = scoring.output_scores(chapter.selection)
of_state = outputs.groupby([*place, "stage"])
means = of_state[["accuracy", "unparsed"]].mean().unstack("stage")

# %%
order = means["accuracy"]["finetuned"].sort_values(kind="stable").index
changed["change (pp)"] = [
    "{:+.1f} ({:+.1f} to {:+.1f})".format(*own)
    for own in changed[["change", "low", "high"]].to_numpy()
]

# %%
import pandas as pd

before_and_after = pd.Series(accuracy).unstack().rename_axis(place).loc[order]
before_and_after = before_and_after[[stage for stage, _ in stages]]
before_and_after = before_and_after.join(changed[["change (pp)", "verdict"]])
before_and_after["unparsed before"] = means["unparsed"]["pretrained"]
before_and_after["unparsed after"] = means["unparsed"]["finetuned"]

# %%
from mlprobe_utils.evaluation.health import STAGE_NAMES

said = before_and_after.rename_axis(place).reset_index()
show(
    said.replace(chapter.names).rename(columns=STAGE_NAMES),
    title="Accuracy before and after fine-tuning",
)

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import in_words

level = outputs.groupby("stage")[
    ["accuracy", "unparsed", "thought_cut"]
].mean()
up = (changed["verdict"] == "higher").sum()
gain, (before, tuned) = in_words(changed, "change"), level["accuracy"][::-1]

# %% tags=["hide-input"]
say(
    f"Fine-tuning changes accuracy by {gain} pp on average, from {before:.1f} to",
    f"{tuned:.1f} %. Significant gains: {up} of {len(changed)}.",
)

# %% tags=["hide-input"]
silent, after = level["unparsed"][::-1]
cut = level["thought_cut"].mean()
say(
    f"Before fine-tuning {silent:.1f} % of the answers are unparsed, after it",
    f"{after:.1f} %. Reaching the limit of tokens within a",
    f"[thought](../book/glossary.md#thought) is the reason for {cut:.1f} % of",
    "all answers.",
)

# %% [markdown]
# A model that was never trained to answer scores nothing by this measure, whatever its layers encode: hence the probes of
# [chapter 3](03_probing.ipynb). Intervals and tests hold for
# [retrained models](../book/glossary.md#retrained-model) where runs are known to differ, else for
# [fixed models](../book/glossary.md#fixed-model); tests are corrected for all tests of a scope.
#
# A mean over runs can hide a collapsed run: one that gives one answer to nearly all images, or never names a class that
# is there.

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import COLLAPSED, collapsed

rows = results.prediction_rows(chapter.selection)
stuck, adapters = collapsed(rows), len(rises)
say(
    f"{len(stuck)} of {adapters} fine-tuned runs have collapsed (one answer to",
    f"more than {COLLAPSED} % of the images, or a class never named).",
)

# %% tags=["hide-input"]
show(chapter.named(stuck), title="Collapsed runs")

# %% [markdown]
# ## What the models write
#
# The most frequent answers to the test images, over all models. Where *parsed* is empty, no single option was found.

# %%
from mlprobe_utils.plots.tables import file, frequent_answers

together = frequent_answers(rows.assign(model="all"), most=3)
show(chapter.named(together.drop(columns="model")))

# %% tags=["hide-input"]
each = chapter.named(frequent_answers(rows, most=3))
file(each, "Most frequent answers of each model")

# %% tags=["hide-input"]
unread = rows[(rows["split"] == "test") & rows["parsed"].isna()]
early = (unread["stage"] == "pretrained").sum()
say(
    f"Of all answers to test images {len(unread)} are unparsed, in",
    f"{unread['text'].nunique()} different wordings; {early} of them were written",
    "before fine-tuning.",
)

# %% [markdown]
# A text may describe the image well and still name no option. So part of an accuracy is about the form of the answer. Up
# to three unparsed answers of each data set, with their images:

# %% tags=["hide-input"]
from IPython.display import display
from mlprobe_utils.plots.tables import answered, unparsed_examples

examples = unparsed_examples(rows, most=3)
for dataset, of_dataset in examples.groupby("dataset"):
    display(answered(chapter.image_sets[dataset], of_dataset))

# %% [markdown]
# ## Where the fine-tuned answers go wrong
#
# Rows are true classes, columns are answers. A column that is dark in every row is a class that the model names whatever
# the image shows.

# %%
squares.confusion(rows[rows["stage"] == "finetuned"], chapter.names)

# %% tags=["hide-input"]
scored = rows[(rows["split"] == "test") & (rows["stage"] == "finetuned")]
correct = scored["parsed"] == scored["label"]
recall = 100 * correct.groupby([scored["dataset"], scored["label"]]).mean()
(low_set, low), (high_set, high) = recall.idxmin(), recall.idxmax()

# %% tags=["hide-input"]
say(
    f"The class missed most is {low} of {chapter.names[low_set]}: {recall.min():.1f}",
    f"% of its images are recognised. Of {high} ({chapter.names[high_set]}), it",
    f"is {recall.max():.1f} %.",
)

# %% [markdown]
# ## What accuracy does not say
#
# Where one class is frequent, naming it is rewarded. [Balanced accuracy](../book/glossary.md#balanced-accuracy) takes
# that reward away; [sensitivity](../book/glossary.md#sensitivity) and
# [specificity](../book/glossary.md#specificity) say on which side a model errs. After fine-tuning, in percent, with 95 %
# intervals; the cases with the largest gap between accuracy and balanced accuracy come first. (No interval: too few
# patients have one of the classes.)

# %%
from contextlib import suppress

from mlprobe_utils.common.errors import InputError

beside, wanted = {}, ("balanced_accuracy", "sensitivity", "specificity")
for name in wanted:
    with suppress(InputError):  # some resamples lack a class
        beside[name] = means_over_runs(measured, stages[1], metric=name)

# %%
cells = {}
for name, per_place in beside.items():
    for (*where, _, _), mean in per_place.items():
        own = intervals(mean, scope_of([mean])).loc[0, numbers]
        cells[*where, name] = "{:.1f} ({:.1f} to {:.1f})".format(*own)

# %%
tuned_scores = outputs[outputs["stage"] == "finetuned"].groupby(place)
points = tuned_scores.mean(numeric_only=True)
gap = points["accuracy"] - points["balanced_accuracy"]
further = points[["accuracy"]].join(
    pd.Series(cells, dtype=str).unstack().rename_axis(place)
)
further = further.loc[gap.sort_values(ascending=False).index].reset_index()
further = further.rename(columns=charts.METRIC_NAMES)

# %%
show(further.replace(chapter.names), title="What accuracy does not say")

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import METRICS

by_state = (
    of_state[[*METRICS, "unparsed", "thought_cut"]].mean().reset_index()
)
file(chapter.named(by_state), "All metrics of the final output")

# %% tags=["hide-input"]
place_of_least = points["specificity"].idxmin()
least, error = points.loc[place_of_least], points["calibration_error"].mean()
least_at = ", ".join(chapter.names[slug] for slug in reversed(place_of_least))

# %% tags=["hide-input"]
say(
    f"The lowest specificity is {least['specificity']:.1f} % ({least_at}), where",
    f"accuracy is {least['accuracy']:.1f} %. Accuracy minus balanced accuracy is",
    f"{gap.mean():+.1f} pp on average. The mean",
    f"[calibration error](../book/glossary.md#calibration-error) is {error:.1f} pp.",
)

# %% [markdown]
# These two means describe the models of this run, and have no interval. Some of the calibration error is chance: with
# few images, no probability meets its share exactly. The file also has
# F1, precision, recall, AUC, MCC and average precision: of the positive option, or
# [macro averages](../book/glossary.md#macro-average) where the data card names none.
#
# ## What another wording does
#
# So far, every accuracy belongs to one wording of the question. Here the first fine-tuned run of every model answers the
# same images again, without further training: with the options in reverse order, and to the `paraphrases` of the data
# card. The wordings of the first data set:

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.question import OWN_PROMPT, REVERSED

card = next(iter(chapter.datasets.values()))
texts = {
    OWN_PROMPT: card.template,
    REVERSED: "see the card: no option is a word",
}
texts |= card.other_prompts
show(pd.DataFrame(texts.items(), columns=["prompt", "text"]))

# %%
from mlprobe_utils.plots.forest import change_chart
from mlprobe_utils.stats.paired import WORDS

answered_again = results.prompt_rows(chapter.selection)
given = chapter.image_sets, chapter.selection.split_rule
moved = certainty.prompt_changes(answered_again, *given)

# %%
stated = moved.assign(statement=moved["prompt"])
title = "Accuracy under another wording - accuracy under the card's own"
nothing = say("The data cards have no other wording.")
drawn = (
    [change_chart(stated, chapter.names, title, WORDS)] if len(moved) else []
)
drawn[0] if drawn else nothing

# %% tags=["hide-input"]
file(chapter.named(moved), "Accuracy under every wording")

# %% tags=["hide-input"]
verdict = moved["verdict"].value_counts()
by_prompt = [
    f"{prompt} {in_words(own, 'change')}"
    for prompt, own in moved.groupby("prompt", sort=False)
]
leaves = moved["outside"].sum()

# %% tags=["hide-input"]
say(
    f"Accuracy is significantly lower in {verdict.get('lower', 0)} of",
    f"{len(moved)} cases and higher in {verdict.get('higher', 0)}, for these",
    "weights. Mean change in pp, with its 95 % interval:",
    f"{'; '.join(by_prompt) or 'none'}.",
    f"In {leaves} of {len(moved)} cases it leaves the interval under the card's own.",
)

# %% [markdown]
# An interval of an accuracy holds for new images, not for another wording. Miniatures have seen few words, so a wording
# that they never met may cost them more than it would cost a model that was trained on a whole language.
#
# ## Takeaways

# %% tags=["hide-input"]
shares = f"from {before:.1f} to {tuned:.1f} % on average"

# %% tags=["hide-input", "answer"]
answer(
    f"Fine-tuning takes accuracy {shares}, a change of {gain} pp (95 %",
    f"interval); a significant gain in {up} of {len(changed)} cases. Unparsed",
    f"answers, a matter of form, go from {silent:.1f} to {after:.1f} %. An adapter",
    f"of {size} MB holds the change. Another wording of the question significantly",
    f"lowers accuracy in {verdict.get('lower', 0)} of {len(moved)} cases.",
)

# %% [markdown]
# - An adapter is small, and it can change every module that it reaches: see [what is trained](#what-is-trained).
# - An answer that cannot be parsed says nothing about what the model encodes: see
#   [what the models write](#what-the-models-write).
# - Accuracy hides which class is missed: see [the confusion matrices](#where-the-fine-tuned-answers-go-wrong) and
#   [the metrics beside it](#what-accuracy-does-not-say).
# - An accuracy belongs to one wording of the question: see [what another wording does](#what-another-wording-does).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("02_fine_tuning")
