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
# Thirty lines of PyTorch and scikit-learn do by hand what the whole book does: they read the states inside a model, and
# measure how well the class of an image can be read from them. Then five lines of the package do the same.

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
# The images are of the first data set, at most 200 to train on and 200 to test, with a label each. A chat template
# writes the question around the place of the image.

# %%
import pandas as pd

image_set = next(iter(chapter.image_sets.values()))
parts = []
for split in ("train", "test"):
    own = image_set.rows_of(split_rule, split).assign(split=split)
    parts.append(own.sample(min(len(own), 200), random_state=0))
rows = pd.concat(parts)

# %%
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
from mlprobe_utils.book.chapter import glue

is_image = encoded[0]["input_ids"][0] == model.config.image_token_id
glue("images", len(pictures))
glue("tokens", len(is_image))
glue("image_tokens", int(is_image.sum()))

# %% [markdown]
# Of the {glue:text}`tokens` tokens of the first prompt, {glue:text}`image_tokens` stand for the image. The vision tower
# and the connector compute what is put in their places; the {term}`LLM` treats them as words.
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
# One state for each layer: images × tokens × width. Nothing in the model was changed for it.
#
# ## From tokens to one vector an image
#
# The states of the image's tokens are averaged, at every layer and for all {glue:text}`images` images. That mean is the
# *feature* that a probe sees.

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
# A {term}`probe` is a small classifier on these vectors, while the model stays as it is: here a logistic regression,
# fitted on the training images and evaluated on the test images.

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
by_hand = {}
for name, own in features.items():
    probe.fit(own[training], labels[training])
    by_hand[name] = probe.score(own[~training], labels[~training])

# %%
import altair as alt

values = [100 * share for share in by_hand.values()]
curve = pd.DataFrame({"point": by_hand.keys(), "accuracy": values})
said = "Accuracy of a logistic regression on each layer's mean image token"
height = alt.Y("accuracy", title="accuracy (%)").scale(zero=False)
chart = alt.Chart(curve, description=said).mark_line(point=True)
chart.encode(x="point", y=height)

# %% tags=["hide-input"]
glue("best", curve["accuracy"].max())
glue("best_point", curve.loc[curve["accuracy"].idxmax(), "point"])
shares = pd.Series(labels[~training]).value_counts(normalize=True)
glue("majority", 100 * shares.max())

# %% [markdown]
# This is a probing curve: at {glue:text}`best_point` the probe is right about {glue:text}`best:.1f` % of the test images,
# where naming the most frequent class would be right about {glue:text}`majority:.1f` %. Chapter 3 draws it for vision
# tower, connector and LLM, before and after fine-tuning, with intervals.
#
# ## The logit lens of one image
#
# A layer's state has the width of the last layer's. So the model's own output head can be applied to it too: which
# token would the model write if the layers behind were skipped?

# %%
last = torch.stack([state[0, -1] for state in states.values()])
with torch.inference_mode():
    logits = model.lm_head(model.model.language_model.norm(last))
written = [processor.decode([token]) for token in logits.argmax(dim=-1)]
pd.DataFrame({"layer": [*states], "the head would write": written})

# %% [markdown]
# These are the states at the {term}`last token` of the last image: from there the answer is generated.
#
# ## LoRA on one layer
#
# LoRA leaves a weight as it is and adds the product of two thin matrices to it, and only these are trained. Here they
# stand beside the query projection of the first decoder layer, and learn to write the answer.

# %%
from copy import deepcopy

from peft import LoraConfig, get_peft_model

torch.manual_seed(0)
place = r".*language_model\.layers\.0\.self_attn\.q_proj"
recipe = LoraConfig(r=8, lora_alpha=32, target_modules=place)
adapted = get_peft_model(deepcopy(model), recipe)
adapted.print_trainable_parameters()

# %%
import numpy as np

trained = [own for own in adapted.parameters() if own.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=0.01)
drawn = np.random.default_rng(0).permutation(np.flatnonzero(training))

# %%
from mlprobe_utils.models.encoding import append_answers

words = processor.tokenizer(list(labels), add_special_tokens=False)
answers, pad = words["input_ids"], processor.tokenizer.pad_token_id

# %%
losses = []
for number in drawn[:100]:
    inputs = append_answers(encoded[number], [answers[number]], pad)
    target = inputs.pop("labels").to(model.device)[0]
    logits = adapted(**inputs).logits[0, -len(target) - 1 : -1].float()
    losses.append(torch.nn.functional.cross_entropy(logits, target))
    losses[-1].backward()
    optimizer.step(), optimizer.zero_grad()

# %% tags=["hide-input"]
values = [float(loss) for loss in losses]
glue("first_loss", np.mean(values[:20]))
glue("final_loss", np.mean(values[-20:]))

# %% [markdown]
# The loss a token of the answer goes from {glue:text}`first_loss:.2f` (mean of the first twenty images) to
# {glue:text}`final_loss:.2f` nats (the last twenty). Chapter 2 does this with every linear layer, several epochs and
# all that a fine-tuning needs.
#
# ## The same in five lines
#
# The package finds the layers of six families of models, batches the images, keeps what is done, and puts intervals
# around the curve.

# %%
images = mp.image_list(pictures, list(labels), splits=list(rows["split"]))
said = {option: option for option in image_set.card.options}
question = mp.Question(image_set.card.template, said)
extracted = mp.extract(loaded, images, question)
recipe = {"kind": "linear", "batch_size": 32, "learning_rate": 0.01}
probed = mp.probe(extracted, images, epochs=30, **recipe)
mp.plot(probed)

# %%
differences = pd.Series(dtype=float)
for name, own in features.items():
    differences[name] = np.abs(extracted[f"{name}/image_mean"] - own).max()
accuracies = mp.accuracy(probed).query("pooling == 'image_mean'")
table = accuracies.set_index("point").loc[list(features)]
table["by hand"] = curve.set_index("point")["accuracy"]
table["largest difference of a feature"] = differences
table.drop(columns=["pooling", "images"])

# %% tags=["hide-input"]
scale = max(np.abs(own).max() for own in features.values())
assert differences.max() < 1e-4 * scale, "features by hand are the package's"
glue("largest", differences.max())
glue("scale", scale)
glue("apart", (table["accuracy"] - table["by hand"]).abs().max())
glue("width", (table["high"] - table["low"]).mean())

# %% [markdown]
# The features are the same: no number differs by more than {glue:text}`largest:.1g`, and the largest is
# {glue:text}`scale:.0f`. The accuracies differ by {glue:text}`apart:.1f` points at most, as scikit-learn's fit is another
# than the package's, whose probes are trained in epochs and with five seeds, as the paper's are; an interval around them
# is {glue:text}`width:.0f` points wide. Its functions take your own model and images just so:
#
# ```python
# model = mp.load("Qwen/Qwen2.5-VL-7B-Instruct", "bfloat16")
# images = mp.image_folder("scans/")  # a folder for each class
# ```
#
# ## Takeaways
#
# - A hook reads a state without changing the model: see [a hook](#a-hook).
# - A probe says what can be read from a state, not what the model makes of it: see [a probe](#a-probe).
# - The package does no more than this, for every layer and with intervals: see
#   [the same in five lines](#the-same-in-five-lines).

# %% [markdown]
# ## How this page was made
#
# The box names everything that this page depends on, and holds the command that makes it again.

# %% tags=["hide-input"]
chapter.provenance("00_by_hand")
