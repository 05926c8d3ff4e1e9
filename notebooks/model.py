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
# # One model
#
# **Question.** Where in this model can the class be decoded, is it lost on the way to the answer, and is it used?
#
# *Prerequisites:* [chapter 3](03_probing.ipynb) and [chapter 5](05_feature_health.ipynb). *Time:* 5 minutes to read. All
# models: [the table](models.ipynb).

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
# ## The curve
#
# The accuracy of probes on the mean of the image tokens, from the first block of the vision tower to the last layer of the
# LLM, and of the generated answer (diamond), as in [chapter 3](03_probing.ipynb).

# %%
from mlprobe_utils.analysis import certainty
from mlprobe_utils.pipeline.tested import evaluated
from mlprobe_utils.synthetic.miniatures.recipe import described

card = described(chapter.model)
of_run = chapter.selection, chapter.image_sets
outcomes = evaluated(*of_run, certainty.outcomes_of)
bands = {chapter.metric: certainty.bands(outcomes, chapter.metric)}

# %%
from mlprobe_utils.pipeline import scoring
from mlprobe_utils.plots import charts

scores = scoring.probe_scores(chapter.selection)
image_mean = scores[scores["pooling"] == "image_mean"]
outputs = scoring.output_scores(chapter.selection)
drawn = image_mean, outputs, chapter.names, [*bands]
charts.probe_curves(*drawn, bands=bands)

# %% [markdown]
# Where each module ends, with 95 % intervals: of the [retrained probe](../book/glossary.md#retrained-probe) for modules, and for
# the final output of these weights on new images.

# %%
from mlprobe_utils.plots.tables import show
from mlprobe_utils.stats.intervals import RECIPE, WEIGHTS

ends = certainty.end_intervals(outcomes, chapter.metric)
shown = ends[ends["scope"].isin([RECIPE, WEIGHTS])]
low, mid, high = (
    shown[c].map("{:.1f}".format) for c in ("low", "value", "high")
)
shown = shown.assign(cell=mid + " (" + low + " to " + high + ")")

# %%
sites = shown.pivot(index=["dataset", "stage"], columns="site", values="cell")
order = [site for site in ends["site"].unique() if site in sites]
show(chapter.named(sites[order].rename_axis(columns=None).reset_index()))

# %% [markdown]
# Is a step from one place to the next more than noise? A [paired test](../book/glossary.md#paired-test) decides, corrected for all
# steps of this page.

# %% tags=["hide-input"]
steps = certainty.steps(outcomes)
wide = steps.pivot(
    index=["dataset", "stage"], columns="step", values="verdict"
)[[*certainty.STEPS]]
show(chapter.named(wide.rename_axis(columns=None).reset_index()))

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import say
from mlprobe_utils.stats.paired import NEITHER

certain = (steps["verdict"] != NEITHER).sum()
largest = steps.loc[steps["change"].abs().idxmax()]
of_largest = f"{largest['low']:+.1f} to {largest['high']:+.1f}"

# %% tags=["hide-input"]
say(
    f"{certain} of {len(steps)} steps are significant. The largest leads",
    f"{largest['step']}: {largest['change']:+.1f} ({of_largest}) pp.",
)

# %% [markdown]
# ## Feature health
#
# The three health scores and the final output, before and after fine-tuning, as in
# [chapter 5](05_feature_health.ipynb).

# %%
from mlprobe_utils.analysis.health import profile
from mlprobe_utils.evaluation.health import health_by_run

health = health_by_run(scores, chapter.protocol.health.penalty)
profiles = profile(health, outputs)
charts.stage_profiles(profiles, chapter.names)

# %% [markdown]
# After fine-tuning, means over runs: the paper's score (raw), the [corrected](../book/glossary.md#corrected-health-score) one
# with its 95 % interval, and the range in which a [flat curve](../book/glossary.md#flat-curve) scores by noise alone.

