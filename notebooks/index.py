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
# Medical multimodal LLMs classify images worse than small networks that were built for nothing else. At which layer,
# between the image and the answer, is the diagnosis lost?

# %% tags=["parameters", "remove-input"]
models: list[str] = []  # model cards; empty: those of data/book.yml
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper
metric: str = ""  # accuracy, or balanced accuracy of very unequal classes; or f1, mcc, …

# %% tags=["remove-input"]
from mlprobe_utils.book.chapter import glue, start
from mlprobe_utils.datasets.summary import format_shortcuts
from mlprobe_utils.pipeline import results, scoring
from mlprobe_utils.plots import charts
from mlprobe_utils.plots.tables import module_ends

chapter = start(globals())
scores = scoring.probe_scores(chapter.selection)
outputs = scoring.output_scores(chapter.selection)

# %% tags=["remove-input"]
image_mean = scores[scores["pooling"] == "image_mean"]
ends = module_ends(image_mean, outputs, chapter.metric)
blind = format_shortcuts(chapter.image_sets, split_rule).set_index("data set")
majority = (
    blind["majority class (%)"] if chapter.metric == "accuracy" else None
)
charts.journey(ends, chapter.names, chapter.metric, majority)

# %% tags=["remove-input"]
sites = ["V end", "C end", "L end", "final output"]
accuracies = module_ends(image_mean, outputs, "accuracy")
means = accuracies.groupby("stage")[sites].mean()
unparsed = outputs.groupby("stage")["unparsed"].mean()
for stage in ("pretrained", "finetuned"):
    glue(f"probed_{stage}", means.at[stage, "L end"])
    glue(f"answered_{stage}", means.at[stage, "final output"])
    glue(f"unparsed_{stage}", unparsed[stage])

# %% tags=["remove-input"]
from mlprobe_utils.analysis import headlines

steps = means.loc["finetuned", sites].diff()[1:]
steps.index = list(headlines.STEPS.values())
glue("step", steps.idxmin())
glue("step_points", steps.min())

# %% tags=["remove-input"]
from mlprobe_utils.analysis import diagnosis_tables as tables
from mlprobe_utils.stats.intervals import RECIPE

probed = results.end_rows(chapter.selection).query("stage == 'finetuned'")
reference = results.reference_rows(chapter.selection)
held_out = tables.usual_losses(chapter.selection)

# %% tags=["remove-input"]
rows = probed, results.prediction_rows(chapter.selection), reference
given = chapter.image_sets, split_rule, held_out, [RECIPE]
short = tables.in_short(tables.diagnoses(*rows, *given))
modes = short["main"].value_counts()
listed = ", ".join(f"{mode} {count}" for mode, count in modes.items())
glue("diagnosed", int(short["main"].notna().sum()))
glue("pairs", len(short))
glue("modes", listed or "none")

# %% tags=["remove-input"]
of_run = chapter.selection, chapter.image_sets
for claim, again in headlines.once_more(headlines.CLAIMS, *of_run):
    glue(f"again_{claim}", again)

# %% [markdown]
# **What was found, on average.** Before fine-tuning a probe at the LLM's last layer predicts the class of
# {glue:text}`probed_pretrained:.0f` % of the test images correctly; the models' own answers are right for
# {glue:text}`answered_pretrained:.0f` %, and {glue:text}`unparsed_pretrained:.0f` % of them name no option. (That probes
# lead {glue:text}`again_before`.) After it, the probe is right for {glue:text}`probed_finetuned:.0f` %, and the answers are
# right for {glue:text}`answered_finetuned:.0f` %. (Which of the two leads {glue:text}`again_after`.) The least favourable
# step on the way is then the one {glue:text}`step` ({glue:text}`step_points:+.1f` points). (Which step it is
# {glue:text}`again_step`.)
#
# **Single models.** A loss [between two fixed places](05_diagnosis) after fine-tuning is found in {glue:text}`diagnosed` of
# {glue:text}`pairs` pairs of model and data set ({glue:text}`modes`). In the others nothing is lost, or less than the
# test images can show. (Which pairs these are {glue:text}`again_losses`.)
#
# **Fresh phantoms**, named in brackets, are as many synthetic images as are tested, from random numbers of their own:
# nothing was trained, chosen or tuned on them. Of them and of the test images, the brackets count phantom sets alone, and
# of the answers those of the first run. Replication needs phantoms: a statement about real images is tested on none.

# %% [markdown] tags=["needs-planted-faults"]
# ## What a loss looks like
#
# In one of these models faults were planted at known places. Where a curve leaves that of the healthy model, the class is
# lost; the vertical line is where the fault is.

# %% tags=["remove-input"]
from mlprobe_utils.analysis.fault_effects import effects
from mlprobe_utils.plots.charts import fault_curves

damaged = chapter.damaged()
changed = effects(damaged.healthy, damaged.selection, damaged.planted)
of_others = tables.usual_losses(damaged.selection)
fault_curves(changed, damaged.planted, damaged.names)

# %% tags=["remove-input"]
places = damaged.selection, damaged.healthy
rows = results.end_rows(places[0]), results.prediction_rows(places[0])
given = damaged.image_sets, split_rule, of_others, [RECIPE]
found = tables.diagnoses(*rows, results.reference_rows(places[1]), *given)
judged = tables.against_planted(found, damaged.planted)
strongest = judged[judged["strength"] == damaged.planted[-1].strength]
glue("strong_found", int((strongest["detected"] == "yes").sum()))
glue("strong", len(strongest))

# %% tags=["remove-input"]
from dataclasses import replace
from functools import partial

strong = [one for one in damaged.planted if one.is_strongest]
of_strong = replace(places[0], models=tuple(one.slug for one in strong))
claimed = {"faults": partial(headlines.faults_found, strong)}

# %% tags=["remove-input"]
of_strongest = claimed, of_strong, damaged.image_sets
for fault, held in headlines.once_more(*of_strongest):
    glue(f"again_{fault}", held)

# %% [markdown]
# [The diagnosis](05_diagnosis) names the right failure mode in {glue:text}`strong_found` of {glue:text}`strong` cases of
# the stronger faults. (Which cases these are {glue:text}`again_faults`.)

# %% [markdown]
# ## What next
#
# ::::{container} doors
# - [**Read**](00_by_hand) fourteen chapters, about four and a half hours
# - [**Rerun**](rerun) any page on your model and images
# - [**Teach**](teach) with a plan and questions to ask
# ::::

# %% tags=["remove-input"]
chapter.opening()

# %% [markdown]
# The book reproduces and extends {cite:t}`zhu-2026`. Before you quote a number from it, read
# [what it cannot tell you](limits).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("index")
