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
# **Question.** How well does a model answer before and after it has been fine-tuned on a data set, and what did the
# fine-tuning do?
#
# *Prerequisites:* [chapter 1](01_datasets). *Time:* 20 minutes to read; the fine-tuning itself is most of a run.

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
# ## The recipe, and why
#
# The model reads an image and a question and is taught to write one of the options. All its weights stay as they are;
# beside every linear layer a pair of small matrices is trained ({term}`LoRA`, {cite:t}`hu-2021`), so that one
# {term}`adapter` of a few megabytes holds all that a data set has taught.

# %%
from mlprobe_utils.plots.tables import show

show(chapter.recipe("fine_tuning"))

# %% [markdown]
# Where the two columns differ, this run makes a concession to the size of its models or of the machine. What the paper
# does not state is marked in the {term}`protocol`'s file. Two decisions stand in no table:
#
# - **The loss counts the answer's tokens only.** Question and image are given, not to be predicted, and a real model's
#   vocabulary has some 150,000 words: logits at every image token would fill the memory for nothing.
# - **The last epoch is used, not the best.** The best on the test images would be a choice made with the test; the
#   validation images below show what it would have been worth.
#
# ## What is trained
#
# Counted in the adapter's file: the layers that it changes in each module, and its parameters.

# %%
from mlprobe_utils.evaluation.points import PROBED
from mlprobe_utils.pipeline import results

adapted = results.adapted_layers(chapter.selection)
adapted["module"] = adapted["module"].replace(PROBED)
show(chapter.named(adapted))

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import glue

glue("adapted_modules", ", ".join(adapted["module"].unique()))
of_module = adapted.groupby("module")["parameters"].sum()
glue("adapted_most", of_module.idxmax())

# %% [markdown]
# The adapters reach {glue:text}`adapted_modules`; most of their parameters stand in the {glue:text}`adapted_most`. A
# curve that changes in [chapter 3](03_probing) can therefore have changed in that module or in any before it.
#
# ## Learning curves

# %%
from mlprobe_utils.plots import charts, squares

curves = results.learning_curves(chapter.selection)
charts.learning_curves(curves, chapter.names)

# %% tags=["hide-input"]
last = curves[curves["epoch"] == curves["epoch"].max()]
glue("epochs", int(last["epoch"].iloc[0]))
glue("training_loss", last["training_loss"].mean())
glue("validation_loss", last["validation_loss"].mean())

# %% tags=["hide-input"]
of_adapter = curves.groupby(["model", "dataset", "run"])
best = of_adapter["validation_loss"].transform("min")[last.index]
rises = last["validation_loss"] > 1.05 * best
glue("rises", int(rises.sum()))
glue("adapters", len(rises))

# %% [markdown]
# After {glue:text}`epochs` epochs the mean loss is {glue:text}`training_loss:.3f` on the training images and
# {glue:text}`validation_loss:.3f` on the validation images. In {glue:text}`rises` of {glue:text}`adapters` adapters the
# validation loss ends more than 5 % above its lowest: they have begun to learn their training images by heart.
#
# ## The final output, before and after
#
# The answer, the {term}`final output`, is generated greedily and counts if it names exactly the right option. F1,
# precision and recall are those of the positive option, or {term}`macro averages <macro average>` over all options
# where the data {term}`card` names none. {term}`AUC` uses the probabilities of the options, which exist whatever the
# model writes.

# %%
from mlprobe_utils.evaluation.metrics import PAPER_METRICS
from mlprobe_utils.pipeline import scoring

outputs = scoring.output_scores(chapter.selection)
states = outputs.groupby(["dataset", "model", "stage"], as_index=False)
table = states[["images", *PAPER_METRICS, "unparsed", "thought_cut"]].mean()
positive = table["dataset"].map(chapter.positives).fillna("macro")
table.insert(3, "positive", positive)
show(chapter.named(table.astype({"images": int})))

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import collapsed_in_words

rows = results.prediction_rows(chapter.selection)
glue("collapsed", collapsed_in_words(rows, chapter.names))

# %% tags=["hide-input"]
accuracy = outputs.groupby(["stage"])["accuracy"].mean()
unparsed = outputs.groupby(["stage"])["unparsed"].mean()
glue("thought_cut", outputs["thought_cut"].mean())
for stage in ("pretrained", "finetuned"):
    glue(f"accuracy_{stage}", accuracy[stage])
    glue(f"unparsed_{stage}", unparsed[stage])

