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
# **Question.** How well can the class of an image be decoded along the way from image to answer, and where is it lost?
#
# *Prerequisites:* [chapter 2](02_fine_tuning.ipynb). *Time:* 20 minutes to read; seconds to run once the features exist.

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
# ## How an image flows through the model
#
# An image passes through the [vision tower](../book/glossary.md#vision-tower), the
# [connector](../book/glossary.md#connector) and the decoder layers of the [LLM](../book/glossary.md#llm). Each place
# where we record features is a [probe point](../book/glossary.md#probe-point). The drawing shows the first model of this
# run, as figure 2 of [Zhu et al. (2026)](../book/bibliography.md#zhu-2026) does; every other model has a page of its own.

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
from mlprobe_utils.book.chapter import answer, say
from mlprobe_utils.book.model_table import pixel_words

widths = " or ".join(map(str, sorted(points["width"].unique())))
say(
    f"This model has {len(points)} probe points, with {widths} features each.",
    pixel_words(chapter.models.values(), chapter.protocol.images),
)

# %% [markdown]
# At each point the vectors of an image's tokens are averaged during the forward pass, so that one pass serves all
# points. Text tokens never enter the mean. In the LLM, the state of the prompt's
# [last token](../book/glossary.md#last-token), from which the answer is generated, is recorded as well:
# [chapter 11](11_comprehension_utilization.ipynb) compares the two.
#
# ## What a probe is
#
# A [probe](../book/glossary.md#probe) ([Alain and Bengio (2016)](../book/bibliography.md#alain-2016)) is a small
# classifier that is trained on the features of one probe point, while the model stays frozen. In PyTorch:
#
# ```python
# probe = torch.nn.Sequential(  # kind "mlp"; "linear" is one Linear layer
#     torch.nn.Linear(width, hidden),
#     torch.nn.ReLU(),
#     torch.nn.Dropout(dropout),
#     torch.nn.Linear(hidden, classes),
# )
# optimizer = torch.optim.AdamW(probe.parameters(), lr=learning_rate)
# for epoch in range(epochs):
#     for features, labels in training_batches:  # of one probe point
#         loss = torch.nn.functional.cross_entropy(probe(features), labels)
#         loss.backward()
#         optimizer.step(), optimizer.zero_grad()
#
# probe.eval()  # no dropout
# correct = probe(test_features).argmax(dim=1) == test_labels
# ```
#
# `mp.probe(features, images)` does this for all probe points and seeds at once; [chapter 0](00_by_hand.ipynb) runs it
# beside a probe written by hand. The training images are those that the model was fine-tuned on. The settings:

# %%
show(chapter.recipe("probe"))

# %% [markdown]
# The accuracy of a probe is a lower bound: another classifier might decode more
# ([chapter 13](13_probe_settings.ipynb)). And it does not show what the model uses: the class can be decodable from
# features that no later layer reads ([chapter 7](07_is_it_used.ipynb)).
#
# ## The curves
#
# This is figure 3 of [Zhu et al. (2026)](../book/bibliography.md#zhu-2026) for the models of this run. A strong line is
# the mean over runs, a faint line a single run. The diamond is the accuracy of the generated answer; far below the
# axis, it is drawn at the lower edge with its value. Thin lines are [controls](#controls-and-baselines).

# %%
from mlprobe_utils.analysis import certainty
from mlprobe_utils.pipeline.tested import evaluated

of_run = chapter.selection, chapter.image_sets
measured = evaluated(*of_run, certainty.outcomes_of)
metrics = [chapter.metric, "accuracy", "balanced_accuracy"]
metrics = [*dict.fromkeys(metrics)]  # each once
bands = {metric: certainty.bands(measured, metric) for metric in metrics}

# %%
from mlprobe_utils.pipeline import scoring
from mlprobe_utils.plots import charts

scores = scoring.probe_scores(chapter.selection)
outputs = scoring.output_scores(chapter.selection)
image_mean = scores[scores["pooling"] == "image_mean"]
controls = scoring.control_scores(chapter.selection)
given = image_mean, outputs, chapter.names, metrics
charts.probe_curves(*given, controls, bands)

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import RESAMPLED

curve = ["model", "dataset", "stage", "point"]
means = image_mean.groupby(curve)[chapter.metric].mean()
limits = bands[chapter.metric].set_index(curve)
line = means.reindex(limits.index)
outside = (line < limits["band_low"]) | (line > limits["band_high"])

# %% tags=["hide-input"]
seeds, leaving = chapter.protocol.probe_seeds, outside.sum()
banded = chapter.metric in RESAMPLED
say(
    "The areas are simultaneous 95 % bands of the [retrained probe]"
    f"(../book/glossary.md#retrained-probe): {seeds} probes per point, trained",
    "before fine-tuning and after its first run. A line averages all runs, so it",
    f"can leave the area: it does at {leaving} of {len(line)} probe points.",
) if banded else say(f"There are no bands for '{chapter.metric}'.")

