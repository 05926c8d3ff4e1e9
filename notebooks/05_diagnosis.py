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
# # 5. Diagnosis
#
# **Question.** Between which two places on the way from image to answer is the class lost, and are there enough images
# to tell?
#
# *Prerequisites:* [chapter 3](03_probing). *Time:* 25 minutes to read; half a minute to run once the probes exist.

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

# %% tags=["hide-input"]
from mlprobe_utils.pipeline import laboratory_results
from mlprobe_utils.plots.tables import note

laboratory = laboratory_results.read()
note("How far this diagnosis can be trusted: " + laboratory.words())

# %% [markdown]
# ## Four modes, five statements
#
# Section 4.2 of {cite:t}`zhu-2026` describes four {term}`failure modes <failure mode>`: a vision tower that does not
# encode what tells the classes apart, a connector that lets go of it, an LLM that does not understand what reaches it,
# and an answer that does not follow from what the LLM holds. In words, each fits almost any curve. Here each is a
# statement that can be false: **what can be decoded at one {term}`site` cannot be decoded at any site after it.**

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.diagnosis import STATEMENTS

stated = {"mode": [s.mode for s in STATEMENTS]}
stated["statement"] = [s.name for s in STATEMENTS]
stated["decoded at one of"] = ["; ".join(s.before) for s in STATEMENTS]
stated["and at none of"] = ["; ".join(s.after) for s in STATEMENTS]

# %% tags=["hide-input"]
import pandas as pd
from mlprobe_utils.plots.tables import show

show(pd.DataFrame(stated))

# %% [markdown]
# A site is where a module begins or ends, as a probe reads it; or the answer; or the {term}`reference`: a classifier
# that saw the same training images and nothing else. The LLM has two ends: the image tokens that it leaves behind, and
# the last token, from which it answers.
#
# Image tokens are read in two ways: by their mean, as the paper does, and by their {term}`places`. The mean forgets
# where in the image something is. A class that lies in the places can rise along a curve of means, only because later
# layers have carried it into every token. So what counts is the most that either pooling finds before, against the most
# that either finds after; the table of results names both sites, with their pooling.
#
# The first three modes say **where** the class is lost. A **read-out gap** is a symptom: the class can be decoded, and
# what is read of it does not have it. Its place is open. A module that writes the class in a form that the next one
# cannot use leaves every probe intact, as probes are trained anew behind it, and shows only here. The paper calls what
# it sees of this *misalignment* of the semantic mapping, which is one of the possible places.
#
# ## When a loss counts
#
# Models that nobody has damaged lose something between the sites, too. How much, and how much that differs from one to
# the next, is measured on the undamaged cases of the laboratory. A model is judged by cases of *other* families:
# a yardstick that had seen it would make its own result come true.

# %% tags=["hide-input"]
from mlprobe_utils.pipeline import results

families = dict.fromkeys(results.families(chapter.selection).values())
of_family = laboratory.usual(families)
lost_without_damage = [
    {"statement": name, "of families other than": family, **own._asdict()}
    for family, statements in of_family.items()
    for name, own in statements.items()
]

# %%
undamaged = pd.DataFrame(lost_without_damage).drop(columns="error")
show(undamaged.rename(columns={"mean": "mean loss (pp)"}))

# %% [markdown]
# Cases of a model that collapsed to one answer in its training do not count: they have a read-out gap of their own.
# *between* is the standard deviation between undamaged cases that their test images do not explain. From it, and from
# the error of the new model's own loss, follows how probable a loss of this size is without damage. A statement is
#
# - **named** if that probability is below 5 %, [corrected by Holm](glossary) for all statements on all models and data
#   sets of a table,
# - **ruled out** if the whole interval of the loss lies short of the threshold, from which on a loss would be named,
# - and otherwise **not distinguishable** on this many images: neither a finding nor an all-clear.
#
# Of several that are named, the one that exceeds the usual loss by most is the main mode; a mode that says where goes
# before a read-out gap.
#
# ## Why the sites are fixed
#
# It is tempting to look for the highest point of a curve and to call everything after it lost. Simulated: flat curves of
# so many points and an end, all with the same true accuracy, so that nothing is lost anywhere. How often does a 95 %
# interval say that something is?

# %%
from mlprobe_utils.pipeline.published import origin, simulated

alarms = simulated("fixed_ends")
show(alarms)

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import glue

found = alarms.set_index("from")["false alarms (%)"]
for name, way in zip(("fixed", "best"), found.index.unique(), strict=True):
    glue(f"{name}_low", found[way].min())
    glue(f"{name}_high", found[way].max())
glue("alarms_points", int(alarms["points"].max()))
glue("alarms_origin", origin("fixed_ends"))

