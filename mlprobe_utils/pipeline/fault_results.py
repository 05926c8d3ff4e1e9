"""How strong planted faults are, by the oracle on fresh phantoms; and the tables of the pages that show faults."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from mlprobe_utils.evaluation.points import ANSWER, MODULES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.damaged_models import DamagedModel
from mlprobe_utils.pipeline.fault_card import Fault
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.stats.intervals import LEVEL, intervals
from mlprobe_utils.stats.resampling import accuracy, resample

PLACES = MODULES | {ANSWER: "semantic mapping"}
POOLINGS = {"image_mean": "image tokens", "last_token": "last token"}
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
        lost = {"lost": -change["value"], "lost_low": -change["high"], "lost_high": -change["low"]}
        counts = {"images": len(own)} | {name: int(own[name].sum()) for name in BOTH}
        records.append(dict(zip(keys, key, strict=True)) | counts | lost)
    return strengths.merge(pd.DataFrame(records), on=keys)


def strengths_of(selection: Selection, damaged: list[DamagedModel]) -> pd.DataFrame:
    """`measured` of damaged models: a row each and data set, `model` their slugs; `selection` is of the healthy one."""
    keys = pd.DataFrame(
        [(one.slug, one.model, one.fault.slug, one.points_lost) for one in damaged],
        columns=["damaged_model", "model", "fault", "wanted"],
    )
    found = keys.merge(measured(selection), on=["model", "fault", "wanted"])
    return found.drop(columns="model").rename(columns={"damaged_model": "model"})


def exact_interval(successes: int, trials: int) -> tuple[float, float]:
    """The ends of the 95 % interval of a proportion, in percent (Clopper and Pearson 1934)."""
    bounds = binomtest(int(successes), int(trials)).proportion_ci(LEVEL, method="exact")
    return 100 * bounds.low, 100 * bounds.high


def fault_table(faults: Iterable[Fault]) -> pd.DataFrame:
    """The cards: fault, module, depth (of the module's points), seed."""
    rows = [(f.name, PLACES[f.module], "" if f.depth is None else f"{f.depth:g}", str(f.seed)) for f in faults]
    return pd.DataFrame(rows, columns=["fault", "module", "depth", "seed"])


def strength_table(strengths: pd.DataFrame) -> pd.DataFrame:
    """`strengths_of` for a page: what the oracle loses at each damaged place; accuracies with exact intervals."""
    exact = pd.DataFrame(index=strengths.index)
    for name in BOTH:
        rows = strengths[[name, "images"]].to_numpy()
        exact[f"{name} (%)"] = [_with_ends(100 * correct / of, *exact_interval(correct, of)) for correct, of in rows]
    lost = -strengths[["lost", "lost_high", "lost_low"]]
    return strengths[["dataset", "model"]].assign(
        **{"damaged at": strengths["point"], "severity": strengths["severity"].map("{:.3f}".format)},
        **exact,
        wanted=-strengths["wanted"],
        **{"change (points)": [_with_ends(*row, "+") for row in lost.to_numpy()]},
        reached=strengths["reached"].map({True: "yes", False: "no"}),
    )


def effect_table(effects: pd.DataFrame) -> pd.DataFrame:
    """Rows of `fault_effects.effects` for a page: accuracies, and the change with its interval."""
    what = effects["pooling"].map(POOLINGS).fillna("answer")
    changes = [_with_ends(*row, "+") for row in effects[["change", "low", "high"]].to_numpy()]
    return effects[["model", "where", "point"]].assign(
        **{"what": what, "intact (%)": effects["intact"], "damaged (%)": effects["damaged"], "change (points)": changes}
    )


def _with_ends(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