# %% tags=["hide-input"]
after = means.xs("finetuned", level="stage")
model, dataset, point = after.idxmax()
say(
    f"The highest value after fine-tuning is {after.max():.1f} % at {point}",
    f"({chapter.names[model]}, {chapter.names[dataset]}). As the highest of",
    f"{len(after)} noisy values it is too optimistic; nothing is chosen by it.",
)

# %% [markdown]
# ## Where a curve rises and falls
#
# Section 4.1 of the paper describes recurring patterns in the curves, without stating how large a change must be to
# count. Here a change counts if it is [significant](../book/glossary.md#significant) in a
# [paired test](../book/glossary.md#paired-test) of the [retrained probe](../book/glossary.md#retrained-probe): accuracy
# at the end of a step minus accuracy at its start, on the same images, corrected for all tests of the table's file.
# (Tests are of accuracy, whatever the page's metric.)

# %%
from mlprobe_utils.stats.paired import counted

changes = certainty.steps(measured)
by_step = counted(changes, "change", ["stage", "step"])
show(chapter.named(by_step))

# %% [markdown]
# *change* is the mean over all pairs of a model and a data set, in percentage points (pp), with its 95 % interval; the
# last columns count the pairs with a significant change. Compared with the paper, both stages taken together:

# %% tags=["hide-input"]
signs = ["significantly higher", "significantly lower"]
totals = by_step.groupby("step")[["pairs", *signs]].sum().astype(int)
of_step = {
    step: f"significant rises in {up} and falls in {down} of {pairs} curves"
    for step, pairs, up, down in totals.itertuples()
}

# %% tags=["hide-input"]
tower, connector, entry, llm, output = certainty.STEPS

# %% tags=["hide-input"]
say(
    "- **Vision tower.** The paper: accuracy mostly rises and fluctuates, and",
    f"declines on Chest-Xray. Here: {of_step[tower]}.\n- **Connector.** The",
    f"paper: it mostly preserves accuracy. Here: {of_step[connector]}.\n-",
    "**LLM.** The paper: accuracy drops on entry and recovers, stays, or",
    f"gradually declines. Here: on entry {of_step[entry]}, and then along the",
    f"LLM {of_step[llm]}.",
)

# %% tags=["hide-input"]
tested = changes[
    changes["stage"].eq("finetuned") & changes["step"].eq(output)
]
below = (tested["verdict"] == "lower").sum()
unclear = len(changes) - totals[signs].to_numpy().sum()

# %% tags=["hide-input"]
say(
    "- **Final output.** The paper: sometimes below the LLM's last layer, and",
    f"occasionally above. Here: {of_step[output]}; falls after fine-tuning:",
    f"{below}.\n\nOf all {len(changes)} changes {unclear} are not",
    "significant.",
)

# %% [markdown]
# *Not significant* does not mean zero: the interval of each change is in the file. Before fine-tuning, an inaccurate
# final output need not be a loss of information, because an answer that names no option counts as incorrect
# ([chapter 2](02_fine_tuning.ipynb#what-the-models-write)). What a loss looks like when its place is known is shown in
# [chapter 4](04_planted_faults.ipynb).

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import file

file(chapter.named(changes), "Changes along all curves")

# %% [markdown]
# ## Where each module ends
#
# Accuracy at the last point of each module, and of the final output, after fine-tuning, with 95 % intervals. They hold
# for new images and, at the probe points, [retrained probes](../book/glossary.md#retrained-probe); for the final
# output, [retrained models](../book/glossary.md#retrained-model) where there are enough runs, else
# [fixed models](../book/glossary.md#fixed-model). First come the cases in which the final output lies furthest below
# the LLM's end.

# %%
from mlprobe_utils.evaluation.points import MODULES, PLACES

ends = certainty.end_intervals(measured, chapter.metric)
ends_after = ends[ends["stage"] == "finetuned"]
widest = ends_after.groupby(["dataset", "model", "site"], sort=False).last()
end_names = {
    f"{letter} end": f"{name}, end" for letter, name in MODULES.items()
}

# %%
from mlprobe_utils.evaluation.metrics import ENDS

shown = widest[["value", "low", "high"]].map("{:.1f}".format)
shown = shown["value"] + " (" + shown["low"] + " to " + shown["high"] + ")"
values = widest["value"].unstack("site").reindex(columns=ENDS)
gap = values["L end"] - values["final output"]
by_gap = gap.sort_values(ascending=False, kind="stable").index
table = shown.unstack("site").reindex(by_gap, columns=ENDS).reset_index()
table = table.replace(chapter.names).rename(columns=end_names)

