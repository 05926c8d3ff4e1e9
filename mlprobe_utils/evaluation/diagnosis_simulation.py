"""Why stations are fixed beforehand: how often a loss is found where nothing is lost.

Curves are simulated that are flat: every point tells as much as the end. A station that was fixed beforehand should
then show a loss as seldom as the interval promises; the best of many points, picked on the test images, does not.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.health_simulation import simulate_correct
from mlprobe_utils.stats.intervals import PROBE, intervals
from mlprobe_utils.stats.resampling import accuracy, resample

FIXED, BEST = "one fixed point", "the best of all points, picked on the test images"


def false_alarms(
    points: int,
    images: Iterable[int],
    repeats: int,
    share: float = 0.85,
    correlation: float = 0.9,
    seed: int = 0,
) -> pd.DataFrame:
    """How often a 95 % interval of the change from a point to the end lies below 0, although nothing changes.

    Args:
        points: of the curve, the end not counted.
        images: sizes of a test set.
        repeats: curves simulated of each size.
        share: true accuracy of every point.
        correlation: between any two points, as all of them find the same images difficult.
        seed: of all random numbers.

    Returns:
        A row a size and way to choose the point: images, from (FIXED or BEST), false alarms (%), standard error
        (points).

    Raises:
        ValueError: a correlation outside 0 to 1.
    """
    records = []
    for size in images:
        generator = np.random.default_rng([seed, points, size])
        curves = np.stack(
            [
                simulate_correct(np.full(points + 1, share), size, correlation, generator, "shared")
                for _ in range(repeats)
            ]
        )
        ends, best = curves[:, -1], curves[:, :-1].sum(axis=2).argmax(axis=1)
        drawn = resample(np.arange(size))
        for name, chosen in ((FIXED, curves[:, 0]), (BEST, curves[np.arange(repeats), best])):
            alarms = intervals(accuracy(ends, drawn) - accuracy(chosen, drawn), PROBE)["high"] < 0
            rate = alarms.mean()
            error = np.sqrt(rate * (1 - rate) / repeats)
            records.append(
                {"images": size, "from": name, "false alarms (%)": 100 * rate, "standard error": 100 * error}
            )
    return pd.DataFrame(records)
