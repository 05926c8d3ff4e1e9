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
# *Prerequisites:* [chapter 2](02_fine_tuning). *Time:* 30 minutes to read; seconds to run once the features exist.

# %% tags=["parameters", "hide-input"]
models: list[str] = []  # model cards; empty: those of data/book.yml
datasets: list[str] = []  # data cards; empty: all phantoms
protocol: str = "miniature"  # all hyperparameters, a file in data/protocols
split_rule: str = "paper"  # or "clean": no duplicate or patient crosses it
data: str = ""  # folder with real images, by default those of the paper
metric: str = ""  # accuracy, or balanced accuracy of very unequal classes; or f1, mcc, …

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import start

chapter = start(globals())
chapter.opening()

# %% [markdown]
# ## The way of an image
#
# The model as it was loaded, with the places where its features are read. This is figure 2 of {cite:t}`zhu-2026` for
# the first model of this run; the others' are on their own pages. An image passes the {term}`vision tower`, block by
# block, the {term}`connector`, and the decoder layers of the {term}`LLM`; the place where it leaves each of them is a
# {term}`probe point`.

# %% tags=["hide-input"]
from mlprobe_utils.pipeline import results
from mlprobe_utils.plots.scheme import pipeline_scheme, scheme_table

first = chapter.selection.models[0]
points = results.probe_points(chapter.selection, first)
reached = results.adapted_layers(chapter.selection).set_index("model")
adapted = "".join(reached.loc[[first], "module"])
pipeline_scheme(points, chapter.names[first], adapted)

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import show

show(scheme_table(points))

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import glue
from mlprobe_utils.book.model_table import pixel_words

glue("probe_points", len(points))
glue("widths", ", ".join(map(str, points["width"].unique())))
glue("pixels", pixel_words(chapter.models.values(), chapter.protocol.images))

# %% [markdown]
# {glue:text}`probe_points` points, and features of {glue:text}`widths` numbers an image: at each point the tokens of an
# image are averaged inside the forward pass, so that one pass over the images serves all points. Text tokens never
# enter the mean. In the LLM the state of the prompt's {term}`last token`, from which the answer is generated, is a
# second reading.
#
# {glue:text}`pixels`
#
# ## How a probe reads a layer
#
# A {term}`probe` ({cite:t}`alain-2016`) is a small classifier that sees one point's features and nothing else, while
# the model stays frozen. All of them are trained with one recipe, on the images that the model was fine-tuned on.

# %%
show(chapter.recipe("probe"))

# %% [markdown]
# What a probe finds is a lower bound of what a layer holds: another classifier could find more
# ([chapter 12](12_probe_recipes)). And it is not what the model uses: a class can be read from features that no later layer
# looks at.
#
# ## The curves
#
# A faint line is one run, a strong one the mean of the runs; the diamond at the end is the generated answer, at the
# lower edge with its value where it lies far below. This is figure 3 of {cite:t}`zhu-2026` for the models of this run.
# The thin lines are controls, which [a section below](#what-a-claim-must-beat) explains. The areas say how sure the
# curves are: other probes, of {glue:text}`probe_seeds` seeds, are fitted before fine-tuning and after its first run.

# %%
from mlprobe_utils.analysis import certainty
from mlprobe_utils.pipeline.tested import evaluated

of_run = chapter.selection, chapter.image_sets
readings = evaluated(*of_run, certainty.outcomes_of)
bands = certainty.bands(readings, chapter.metric)

# %%
from mlprobe_utils.pipeline import scoring
from mlprobe_utils.plots import charts

scores = scoring.probe_scores(chapter.selection)
outputs = scoring.output_scores(chapter.selection)
image_mean = scores[scores["pooling"] == "image_mean"]
controls = scoring.control_scores(chapter.selection)
given = image_mean, outputs, chapter.names, chapter.metric
charts.probe_curves(*given, controls, bands)

# %% tags=["hide-input"]
curve = ["model", "dataset", "stage", "point"]
means = image_mean.groupby(curve)[chapter.metric].mean()
after = means.xs("finetuned", level="stage")
best = after.idxmax()
glue("best_point", best[2])
glue("best_value", after.max())
glue("best_where", f"{chapter.names[best[0]]} on {chapter.names[best[1]]}")

# %% tags=["hide-input"]
limits = bands.set_index(curve)
line = means.reindex(limits.index)
outside = (line < limits["band_low"]) | (line > limits["band_high"])
glue("probe_seeds", chapter.protocol.probe_seeds)
glue("band_points", len(outside))
glue("band_outside", int(outside.sum()))

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import RESAMPLED

