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
# *Prerequisites:* [chapter 1](01_datasets). *Time:* 15 minutes to read; the fine-tuning itself is most of a run.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: the two miniatures
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images: all real sets are the default then

# %% tags=["hide-input"]
from mlprobe_utils.chapter import start

chapter = start(globals())
chapter.scope()

# %% [markdown]
# ## The recipe
#
# Low-rank adapters ({cite:t}`hu-2021`) on every linear layer of vision tower, connector and LLM; the loss counts the
# answer's tokens only. One adapter is trained for each data set and run, and a run is a seed. Everything comes from the
# protocol; the column on the right is what the paper states, or our choice where it states nothing.

# %%
from mlprobe_utils.tables import recipe, show

show(recipe(chapter.protocol, "fine_tuning"))

# %% [markdown]
# A value of this protocol that differs from the paper's is a concession to the size of the models or of the machine.
#
# ## Learning curves

# %%
from mlprobe_utils import charts, results

curves = results.learning_curves(chapter.selection)
charts.learning_curves(curves, chapter.names)

# %% tags=["hide-input"]
from mlprobe_utils.chapter import glue

last = curves[curves["epoch"] == curves["epoch"].max()]
gap = (last["validation_loss"] - last["training_loss"]).mean()
glue("training_loss", last["training_loss"].mean())
glue("validation_loss", last["validation_loss"].mean())
glue("epochs", int(curves["epoch"].max()))

# %% [markdown]
# After {glue:text}`epochs` epochs the mean loss is {glue:text}`training_loss:.3f` on the training images and
# {glue:text}`validation_loss:.3f` on the validation images. Where the second rises while the first falls, the adapter
# has begun to learn its training images by heart. The adapter of the last epoch is used throughout.
#
# ## The final output, before and after
#
# The answer is generated greedily and counts if it names exactly the right option. AUC uses the probabilities of the
# options, which exist whatever the model writes.

# %%
from mlprobe_utils.metrics import output_scores

rows = results.prediction_rows(chapter.selection)
outputs = output_scores(rows, chapter.positives)
table = (
    outputs.drop(columns="run")
    .groupby(["dataset", "model", "stage"], as_index=False)
    .mean()
)
show(chapter.named(table))

# %% tags=["hide-input"]
accuracy = outputs.groupby(["stage"])["accuracy"].mean()
unparsed = outputs.groupby(["stage"])["unparsed"].mean()
for stage in ("pretrained", "finetuned"):
    glue(f"accuracy_{stage}", accuracy[stage])
    glue(f"unparsed_{stage}", unparsed[stage])

# %% [markdown]
# Averaged over models and data sets, accuracy is {glue:text}`accuracy_pretrained:.1f` % before fine-tuning, with
# {glue:text}`unparsed_pretrained:.1f` % of the answers naming no option or several, and
# {glue:text}`accuracy_finetuned:.1f` % after it, with {glue:text}`unparsed_finetuned:.1f` % unparsed. A model that was
# never taught to answer scores nothing by this measure, whatever it knows: that is why the probes of
# [chapter 3](03_probing) are needed.
#
# ## What the models write
#
# The most frequent answers on the test images. Unparsed ones are counted wrong, never left out.

# %%
from mlprobe_utils.tables import frequent_answers

show(chapter.named(frequent_answers(rows, most=3)))

# %% [markdown]
# A parsed column that is empty marks text in which no single option was found.
#
# ## Where the fine-tuned answers go wrong

# %%
for dataset in chapter.selection.datasets:
    chosen = rows[
        (rows["dataset"] == dataset)
        & (rows["stage"] == "finetuned")
        & (rows["part"] == "test")
    ]
    print(chapter.names[dataset])
    display(charts.confusion(chosen, chapter.names))

# %% [markdown]
# Rows are true classes, columns are answers. A column that is dark in every row is a class that the model names
# whatever it sees.
#
# ## Takeaways
#
# - Before fine-tuning, an answer that cannot be parsed says nothing of what the model sees: see
#   [what the models write](#what-the-models-write).
# - Accuracy hides which class is missed: see [the confusion matrices](#where-the-fine-tuned-answers-go-wrong).