# %% [markdown]
# Averaged over models and data sets, accuracy is {glue:text}`accuracy_pretrained:.1f` % before fine-tuning, with
# {glue:text}`unparsed_pretrained:.1f` % of the answers naming no option or several ({term}`unparsed`), and
# {glue:text}`accuracy_finetuned:.1f` % after it, with {glue:text}`unparsed_finetuned:.1f` % unparsed. A model that was
# never taught to answer scores nothing by this measure, whatever it knows: that is why the probes of
# [chapter 3](03_probing) are needed. Means are over the runs, and a collapsed run (one answer to more than 90 % of the
# images, or a class that is there and never named) hides in its mean; such are: {glue:text}`collapsed`. The intervals of
# these accuracies are in [chapter 3](03_probing), and how far runs differ in
# [chapter 7](07_medical_adaptation). {term}`Thoughts <thought>` are not parsed; {glue:text}`thought_cut:.1f` % of the
# answers were cut off inside one, at the limit of tokens, and are unparsed for that reason.
#
# ## What the models write
#
# The most frequent answers on the test images. Unparsed ones are counted wrong, never left out.

# %%
from mlprobe_utils.plots.tables import frequent_answers

show(chapter.named(frequent_answers(rows, most=3)))

# %% [markdown]
# A parsed column that is empty marks text in which no single option was found. Up to three such answers of each data set,
# with the images that they were given to:

# %% tags=["hide-input"]
from IPython.display import display
from mlprobe_utils.plots.tables import answered, unparsed_examples

examples = unparsed_examples(rows, most=3)
for dataset, of_dataset in examples.groupby("dataset"):
    display(answered(chapter.image_sets[dataset], of_dataset))

# %% tags=["hide-input"]
told = rows[(rows["split"] == "test") & rows["parsed"].isna()]
glue("unparsed_answers", len(told))
glue("unparsed_texts", told["text"].nunique())
before = 100 * (told["stage"] == "pretrained").mean() if len(told) else 0
glue("unparsed_before", before)

# %% [markdown]
# Over all models, runs and data sets {glue:text}`unparsed_answers` answers to test images could not be parsed, in
# {glue:text}`unparsed_texts` different wordings; {glue:text}`unparsed_before:.1f` % of them were written before
# fine-tuning. A text may describe the image well and still name no option: the share of unparsed answers tells how
# much of an accuracy is about the form of the answer.
#
# ## Where the fine-tuned answers go wrong

# %%
squares.confusion(rows[rows["stage"] == "finetuned"], chapter.names)

# %% tags=["hide-input"]
tested = rows[(rows["split"] == "test") & (rows["stage"] == "finetuned")]
right = tested["parsed"] == tested["label"]
recall = right.groupby([tested["dataset"], tested["label"]]).mean() * 100
worst = recall.idxmin()
glue("worst_recall", recall.min())
glue("worst_class", f"{worst[1]} of {chapter.names[worst[0]]}")
glue("best_recall", recall.max())

# %% [markdown]
# Rows are true classes, columns are answers. A column that is dark in every row is a class that the model names
# whatever it sees. The class that is missed most is {glue:text}`worst_class`, recognised in
# {glue:text}`worst_recall:.1f` % of its images; the one that is missed least, in {glue:text}`best_recall:.1f` %.
#
# ## What accuracy does not say
#
# Where one class is frequent, naming it is rewarded. {term}`Balanced accuracy` and {term}`MCC` take that reward away,
# {term}`sensitivity` and {term}`specificity` say on which side a model errs, {term}`average precision` how well it ranks
# the images, and {term}`calibration error` whether its probabilities can be believed; of the last, less is better. After
# fine-tuning, mean over runs, in percent:

# %%
from mlprobe_utils.evaluation.metrics import FURTHER_METRICS

tuned = outputs[outputs["stage"] == "finetuned"]
tuned = tuned.groupby(["dataset", "model"], as_index=False)
further = tuned[["accuracy", *FURTHER_METRICS]].mean()
show(chapter.named(further).rename(columns=charts.METRIC_NAMES))

# %% tags=["hide-input"]
lowest = further.loc[further["specificity"].idxmin()]
where = chapter.names[lowest["model"]], chapter.names[lowest["dataset"]]
glue("lowest_specificity", lowest["specificity"])
glue("lowest_where", " on ".join(where))
glue("accuracy_there", lowest["accuracy"])

# %% tags=["hide-input"]
gap = further["accuracy"] - further["balanced_accuracy"]
glue("balanced_gap", gap.mean())
glue("calibration", further["calibration_error"].mean())

