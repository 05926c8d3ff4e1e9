"""Controls that need the model: the control task, memorisation and random weights by probes, text alone by its answer.

The probes follow the protocol's main recipe, with the seed of one run, on the means of image tokens.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax

from mlprobe_utils.datasets.controls import shuffled
from mlprobe_utils.evaluation.answers import parse_answer
from mlprobe_utils.evaluation.control_names import CONTROL_RUN, CONTROL_TASK, MEMORISATION, RANDOM_WEIGHTS, TEXT_ONLY
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.evaluation.rows import MAIN_PROBE, image_rows
from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.loading import LoadedModel
from mlprobe_utils.pipeline.cards import DataCard, Protocol
from mlprobe_utils.probing.probes import fit_probes
from mlprobe_utils.probing.settings import Probe
from mlprobe_utils.training.prediction import answer_batch

POOLING = "image_mean"
Features = Mapping[str, torch.Tensor]


def probed_rows(
    tuned: Features, random: Features, images: pd.DataFrame, options: list[str], probe: Probe, constants: dict
) -> pd.DataFrame:
    """Rows of the control task and of random weights (test images), and of memorisation (train images).

    The control task is probed at every point, memorisation at the last one of each module.

    Args:
        tuned: `point/pooling` -> float32 [images, width], of the fine-tuned model, in the order of the data flow.
        random: the same of the model with random weights, which has no stage.
        images: one row an image, as the features: image, split, option, and control (the control task's option).
        options: in the data card's order.
        constants: the columns that rows of the fine-tuned model share.
    """
    training, tested = (np.flatnonzero(images["split"] == split) for split in ("train", "test"))
    memorised = images["option"].to_numpy(copy=True)
    memorised[training] = shuffled(memorised[training])
    labels = {CONTROL_TASK: images["control"], MEMORISATION: memorised, RANDOM_WEIGHTS: images["option"]}
    keys = [key for key in tuned if key.endswith(f"/{POOLING}")]
    ends = [[key for key in keys if key[0] == module][-1] for module in MODULES]
    features = {(CONTROL_TASK, key): tuned[key] for key in keys}
    features |= {(MEMORISATION, key): tuned[key] for key in ends}
    features |= {(RANDOM_WEIGHTS, key): random[key] for key in random if key.endswith(f"/{POOLING}")}
    codes = {control: pd.Categorical(own, options).codes.astype(int) for control, own in labels.items()}
    targets = {key: codes[key[0]] for key in features}
    fitted = fit_probes(features, targets, training, len(options), probe, dict.fromkeys(features, CONTROL_RUN))
    frames = []
    for (control, key), probabilities in fitted.items():
        shown = training if control == MEMORISATION else tested
        own = images.assign(option=labels[control]).iloc[shown]
        place = {"run": CONTROL_RUN, "seed": CONTROL_RUN, "probe": MAIN_PROBE, "pooling": POOLING}
        place |= {"point": key.split("/")[0]} | ({"stage": None} if control == RANDOM_WEIGHTS else {})
        frames.append(image_rows(own, options, probabilities[shown], **constants | place, control=control))
    return pd.concat(frames, ignore_index=True)


def text_only_rows(
    loaded: LoadedModel, card: DataCard, protocol: Protocol, images: pd.DataFrame, constants: dict
) -> pd.DataFrame:
    """Rows of the answer to the question without an image: one answer, which counts for all `images`."""
    encoder = Encoder(loaded.processor, card.template.replace("<image>", ""), protocol.order)
    answered = answer_batch(loaded, encoder.questions([None]), encoder, card.options, protocol.answering.max_new_tokens)
    text = answered["text"].iloc[0]
    probabilities = softmax(answered[card.options].to_numpy(), axis=1).repeat(len(images), axis=0)
    rows = image_rows(images, card.options, probabilities, **constants, control=TEXT_ONLY)
    return rows.assign(text=text, parsed=parse_answer(text, card.options))
