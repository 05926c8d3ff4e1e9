"""The four failure modes (paper, section 4.2) as measurable statements: what is lost between two fixed stations.

A station is the end of a module, as a probe reads it, the final output, or a reference that has seen the same images.
Stations are fixed before anything is seen: the best of many points, picked on the test images, would find losses where
there are none. A mode is named where the whole simultaneous interval of its loss lies beyond a threshold, ruled out
where the whole of it lies short of it, and cannot be told otherwise. No torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlprobe_utils.errors import InputError
from mlprobe_utils.intervals import RECIPE
from mlprobe_utils.paired_tests import paired_tests
from mlprobe_utils.resampling import Resamples

REFERENCE, OUTPUT = "reference", "final output"
VISION_TOWER, CONNECTOR = "vision tower's end", "connector's end"
IMAGE_TOKENS, LAST_TOKEN = "LLM's end, image tokens", "LLM's end, last token"
PROBED = {  # station -> module and pooling of the probe, at the module's last point
    VISION_TOWER: ("V", "image_mean"),
    CONNECTOR: ("C", "image_mean"),
    IMAGE_TOKENS: ("L", "image_mean"),
    LAST_TOKEN: ("L", "last_token"),
}
STATIONS = (REFERENCE, *PROBED, OUTPUT)
QUALITY, FIDELITY = "quality limitation", "fidelity loss"
COMPREHENSION, MISALIGNMENT = "comprehension deficit", "misalignment"
MODES = (QUALITY, FIDELITY, COMPREHENSION, MISALIGNMENT)  # as the information flows
NAMED, RULED_OUT, UNTOLD = "named", "ruled out", "not distinguishable on this many images"


@dataclass(frozen=True)
class Statement:
    """Something is lost between two stations: what can be told `after` is less than what could be told `before`."""

    name: str
    mode: str
    before: str
    after: str


STATEMENTS = (
    Statement(QUALITY, QUALITY, REFERENCE, VISION_TOWER),
    Statement(FIDELITY, FIDELITY, VISION_TOWER, CONNECTOR),
    Statement(f"{COMPREHENSION}, image tokens", COMPREHENSION, CONNECTOR, IMAGE_TOKENS),
    Statement(f"{COMPREHENSION}, last token", COMPREHENSION, CONNECTOR, LAST_TOKEN),
    Statement(MISALIGNMENT, MISALIGNMENT, LAST_TOKEN, OUTPUT),
)


def losses(right: Mapping[str, np.ndarray], resamples: Resamples, question: str = RECIPE) -> pd.DataFrame:
    """What is lost between the stations of each statement, with simultaneous intervals.

    Args:
        right: station -> whether each image is right, bool [seeds, images], or [images] of what has no seeds; every one
            of STATIONS, the images in the order of `resamples`.
        question: of `intervals.QUESTIONS`.

    Returns:
        One row a statement: statement, mode, before, after (stations), and the columns of `paired_tests`: value is the
        change in points, a loss negative; band_low and band_high hold for all five at once.

    Raises:
        InputError: a station is missing, or stations have different numbers of seeds or images; as `paired_tests`.
    """
    if missing := [station for station in STATIONS if station not in right]:
        raise InputError(f"a diagnosis needs every station, found no {missing[0]}: {', '.join(STATIONS)}")
    seeds = max(1, *(len(own) for own in right.values() if own.ndim == 2))
    images = resamples.counts.shape[1]
    for station, own in right.items():
        if own.shape not in ((images,), (seeds, images)):
            raise InputError(f"station '{station}' has outcomes {own.shape}, expected ({seeds} seeds, {images} images)")
    wide = {station: np.broadcast_to(own, (seeds, images)) for station, own in right.items()}
    before, after = (np.stack([wide[getattr(s, side)] for s in STATEMENTS], axis=1) for side in ("before", "after"))
    told = pd.DataFrame([(s.name, s.mode, s.before, s.after) for s in STATEMENTS])
    told.columns = ["statement", "mode", "before", "after"]
    return pd.concat([told, paired_tests(before, after, resamples, question)], axis=1)


def verdicts(lost: pd.DataFrame, thresholds: Mapping[str, float]) -> pd.DataFrame:
    """Which statements hold: `lost`, from `losses`, with the columns threshold, beyond and verdict.

    `beyond` is the loss beyond the threshold in points, at the end of the interval that is nearer to none: positive
    where the mode is named, and the larger the clearer.

    Args:
        thresholds: statement -> the least loss that counts, points.

    Raises:
        InputError: a statement without a threshold.
    """
    if missing := [name for name in lost["statement"] if name not in thresholds]:
        raise InputError(f"no threshold for '{missing[0]}': give one for each of {', '.join(lost['statement'])}")
    threshold = lost["statement"].map(dict(thresholds)).astype(float)
    beyond, short = -lost["band_high"] - threshold, lost["band_low"] + threshold
    verdict = np.select([beyond > 0, short > 0], [NAMED, RULED_OUT], UNTOLD)
    return lost.assign(threshold=threshold, beyond=beyond, verdict=verdict)


def main_mode(told: pd.DataFrame) -> str | None:
    """The mode named most clearly, of one model on one data set (from `verdicts`); None where none is named."""
    named = told[told["verdict"] == NAMED]
    return None if named.empty else str(named.loc[named["beyond"].idxmax(), "mode"])