areas = "The areas are simultaneous 95 % bands of the retrained probe."
none = f"Of '{chapter.metric}' no areas are drawn: bands are computed of "
none += f"{', '.join(RESAMPLED)} alone."
glue("band_words", areas if chapter.metric in RESAMPLED else none)

# %% [markdown]
# The highest mean after fine-tuning is {glue:text}`best_value:.1f` % at {glue:text}`best_point`
# ({glue:text}`best_where`). It is the highest of many noisy values, and would be lower on other images: no choice is
# made with it. {glue:text}`band_words` A line is the mean of all runs and the area that of the first one, so that the
# line can leave it: it does so at {glue:text}`band_outside` of {glue:text}`band_points` points.
#
# The patterns of section 4.1 are counted [below](#recurring-patterns).

# %% [markdown] tags=["needs-planted-faults"]
# ## What a loss looks like
#
# Nobody knows where a real model loses the class. Here it is known: in one fine-tuned model of this run one fault at a
# time is planted, weak or strong, at one place, and each damaged model goes through the same steps as the healthy ones
# ([chapter 11](11_planted_faults) says how). The vertical line is the damaged place.

# %%
from mlprobe_utils.analysis.fault_effects import effects
from mlprobe_utils.plots.charts import fault_curves

damaged = chapter.damaged()
changed = effects(damaged.healthy, damaged.selection, damaged.planted)
fault_curves(changed, damaged.planted, damaged.names)

# %% [markdown]
# Where does a curve fall first? The first point on the way from the image to the answer whose accuracy is lower than
# the healthy model's, with a 95 % interval that excludes 0:

# %%
from mlprobe_utils.analysis.fault_effects import first_drop

drops = first_drop(changed).assign(planted=1)
strengths = {one.slug: one.strength for one in damaged.planted}
drops["first drop there"] = drops["damaged at"] == drops["first drop"]
by_strength = drops.groupby(drops["model"].map(strengths), sort=False)
found_first = by_strength[["planted", "first drop there"]].sum()
found_first = found_first.rename_axis("strength").reset_index()
show(found_first)

# %% tags=["hide-input"]
glue("faults_found", int(found_first["first drop there"].sum()))
glue("faults_planted", int(found_first["planted"].sum()))

# %% [markdown]
# In {glue:text}`faults_found` of {glue:text}`faults_planted` cases that is the damaged place itself. A weak fault costs
# less than a test set of this size can show at once, and is seen later or not at all; and the LLM's fault leaves the
# answer as it was where the class had reached the text before the damaged layer.

# %% [markdown]
# ## Recurring patterns
#
# Section 4.1 of the paper describes how the curves of a module behave, again and again, without saying from which
# change on a rise is one. Here a change counts if it is {term}`significant`: accuracy at the end of each step on the
# way from image to answer less that at its start, by a {term}`paired test` of the {term}`retrained probe`, among all
# steps, models, data sets and stages. Counted over the models, after fine-tuning:

# %%
from mlprobe_utils.stats.paired import counted

changes = certainty.steps(readings)
by_step = counted(changes, "change", ["stage", "dataset", "step"])
of_tuned = by_step[by_step["stage"] == "finetuned"]
show(chapter.named(of_tuned.drop(columns="stage")))

# %% tags=["hide-input"]
signs = ["significantly higher", "significantly lower"]
totals = by_step.groupby("step")[["pairs", *signs]].sum()
totals["neither"] = totals["pairs"] - totals[signs].sum(axis=1)
glue("steps", int(totals["pairs"].sum()))
glue("steps_neither", int(totals["neither"].sum()))

# %% tags=["hide-input"]
for step, name in zip(certainty.STEPS, "VCILA", strict=True):
    for word, count in totals.loc[step].items():
        glue(f"{name}_{word.split()[-1]}", int(count))

