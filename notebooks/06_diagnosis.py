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
# # 6. Diagnosis
#
# **Question.** Between which two places on the way from image to answer is the class lost, and are there enough images
# to decide?
#
# *Prerequisites:* [chapter 4](04_planted_faults.ipynb). *Time:* 25 minutes to read; half a minute to run once the
# probes exist.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: those of data/book.yml
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import answer, say, start

chapter = start(globals())
chapter.opening()

# %% [markdown]
# ## Four modes, five statements
#
# Section 4.2 of [Zhu et al. (2026)](../book/bibliography.md#zhu-2026) describes four
# [failure modes](../book/glossary.md#failure-mode): a vision tower that does not encode what separates the classes, a
# connector that loses it, an LLM that does not understand its input, and an answer that does not follow from what the
# LLM holds. In words, each fits almost any curve. Here each is a statement that can be false: **the class can be
# decoded at one [site](../book/glossary.md#measurement-point) and at no site after it.**

# %% tags=["hide-input"]
import pandas as pd
from mlprobe_utils.evaluation.diagnosis import STATEMENTS
from mlprobe_utils.plots.tables import file, show

sites = [("; ".join(s.before), "; ".join(s.after)) for s in STATEMENTS]
stated = pd.DataFrame(sites, columns=["decoded at one of", "and at none of"])
stated.insert(0, "statement", [s.name for s in STATEMENTS])
show(stated)

# %% [markdown]
# A site is the beginning or the end of a module, as a probe decodes it; or the answer; or the
# [reference](../book/glossary.md#reference), a classifier trained on the same training images and nothing else. The LLM
# has two ends: its image tokens, and the last token, from which it answers.
#
# Image tokens are probed in two ways: by their mean, as in the paper, and by their
# [places](../book/glossary.md#position-preserving-pooling). The mean discards where in the image something is. A class that lies in the
# places can therefore rise along a curve of means, only because later layers carry it into every token. So we compare
# the best of both poolings before with the best of both after; the results name both sites with their pooling.
#
# The first three modes say **where** the class is lost. A **read-out gap** is a symptom: the class can be decoded, and
# the answer does not use it. Its place is open. A module may write the class in a form that the next one cannot use.
# Probes are trained anew after it and notice nothing, so this shows only here. The paper calls it *misalignment* of the
# semantic mapping, which is one of the possible places.
#
# ## When a loss counts
#
# Undamaged models, too, lose something between the sites. How much, and how much this varies, is measured on the
# undamaged cases of the [fault-injection benchmark](#how-far-the-diagnosis-can-be-trusted). A model is compared with
# cases of *other* families, so that it does not confirm itself. The mean loss in pp (in brackets: standard deviation
# between cases):

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.diagnosis import NAMED, RULED_OUT, UNDECIDED
from mlprobe_utils.pipeline import laboratory_results, results

benchmark = laboratory_results.read()
families = dict.fromkeys(results.families(chapter.selection).values())
usual = benchmark.usual(families)
spread = "{0.mean:.1f} ({0.between:.1f})".format

# %%
by_family = {
    f"families other than {family}": {
        name: spread(own) for name, own in s.items()
    }
    for family, s in usual.items()
}
show(pd.DataFrame(by_family).rename_axis("statement").reset_index())

# %% [markdown]
# Cases that collapsed to one answer in their training do not count: they have a read-out gap of their own. From these
# numbers, and from the error of the new model's own loss, we compute how probable a loss of this size is without
# damage:
#
# ```python
# deviation = (between ** 2 + error_of_mean ** 2 + error_of_loss ** 2) ** 0.5
# p = scipy.stats.t.sf((loss - mean) / deviation, models - 1)
# ```

# %% tags=["hide-input"]
say(
    f"A statement is\n\n- **{NAMED}** if p is below 5 %,",
    "[corrected by Holm's method](../book/glossary.md#holm-correction)",
    "for all statements, models and data sets of a table,\n- "
    f"**{RULED_OUT}** if the whole interval of the loss is short of the",
    f"threshold above which it would be {NAMED},\n- otherwise **{UNDECIDED}**:",
    "neither a finding nor an all-clear.",
)

