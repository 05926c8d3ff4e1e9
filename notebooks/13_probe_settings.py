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
# # 13. What the probe settings decide
#
# **Question.** How much does a probing curve depend on the probe: on its form, its input, the number of labels that it learns
# from, and the layer that it was fitted at?
#
# *Prerequisites:* [chapter 3](03_probing.ipynb). *Time:* 20 minutes to read; half a minute to run once the probes exist.

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
# ## The settings
#
# Several probes are trained on the same features, those of the first run. Each differs from the protocol's main probe in one
# setting. *places* is the main probe on the second pooling, which keeps where in the image a token is
# ([places](../book/glossary.md#position-preserving-pooling)); all others use the mean of the image tokens.

# %% tags=["hide-input"]
probes, main = chapter.protocol.probes, chapter.protocol.probe.model_dump()
differs = {}
for name, probe in probes.items():
    own = {key: v for key, v in probe.model_dump().items() if v != main[key]}
    said = [f"{key} {v} (main: {main[key]})" for key, v in own.items()]
    said = ", ".join(said).replace("_", " ")
    differs[name] = said or "nothing: all other chapters use it"

# %% [markdown]
# How long each trains: optimisation steps = passes x images / batch size, rounded up.

# %%
from mlprobe_utils.analysis.probe_settings import training_steps

steps = {}
for dataset, image_set in chapter.image_sets.items():
    train = image_set.rows_of(split_rule, "train")["label"]
    lengths = training_steps(chapter.protocol, train).set_index("settings")
    steps[f"steps, {chapter.names[dataset]}"] = lengths["steps"]

# %% tags=["hide-input"]
import pandas as pd
from mlprobe_utils.plots.tables import show

of_settings = pd.DataFrame({"differs from main in": differs} | steps)
show(of_settings.rename_axis("settings").reset_index())

# %% [markdown]
# What each setting changes: accuracy minus that of the main probe, on the same test images, after fine-tuning. Accuracies
# are means over the points of a module. A change is *significant* if an exact paired test says so after
# [correction](../book/glossary.md#holm-correction) for all comparisons of this page's file.

# %%
from mlprobe_utils.analysis.probe_settings import setting_changes
from mlprobe_utils.evaluation.points import PLACES
from mlprobe_utils.pipeline import results

# %%
of = {"stage": "finetuned", "run": 0, "pooling": "image_mean"}
select = chapter.selection
rows = {name: results.probe_rows(select, name, **of) for name in probes}
of_places = results.probe_rows(select, **of | {"pooling": PLACES})
rows["places"] = of_places
compared = setting_changes(rows, chapter.image_sets, split_rule)

# %%
from mlprobe_utils.evaluation.points import MODULES

statements = compared["settings"] + ", " + compared["module"].map(MODULES)
changes = compared.assign(statement=statements)
by_setting = dict(iter(changes.groupby("settings")))

# %%
from mlprobe_utils.stats.paired import counted

means = counted(changes, "change", ["settings"])
show(means.rename(columns={"pairs": "models x data sets x modules"}))

# %% tags=["hide-input"]
from mlprobe_utils.plots.tables import file

file(chapter.named(compared), "What each setting changes, with intervals")

# %% [markdown]
# The curves of the model that a setting changes most:

# %%
from mlprobe_utils.pipeline import scoring
from mlprobe_utils.plots import charts

by_size = changes.sort_values("change", key=abs, ascending=False)
first = [*by_size["model"], *chapter.selection.models][0]
scores = {name: scoring.probe_scores(select, name) for name in probes}
query = f"run == 0 and model == '{first}' and pooling == 'image_mean'"
scores = {name: of_all.query(query) for name, of_all in scores.items()}

# %%
drawn = scores, chapter.names, chapter.metric
charts.recipe_curves(*drawn, by="probe settings")

# %% [markdown]
# ### Information or scale
#
# The paper does not say whether features are [standardised](../book/glossary.md#standardised) before they are given to a probe. Without it (*raw*), a
# probe with one learning rate for all layers also measures how large the features of a layer are. The features are the
# same, so a difference between the two is never one of information.

# %%
from mlprobe_utils.book.chapter import say
from mlprobe_utils.plots.forest import change_chart
from mlprobe_utils.stats.paired import WORDS

missing = say("This protocol has no such probe.")
raw, of_raw = by_setting.get("raw"), "Raw features - standardised features"
named = chapter.names
missing if raw is None else change_chart(raw, named, of_raw, WORDS)

# %% [markdown]
# ### Linear or not
#
# A linear probe asks whether a plane separates the classes; the paper's two layers can bend it. What only the second
# finds is in the features, but the model's next linear layer cannot use it directly.

# %%
linear, of_linear = by_setting.get("linear"), "Linear probe - two layers"
missing if linear is None else change_chart(linear, named, of_linear, WORDS)

# %% [markdown]
# A linear probe can also be better: on few images, two layers can overfit.

# %% [markdown]
# ### Mean or places
#
# The mean over an image's tokens forgets which token is where. [Chapter 3](03_probing.ipynb) shows what places do to a curve.