# %%
show(table.rename_axis(columns=None), title="Where each module ends")

# %% tags=["hide-input"]
known = f"On average the two differ by {gap.abs().mean():.1f} pp."
say(
    known if len(gap) else f"There are no intervals for '{chapter.metric}'.",
    "The final output is significantly less accurate than the probe at the",
    f"LLM's last layer in {below} of {len(tested)} cases.",
)

# %% [markdown]
# What a layer encodes and what the model answers can differ.
#
# The intervals of two models or stages may overlap although they differ, because both were evaluated on the same images.
# A [paired test](../book/glossary.md#paired-test) makes use of that. Here it compares accuracy after and before
# fine-tuning, corrected for all tests of a scope; *change* is the mean over models and data sets.

# %%
tests = certainty.before_and_after(measured)
by_end = counted(tests, "change", ["site", "scope"])
show(by_end.replace({"site": end_names}))

# %% tags=["hide-input"]
file(chapter.named(tests), "Accuracy after minus before fine-tuning")

# %% tags=["hide-input"]
from mlprobe_utils.stats.intervals import SCOPES

counts = by_end.groupby("scope")[["pairs", *signs]].sum().reindex(SCOPES)
said = [
    f"{scope}: {up + down:.0f} of {pairs:.0f}"
    for scope, pairs, up, down in counts.dropna().itertuples()
]
say(f"Significant differences, by scope: {'; '.join(said)}.")

# %% [markdown]
# A [fixed probe](../book/glossary.md#fixed-probe) and [fixed models](../book/glossary.md#fixed-model) allow for new
# images alone; a retrained probe allows for new seeds as well, a retrained model for new runs of the fine-tuning.

# %% tags=["hide-input"]
from mlprobe_utils.pipeline.published import origin, simulated

held = simulated("intervals")
held = held.query("dataset == 'busi' and curve == 'near the ceiling'")
plain = held["interval"] == "percentile"
covered = held["covered"]

# %% tags=["hide-input"]
say(
    "Do such intervals cover the truth? In simulations of BUSI's test set, with",
    "accuracies near the ceiling and a known truth, those of this page did so",
    f"in {covered[~plain].min():.0f} to {covered[~plain].max():.0f} % of the",
    "repetitions, and plain bootstrap percentiles in only",
    f"{covered[plain].min():.0f} % at worst (standard error at most",
    f"{held['error'].max():.1f} pp; {origin('intervals')}).",
)

# %% [markdown]
# ## Controls and baselines
#
# A class that can be decoded at a layer is no achievement of the model if it can be decoded without the model. So each
# accuracy after fine-tuning is compared with these controls, on the same images:
#
# - **[control task](../book/glossary.md#control-task)** ([Hewitt and Liang (2019)](../book/bibliography.md#hewitt-2019)): the same probe, on labels without meaning that follow the images' pixel
#   statistics. The difference is the [selectivity](../book/glossary.md#selectivity).
# - **[random weights](../book/glossary.md#random-weights)**: the same probe on an untrained model.
# - **text only**: the model's answer to the question without an image.
# - **best rule without a model**: the best of majority class, file format and pixel statistics on the test images.
# - **classical classifier**: a support vector machine on grey levels, edges and textures, trained on the same images; it
#   is the [reference](../book/glossary.md#reference) of [chapter 6](06_diagnosis.ipynb).

# %%
import pandas as pd
from mlprobe_utils.analysis.certainty import CONTROLS, beside_controls

control_rows = results.control_rows(chapter.selection)
image_rows = results.image_control_rows(chapter.selection)
both = pd.concat([control_rows, image_rows], ignore_index=True)
compared = beside_controls(measured, both)

# %%
found = counted(compared, "change", ["control", "site"])
cells = found[["change", "low", "high"]].map("{:+.1f}".format)
cells = cells["change"] + " (" + cells["low"] + " to " + cells["high"] + ")"
of_all = found[signs[0]]
found["cell"] = [f"{own}; {n}" for own, n in zip(cells, of_all, strict=True)]

# %%
wide = found.pivot(index="control", columns="site", values="cell")
wide = wide.reindex(CONTROLS, columns=ENDS).fillna("").reset_index()
wide = wide.rename(columns={"control": "accuracy minus that of"} | end_names)
show(wide.rename_axis(columns=None))

# %% tags=["hide-input"]
file(chapter.named(compared), "Accuracy minus that of each control")

# %% [markdown]
# A cell holds the mean difference in accuracy over all pairs of a model and a data set (pp), its 95 % interval, and the
# number of pairs in which the difference is significantly above 0, corrected for all tests of the file.

# %% tags=["hide-input"]
from mlprobe_utils.analysis.certainty import BLIND
from mlprobe_utils.evaluation.names import CLASSICAL, MEMORISATION