# %% [markdown]
# The *change* is the mean over models, in points; a pair is a model and a data set. The paper reports of the vision
# tower that curves mostly rise and fluctuate, and on Chest-Xray decline: with both stages counted, {glue:text}`V_higher`
# of {glue:text}`V_pairs` curves are higher at the tower's end than at its first point and {glue:text}`V_lower` lower.
# Connectors mostly preserve, it says: {glue:text}`C_higher` raise the accuracy and {glue:text}`C_lower` lower it. At the
# LLM's entry it saw drops that are made up for, no change, and gradual declines: here {glue:text}`I_lower` curves drop on
# their way into it, {glue:text}`L_higher` rise along it and {glue:text}`L_lower` fall. The answer, sometimes lower than
# the LLM's last layer in the paper and occasionally higher, is lower in {glue:text}`A_lower` and higher in
# {glue:text}`A_higher`.
#
# On test sets of this size much of what an eye sees in a curve is noise: of {glue:text}`steps` changes
# {glue:text}`steps_neither` are not significant, which does not mean that they are zero. What a curve does between two
# ends, and whether it has the same shape before and after fine-tuning, only the chart shows. A final output that is lower
# before fine-tuning can have a reason that is no loss of information: answers that name no option count as wrong
# ([chapter 2](02_fine_tuning)). Every change, with its interval and p:

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import file

file(chapter.named(changes), "Steps of all curves")

# %% [markdown]
# ## Where each module ends
#
# The last point of each module, and the final output, mean over runs.

# %%
from mlprobe_utils.plots.tables import module_ends

ends = module_ends(image_mean, outputs, chapter.metric)
show(chapter.named(ends))

# %% tags=["hide-input"]
after = ends[ends["stage"] == "finetuned"]
lost = after["L end"] - after["final output"]
glue("output_gap", lost.abs().mean())
glue("output_below", int((lost > 0).sum()))
glue("pairs", len(after))

# %% [markdown]
# After fine-tuning, the final output and the probe at the LLM's last layer differ by {glue:text}`output_gap:.1f` points
# on average; the output is the lower of the two in {glue:text}`output_below` of {glue:text}`pairs` pairs of model and
# data set. What a layer holds and what the model says are two things.
#
# ## What the mean hides
#
# The curves above are of the mean of the image tokens, as in the paper. The mean forgets where in the image a token is.
# A second pooling keeps that: the tokens in their order, each projected to a few numbers ({term}`places`). The same
# probes on both, for the first model:

# %%
import pandas as pd
from mlprobe_utils.evaluation.points import PLACES

# %%
at_places = scores[scores["pooling"] == PLACES]
by_pooling = {"mean": image_mean, "places": at_places}
chosen = f"run == 0 and model == '{first}'"
of_first = {n: own.query(chosen) for n, own in by_pooling.items()}
charts.recipe_curves(of_first, chapter.names, chapter.metric, "pooling")

# %%
tables = {
    name: module_ends(own, outputs, chapter.metric)
    for name, own in by_pooling.items()
}
both = pd.concat(tables, names=["pooling"]).query("stage == 'finetuned'")
both["V to C rises"] = both["C end"] > both["V end"]

# %%
keys = ["dataset", "pooling"]
columns = ["V end", "C end", "L end"]
found = both.groupby(keys)[columns].mean()
found["models"] = both.groupby(keys).size()
found["V to C rises"] = both.groupby(keys)["V to C rises"].sum()
show(chapter.named(found.reset_index()))

# %% tags=["hide-input"]
rising = both.groupby("pooling")["V to C rises"].sum()
for name in by_pooling:
    own = both.xs(name).drop(columns="V to C rises")
    steps = own["L end"] - own["V end"]
    glue(f"rising_{name}", int(rising[name]))
    glue(f"step_{name}", steps.mean())

# %% tags=["hide-input"]
v_ends = both.pivot_table("V end", ["dataset", "model"], "pooling")
ranks = v_ends.groupby("dataset").corr(method="spearman")
ranks = ranks.xs("mean", level="pooling")["places"]
told = [f"{chapter.names[d]} {value:.2f}" for d, value in ranks.items()]
glue("ranks", ", ".join(told))

# %% [markdown]
# By the mean, the curve rises from the vision tower's end to the connector's in {glue:text}`rising_mean` of
# {glue:text}`pairs` pairs, and the LLM's end lies {glue:text}`step_mean:+.1f` points from the tower's on average; by the
# places it rises in {glue:text}`rising_places`, and the LLM's end lies {glue:text}`step_places:+.1f` points away.
# Where the two differ, the class did not become clearer on the way: it moved from the places of the tokens into each of
# them. Rank correlation of the models' tower ends by mean and by places: {glue:text}`ranks`. So a claim about a module
# in this book holds for both poolings, or says for which one.
#
# ## How sure a curve is
#
# Other images would have given other curves, and so would other seeds of the probes; and other runs of the fine-tuning
# would have given other answers. So a curve has intervals of two scopes, and so have the answers:

# %%
from mlprobe_utils.stats.intervals import SCOPES

show(pd.DataFrame(SCOPES.items(), columns=["scope", "meaning"]))