# %%
from mlprobe_utils.analysis.health import health_of_run

corrected = health_of_run(chapter.selection)
tuned = corrected[corrected["stage"] == "finetuned"]
numbers = ["raw", "score", "low", "high", "flat_low", "flat_high"]
tuned = tuned.groupby(["dataset", "module"], as_index=False)
noiseless = chapter.named(tuned[numbers].mean())

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.points import MODULES

words = {"score": "corrected", "flat_low": "flat, low"}
words |= {"flat_high": "flat, high"}
in_table = noiseless.replace({"module": MODULES}).rename(columns=words)
show(in_table)

# %% tags=["hide-input"]
after = profiles.query("stage == 'finetuned'")
lowest = MODULES[after.filter(like="FHS").mean().idxmin()[-1]]
flat = noiseless["raw"].between(noiseless["flat_low"], noiseless["flat_high"])

# %% tags=["hide-input"]
say(
    f"The lowest mean score after fine-tuning is that of the {lowest}.",
    f"{flat.sum()} of {len(flat)} scores lie in the range of a flat curve: a",
    "module that changes nothing could have them.",
)

# %% [markdown]
# ## Diagnosis
#
# What is lost between fixed places, and whether the images suffice to tell, as in [chapter 6](06_diagnosis.ipynb).
# Losses are in pp of accuracy with simultaneous 95 % intervals, for retrained probes.

# %%
from mlprobe_utils.analysis.diagnosis_tables import (
    diagnoses,
    in_short,
    usual_losses,
)
from mlprobe_utils.pipeline import results

end_rows = results.end_rows(chapter.selection)
reference = results.reference_rows(chapter.selection)

# %%
rows = results.prediction_rows(chapter.selection)
given = chapter.image_sets, split_rule, usual_losses(chapter.selection)
judged = diagnoses(end_rows, rows, reference, *given, scopes=[RECIPE])
short = in_short(judged)
short_rows = short.drop(columns=["model", "scope", "main"])
show(chapter.named(short_rows))

# %%
from mlprobe_utils.plots.forest import change_chart

judged_after = judged[judged["stage"] == "finetuned"]
title = "What is lost between places after fine-tuning"
change_chart(judged_after, chapter.names, title)

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.diagnosis import NAMED, RULED_OUT, UNDECIDED

main = short[short["stage"] == "finetuned"].dropna(subset="main")
modes = "; ".join(main["main"] + " on " + main["dataset"].map(chapter.names))
verdict = judged_after["verdict"]
found, ruled_out, unknown = (
    (verdict == one).sum() for one in (NAMED, RULED_OUT, UNDECIDED)
)

# %% tags=["hide-input"]
say(
    f"Detected main failure modes after fine-tuning: {modes or 'none'}.",
    f"Of {len(verdict)} possible losses {found} are detected, {ruled_out} are",
    f"ruled out and {unknown} are inconclusive on this many images.",
)

# %% [markdown] tags=["needs-interventions"]
# ## Is it used, and where does it stop?
#
# [Interventions](../book/glossary.md#intervention) go beyond probes, as in [chapter 7](07_is_it_used.ipynb): up to which layer the
# text takes up the image, from which layer on the last token decides, and, where a loss was detected above, which part
# causes it. Damaged copies of this model are listed where the run has them.

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
detected = of_edited(edited.selection, edited.healthy, edited.image_sets)
placed = interventions.placed(states, probed, detected, shares)
show(edited.named(placed.drop(columns=["dataset", "stage"])))

# %% [markdown]
# ## Answers
#
# Rows are true classes, columns are answers to the test images after fine-tuning.

# %%
from mlprobe_utils.plots import squares

tested = rows[rows["split"] == "test"]
late = tested[tested["stage"] == "finetuned"]
squares.confusion(late, chapter.names)