# %% [markdown]
# Between two points that were fixed beforehand a loss is found in {glue:text}`fixed_low:.1f` to
# {glue:text}`fixed_high:.1f` % of the curves, about the 2.5 % that such an interval allows itself on either side. From the
# best of {glue:text}`alarms_points`, picked on the test images themselves, it is {glue:text}`best_low:.0f` to {glue:text}`best_high:.0f` %. More
# test images do not help. So the sites above were chosen by where modules end, before any result was seen. (Simulated
# {glue:text}`alarms_origin`.)
#
# ## After fine-tuning
#
# One line a model, one block a statement. Fine-tuned states are those of the first run, with probes of five seeds; the
# scope is the *retrained probe*: probes fitted anew, on new images.

# %%
from mlprobe_utils.analysis.diagnosis_tables import diagnoses, usual_losses

probed = results.end_rows(chapter.selection)
predicted = results.prediction_rows(chapter.selection)
reference = results.reference_rows(chapter.selection)
known = usual_losses(chapter.selection)
given = chapter.image_sets, split_rule, known
told = diagnoses(probed, predicted, reference, *given)

# %%
from mlprobe_utils.plots.forest import change_chart
from mlprobe_utils.stats.intervals import RECIPE

of_recipe = told[told["scope"] == RECIPE]
after = of_recipe[of_recipe["stage"] == "finetuned"]
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
from mlprobe_utils.evaluation.diagnosis import NAMED, RULED_OUT, UNDECIDED

counts = after["verdict"].value_counts()
words = {NAMED: "named", RULED_OUT: "out", UNDECIDED: "open"}
for verdict, name in words.items():
    glue(f"verdicts_{name}", int(counts.get(verdict, 0)))
glue("statements", len(after))

# %% tags=["hide-input"]
modes = short["main"].value_counts()
listed = ", ".join(f"{mode} {count}" for mode, count in modes.items())
glue("diagnosed", int(short["main"].notna().sum()))
glue("pairs", len(short))
glue("modes", listed or "none")

# %% [markdown]
# Losses are in points of accuracy, with their simultaneous intervals and the sites that they lie between. A mode is
# named for {glue:text}`diagnosed` of {glue:text}`pairs` pairs of model and data set ({glue:text}`modes`). Of
# {glue:text}`statements` statements {glue:text}`verdicts_named` are named, {glue:text}`verdicts_out` ruled out, and
# {glue:text}`verdicts_open` left open.
#
# How large would a loss have to be? *Usual* is what undamaged models lose, *threshold* the loss that is named among so
# many statements, and *detected in 80 %* the true loss that is named four times in five; mean over models.

# %%
limits = after.groupby(["dataset", "statement"], sort=False)
limits = limits[["usual", "threshold", "detectable"]].mean().reset_index()
limits = limits.rename(columns={"detectable": "detected in 80 %"})
show(chapter.named(limits))

# %% tags=["hide-input"]
glue("detectable_least", after["detectable"].min())
glue("detectable_most", after["detectable"].max())

# %% [markdown]
# A true loss of {glue:text}`detectable_least:.0f` to {glue:text}`detectable_most:.0f` points is detected four times in
# five on these test sets. Smaller ones are missed more often than not.

# %% [markdown] tags=["needs-planted-faults"]
# ## Models with a known fault
#
# The models above are healthy as far as anyone knows. In these one fault was planted, weak or strong
# ([chapter 11](11_planted_faults)); each should show the failure mode of its place.

# %%
damaged = chapter.damaged()
chosen = damaged.selection
rows = results.end_rows(chosen), results.prediction_rows(chosen)
reference = results.reference_rows(damaged.healthy)
given = damaged.image_sets, split_rule, usual_losses(chosen), [RECIPE]
of_damaged = diagnoses(*rows, reference, *given)

# %%
title = "What is lost between sites where a fault was planted"
change_chart(of_damaged, damaged.names, title)

# %%
from mlprobe_utils.analysis.diagnosis_tables import against_planted

judged = against_planted(of_damaged, damaged.planted)
show(damaged.named(judged))

# %%
how = {"yes": "detected", "another mode": "another mode", "no": "none"}
cases = judged.groupby(["planted", "strength"], sort=False)["detected"]
detected = cases.value_counts().unstack(fill_value=0)
detected = detected.reindex(columns=[*how], fill_value=0).rename(columns=how)
detected.insert(0, "cases", detected.sum(axis=1))
show(detected.rename_axis(columns=None).reset_index())

# %% tags=["hide-input"]
glue("modes_seen", judged.query("detected == 'yes'")["planted"].nunique())

