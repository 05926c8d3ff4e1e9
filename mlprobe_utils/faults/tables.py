"""Tables of the chapter on planted faults. Does not import torch."""

from collections.abc import Iterable, Mapping

import pandas as pd

from mlprobe_utils.faults.card import ANSWER, Fault
from mlprobe_utils.points import MODULES

PLACES = MODULES | {ANSWER: "semantic mapping"}
POOLINGS = {"image_mean": "image tokens", "last_token": "last token"}


def fault_table(faults: Iterable[Fault]) -> pd.DataFrame:
    """The cards: fault, module, depth (of the module's points), points to be lost, seed."""
    rows = [(f.name, PLACES[f.module], _depth(f), f.points_lost, str(f.seed)) for f in faults]
    return pd.DataFrame(rows, columns=["fault", "module", "depth", "points to be lost", "seed"])


def _depth(fault: Fault) -> str:
    return "" if fault.depth is None else f"{fault.depth:g}"


def strength_table(strengths: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """What the oracle loses at each damaged place: one row a fault.

    Args:
        strengths: from `strengths.fault_strengths`.
        names: fault -> name.
    """
    deciding = strengths[strengths["decides"]]
    most = deciding["most"].map("{:.1f}".format)
    return pd.DataFrame(
        {
            "fault": deciding["fault"].map(names),
            "damaged at": deciding["point"],
            "severity": deciding["severity"].map("{:.3f}".format),
            "intact (%)": _with_interval(deciding, "intact"),
            "damaged (%)": _with_interval(deciding, "damaged"),
            "wanted": -deciding["wanted"],
            "change (points)": _with_interval(deciding, "change", "low", "high", "+"),
            "reached": deciding["reached"].map({True: "yes", False: "no, at most "})
            + most.where(~deciding["reached"], ""),
        }
    )


def reading_table(strengths: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Everything the oracle read: at the damaged place, at the last layer in both poolings, and the answer."""
    return pd.DataFrame(
        {
            "fault": strengths["fault"].map(names),
            "read at": strengths["point"],
            "what": _what(strengths),
            "intact (%)": strengths["intact"],
            "damaged (%)": strengths["damaged"],
            "change (points)": _with_interval(strengths, "change", "low", "high", "+"),
        }
    )


def at_the_end(strengths: pd.DataFrame, fault: str) -> dict[str, float]:
    """What the oracle's accuracy changes by at the last layer, pooling -> points, and of the `answer`, by one fault."""
    own = strengths[strengths["fault"] == fault]
    return own["change"].groupby(own["pooling"].fillna("answer")).last().to_dict()


def around_table(near: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Changes of the probes around the damaged places, with intervals; `near` is from `effects.around`."""
    return pd.DataFrame(
        {
            "fault": near["fault"].map(names),
            "where": near["where"],
            "point": near["point"],
            "what": _what(near),
            "intact (%)": near["intact"],
            "damaged (%)": near["damaged"],
            "change (points)": _with_interval(near, "change", "low", "high", "+"),
        }
    )


def _what(rows: pd.DataFrame) -> pd.Series:
    return rows["pooling"].map(POOLINGS).fillna("answer")


def _with_interval(rows: pd.DataFrame, value: str, low: str = "", high: str = "", sign: str = "") -> list[str]:
    low, high = low or f"{value}_low", high or f"{value}_high"
    return [f"{v:{sign}.1f} [{a:{sign}.1f}, {b:{sign}.1f}]" for v, a, b in rows[[value, low, high]].to_numpy()]
