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
# # Lost in the hype, layer by layer
#
# **Where does a medical multimodal LLM lose the diagnosis?** [Zhu et al. (2026)](../book/bibliography.md#zhu-2026) report
# that such models classify medical images less accurately than small dedicated networks, and locate the loss with a
# classifier (a *probe*) at every layer. This book rebuilds that study and tests each of its
# [claims](claims.ipynb).

# %% tags=["parameters", "remove-input"]
models: list[str] = []  # model cards; empty: those of data/book.yml
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper
metric: str = ""  # accuracy, or balanced accuracy of very unequal classes; or f1, mcc, …

# %% tags=["remove-input"]
from mlprobe_utils.book.chapter import say, scope, start

chapter = start(globals())
say(scope(chapter.models, chapter.datasets, most=0))

# %% tags=["remove-input"]
from mlprobe_utils.analysis import certainty, headlines
from mlprobe_utils.analysis import diagnosis_tables as tables
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.tested import evaluated
from mlprobe_utils.stats.intervals import RECIPE
from mlprobe_utils.stats.paired import in_words

# %% tags=["remove-input"]
from scipy.stats import binomtest

of_run = chapter.selection, chapter.image_sets
steps = certainty.steps(evaluated(*of_run, certainty.outcomes_of))
to_answer = steps[steps["step"] == "to the answer"]

# %% tags=["remove-input"]
tuned = to_answer[to_answer["stage"] == "finetuned"]
untuned = to_answer[to_answer["stage"] == "pretrained"]
say(
    "**Finding 1.** Before fine-tuning, answers are less accurate than probes",
    f"at the LLM's last layer: {in_words(untuned, 'change')} pp on average.",
    f"After it the difference is {in_words(tuned, 'change')} pp.",
)

# %% [markdown] tags=["needs-planted-faults"]
# ## What a loss looks like

# %% tags=["remove-input"]
from mlprobe_utils.analysis.fault_effects import effects
from mlprobe_utils.plots.charts import fault_overview

damaged = chapter.damaged()
changed = effects(damaged.healthy, damaged.selection, damaged.planted)
fault_overview(changed, damaged.planted, damaged.names)

# %% [markdown]
# In copies of one model we planted one fault each, at a known place. The curve of a copy leaves the healthy one where its
# fault is: in the vision tower, the connector, the LLM, or between the last state and the answer.

# %% tags=["remove-input"]
places = damaged.selection, damaged.healthy
rows = results.end_rows(places[0]), results.prediction_rows(places[0])
reference = results.reference_rows(places[1])
usual = tables.usual_losses(damaged.selection)

# %% tags=["remove-input"]
given = reference, damaged.image_sets, split_rule, usual, [RECIPE]
judged = tables.against_planted(
    tables.diagnoses(*rows, *given), damaged.planted
)
strongest = judged[judged["strength"] == damaged.planted[-1].strength]
found = int((strongest["detected"] == "yes").sum())

# %% tags=["remove-input"]
exact = binomtest(found, len(strongest)).proportion_ci()
say(
    f"**Finding 2.** The [diagnosis](06_diagnosis.ipynb) places {found} of",
    f"{len(strongest)} strong faults in the correct module",
    f"(exact 95 % interval {100 * exact.low:.0f} to {100 * exact.high:.0f} %).",
)

# %% tags=["remove-input"]
from dataclasses import replace
from functools import partial

strong = [one for one in damaged.planted if one.is_strongest]
of_strong = replace(places[0], models=tuple(one.slug for one in strong))
placed = {"faults placed": partial(headlines.faults_found, strong)}
again = headlines.replicated(placed, of_strong, damaged.image_sets)

# %% tags=["remove-input"]
say(
    "On fresh phantoms, drawn after everything else was fixed, the same",
    f"diagnosis places {again['fresh phantoms'][0]} correctly.",
)

# %% [markdown]
# ## What is lost in healthy models

# %% tags=["remove-input"]
probed = results.end_rows(chapter.selection).query("stage == 'finetuned'")
predicted = results.prediction_rows(chapter.selection)
of_images = results.reference_rows(chapter.selection)
held_out = tables.usual_losses(chapter.selection)

# %% tags=["remove-input"]
sets = chapter.image_sets, split_rule, held_out, [RECIPE]
short = tables.in_short(tables.diagnoses(probed, predicted, of_images, *sets))
detected = short["main"].dropna()
modes = detected.value_counts().items()
listed = ", ".join(f"{mode} ({count})" for mode, count in modes)

# %% tags=["remove-input"]
share = binomtest(len(detected), len(short)).proportion_ci()
say(
    f"**Finding 3.** Of {len(short)} pairs of a healthy model and a data set,",
    f"{len(detected) or 'none'} show{'s' * (len(detected) == 1)} a detectable",
    f"loss {f'({listed}) ' * bool(listed)}after fine-tuning (exact 95 % interval",
    f"{100 * share.low:.0f} to {100 * share.high:.0f} %). In the others",
    "nothing is lost, or less than these test sets can show.",
)

# %% [markdown]
# ### Do the findings replicate?
#
# Once more on fresh phantoms: synthetic images from new random numbers, as many as are tested, that nothing was trained,
# tuned or chosen on. Only phantom sets can be drawn again.

# %% tags=["remove-input"]
from mlprobe_utils.plots.tables import show

show(headlines.replicated(headlines.CLAIMS, *of_run))

# %% [markdown]
# ## One image on its way through a model
#
# A vision tower cuts the image into patches and turns each into a token. A connector maps the tokens to the LLM, which
# reads them with the question. At the end of each module a probe sees the mean of the image tokens and gives each
# diagnosis a probability; the model itself only says its answer.

# %% tags=["remove-input"]
model, dataset = chapter.selection.models[0], chapter.selection.datasets[0]
same = f"model == '{model}' and dataset == '{dataset}' and split == 'test'"
answers = predicted.query(f"{same} and stage == 'finetuned' and run == 0")
correct = answers[answers["parsed"] == answers["label"]]
chosen = (correct if len(correct) else answers).iloc[0]

# %% tags=["remove-input"]
from mlprobe_utils.plots.image_flow import image_flow

at_ends = probed.query(f"{same} and pooling == 'image_mean' and run == 0")
at_ends = at_ends[at_ends["image"] == chosen["image"]]
at_ends = at_ends.sort_values("point").groupby(at_ends["point"].str[0])
title = f"A test image of {chapter.names[dataset]} in {chapter.names[model]}"
image_flow(chapter.image_sets[dataset], chosen, at_ends.tail(1), title)

# %% [markdown]
# ## What next

# %% tags=["remove-input"]
from IPython.display import Markdown

Markdown(
    "- [**Read**](00_by_hand.ipynb) from a hook by hand to the diagnosis\n"
    "- [**Explore**](explore.ipynb) single images on their way\n"
    "- [**Probe your own**](../book/rerun.md) model and images\n"
    "- [**Teach**](../book/teach.md) with a plan and questions"
)

# %% [markdown]
# Before you quote a number, read [what this book cannot tell you](../book/limits.md).

# %% tags=["remove-input"]
chapter.opening()

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("index")