# %% [markdown]
# {glue:text}`modes_seen` of the four failure modes are found at least once where they were planted. *Another mode* counts
# the cases in which the main mode is not the planted one, and *none* those in which nothing is named: a weak fault loses
# about as much as the intervals are wide.

# %% [markdown] tags=["needs-interventions"]
# ## Where a read-out gap lies
#
# A read-out gap has no place: probes are fitted anew behind whatever caused it. An {term}`intervention` can tell more:
# blocks that do harm are left out, and the output layer ranks the options itself ([chapter 13](13_is_it_used)). Of the
# states that went through interventions:

# %%
from mlprobe_utils.analysis import interventions

edited = chapter.edited()
states = results.intervention_rows(edited.selection)
shares = laboratory.shares(results.families(edited.selection))

# %%
from mlprobe_utils.analysis.diagnosis_tables import of_edited

given = edited.selection, edited.healthy, edited.image_sets
probed_there = results.end_rows(edited.selection)
judged_there = of_edited(*given)
placed = interventions.placed(states, probed_there, judged_there, shares)
shown = placed.drop(columns=["by twin", "dataset", "stage"])
show(edited.named(shown))

# %% tags=["hide-input"]
glue("placed", int(placed["place"].notna().sum()))
glue("edited", len(placed))

# %% [markdown]
# Something is named in {glue:text}`placed` of {glue:text}`edited` states, and placed by what its blocks do. *Missing* is
# what can be decoded somewhere and is not answered, in points. In the laboratory:

# %% tags=["hide-input"]
note(laboratory.placement_words())

# %% [markdown]
# ## Fixed probe, retrained probe
#
# The intervals above allow for probes that would be fitted anew. Those of the *fixed probe* take the fitted ones as they are
# and allow for new images only. Statements on which the two differ, of both stages:

# %%
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.stats.intervals import PROBE

keys = [*STATE, "statement"]
wide = told.pivot_table("verdict", keys, "scope", aggfunc="first", sort=False)
differ = wide[wide[PROBE] != wide[RECIPE]][[PROBE, RECIPE]]
show(chapter.named(differ.rename_axis(columns=None).reset_index()))

# %% tags=["hide-input"]
glue("differ", len(differ))
glue("asked", len(of_recipe))

# %% [markdown]
# {glue:text}`differ` of {glue:text}`asked`. Where they differ, the verdict hangs on the seeds of these few probes: it may
# be true of them, and not of the next ones.
#
# ## Before fine-tuning
#
# The same five statements on the models as they were loaded.

# %%
before = of_recipe[of_recipe["stage"] == "pretrained"]
title = "What is lost between sites before fine-tuning"
change_chart(before, chapter.names, title)

# %% [markdown]
# A model that was never taught to answer this question can hold the class and say something else. The read-out gap
# between the last token and the answer, and how many answers name no option or several; means over models, of each
# model in the file:

# %%
own = of_recipe[of_recipe["statement"] == STATEMENTS[-1].name]
ends = {"value": "lost", "band_high": "low", "band_low": "high"}
gap = own[STATE].join(-own[[*ends]].rename(columns=ends))
gap["verdict"] = own["verdict"]

# %%
from mlprobe_utils.pipeline import scoring

outputs = scoring.output_scores(chapter.selection)
outputs = outputs[outputs["run"].fillna(0) == 0]
unparsed = outputs.rename(columns={"unparsed": "unparsed (%)"})
said = gap.merge(unparsed[[*STATE, "unparsed (%)"]], on=STATE)
by_set = said.groupby(["dataset", "stage"])[["lost", "unparsed (%)"]]
show(chapter.named(by_set.mean().reset_index()))

# %%
from mlprobe_utils.plots.tables import file

file(chapter.named(said), "Read-out gap and unparsed answers")

# %% tags=["hide-input"]
for stage, own in said.groupby("stage"):
    glue(f"gaps_{stage}", int((own["verdict"] == NAMED).sum()))
    glue(f"lost_{stage}", own["lost"].mean())
    glue(f"unparsed_{stage}", own["unparsed (%)"].mean())

# %% [markdown]
# Before fine-tuning, that gap is named for {glue:text}`gaps_pretrained` of {glue:text}`pairs` pairs: on average
# {glue:text}`lost_pretrained:.1f` points lie between the last token and the answer, and
# {glue:text}`unparsed_pretrained:.1f` % of the answers cannot be parsed. After it, for
# {glue:text}`gaps_finetuned`, with {glue:text}`lost_finetuned:.1f` points and
# {glue:text}`unparsed_finetuned:.1f` %. An unparsed answer counts as wrong, so that part of the loss is one of form.
#
# ## The read-out gap, taken apart
#
# From the last token's state to the answer the model has a mapping of its own: its output layer ranks the options, and
# decoding turns the ranking into words. The {term}`logit lens` at the last layer shows the ranking. A *readout*, fitted
# on the options' probabilities of the validation images, shows what another mapping could make of them.