# %% [markdown]
# If several modes are found, the main one exceeds the usual loss by most; a mode with a place goes before a read-out
# gap.
#
# ## Why the sites are fixed
#
# It is tempting to take the highest point of a curve and to call everything after it lost. To test this, we simulate
# flat curves, where nothing is lost. How often does a 95 % interval show a loss?

# %%
from mlprobe_utils.pipeline.published import origin, simulated

alarms = simulated("fixed_ends")
show(alarms.rename(columns={"from": "loss is measured from"}))

# %% tags=["hide-input"]
found = alarms.groupby("from", sort=False)["false alarms (%)"]
(least, least_best), (most, most_best) = found.min(), found.max()
say(
    f"Between two fixed points: in {least:.1f} to {most:.1f} % of the curves;",
    "such an interval allows 2.5 % on either side. From the best of",
    f"{alarms['points'].max()} probe points: in {least_best:.0f} to {most_best:.0f} %.",
    f"More images do not help. (Simulated {origin('fixed_ends')}.)",
)

# %% [markdown]
# So the sites are the ends of modules, chosen before any result was seen.
#
# ## After fine-tuning
#
# One line per model, one block per statement. The fine-tuned models are those of the first run, with probes of several
# seeds; the scope is the *retrained probe*: probes trained anew, on new images.

# %%
from mlprobe_utils.analysis.diagnosis_tables import diagnoses, usual_losses

probed = results.end_rows(chapter.selection)
predicted = results.prediction_rows(chapter.selection)
reference = results.reference_rows(chapter.selection)
known = usual_losses(chapter.selection)
given = chapter.image_sets, split_rule, known
verdicts = diagnoses(probed, predicted, reference, *given)

# %%
from mlprobe_utils.plots.forest import change_chart
from mlprobe_utils.stats.intervals import RECIPE

retrained = verdicts[verdicts["scope"] == RECIPE]
after = retrained[retrained["stage"] == "finetuned"]
title = "What is lost between sites after fine-tuning"
change_chart(after, chapter.names, title)

# %%
from mlprobe_utils.analysis.diagnosis_tables import in_short

short = in_short(after)
cells = chapter.named(short).pivot_table(
    "diagnosis", "model", "dataset", aggfunc="first", sort=False
)
show(cells.rename_axis(columns=None).reset_index())

# %% tags=["hide-input"]
modes = short["main"].value_counts()
listed = ", ".join(f"{mode} {count}" for mode, count in modes.items())
diagnosed = f"{modes.sum() or 'none'} of {len(short)} combinations of model "
diagnosed += f"and data set{f' ({listed})' if listed else ''}"
counts = after["verdict"].value_counts()
shares = [counts.get(word, 0) for word in (NAMED, RULED_OUT, UNDECIDED)]

# %% tags=["hide-input"]
tally = f"{len(after)} statements: {shares[0]} {NAMED}, {shares[1]} "
tally += f"{RULED_OUT}, {shares[2]} {UNDECIDED}"
say(
    f"A failure mode is found for {diagnosed}. {tally}.",
    "Losses are in pp of accuracy, with simultaneous 95 % intervals and the",
    "sites between which they lie.",
)

# %% [markdown]
# How large does a loss have to be? *Usual* is the mean loss of undamaged models; *threshold* is the loss that would
# count among so many statements; *detected in 80 %* is the true loss that would be found four times in five. Means over
# models:

# %% tags=["hide-output"]
limits = after.groupby(["dataset", "statement"], sort=False)
limits = limits[["usual", "threshold", "detectable"]].mean().reset_index()
limits = limits.rename(columns={"detectable": "detected in 80 %"})
show(chapter.named(limits))

