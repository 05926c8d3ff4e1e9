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
# # {glue:text}`model`
#
# **Question.** What does this one model show, layer by layer and on every data set?
#
# *Prerequisites:* [chapter 3](../03_probing) and [chapter 4](../04_feature_health). *Time:* 5 minutes to read. All
# models: [the table](../models).

# %% tags=["parameters", "hide-input"]
models: list[str] = ["lingshu-7b-miniature"]  # one model card
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import start

chapter = start(globals())
chapter.opening()

# %% [markdown]
# ## The card

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import glue
from mlprobe_utils.book.model_table import card_table
from mlprobe_utils.synthetic.miniatures.recipe import described

card = described(chapter.model)
glue("model", card.name)
card_table(card)

# %% [markdown]
# ## The way of an image
#
# The question on the first data set, as the model reads it.

# %% tags=["hide-input"]
from mlprobe_utils.pipeline import results

print(results.prompts(chapter.selection)["prompt"].iloc[0])

# %% [markdown]
# The states of image tokens depend on whatever stands before them. Where a chat template writes a system prompt there, a
# card's `system_prompt: ""` takes it out.
#
# Where its features are read, and which modules the adapter changes.

# %% tags=["hide-input"]
from mlprobe_utils.plots.scheme import pipeline_scheme

points = results.probe_points(chapter.selection, card.slug)
adapted = results.adapted_layers(chapter.selection).drop(columns="model")
pipeline_scheme(points, card.name, "".join(adapted["module"]))

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.points import PROBED
from mlprobe_utils.plots.tables import show

adapted["module"] = adapted["module"].replace(PROBED)
show(adapted)

# %% tags=["hide-input"]
from mlprobe_utils.book.model_table import parameters_of

trained, whole = adapted["parameters"].sum(), parameters_of(card)
share = f"{100 * trained / whole:.1f} %" if whole else "an unknown share"
glue("adapted_layers", int(adapted["layers"].sum()))
glue("adapted_parameters", int(trained))
glue("adapted_share", share)

# %% [markdown]
# Counted in the adapter's file: it changes {glue:text}`adapted_layers` layers with {glue:text}`adapted_parameters`
# parameters of its own, {glue:text}`adapted_share` of the number that the model has.
# [Chapter 2](../02_fine_tuning) says how it is trained.
#
# ## The paper's metrics at every layer
#
# The probes on the mean of the image tokens and the final output, before and after fine-tuning: figures S4 to S17 of
# {cite:t}`zhu-2026`, for this model. F1, precision and recall are those of the positive option, or means over all
# options where the data card names none.

# %%
from mlprobe_utils.pipeline import scoring
from mlprobe_utils.plots import charts, squares

scores = scoring.probe_scores(chapter.selection)
image_mean = scores[scores["pooling"] == "image_mean"]
outputs = scoring.output_scores(chapter.selection)
charts.metric_curves(image_mean, outputs, chapter.names)

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import PAPER_METRICS

points = image_mean.groupby(["stage", "dataset", "point"])
means = points[list(PAPER_METRICS)].mean()
change = means.xs("finetuned") - means.xs("pretrained")
glue("points_up", 100 * (change["accuracy"] > 0).mean())
glue("largest_change", change["accuracy"].abs().max())
metric = change.abs().mean().idxmax()
glue("most_changed", charts.METRIC_NAMES[metric])

# %% [markdown]
# Fine-tuning raised the probe's accuracy at {glue:text}`points_up:.0f` % of the points, and moved it by
# {glue:text}`largest_change:.1f` points at the most. The metric that moved most on average is
# {glue:text}`most_changed`. Which of these changes are more than noise comes next.
#
# ## Steps of the curves
#
# From the image to the answer, as in [chapter 3](../03_probing): a step counts where the {term}`paired test` of the
# {term}`retrained probe` finds it {term}`significant`, among all of this page.

# %% tags=["hide-input"]
from mlprobe_utils.analysis import certainty
from mlprobe_utils.pipeline.tested import evaluated

of_run = chapter.selection, chapter.image_sets
steps = certainty.steps(evaluated(*of_run, certainty.outcomes_of))
wide = steps.pivot(
    index=["dataset", "stage"], columns="step", values="verdict"
)[[*certainty.STEPS]]
show(chapter.named(wide.rename_axis(columns=None).reset_index()))

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import NEITHER

significant = steps["verdict"] != NEITHER
glue("steps", len(steps))
glue("steps_told", int(significant.sum()))
largest = steps.loc[steps["change"].abs().idxmax()]
glue("largest_step", largest["change"])
glue("largest_where", largest["step"])

# %% [markdown]
# Of {glue:text}`steps` steps {glue:text}`steps_told` are significant. The largest goes {glue:text}`largest_where`, with
# {glue:text}`largest_step:+.1f` points.
#
# ## Feature health
#
# The three health scores and the final output, after fine-tuning and before it, as in
# [chapter 4](../04_feature_health).

# %%
from mlprobe_utils.analysis.health import profile
from mlprobe_utils.evaluation.health import health_by_run
from mlprobe_utils.plots.tables import profile_table

health = health_by_run(scores, chapter.protocol.health.penalty)
profiles = profile(health, outputs)
after = profiles.query("stage == 'finetuned'")
profile_table(after, chapter.names, "after fine-tuning")

# %%
before = profiles.query("stage == 'pretrained'")
profile_table(before, chapter.names, "before fine-tuning")

# %%
charts.stage_profiles(profiles, chapter.names)

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.health import HEALTH, STATE
from mlprobe_utils.evaluation.points import MODULES

