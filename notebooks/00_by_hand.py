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
# # 0. Probe a model by hand
#
# **Question.** What are a hook and a probe, and how much code do they take?
#
# *Prerequisites:* PyTorch, and what a forward pass is. *Time:* 20 minutes to read; half a minute to run.
#
# This chapter does the whole method by hand in plain PyTorch: record the states inside a model with a hook, and measure
# with a probe how well they predict the class of an image. The package then does the same in a few lines.

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

# %% [markdown]
# ## A model, an image, a question
#
# The model is the first of this run, before any fine-tuning. `load` returns what transformers loads from a hub id or a
# folder: a PyTorch module, and the processor that turns images and text into tensors.

# %%
import mlprobe_utils as mp

card = chapter.loadable
loaded = mp.load(card)
model, processor = loaded.model, loaded.processor
print(type(model).__name__, f"{model.num_parameters():,} parameters")

# %% [markdown]
# The images come from the first data set, each with its label. A chat template puts the question around the place of the
# image.

# %%
import pandas as pd

most = 200  # images for training, and for testing
image_set = next(iter(chapter.image_sets.values()))
parts = []
for split in ("train", "test"):
    own = image_set.rows_of(split_rule, split).assign(split=split)
    parts.append(own.sample(min(len(own), most), random_state=0))

# %%
rows = pd.concat(parts)
pictures = [image_set[place] for place in rows.index]
labels = rows["option"].to_numpy()
training = (rows["split"] == "train").to_numpy()

# %%
text = image_set.card.template.replace("<image>", "").strip()
content = [{"type": "image"}, {"type": "text", "text": text}]
turn = {"role": "user", "content": content}
prompt = processor.apply_chat_template([turn], add_generation_prompt=True)
print(prompt)

# %%
import torch

bos = processor.tokenizer.bos_token  # where the template has written it, once
options = {"add_special_tokens": not (bos and prompt.startswith(bos))}
encoded = []
for picture in pictures:
    inputs = processor([[picture]], [prompt], return_tensors="pt", **options)
    encoded.append(inputs.to(model.device))
{name: list(tensor.shape) for name, tensor in encoded[0].items()}

# %% tags=["hide-input"]
from mlprobe_utils.book.chapter import answer, say

is_image = encoded[0]["input_ids"][0] == model.config.image_token_id
say(
    f"Of the {len(is_image)} tokens of the first prompt, {int(is_image.sum())}",
    "stand for the image.",
)

# %% [markdown]
# The vision tower and the connector compute the vectors that take the places of the image
# tokens; the [LLM](../book/glossary.md#llm) treats them like words.
#
# ## A hook
#
# A forward hook is a function that PyTorch calls whenever a module has computed its output. Here it keeps the output of
# each decoder layer.

# %%
layers = model.model.language_model.layers
names = {layer: f"L.{number:02d}" for number, layer in enumerate(layers)}
states, hooks = {}, []

# %%
for layer in layers:
    hooks.append(
        layer.register_forward_hook(
            lambda module, inputs, output: states.update(
                {names[module]: output}
            )
        )
    )

# %%
with torch.inference_mode():
    model(**encoded[0])
{name: list(state.shape) for name, state in states.items()}

# %% [markdown]
# Each layer yields one state: images × tokens × width. The model itself is unchanged.
#
# ## From tokens to one vector per image
#
# The states of an image's tokens are averaged, at every layer and for every image. This mean is the *feature* that a
# probe is given.

# %%
means = {name: [] for name in states}
with torch.inference_mode():
    for inputs in encoded:
        model(**inputs)
        own = inputs["input_ids"][0] == model.config.image_token_id
        for name, state in states.items():
            means[name].append(state[0, own].float().mean(dim=0).cpu())

# %%
features = {name: torch.stack(own).numpy() for name, own in means.items()}
for hook in hooks:
    hook.remove()
features["L.00"].shape

# %% [markdown]
# ## A probe
#
# A [probe](../book/glossary.md#probe) is a small classifier on these vectors, while the model stays frozen. Here it is one
# linear layer in PyTorch. Each feature is first shifted and scaled by its mean and deviation over the training images.

# %%
from torch.nn.functional import cross_entropy

classes = sorted(set(labels))
target = torch.tensor([classes.index(label) for label in labels])
train, x = torch.tensor(training), {}
for name, own in features.items():
    centre, spread = own[training].mean(axis=0), own[training].std(axis=0)
    x[name] = torch.tensor((own - centre) / (spread + 1e-6))

# %% [markdown]
# The probe is fitted on the training images alone:

# %%
torch.manual_seed(0)
probes = {}
for name, own in x.items():
    probes[name] = torch.nn.Linear(own.shape[1], len(classes))
    descent = torch.optim.AdamW(probes[name].parameters(), lr=0.01)
    for _ in range(300):  # steps, each on all training images
        cross_entropy(probes[name](own[train]), target[train]).backward()
        descent.step(), descent.zero_grad()

# %% [markdown]
# And it is evaluated on the test images:

# %%
by_hand = {}
with torch.inference_mode():
    for name, probe in probes.items():
        correct = probe(x[name][~train]).argmax(dim=1) == target[~train]
        by_hand[name] = 100 * correct.float().mean().item()

# %%
import altair as alt

curve = pd.DataFrame(by_hand.items(), columns=["point", "accuracy"])
said = "Accuracy of a linear probe on each layer's mean image token"
height = alt.Y("accuracy", title="accuracy (%)").scale(zero=False)
chart = alt.Chart(curve, description=said).mark_line(point=True)
chart.encode(x="point", y=height)