# %% tags=["hide-input"]
size = after["detectable"]
size = f"{size.min():.0f} to {size.max():.0f} pp, depending on model and data"
say(
    f"A true loss of {size}, is found four times in five on these test sets.",
    "Most smaller ones are missed.",
)

# %% [markdown] tags=["needs-planted-faults"]
# ## Models with a known fault
#
# As far as anyone knows, the models above are healthy. Each of these has one planted fault
# ([chapter 4](04_planted_faults.ipynb)) and should show the failure mode of its place.

# %%
damaged = chapter.damaged()
chosen = damaged.selection
rows = results.end_rows(chosen), results.prediction_rows(chosen)
reference_there = results.reference_rows(damaged.healthy)
of_sets = damaged.image_sets, split_rule, usual_losses(chosen), [RECIPE]
of_damaged = diagnoses(*rows, reference_there, *of_sets)

# %%
title_there = "What is lost between sites where a fault was planted"
change_chart(of_damaged, damaged.names, title_there)

# %%
from mlprobe_utils.analysis.diagnosis_tables import against_planted

judged = against_planted(of_damaged, damaged.planted)
show(damaged.named(judged.drop(columns="strength")))

# %% tags=["hide-input"]
hits = judged.groupby("strength", sort=False)["detected"]
hits = [f"{(own == 'yes').sum()} of {len(own)} {name}" for name, own in hits]
others = (judged["detected"] == "another mode").sum()
say(
    f"The planted mode is the main one for {' and '.join(hits)} faults;",
    f"another mode is the main one for {others}. A weak fault costs about as",
    "much as the intervals are wide.",
)

# %% [markdown] tags=["needs-interventions"]
# ## Where a read-out gap lies
#
# A read-out gap has no place, because probes are trained anew after its cause. An
# [intervention](../book/glossary.md#intervention) can find it: harmful blocks are skipped, and the output layer ranks
# the options itself ([chapter 7](07_is_it_used.ipynb)).

# %%
from mlprobe_utils.analysis import interventions

edited = chapter.edited()
states = results.intervention_rows(edited.selection)
limits_there = benchmark.shares(results.families(edited.selection))

# %%
from mlprobe_utils.analysis.diagnosis_tables import of_edited

where = edited.selection, edited.healthy, edited.image_sets
sources = states, results.end_rows(edited.selection), of_edited(*where)
placed = interventions.placed(*sources, limits_there)
columns = ["model", "detected", "missing (pp)", "place", "why"]
show(edited.named(placed)[columns])

# %% tags=["hide-input"]
say(
    f"For {placed['place'].notna().sum()} of the {len(placed)} models a mode is",
    "found, and its place is sought by the effect of the blocks. *Missing*",
    "is the accuracy that can be decoded somewhere and is not answered.",
    "How often the place is correct: see [chapter 7](07_is_it_used.ipynb).",
)

# %% [markdown]
# ## Fixed probe, retrained probe
#
# The intervals above allow for probes trained anew. Those of the *fixed probe* keep the trained probes and allow for
# new images only. Statements on which the two differ, of both stages:

# %%
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.stats.intervals import PROBE

keys = [*STATE, "statement"]
scopes = verdicts.pivot_table("verdict", keys, "scope", "first", sort=False)
differ = scopes[scopes[PROBE] != scopes[RECIPE]][[PROBE, RECIPE]]
show(chapter.named(differ.rename_axis(columns=None).reset_index()))

# %% tags=["hide-input"]
say(
    f"They differ on {len(differ) or 'none'} of the {len(scopes)} statements.",
    "Where they do, the verdict depends on the seeds of these few probes: it",
    "may hold for them and not for the next ones.",
)

# %% [markdown]
# ## Before fine-tuning
#
# The same five statements on the models as they were loaded:

# %%
before = retrained[retrained["stage"] == "pretrained"]
title_before = "What is lost between sites before fine-tuning"
change_chart(before, chapter.names, title_before)

