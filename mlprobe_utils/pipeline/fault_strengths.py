"""How strong planted faults are: what the reference measurement loses on fresh phantoms, with intervals."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.damaged_models import DamagedModel
from mlprobe_utils.pipeline.fault_tables import with_interval
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.stats.intervals import LEVEL, intervals
from mlprobe_utils.stats.resampling import accuracy, resample

BOTH = ("intact", "damaged")


def measured(selection: Selection) -> pd.DataFrame:
    """The measured strength of every fault in the selected models.

    Returns:
        The rows of `results.fault_strengths`; how many images the strength was measured on, and how many of these the
        oracle gets right without and with the damage (images, intact, damaged); what is lost (points), with the ends
        lost_low and lost_high of its 95 % interval.

    Raises:
        InputError: faults were not calibrated.
    """
    strengths, hits = results.fault_strengths(selection)
    keys, records = ["model", "dataset", "fault", "wanted"], []
    for key, own in hits.groupby(keys, sort=False):
        drawn = resample(np.arange(len(own)))
        before, after = (accuracy(own[name].to_numpy()[None], drawn) for name in BOTH)
        change = intervals(after - before).iloc[0]
        counts = {"images": len(own)} | {name: int(own[name].sum()) for name in BOTH}
        lost = {"lost": -change["value"], "lost_low": -change["high"], "lost_high": -change["low"]}
        records.append(dict(zip(keys, key, strict=True)) | counts | lost)
    return strengths.merge(pd.DataFrame(records), on=keys)


def strengths_of(selection: Selection, damaged: list[DamagedModel]) -> pd.DataFrame:
    """The measured strengths of damaged models.

    Args:
        selection: of the healthy model.

    Returns:
        A row a damaged model and data set: the columns of `measured`, of which `model` is the damaged model's slug.

    Raises:
        InputError: as `measured`.
    """
    keys = pd.DataFrame(
        [(one.slug, one.model, one.fault.slug, one.points_lost) for one in damaged],
        columns=["damaged_model", "model", "fault", "wanted"],
    )
    found = keys.merge(measured(selection), on=["model", "fault", "wanted"])
    return found.drop(columns="model").rename(columns={"damaged_model": "model"})


def strength_table(strengths: pd.DataFrame) -> pd.DataFrame:
    """What the reference measurement loses at each damaged place, for a page; accuracies with exact intervals.

    Args:
        strengths: from `strengths_of`.
    """
    counts = {f"{name} (%)": [_exact(*row) for row in strengths[[name, "images"]].to_numpy()] for name in BOTH}
    lost = -strengths[["lost", "lost_high", "lost_low"]]
    return strengths[["dataset", "model"]].assign(
        **{"damaged at": strengths["point"], "severity": strengths["severity"].map("{:.3f}".format)},
        **counts,
        wanted=-strengths["wanted"],
        **{"change (points)": with_interval(lost, *lost.columns, "+")},
        reached=strengths["reached"].map({True: "yes", False: "no"}),
    )


def _exact(right: int, images: int) -> str:
    """An accuracy in percent with the ends of its interval (Clopper and Pearson 1934)."""
    bounds = binomtest(int(right), int(images)).proportion_ci(LEVEL, method="exact")
    return f"{100 * right / images:.1f} [{100 * bounds.low:.1f}, {100 * bounds.high:.1f}]"
