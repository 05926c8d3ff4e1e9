"""The oracle: how much accuracy a damage costs, on fresh phantoms and by means that no probe and no score shares.

What states hold is read by a linear discriminant of scikit-learn with a covariance shrunk after Ledoit and Wolf (2004),
fitted on other fresh phantoms that passed through the same damage. What the model says is the option that it begins to
write if it may write nothing else, whatever our reading of generated texts makes of it.
"""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlprobe_utils.models.encoding import append_answers
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.probing.extraction import capturing
from mlprobe_utils.synthetic.faults.damage import Damage, numbers_of
from mlprobe_utils.synthetic.faults.mapping import Branches

STEPS = 12  # of the bisection: severity to 1 / 4096


def one_pass(loaded: LoadedModel, inputs: dict, pad: int) -> tuple[dict[str, torch.Tensor], Callable]:
    """Pooled states of a batch, and what the model would write after the beginning of an answer."""
    with capturing(loaded, inputs) as states:
        first = loaded.model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]

    def next_logits(prefix: tuple[int, ...]) -> torch.Tensor:
        if not prefix:
            return first
        longer = append_answers(inputs, [list(prefix)] * len(first), pad)
        longer.pop("labels")
        return loaded.model(**to_device(longer, loaded), logits_to_keep=1, use_cache=False).logits[:, -1]

    return states, next_logits


def swapped_logits(
    loaded: LoadedModel, inputs: dict, damage: Damage, parting: Branches, next_logits: Callable
) -> Callable[[tuple[int, ...]], torch.Tensor]:
    """As `next_logits` of `one_pass`, of a model whose semantic mapping is damaged."""
    numbers = numbers_of(damage, loaded.family, inputs)

    def swapped(prefix: tuple[int, ...]) -> torch.Tensor:
        written = inputs["input_ids"]
        written = torch.cat([written, written.new_tensor([prefix] * len(written)).view(len(written), -1)], dim=1)
        return damage.of_logits(next_logits(prefix)[:, None], written, numbers, parting)[:, 0]

    return swapped


def right(fitted: np.ndarray, fitted_labels: np.ndarray, judged: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether a classifier fitted on states [images, width] with their labels is right about others, bool [images]."""
    discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    classifier = make_pipeline(StandardScaler(), discriminant)
    return classifier.fit(fitted, fitted_labels).predict(judged) == labels


def pooled_at(damage: Damage, intact: np.ndarray, full: np.ndarray) -> np.ndarray:
    """Means of image tokens at the damaged place under a damage, float32 [images, width], without another pass.

    A damage is affine in a state, and its noise the same at every severity: the mean over tokens follows exactly.

    Args:
        intact: the means without damage.
        full: the means at severity 1.
    """
    mean = damage.statistics["mean"].numpy()
    if damage.module == "C":
        return damage.of_states(torch.from_numpy(intact)).numpy()
    kept, noise = (1 - damage.severity) ** 0.5, damage.severity**0.5
    return mean + kept * (intact - mean) + noise * (full - mean)


def severity_for(lost: Callable[[float], float], wanted: float) -> tuple[float, float]:
    """The severity, 0 to 1, that loses `wanted` percentage points; and what severity 1 loses.

    By bisection, so that `lost` should rise with the severity; of the severities tried the one that comes nearest.
    Where severity 1 loses less than is wanted, it is 1.
    """
    tried = {1.0: lost(1.0)}
    if tried[1.0] <= wanted:
        return 1.0, tried[1.0]
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        tried[middle] = lost(middle)
        low, high = (middle, high) if tried[middle] < wanted else (low, middle)
    return min(tried, key=lambda severity: (abs(tried[severity] - wanted), severity)), tried[1.0]