# %% [markdown]
# A model that was never trained to answer this question can hold the class and write something else. The gap between
# the last token and the answer (pp), and the share of answers that name no option or several. These are means over the
# models of this run; the gap of each, with its interval, is in the file.

# %%
from mlprobe_utils.pipeline import scoring

own = retrained[retrained["statement"] == STATEMENTS[-1].name]
gap = own[[*STATE, "verdict"]].assign(gap=-own["value"])
gap = gap.assign(low=-own["band_high"], high=-own["band_low"])
outputs = scoring.output_scores(chapter.selection)
outputs = outputs[outputs["run"].fillna(0) == 0]

# %%
form = outputs.rename(columns={"unparsed": "unparsed (%)"})
gaps = gap.merge(form[[*STATE, "unparsed (%)"]], on=STATE)
gaps = gaps.rename(columns={"gap": "gap (pp)"})
means = gaps.groupby(["dataset", "stage"])[
    ["gap (pp)", "unparsed (%)"]
].mean()
show(chapter.named(means.reset_index()))

# %%
file(chapter.named(gaps), "Read-out gap and unparsed answers")

# %% tags=["hide-input"]
numbers = gaps.groupby("stage")[["gap (pp)", "unparsed (%)"]].mean()
cases = gaps[gaps["verdict"] == NAMED].groupby("stage").size()
first, then = (
    f"in {cases.get(stage, 0)} of {(gaps['stage'] == stage).sum()} cases "
    "({:.1f} pp on average; {:.1f} % unparsed)".format(*numbers.loc[stage])
    for stage in ("pretrained", "finetuned")
)

# %% tags=["hide-input"]
say(
    f"Before fine-tuning, the gap is {NAMED} {first}; after it, {then}.",
    "An unparsed answer counts as incorrect, so this part of the loss is one",
    "of form.",
)

# %% [markdown]
# ## The read-out gap, taken apart
#
# From the last token's state, the model's output layer ranks the options, and decoding turns the ranking into words.
# The [logit lens](../book/glossary.md#logit-lens) at the last layer shows the ranking. A *readout*, fitted on the
# options' probabilities of the validation images, shows what another mapping could make of them.

# %%
from mlprobe_utils.analysis.diagnosis_tables import (
    mapping_losses,
    readout_rows,
)

lens = results.lens_rows(chapter.selection)
steps_of = probed, lens, predicted, readout_rows(predicted)
mapped = mapping_losses(*steps_of, chapter.image_sets, split_rule)

# %% tags=["hide-output"]
from mlprobe_utils.analysis.diagnosis_tables import GAINED, LOST, NEITHER

untuned = mapped[mapped["stage"] == "pretrained"]
title_untuned = "From the last token to the answer, before fine-tuning"
change_chart(untuned, chapter.names, title_untuned, (LOST, GAINED, NEITHER))

# %%
tuned = mapped[mapped["stage"] == "finetuned"]
title_tuned = "From the last token to the answer, after fine-tuning"
change_chart(tuned, chapter.names, title_tuned, (LOST, GAINED, NEITHER))

# %% tags=["hide-input"]
from mlprobe_utils.analysis.diagnosis_tables import STEPS

stages = ["pretrained", "finetuned"]
lost = mapped[mapped["verdict"] == LOST]
lost = pd.crosstab(lost["statement"], lost["stage"])
names = [step.name for step in STEPS]
pairs = lost.reindex(index=names, columns=stages, fill_value=0).to_numpy()

# %% tags=["hide-input"]
ranked, written, fitted = ("{} before and {} after".format(*p) for p in pairs)
say(
    f"Combinations of model and data set with a loss, of {len(short)} each.",
    f"The output layer ranks worse than the probe decodes: {ranked}. The",
    f"answer is worse than the ranking: {written}. A fitted readout would be",
    f"correct more often than the answer: {fitted}.",
)