# %% tags=["hide-input"]
is_output = (ends["site"] == "final output") & (ends["stage"] == "finetuned")
final = ends[is_output & (ends["scope"] == WEIGHTS)]
named = final["dataset"].map(chapter.names)
accuracies = [
    f"{name} {one.value:.1f} % ({one.low:.1f} to {one.high:.1f})"
    for name, one in zip(named, final.itertuples(), strict=True)
]

# %% tags=["hide-input"]
correct = late["parsed"] == late["label"]
of_class = correct.groupby([late["dataset"], late["label"]])
recall = of_class.agg(["mean", "sum", "size"])
worst = recall.loc[recall["mean"].idxmin()]
dataset, option = worst.name
unparsed = 100 * tested["parsed"].isna().groupby(tested["stage"]).mean()
metric = chapter.metric.replace("_", " ")

# %% tags=["hide-input"]
say(
    f"{metric.capitalize()} of the answers, with 95 % intervals:",
    f"{'; '.join(accuracies)}. The most missed class is {option}",
    f"of {chapter.names[dataset]}: {worst['sum']:.0f} of {worst['size']:.0f}",
    "answers to its images are correct. Before fine-tuning",
    f"{unparsed['pretrained']:.1f} % of the answers name no option, or several,",
    f"after it {unparsed['finetuned']:.1f} %.",
)

# %% [markdown]
# ## The card
#
# What the model is made of, the prompt that it receives, where it is probed, and what fine-tuning changes.

# %% tags=["hide-input"]
from mlprobe_utils.book.model_table import card_table

card_table(card)

# %% tags=["hide-input"]
print(results.prompts(chapter.selection)["prompt"].iloc[0])

# %% tags=["hide-input"]
from mlprobe_utils.plots.scheme import pipeline_scheme

points = results.probe_points(chapter.selection, card.slug)
adapted = results.adapted_layers(chapter.selection).drop(columns="model")
pipeline_scheme(points, card.name, "".join(adapted["module"]))

# %% tags=["hide-input"]
from mlprobe_utils.book.model_table import parameters_of

trained, whole = adapted["parameters"].sum(), parameters_of(card)
share = f"{100 * trained / whole:.1f} %" if whole else "an unknown share"
say(
    f"The adapter changes {adapted['layers'].sum():,} layers with",
    f"{trained:,} parameters of its own, {share} of the model's number.",
)

# %% [markdown]
# ## All metrics
#
# The paper's five metrics at every probe point: figures S4 to S17 of [Zhu et al. (2026)](../book/bibliography.md#zhu-2026), for this
# model. F1, precision and recall are those of the positive option, or means over all options where the data card names none.

# %%
charts.metric_curves(image_mean, outputs, chapter.names)

# %% [markdown]
# ## Takeaways

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import answer

tops = ends[(ends["stage"] == "finetuned") & (ends["site"] == "L end")]
tops = tops[tops["scope"] == RECIPE].set_index("dataset")
outs = final.set_index("dataset")

# %% tags=["hide-input"]
each = [
    f"{chapter.names[slug]} {tops.at[slug, 'value']:.1f}"
    f" ({tops.at[slug, 'low']:.1f} to {tops.at[slug, 'high']:.1f}) % and"
    f" {outs.at[slug, 'value']:.1f} ({outs.at[slug, 'low']:.1f} to"
    f" {outs.at[slug, 'high']:.1f}) %"
    for slug in tops.index.intersection(outs.index)
]

# %% tags=["hide-input", "answer"]
answer(
    f"{card.name} after fine-tuning, {metric} of the probe",
    "at the end of the LLM and of the answers, with 95 % intervals:",
    f"{'; '.join(each)}. Detected failure modes: {modes or 'none'}.",
)

# %% [markdown]
# - A curve shows what can be decoded; the answers show what becomes of it: compare [the curve](#the-curve) with
#   [the answers](#answers).
# - A health score in the range of a flat curve shows neither harm nor benefit: see [feature health](#feature-health).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("model")