# %% [markdown]
# Chance is simulated by drawing the test images again, whole patients and {term}`duplicate groups <duplicate group>` at
# a time, and the seeds with them. These are the 95 % {term}`confidence intervals <confidence interval>` at the end of
# each module and of the final output, after fine-tuning. Probes are those of {glue:text}`probe_seeds` seeds and the first
# run, and of its weights alone. The final output is the mean of all runs; how far other runs would differ is estimated from
# those of all models together ([chapter 7](07_medical_adaptation)), and where there is one run it stays unknown.

# %%
intervals = certainty.end_intervals(readings, chapter.metric)
tuned = intervals[intervals["stage"] == "finetuned"]
ends_of = [tuned[end].map("{:.1f}".format) for end in ("low", "high")]
beside = tuned.assign(interval=ends_of[0] + "–" + ends_of[1]).pivot_table(
    "interval", ["dataset", "model"], ["site", "scope"], "first", sort=False
)
beside.columns = [": ".join(place) for place in beside]
show(chapter.named(beside.reset_index()))

# %% tags=["hide-input"]
file(chapter.named(intervals), "Intervals where each module ends")

# %% tags=["hide-input"]
wide = intervals["high"] - intervals["low"]
wide = wide.groupby(intervals["scope"], sort=False).mean()
known = [f"{width:.1f} ({scope})" for scope, width in wide.items()]
words = f"The mean width of an interval is, in pp: {', '.join(known)}."
none = "Of this metric no intervals are computed."
glue("width_words", words if known else none)

# %% [markdown]
# {glue:text}`width_words` The intervals of a {term}`retrained probe` allow for seeds as well as images, those of
# a {term}`fixed probe` for images alone; those of a {term}`retrained model` for runs as well as images, those of
# {term}`these weights` for images alone. The intervals of two models or stages may
# overlap although the two differ: they were evaluated on the same images, and what is hard for one is often hard for the
# other. A {term}`paired test` makes use of that. A band, the area in the chart, holds a whole curve at once
# ({term}`simultaneous band`), and is wider than the interval of one point.
#
# ### Before and after
#
# Accuracy after fine-tuning less that before, at the end of each module and of the final output, mean over models. The
# last columns count the {term}`significant` differences, by a {term}`paired test` among all of a scope. (Tests are of
# accuracy, whatever the page's metric.)

# %%
tests = certainty.before_and_after(readings)
over_models = counted(tests, "change", ["dataset", "site", "scope"])
show(chapter.named(over_models))

# %% tags=["hide-input"]
file(chapter.named(tests), "Paired tests of after less before")

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import NEITHER

for of in SCOPES:
    own, name = tests[tests["scope"] == of], of.replace(" ", "_")
    glue(f"tests_{name}", len(own))
    glue(f"tests_{name}_told", int((own["verdict"] != NEITHER).sum()))

# %% [markdown]
# For these fitted probes {glue:text}`tests_fixed_probe_told` of {glue:text}`tests_fixed_probe` differences are significant,
# for retrained ones {glue:text}`tests_retrained_probe_told` of {glue:text}`tests_retrained_probe`; for the answers of these
# weights {glue:text}`tests_these_weights_told` of {glue:text}`tests_these_weights`, and of models retrained
# {glue:text}`tests_retrained_model_told` of {glue:text}`tests_retrained_model`. A difference that is not significant is not shown to be zero: its interval is in the file.
#
# ### Do the intervals hold?
#
# An interval is only worth its 95 % if it holds the truth that often. That was simulated: test sets of BUSI's size,
# accuracies near the ceiling, where intervals are hardest, and a truth that is known.

# %%
from mlprobe_utils.pipeline.published import origin, simulated

held = simulated("intervals")
held = held.query("dataset == 'busi' and curve == 'near the ceiling'")
show(held.drop(columns=["dataset", "images", "curve"]))

# %% tags=["hide-input"]
own = held[held["interval"] != "percentile"]["covered"]
plain = held[held["interval"] == "percentile"]["covered"]
glue("covered_low", own.min())
glue("covered_high", own.max())
glue("covered_plain", plain.min())
glue("covered_error", held["error"].max())
glue("covered_origin", origin("intervals"))

