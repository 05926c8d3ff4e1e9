"""The corrected health score of every module, and where a flat curve would lie, from probe rows."""

import numpy as np
import pandas as pd

from mlprobe_utils.analysis.flat_health import beside_flat
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.corrected_health import CorrectedHealth, corrected_health
from mlprobe_utils.evaluation.outcomes import of_modules, outcomes
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.evaluation.profiles import STATE
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import resamples_of_tested

FLAT = {"2.5 %": "flat_low", "50 %": "flat_middle", "97.5 %": "flat_high"}
SCORES = [*CorrectedHealth._fields, *FLAT.values()]


def corrected_scores(rows: pd.DataFrame, image_set: ImageSet, split: str, penalty: float) -> pd.DataFrame:
    """Health scores without what noise does to them, of the main recipe's accuracy on the mean of the image tokens.

    Noise is counted over whole patients and duplicate groups. Side paths have no score.

    Args:
        rows: probe rows of one model and data set, of any stages, runs, recipes and poolings.
        image_set: the data set; its test images are those of the rows.
        split: of the rows.
        penalty: lambda.

    Returns:
        model, dataset, stage, run, module, points and images (how many), raw (equation 3), score (corrected), low, high
        (its interval), flat_low, flat_middle, flat_high (quantiles 2.5, 50 and 97.5 % of the raw score of a flat curve
        at the last point's accuracy, by noise alone). Scores in percent; all nan where no image is right at a point:
        equation 1 has no value there.

    Raises:
        InputError: fewer than two independent test images; rows that are not whole.
        ValueError: test images of another image set or split.
    """
    rows = of_modules(rows)
    try:
        resamples, images = resamples_of_tested(image_set, split)
    except InputError as error:
        place = " ".join(map(str, [*rows["model"].unique(), "on", image_set.card.slug]))
        raise InputError(f"health scores of {place}, all modules: {error}") from error
    alone = len(np.unique(resamples.clusters)) == len(images)
    counts = None if alone else resamples.counts
    records = []
    for state, own in rows.groupby(STATE, sort=False):
        found = outcomes(own)
        if found.images != images:
            raise ValueError(f"{' '.join(state)}: the rows are not of the test images of split '{split}'")
        for run, right in zip(own["run"].unique(), found.right, strict=True):
            for module in MODULES:
                points = found.of_module(module)
                correct = right[[found.points.index(point) for point in points]]
                place = dict(zip([*STATE, "run", "module"], [*state, run, module], strict=True))
                sizes = {"points": len(points), "images": len(images)}
                records.append(place | sizes | _scores(correct, penalty, counts))
    return pd.DataFrame(records)


def _scores(correct: np.ndarray, penalty: float, counts: np.ndarray | None) -> dict[str, float]:
    if not correct.any(axis=1).all():
        return dict.fromkeys(SCORES, np.nan)
    flat = beside_flat(correct, penalty, counts)
    corrected = corrected_health(correct, penalty, counts)._asdict()
    return corrected | {name: flat[quantile] for quantile, name in FLAT.items()}