# %%
from mlprobe_utils.analysis.diagnosis_tables import (
    mapping_losses,
    readout_rows,
)

lens = results.lens_rows(chapter.selection)
readout = readout_rows(predicted)
rows = probed, lens, predicted, readout
mapped = mapping_losses(*rows, chapter.image_sets, split_rule)

# %%
from mlprobe_utils.analysis.diagnosis_tables import GAINED, LOST, NEITHER

of_stage = mapped[mapped["stage"] == "pretrained"]
title = "From the last token to the answer, before fine-tuning"
change_chart(of_stage, chapter.names, title, (LOST, GAINED, NEITHER))

# %%
of_stage = mapped[mapped["stage"] == "finetuned"]
title = "From the last token to the answer, after fine-tuning"
change_chart(of_stage, chapter.names, title, (LOST, GAINED, NEITHER))

# %% tags=["hide-input"]
from mlprobe_utils.analysis.diagnosis_tables import STEPS

steps = dict(zip(("ranked", "said", "readout"), STEPS, strict=True))
for name, step in steps.items():
    own = mapped[mapped["statement"] == step.name]
    lost = own[own["verdict"] == LOST].groupby("stage").size()
    for stage in ("pretrained", "finetuned"):
        glue(f"{name}_{stage}", int(lost.get(stage, 0)))

# %% [markdown]
# Of {glue:text}`pairs` pairs, before and after fine-tuning: the output layer ranks worse than the probe reads in
# {glue:text}`ranked_pretrained` and {glue:text}`ranked_finetuned`; what is said is worse than the ranking in
# {glue:text}`said_pretrained` and {glue:text}`said_finetuned`; and a fitted readout of the options' probabilities would be
# right more often than the answer in {glue:text}`readout_pretrained` and {glue:text}`readout_finetuned`. The first is a
# mapping that does not look where the class is, the second is decoding and form, and the third can be mended without
# touching the model.
#
# Whether an earlier layer ranked them better is asked in [chapter 9](09_comprehension_utilization).
#
# ## How far the diagnosis can be trusted
#
# In the laboratory, models are damaged at a known place and by a known amount ([chapter 11](11_planted_faults)) and then
# diagnosed. Some of these faults destroy the class, others keep it and make it unusable: any probe reads it behind
# them, and the model does not. `make laboratory` runs it on every model of a book; the cases of the last run are part of
# the project, in `data/diagnosis/`. Rows: what was planted; columns: the main mode.

# %%
confusion = laboratory_results.confusion(laboratory.cases)
show(confusion.rename_axis(columns=None).reset_index())

# %% [markdown]
# How often it is right, and how often it raises an alarm where nothing was planted, with exact 95 % intervals
# (Clopper-Pearson). Each case is judged by undamaged models of other families, and by no case of any fault:

# %%
rates = laboratory.rates
show(rates[rates["of"] == "all"].drop(columns="of"))

# %% tags=["hide-input"]
file(rates, "The same by module, kind of fault, family and data set")

# %% [markdown]
# The cases of one model are not independent of each other, so that over models the intervals would be wider.
#
# ## What it cannot tell
#
# - **Why.** A loss between two sites says where the class is harder to read, not what went wrong there.
# - **Where a read-out gap begins.** A class that is kept and cannot be used leaves no trace before the answer. Its place
#   can only be found by changing something inside the model.
# - **What a larger probe would find.** A loss is one *to these probes*: information may be there in another form.
# - **What the reference and the first block cannot see.** A quality limitation is measured against one simple
#   classifier and the first vision block. That none is named does not make a vision tower good.
# - **Losses smaller than the images can show.** On 150 images an interval of a difference easily spans 15 points. Left
#   open is the honest answer then, and the remedy is more test images.
# - **Faults of other kinds.** The laboratory plants those that [chapter 11](11_planted_faults) lists.
# - **A loss that is made up for later.** Image tokens may lose what the last token has read before: therefore two
#   statements on the LLM, of which neither alone is a deficit of the answer.
#
# ## Takeaways
#
# - A failure mode is a claim about two places, and has to be able to fail: see
#   [four modes, five statements](#four-modes-five-statements).
# - Places that are picked after looking find losses everywhere: see [why the sites are fixed](#why-the-sites-are-fixed).
# - "Not distinguishable" is a result: see [after fine-tuning](#after-fine-tuning).
# - A wrong answer may be one of form: see [the read-out gap, taken apart](#the-read-out-gap-taken-apart).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("05_diagnosis")