# %%
placed = changes[changes["settings"] == "places"]
change_chart(placed, named, "Places of the image tokens - mean", WORDS)

# %% tags=["hide-input"]
modules = placed[placed["verdict"] != WORDS[2]].groupby("module")["change"]
gained = [
    f"{MODULES[letter]} {len(own)} ({own.mean():+.1f} pp on average)"
    for letter, own in modules
]
say(f"Significant changes by module: {', '.join(gained) or 'none'}.")

# %% [markdown]
# ## Fewer labels
#
# If a representation makes the classes easy to separate, a probe needs few examples. These probes learn from a share of the
# training images of each class; a smaller share is part of every larger one.

# %% tags=["hide-input"]
counts = pd.DataFrame(steps)
counts = counts.loc[[n for n in probes if probes[n].training_fraction < 1]]
all_steps = {name: own["main"] for name, own in steps.items()}
most_apart = counts.div(all_steps).sub(1).abs().max(axis=None)

# %% tags=["hide-input"]
equal = (
    "They take as many optimisation steps as the main probe: fewer labels "
)
equal += "are not confounded with less training."
ranges = f"{counts.min(axis=None)} to {counts.max(axis=None)}"
apart = f"They take {ranges} optimisation steps, the main probe up to "
apart += f"{max(all_steps.values())}: part of a difference may be training."

# %% tags=["hide-input"]
steps_words = equal if most_apart < 0.05 else apart
say(steps_words if len(counts) else "This protocol has no such probes.")

# %%
fewer = changes[changes["settings"].isin(counts.index)]
fewer = fewer.sort_values("settings", ascending=False, kind="stable")
of_fewer = "A share of the labels - all labels"
missing if fewer.empty else change_chart(fewer, named, of_fewer, WORDS)

# %% tags=["hide-input"]
from mlprobe_utils.stats.paired import in_words

mean_of = {name: in_words(own, "change") for name, own in by_setting.items()}
few = [f"with {name} {mean_of[name]} pp" for name in counts.index]
say(f"Accuracy changes {' and '.join(few)}." if few else "")

# %% [markdown]
# If a module loses less than the one before it, it has brought the class into a form that is easier to learn, even where the
# curve with all images is flat. One draw of the images was made. Another would give somewhat different numbers, and the
# intervals do not allow for that.
#
# ## A probe of one layer, applied to another
#
# Two layers may both hold the class and encode it differently. So the probe of each LLM layer is also applied to the other
# layers: their features are standardised by their own statistics, and nothing is fitted again.

# %%
from mlprobe_utils.analysis.probe_settings import transfer_scores
from mlprobe_utils.plots.squares import transfer_squares

tuned = results.transfer_rows(chapter.selection, stage="finetuned")
of_first = tuned[tuned["model"] == first]
transfer_squares(transfer_scores(of_first), chapter.names)

# %% [markdown]
# The diagonal shows each layer's own probe. For all models, the accuracy with another layer's probe minus that with the
# layer's own, as the mean over models and data sets with a 95 % interval:

# %%
from mlprobe_utils.analysis.probe_settings import transfer_losses
from mlprobe_utils.evaluation.points import POOLING_NAMES

lost = transfer_losses(tuned, chapter.image_sets, split_rule)
summary = counted(lost, "change", ["pooling", "probe of"])
show(summary.replace({"pooling": POOLING_NAMES}))

# %% tags=["hide-input"]
file(chapter.named(lost), "Probes applied to other layers, with intervals")

# %% [markdown]
# Where a probe carries over, the two layers encode the class alike. Where it does not, the class was re-encoded and not lost,
# as long as the layer's own probe still decodes it.
#
# ## What it cannot tell
#
# - **Which settings are correct.** Each answers another question. What matters is to probe all layers with the same ones.
# - **What a larger probe would find**, or one that sees single tokens.
# - **How many labels the model itself would need.** These features come from a model that was fine-tuned on all training
#   images.
# - **That two layers mean the same**, because a probe carries over: it uses one direction of many.
#
# ## Takeaways

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import answer

words_of = {
    "raw": "raw features",
    "linear": "a linear probe",
    "places": "places",
} | {name: name for name in counts.index}

# %% tags=["hide-input"]
each = [
    f"{word} {mean_of[name]} pp"
    for name, word in words_of.items()
    if name in mean_of
]
most = f"{by_size['change'].iloc[0]:+.1f} pp" if len(by_size) else "none"

# %% tags=["hide-input", "answer"]
answer(
    "Averaged over modules, models and data sets, accuracy changes against",
    f"the main probe as follows (95 % intervals): {'; '.join(each)}. The",
    f"largest change of one module is {most}. A probing curve belongs to",
    "model and probe together: compare curves only under the same settings.",
)

# %% [markdown]
# - State the probe settings with every curve, and test a claim about a layer under others: see [the settings](#the-settings).
# - Standardise the features, or the probe measures scale as well: see [information or scale](#information-or-scale).
# - Compare fewer labels at equal numbers of steps: see [fewer labels](#fewer-labels).
# - A class can be kept and re-encoded: see [a probe of one layer, applied to another](#a-probe-of-one-layer-applied-to-another).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("13_probe_settings")