by_stage = profiles.set_index(STATE)[HEALTH]
changes = by_stage.xs("finetuned", level="stage")
changes = changes - by_stage.xs("pretrained", level="stage")

# %% tags=["hide-input"]
glue("lowest_module", MODULES[after[HEALTH].mean().idxmin()[-1]])
glue("final_mean", after["P_final"].mean())
glue("fell", int((changes < 0).sum().sum()))
glue("scores", changes.size)

# %% [markdown]
# After fine-tuning the {glue:text}`lowest_module` has the lowest mean score of the three modules, and the final output
# scores {glue:text}`final_mean:.1f` % on average. Fine-tuning lowered {glue:text}`fell` of {glue:text}`scores` health
# scores.
#
# After fine-tuning again: the raw score beside the {term}`corrected <corrected health score>` one, the ends of its
# interval, and where a {term}`flat curve` would score by noise alone. Means over runs.

# %%
from mlprobe_utils.analysis.health import health_of_run

corrected = health_of_run(chapter.selection)
tuned = corrected[corrected["stage"] == "finetuned"]
numbers = ["raw", "score", "low", "high", "flat_low", "flat_high"]
tuned = tuned.groupby(["dataset", "module"], as_index=False)
noiseless = chapter.named(tuned[numbers].mean())
show(noiseless)

# %% tags=["hide-input"]
inside = noiseless["raw"].between(
    noiseless["flat_low"], noiseless["flat_high"]
)
glue("like_flat", int(inside.sum()))
glue("scored", len(inside))
width = noiseless["high"] - noiseless["low"]
glue("narrowest", width.min())
glue("widest", width.max())

# %% [markdown]
# The intervals are {glue:text}`narrowest:.1f` to {glue:text}`widest:.1f` points wide, and {glue:text}`like_flat` of
# {glue:text}`scored` modules score as one could that changes nothing.
#
# ## Answers, right and wrong
#
# Rows are true classes, columns are answers to the test images; before fine-tuning:

# %%
rows = results.prediction_rows(chapter.selection)
tested = rows[rows["split"] == "test"]
early = tested[tested["stage"] == "pretrained"]
squares.confusion(early, chapter.names)

# %% [markdown]
# And after it:

# %%
late = tested[tested["stage"] == "finetuned"]
squares.confusion(late, chapter.names)

# %% tags=["hide-input"]
right = late["parsed"] == late["label"]
recall = right.groupby([late["dataset"], late["label"]]).mean() * 100
dataset, option = recall.idxmin()
glue("worst_class", f"{option} of {chapter.names[dataset]}")
glue("worst_recall", recall.min())
glue("unparsed_before", 100 * early["parsed"].isna().mean())
glue("unparsed_after", 100 * late["parsed"].isna().mean())

# %% [markdown]
# {glue:text}`unparsed_before:.1f` % of the answers name no option, or several, before fine-tuning, and
# {glue:text}`unparsed_after:.1f` % after it. The class that is missed most after it is {glue:text}`worst_class`,
# recognised in {glue:text}`worst_recall:.1f` % of its images.

# %% [markdown]
# ## Diagnosis
#
# What is lost between fixed sites, and whether there are enough images to tell, as in
# [chapter 5](../05_diagnosis): points of accuracy with their simultaneous interval, the clearest first.

# %%
from mlprobe_utils.analysis.diagnosis_tables import (
    diagnoses,
    in_short,
    usual_losses,
)
from mlprobe_utils.stats.intervals import RECIPE

sites = results.end_rows(chapter.selection)
reference = results.reference_rows(chapter.selection)

# %%
given = chapter.image_sets, split_rule, usual_losses(chapter.selection)
told = diagnoses(sites, rows, reference, *given, scopes=[RECIPE])
columns = ["dataset", "stage", "diagnosis", "ruled out", "left open"]
short = in_short(told)
show(chapter.named(short)[columns])

# %%
from mlprobe_utils.plots.forest import change_chart

told_after = told[told["stage"] == "finetuned"]
title = "What is lost between sites after fine-tuning"
change_chart(told_after, chapter.names, title)

# %% tags=["hide-input"]
main = short[short["stage"] == "finetuned"].dropna(subset="main")
main_modes = main["main"] + " on " + main["dataset"].map(chapter.names)
glue("modes_found", "; ".join(main_modes) or "none")
glue("ruled_out", int((told_after["verdict"] == "ruled out").sum()))
glue("statements", len(told_after))

# %% [markdown]
# Main modes after fine-tuning: {glue:text}`modes_found`. Of {glue:text}`statements` statements {glue:text}`ruled_out` are
# ruled out. What is left open, these images cannot tell.

# %% [markdown] tags=["needs-interventions"]
# ## Is it used, and where does it stop?
#
# What {term}`interventions <intervention>` say beyond probes, as in [chapter 13](../13_is_it_used): until which layer text
# reads the image, from which one the last token decides, and, where something is named above, which part does harm.

# %%
from mlprobe_utils.analysis import interventions
from mlprobe_utils.analysis.diagnosis_tables import of_edited
from mlprobe_utils.pipeline import laboratory_results

edited = chapter.edited()
states = results.intervention_rows(edited.selection)

# %%
laboratory = laboratory_results.read()
shares = laboratory.shares(results.families(edited.selection))
probed = results.end_rows(edited.selection)
named = of_edited(edited.selection, edited.healthy, edited.image_sets)
placed = interventions.placed(states, probed, named, shares)
show(edited.named(placed.drop(columns=["dataset", "stage"])))

# %% [markdown]
# Damaged copies of this model stand beside it where the run has them.

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("model")