# %% [markdown]
# The lowest specificity is {glue:text}`lowest_specificity:.1f` % ({glue:text}`lowest_where`), where accuracy is
# {glue:text}`accuracy_there:.1f` %. On average accuracy lies {glue:text}`balanced_gap:+.1f` points from balanced
# accuracy, and the probability of the likeliest option {glue:text}`calibration:.1f` points from how often that option is
# right. Some points of the latter are chance: on few images no probability meets its share exactly.
#
# ## What another wording does
#
# All of this is of one wording of the question. The first fine-tuned run of every model answers it once more in other
# words, without any training: with the options in reverse order, and in the `paraphrases` of the data card.

# %%
from mlprobe_utils.evaluation.question import OWN_PROMPT, REVERSED

none = "none: the template does not name each option as a word"
wordings = {}
for card in chapter.datasets.values():
    wordings[card.name] = {OWN_PROMPT: card.template, REVERSED: none}
    wordings[card.name] |= card.other_prompts

# %%
import pandas as pd

texts = pd.DataFrame(wordings).unstack().dropna().rename("text")
show(texts.rename_axis(["data set", "prompt"]).reset_index())

# %% [markdown]
# Each answer is compared with that to the card's own prompt, about the same image. The table holds accuracy under every
# prompt, its range from the lowest to the highest, and the prompts under which it lies outside the 95 % interval that it
# has under the card's own; all comparisons are in the file.

# %%
from mlprobe_utils.analysis import prompts

answered_again = results.prompt_rows(chapter.selection)
given = chapter.image_sets, chapter.selection.split_rule
moved = prompts.changes(answered_again, *given)

# %%
place = ["dataset", "model"]
by_prompt = moved.pivot(
    index=[*place, OWN_PROMPT], columns="prompt", values="accuracy"
)
by_prompt = by_prompt.rename_axis(columns=None)
by_prompt = by_prompt.reset_index(OWN_PROMPT).astype(float)

# %%
span = by_prompt.max(axis=1) - by_prompt.min(axis=1)
outside = moved[moved["outside"]].groupby(place)["prompt"].agg(", ".join)
outside = outside.reindex(span.index, fill_value="none")
found = {"range": span, "outside the interval": outside}
show(chapter.named(by_prompt.assign(**found).reset_index()))

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import file

file(chapter.named(moved), "Accuracy under every prompt")

# %% tags=["hide-input"]
glue("places", len(span))
glue("places_outside", int((outside != "none").sum()))
glue("range", span.mean())
glue("widest", span.max())
widest = [reversed(slugs) for slugs in span.nlargest(1).index]
widest = [" on ".join(map(chapter.names.get, own)) for own in widest]
glue("widest_where", "".join(widest))

# %% tags=["hide-input"]
glue("comparisons", len(moved))
glue("unparsed_again", moved["unparsed"].mean())
glue("lowered", int((moved["verdict"] == "lower").sum()))
glue("raised", int((moved["verdict"] == "higher").sum()))
shifts = moved.groupby("prompt")["change"].mean().items()
shifts = [f"{prompt} {change:+.1f}" for prompt, change in shifts]
glue("shifts", ", ".join(shifts))

# %% [markdown]
# In {glue:text}`places_outside` of {glue:text}`places` cases, a model on a data set each, accuracy under another prompt
# leaves the interval of the card's own. The range is {glue:text}`range:.1f` points on average and
# {glue:text}`widest:.1f` at most ({glue:text}`widest_where`). Of {glue:text}`comparisons` changes
# {glue:text}`lowered` are significantly lower and {glue:text}`raised` higher, with these weights and after Holm's
# correction; the mean change in points is {glue:text}`shifts`. Of the answers to other prompts
# {glue:text}`unparsed_again:.1f` % name no option or several. An interval of accuracy is for new images, not for another
# wording: where a case is counted here, its accuracy is of this sentence with its options in this order. Miniatures have
# read few words, and one that they never met asks more of them than of a model that has read a language.
#
# ## Takeaways
#
# - One small adapter holds what a data set has taught, and it reaches every module: see
#   [what is trained](#what-is-trained).
# - Before fine-tuning, an answer that cannot be parsed says nothing of what the model sees: see
#   [what the models write](#what-the-models-write).
# - Accuracy hides which class is missed: see [the confusion matrices](#where-the-fine-tuned-answers-go-wrong) and
#   [the metrics beside it](#what-accuracy-does-not-say).
# - An accuracy is of one wording of the question: see [what another wording does](#what-another-wording-does).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("02_fine_tuning")