of_llm = found[found["site"] == "L end"].set_index("control")
beats = of_llm[signs[0]]
cases = of_llm["pairs"].max()

# %% tags=["hide-input"]
say(
    "At the LLM's end, probes are significantly more accurate than on random",
    f"weights in {beats['random weights']} of {cases} cases, and than on the",
    f"control task in {beats['control task']}; than the best rule without a",
    f"model in {beats[BLIND]}, and than the classical classifier in",
    f"{beats[CLASSICAL]}. They are significantly *less* accurate than the",
    f"classical classifier in {of_llm.loc[CLASSICAL, signs[1]]}.",
)

# %% tags=["hide-input"]
learned = controls[controls["control"] == MEMORISATION]["accuracy"]
blind = found.set_index(["control", "site"]).loc[(BLIND, "final output")]
say(
    "Final outputs are significantly more accurate than the best rule in",
    f"{blind[signs[0]]} of {blind['pairs']} cases. Trained on shuffled labels,",
    f"probes get {learned.mean():.1f} % of their own training images right",
    "([memorisation](../book/glossary.md#memorisation)).",
)

# %% [markdown]
# Selectivity can be low for two reasons: the layer encodes little of the class, or much of the pixel statistics. Labels
# of a control task are drawn once, and may by chance agree with the classes.
#
# ## What the mean over tokens hides
#
# The mean over image tokens forgets where in the image a token lies. A second pooling keeps the tokens in order, each
# projected to a few numbers ([places](../book/glossary.md#position-preserving-pooling)). Mean change in accuracy per step (pp) after
# fine-tuning, by both poolings:

# %%
from functools import partial

by_places = partial(certainty.outcomes_of, pooling=PLACES)
kept = certainty.steps(evaluated(*of_run, by_places))
pooled = pd.concat({"mean": changes, "places": kept}, names=["pooling"])
pooled = pooled[pooled["stage"] == "finetuned"].reset_index("pooling")

# %%
in_vision = pooled[pooled["step"].isin([tower, connector])]
show(counted(in_vision, "change", ["step", "pooling"]))

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import in_words

moved = {
    place: in_words(own, "change")
    for place, own in in_vision.groupby(["step", "pooling"])
}

# %% tags=["hide-input"]
say(
    f"Along the vision tower, accuracy changes by {moved[tower, 'mean']} pp by the",
    f"mean and by {moved[tower, 'places']} pp by the places; to the connector's",
    f"end, by {moved[connector, 'mean']} and {moved[connector, 'places']} pp.",
)

# %% [markdown]
# Where the mean gains and the places do not, the class has not become clearer: it has moved from the arrangement of the
# tokens into each single token. A claim about a module should hold for both poolings, or say for which one it holds.
#
# ## All numbers
#
# All metrics at every probe point, mean over runs. F1, precision, recall, AUC, sensitivity, specificity and average
# precision are those of the positive option, or macro averages where the data card names none.

# %% tags=["hide-input"]
from mlprobe_utils.evaluation.metrics import METRICS

by = ["dataset", "model", "stage", "pooling", "point"]
everywhere = scores.groupby(by, as_index=False)[list(METRICS)].mean()
file(chapter.named(everywhere), "All metrics at every probe point")

# %% [markdown]
# ## Takeaways

# %% tags=["hide-input"]
tuned = changes[changes["stage"] == "finetuned"]
mean_of = {s: in_words(own, "change") for s, own in tuned.groupby("step")}
judged = {
    s: own["verdict"].value_counts() for s, own in tuned.groupby("step")
}
ahead = of_llm.loc[CLASSICAL, signs[1]]
rises, falls = judged[tower].get("higher", 0), judged[output].get("lower", 0)

# %% tags=["hide-input", "answer"]
answer(
    f"After fine-tuning, accuracy changes by {mean_of[tower]} pp along the vision",
    f"tower (95 % interval; a significant rise in {rises} of {len(tested)} cases),",
    f"{mean_of[connector]} pp to the connector's end, {mean_of[llm]} pp along the",
    f"LLM, and {mean_of[output]} pp from there to the final output (a significant",
    f"loss in {falls} of {len(tested)}). A classifier of the pixels is",
    f"significantly better than the LLM's last layer in {ahead} of {cases} cases.",
)

# %% [markdown]
# - A curve shows what a small classifier can decode, not what the model uses: see [what a probe is](#what-a-probe-is).
# - Much of what the eye sees in a curve is noise; a paired test decides: see
#   [where a curve rises and falls](#where-a-curve-rises-and-falls).
# - The final output is not the last layer: see [where each module ends](#where-each-module-ends).
# - An accuracy means little without its controls: see [controls and baselines](#controls-and-baselines).
# - The mean over tokens hides where they lie: see [what the mean hides](#what-the-mean-over-tokens-hides).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("03_probing")
