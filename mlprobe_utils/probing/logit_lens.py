"""The logit lens (nostalgebraist 2020): states of an LLM layer, read by the model's own final norm and output head."""

import numpy as np
import pandas as pd
import torch

from mlprobe_utils.evaluation.points import flow_order
from mlprobe_utils.evaluation.rows import image_rows
from mlprobe_utils.models.encoding import Encoder
from mlprobe_utils.models.loading import LoadedModel

LENS, POOLING = "logit lens", "last_token"


def first_tokens(encoder: Encoder, options: list[str]) -> list[int]:
    """The token that each option begins with, behind a thought that the prompt has opened; options may share one."""
    answers = encoder.answer_tokens(options)
    parted = (n for n, tokens in enumerate(zip(*answers, strict=False)) if len({*tokens}) > 1)
    first = next(parted) if encoder.opened else 0
    return [tokens[first] for tokens in answers]


@torch.inference_mode()
def through_the_lens(loaded: LoadedModel, states: torch.Tensor, tokens: list[int], batch_size: int) -> np.ndarray:
    """Probabilities of the options, float64 [images, options], among their `first_tokens`, whose probability options
    share; `states` are the last token's at an LLM point, float32 [images, width]."""
    head = loaded.model.get_output_embeddings().weight  # not the module, whose output may be edited
    norm = loaded.model.get_submodule(f"{loaded.family.decoder_layers.rpartition('.')[0]}.norm")
    different, which, sharing = np.unique(tokens, return_inverse=True, return_counts=True)
    given = (own.to(loaded.device, loaded.model.dtype) for own in states.split(batch_size))
    logits = [norm(own) @ head[different].T for own in given]
    probabilities = torch.cat(logits).double().softmax(dim=1).cpu().numpy()
    return (probabilities / sharing)[:, which]


def lens_rows(
    loaded: LoadedModel,
    features: dict[str, torch.Tensor],
    images: pd.DataFrame,
    options: list[str],
    tokens: list[int],
    batch_size: int,
    constants: dict,
) -> pd.DataFrame:
    """Rows of validation and test images at every LLM point; `images` has image, option and split of all."""
    kept, frames = np.flatnonzero(images["split"] != "train"), []
    points = [key.split("/")[0] for key in features if key.endswith(f"/{POOLING}")]
    for point in sorted(points, key=flow_order):
        probabilities = through_the_lens(loaded, features[f"{point}/{POOLING}"][kept], tokens, batch_size)
        place = {"probe": LENS, "point": point, "pooling": POOLING}
        frames.append(image_rows(images.iloc[kept], options, probabilities, **constants | place))
    return pd.concat(frames, ignore_index=True)