# %% tags=["hide-input"]
last_layer = curve.iloc[-1]
shares = 100 * pd.Series(labels[~training]).value_counts(normalize=True)
say(
    f"This is a probing curve. At {last_layer['point']} the probe is correct for",
    f"{last_layer['accuracy']:.1f} % of the test images; always naming the most frequent",
    f"class would be correct for {shares.max():.1f} %.",
)

# %% [markdown]
# [Chapter 3](03_probing.ipynb) draws such curves for vision tower, connector and LLM, before and after fine-tuning, with
# intervals.
#
# ## The logit lens of one image
#
# All layers of the LLM have the same width. So the model's own output head can be applied to the state of any layer:
# which token would the model write if the remaining layers were skipped?

# %%
last = torch.stack([state[0, -1] for state in states.values()])
with torch.inference_mode():
    logits = model.lm_head(model.model.language_model.norm(last))
written = [processor.decode([token]) for token in logits.argmax(dim=-1)]
pd.DataFrame({"layer": [*states], "token": written})

# %% [markdown]
# These are the states at the [last token](../book/glossary.md#last-token) of the last image, from which the answer is
# generated.
#
# ## LoRA on one layer
#
# LoRA leaves a weight as it is, adds the product of two thin matrices to it, and trains only these. Here they are added
# to the query projection of the first decoder layer, and learn to write the answer.

# %%
from copy import deepcopy

from peft import LoraConfig, get_peft_model

torch.manual_seed(0)
place = r".*language_model\.layers\.0\.self_attn\.q_proj"
settings = LoraConfig(r=8, lora_alpha=32, target_modules=place)
adapted = get_peft_model(deepcopy(model), settings)
adapted.print_trainable_parameters()

# %%
import numpy as np

updated = [own for own in adapted.parameters() if own.requires_grad]
optimizer = torch.optim.AdamW(updated, lr=0.01)
drawn = np.random.default_rng(0).permutation(np.flatnonzero(training))

# %%
from mlprobe_utils.models.encoding import append_answers

words = processor.tokenizer(list(labels), add_special_tokens=False)
answers, pad = words["input_ids"], processor.tokenizer.pad_token_id

# %%
losses = []
for number in drawn[:100]:
    inputs = append_answers(encoded[number], [answers[number]], pad)
    wanted = inputs.pop("labels").to(model.device)[0]
    logits = adapted(**inputs).logits[0, -len(wanted) - 1 : -1].float()
    losses.append(cross_entropy(logits, wanted))
    losses[-1].backward()
    optimizer.step(), optimizer.zero_grad()

# %% tags=["hide-input"]
values = [float(loss) for loss in losses]
window = max(1, len(values) // 5)
first, final = np.mean(values[:window]), np.mean(values[-window:])
say(
    f"The loss per token of the answer goes from {first:.2f} (mean of the first",
    f"{window} images) to {final:.2f} nats (the last {window}).",
)

# %% [markdown]
# [Chapter 2](02_fine_tuning.ipynb) does this for every linear layer, over several epochs.
#
# ## The same with the package
#
# The package finds the layers of each supported family of models, processes images in batches, keeps finished work, and
# adds intervals to the curve.

# %%
images = mp.image_list(pictures, list(labels), splits=list(rows["split"]))
said = {option: option for option in image_set.card.options}
question = mp.Question(image_set.card.template, said)
extracted = mp.extract(loaded, images, question)
linear = {"kind": "linear", "batch_size": 32, "learning_rate": 0.01}
probed = mp.probe(extracted, images, epochs=30, **linear)
mp.plot(probed)

# %%
differences = pd.Series(dtype=float)
for name, own in features.items():
    differences[name] = np.abs(extracted[f"{name}/image_mean"] - own).max()
accuracies = mp.accuracy(probed).query("pooling == 'image_mean'")
table = accuracies.set_index("point").loc[list(features)]
table["by hand"] = curve.set_index("point")["accuracy"]
table["largest difference of a feature"] = differences
table.drop(columns=["pooling", "images"]).round(4)

# %% tags=["hide-input"]
scale = max(np.abs(own).max() for own in features.values())
assert differences.max() < 1e-4 * scale, "features by hand are the package's"
apart = (table["accuracy"] - table["by hand"]).abs().max()
width = (table["high"] - table["low"]).mean()

# %% tags=["hide-input"]
say(
    f"The features agree: no number differs by more than {differences.max():.1g},",
    f"where the largest is {scale:.0f}. The accuracies differ by at most",
    f"{apart:.1f} pp, because the two probes are trained differently; a 95 %",
    f"interval is {width:.0f} pp wide.",
)

# %% [markdown]
# The package trains probes in epochs and with several seeds, as the paper does. Its functions take your own model and
# images in the same way:
#
# ```python
# model = mp.load("Qwen/Qwen2.5-VL-7B-Instruct", "bfloat16")
# images = mp.image_folder("scans/")  # a folder for each class
# ```
#
# ## Takeaways

# %% tags=["hide-input", "answer"]
top = table.iloc[-1]  # the last layer: no choice by the test images
answer(
    "A hook is a function that keeps a layer's output while the model runs; a",
    "probe is one small classifier trained on these outputs. Both fit in a few",
    "lines of PyTorch. At the last layer the probe is correct for",
    f"{top['accuracy']:.1f} % of the test images (95 % interval {top['low']:.1f} to",
    f"{top['high']:.1f}), against {shares.max():.1f} % for the most frequent class.",
)

# %% [markdown]
# - A hook records a state without changing the model: see [a hook](#a-hook).
# - A probe shows what can be decoded from a state, not what the model makes of it: see [a probe](#a-probe).
# - The package does the same for every layer, with intervals: see
#   [the same with the package](#the-same-with-the-package).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("00_by_hand")