# %% [markdown]
# The first is a mapping that does not look where the class is. The second is decoding and form. The third can be
# repaired without touching the model. Whether an earlier layer ranks the options better is tested in
# [chapter 11](11_comprehension_utilization.ipynb).
#
# ## How far the diagnosis can be trusted
#
# In the **fault-injection benchmark**, models are damaged at a known place by a known amount
# ([chapter 4](04_planted_faults.ipynb)) and then diagnosed. Some faults destroy the class; others keep it and make it
# unusable: every probe decodes it after them, and the model does not. `make laboratory` runs the benchmark on every
# model of a book; the cases of the last run are part of the project, in `data/diagnosis/`. Rows: what was planted;
# columns: the main mode.

# %%
confusion = laboratory_results.confusion(benchmark.cases)
show(confusion.rename_axis(columns=None).reset_index())

# %% [markdown]
# How often the diagnosis is correct, and how often it raises a false alarm, with exact 95 % intervals
# (Clopper-Pearson). Each case is compared with undamaged models of other families, and with no damaged case:

# %%
rates = benchmark.rates
overall = rates[rates["of"] == "all"].drop(columns="of")
percent = {"share": "share (%)", "low": "low (%)", "high": "high (%)"}
show(overall.rename(columns={"what": "cases: outcome", **percent}))

# %% tags=["hide-input"]
file(rates, "The same by module, kind of fault, family and data set")

# %% tags=["hide-input"]
from mlprobe_utils.pipeline.fault_card import load_trial

changed = laboratory_results.CHANGED in benchmark.words()
say(
    f"This benchmark was run on {benchmark.run.date}.",
    *([laboratory_results.CHANGED] if changed else []),
    "Cases of one model are not independent, so the intervals are too narrow.",
)

# %% [markdown]
# ## What the diagnosis cannot tell
#
# - **Why.** A loss between two sites says where the class is harder to decode, not what went wrong there.
# - **Where a read-out gap begins.** A class that is kept and cannot be used leaves no trace before the answer. Only
#   changes inside the model can find its place.
# - **What a larger probe would find.** A loss is one *for these probes*: the information may be there in another form.
# - **What the reference and the first block miss.** A quality limitation is measured against one simple classifier and
#   the first vision block. If none is found, the vision tower may still be poor.
# - **Losses smaller than the images can show.** The remedy is more test images.
# - **Faults of other kinds** than those that [chapter 4](04_planted_faults.ipynb) lists.
# - **A loss that is made up for later.** Image tokens may lose what the last token has already taken. Therefore two
#   statements are about the LLM, and neither alone is a deficit of the answer.
#
# ## Takeaways

# %% tags=["hide-input"]
rate = (
    "{0.counted} of {0.cases} ({0.share:.0f} % [{0.low:.0f}, {0.high:.0f}])"
)
by_what = {row.what: rate.format(row) for row in overall.itertuples()}
strong = load_trial().strong
right = laboratory_results.PLACED_RIGHT.format(strong=strong)
right = by_what.get(right, "no")
alarm = by_what.get(laboratory_results.FALSE_ALARMS, "no")

# %% tags=["hide-input", "answer"]
answer(
    f"After fine-tuning, a loss is found for {diagnosed}. Of {tally}. On these",
    f"test sets, a true loss of {size}, is found four times in five. In the",
    f"fault-injection benchmark, a fault that destroys {strong:g} pp or more is",
    f"diagnosed at the correct place in {right} cases; undamaged models give a",
    f"false alarm in {alarm} cases (exact 95 % intervals).",
)

# %% [markdown]
# - A failure mode is a claim about two places, and it must be able to fail: see
#   [four modes, five statements](#four-modes-five-statements).
# - Do not pick the sites after looking at the curve: see [why the sites are fixed](#why-the-sites-are-fixed).
# - An inconclusive statement is a result: see [after fine-tuning](#after-fine-tuning).
# - An incorrect answer may be one of form: see [the read-out gap, taken apart](#the-read-out-gap-taken-apart).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("06_diagnosis")
