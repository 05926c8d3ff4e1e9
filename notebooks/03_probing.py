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
# # 3. Probing
#
# **Question.** At which layer can the class of an image be read from a model's features, and where is it lost?
#
# *Prerequisites:* [chapter 2](02_fine_tuning). *Time:* 20 minutes to read; seconds to run once the features exist.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: the two miniatures
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images: all real sets are the default then
metric: str = "accuracy"  # accuracy, f1, precision, recall or auc

# %% tags=["hide-input"]
from mlprobe_utils.chapter import start

chapter = start(globals())
chapter.scope()

# %% [markdown]
# ## How a probe reads a layer
#
# A probe ({cite:t}`alain-2016`) is a small classifier that sees one layer's features and nothing else. Ours are
# two-layer MLPs, one for each probe point: the output of every vision block (`V`), of the connector's linear layers
# (`C`) and of every decoder layer (`L`). The model itself stays frozen. A layer's features are averaged over the tokens
# of the image; in the LLM the last token's state is a second reading.

# %%
from mlprobe_utils.tables import recipe, show

show(recipe(chapter.protocol, "probe"))

# %% [markdown]
# Features are standardised on the training images first, so that a layer is not judged by its scale.
#
# ## The curves
#
# Every dot is one run, every line the mean of the runs; the diamond at the end is the accuracy of the generated answer.
# This is figure 3 of {cite:t}`zhu-2026` for the models of this run.

# %%
from mlprobe_utils import charts, results
from mlprobe_utils.metrics import output_scores, probe_scores

scores = probe_scores(
    results.probe_rows(chapter.selection), chapter.positives
)
outputs = output_scores(
    results.prediction_rows(chapter.selection), chapter.positives
)
image_mean = scores[scores["pooling"] == "image_mean"]
charts.probe_curves(image_mean, outputs, chapter.names, metric)

# %% tags=["hide-input"]
from mlprobe_utils.chapter import glue

means = image_mean.groupby(["model", "dataset", "stage", "point"])[
    metric
].mean()
after = means.xs("finetuned", level="stage")
best = after.idxmax()
glue("best_point", best[2])
glue("best_value", after.max())
glue("best_where", f"{chapter.names[best[0]]} on {chapter.names[best[1]]}")
glue("points", image_mean["point"].nunique())

# %% [markdown]
# Of the {glue:text}`points` points, the highest mean after fine-tuning is {glue:text}`best_value:.1f` % at
# {glue:text}`best_point` ({glue:text}`best_where`). It is the highest of many noisy values and therefore flattering: no
# choice is made with it.
#
# ## Where each module ends
#
# The last point of each module, and the final output, mean over runs.

# %%
from mlprobe_utils.tables import module_ends

ends = module_ends(image_mean, outputs, metric)
show(chapter.named(ends))

# %% tags=["hide-input"]
ends = ends[ends["stage"] == "finetuned"]
lost = ends["L end"] - ends["final output"]
glue("output_gap", lost.abs().mean())
glue("output_below", int((lost > 0).sum()))
glue("pairs", len(ends))

# %% [markdown]
# After fine-tuning, the final output and the probe at the LLM's last layer differ by {glue:text}`output_gap:.1f` points
# on average; the output is the lower of the two in {glue:text}`output_below` of {glue:text}`pairs` pairs of model and
# data set. What a layer holds and what the model says are two things.
#
# ## The last token
#
# The same probes on the state of the prompt's last token, from which the answer is generated.

# %%
last_token = scores[scores["pooling"] == "last_token"]
charts.probe_curves(last_token, outputs, chapter.names, metric)

# %% tags=["hide-input"]
of_llm = (
    scores[scores["point"].str.startswith("L")]
    .groupby(["stage", "pooling"])[metric]
    .mean()
)
for stage in ("pretrained", "finetuned"):
    for pooling in ("image_mean", "last_token"):
        glue(f"{pooling}_{stage}", of_llm[stage, pooling])

# %% [markdown]
# Averaged over the LLM's layers, image tokens give {glue:text}`image_mean_pretrained:.1f` % before fine-tuning and
# {glue:text}`image_mean_finetuned:.1f` % after; the last token gives {glue:text}`last_token_pretrained:.1f` % and
# {glue:text}`last_token_finetuned:.1f` %. The first is what the LLM could use, the second what has reached the place
# where it speaks.
#
# ## All numbers

# %% tags=["hide-input", "hide-output"]
from mlprobe_utils.tables import all_points

show(chapter.named(all_points(scores)))

# %% [markdown]
# ## Takeaways
#
# - A curve shows what a small classifier can read at a layer, not what the model uses: see
#   [how a probe reads a layer](#how-a-probe-reads-a-layer).
# - The final output is not the last layer: see [where each module ends](#where-each-module-ends).
# - Image tokens and last token answer different questions: see [the last token](#the-last-token).