# %% [markdown]
# *covered* is how often in 100 the truth was held, *error* its standard error. The page's intervals and bands hold it
# {glue:text}`covered_low:.0f` to {glue:text}`covered_high:.0f` times in 100, plain percentiles of the bootstrap only
# {glue:text}`covered_plain:.0f` times at the least; with errors of up to {glue:text}`covered_error:.1f` a value two of
# them from 95 is as good as 95. (Simulated {glue:text}`covered_origin`.)
#
# ## What a claim must beat
#
# That a class can be read at a layer is no merit of the model if it can be read without it. These are the figures after
# fine-tuning beside their controls, one run, mean over models:
#
# - **{term}`control task`** ({cite:t}`hewitt-2019`): labels without meaning, dealt out to clusters of images with alike
#   pixel statistics, so that test images have them too. What the probe scores above it is its {term}`selectivity`.
# - **{term}`random weights`**: the same model before anyone trained it, read in the same way.
# - **text only**: what the model answers to the question without an image; its knowledge of what is frequent.
# - **classical classifier**: a support vector machine on grey levels, edges and textures, trained on the same images
#   alone, the {term}`reference` of [chapter 5](05_diagnosis).
# - **pixel statistics**, **file format** (with and without size) and **majority class**: no model at all.
# - **{term}`memorisation`**: train images with shuffled labels, and how many of *them* the probe gets right.

# %%
from mlprobe_utils.analysis.controls import to_beat

beaten = to_beat(scores, outputs, controls, chapter.metric)
show(chapter.named(beaten))

# %% tags=["hide-input"]
from mlprobe_utils.analysis.controls import selectivity

selected = selectivity(scores, controls, chapter.metric)
file(chapter.named(selected), "Selectivity at every probe point")

# %% tags=["hide-input"]
glue("selectivity", selected["selectivity"].mean())
glue("not_selective", int((selected["selectivity"] <= 0).sum()))
glue("selectivities", len(selected))

# %% tags=["hide-input"]
from mlprobe_utils.analysis.controls import no_better

worse = no_better(outputs, controls, chapter.metric)
glue("answers_not_better", int(worse.sum()))
glue("answers", len(worse))

# %% [markdown]
# After fine-tuning, selectivity is {glue:text}`selectivity:+.1f` points on average; at {glue:text}`not_selective` of
# {glue:text}`selectivities` points the probe does no better on the real labels than on the meaningless ones. The final
# output of {glue:text}`answers_not_better` of {glue:text}`answers` pairs of model and data set is no better than the best
# rule that needs no model. Selectivity can be low for two reasons: the layer says little of the class, or much of the
# pixels. And one draw of labels may by chance go with the classes.
#
# ## The last token
#
# The same probes on the state of the prompt's last token, from which the answer is generated.

# %%
last_token = scores[scores["pooling"] == "last_token"]
charts.probe_curves(last_token, outputs, chapter.names, chapter.metric)

# %% tags=["hide-input"]
of_llm = scores[scores["point"].str.startswith("L")]
of_llm = of_llm.groupby(["stage", "pooling"])[chapter.metric].mean()
for stage in ("pretrained", "finetuned"):
    for pooling in ("image_mean", "last_token"):
        glue(f"{pooling}_{stage}", of_llm[stage, pooling])

# %% [markdown]
# Averaged over the LLM's layers, image tokens give {glue:text}`image_mean_pretrained:.1f` % before fine-tuning and
# {glue:text}`image_mean_finetuned:.1f` % after; the last token gives {glue:text}`last_token_pretrained:.1f` % and
# {glue:text}`last_token_finetuned:.1f` %. The first is what the LLM could use, the second what has reached the place
# where it speaks.
#
# Whether the second ever exceeds the first is the subject of [chapter 9](09_comprehension_utilization).
#
# ## All numbers
#
# All metrics at every point, mean over runs. F1, precision, recall, AUC, sensitivity, specificity and average precision
# are those of the positive option, or macro averages where the data card names none.

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import METRICS

by = ["dataset", "model", "stage", "pooling", "point"]
everywhere = scores.groupby(by, as_index=False)[list(METRICS)].mean()
file(chapter.named(everywhere), "All metrics at every probe point")

# %% [markdown]
# ## Takeaways
#
# - A curve shows what a small classifier can read at a layer, not what the model uses: see
#   [how a probe reads a layer](#how-a-probe-reads-a-layer).
# - Much of what an eye sees in a curve is within noise: see [recurring patterns](#recurring-patterns).
# - The final output is not the last layer: see [where each module ends](#where-each-module-ends).
# - A difference counts if a paired test finds it significant: see [how sure a curve is](#how-sure-a-curve-is).
# - Image tokens and last token answer different questions: see [the last token](#the-last-token).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("03_probing")
