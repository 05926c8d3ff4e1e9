"""Tables of the pages that show planted faults."""

from collections.abc import Iterable

import pandas as pd

from mlprobe_utils.evaluation.points import ANSWER, MODULES
from mlprobe_utils.pipeline.fault_card import Fault

PLACES = MODULES | {ANSWER: "semantic mapping"}
POOLINGS = {"image_mean": "image tokens", "last_token": "last token"}


def fault_table(faults: Iterable[Fault]) -> pd.DataFrame:
    """The cards: fault, module, depth (of the module's points), seed."""
    rows = [(f.name, PLACES[f.module], "" if f.depth is None else f"{f.depth:g}", str(f.seed)) for f in faults]
    return pd.DataFrame(rows, columns=["fault", "module", "depth", "seed"])


def effect_table(effects: pd.DataFrame) -> pd.DataFrame:
    """Rows of `effects.effects` for a page: accuracies, and the change with its interval."""
    return pd.DataFrame(
        {
            "model": effects["model"],
            "where": effects["where"],
            "point": effects["point"],
            "what": effects["pooling"].map(POOLINGS).fillna("answer"),
            "intact (%)": effects["intact"],
            "damaged (%)": effects["damaged"],
            "change (points)": with_interval(effects, "change", "low", "high", "+"),
        }
    )


def with_interval(rows: pd.DataFrame, value: str, low: str, high: str, sign: str = "") -> list[str]:
    """Numbers with the ends of their intervals, as texts."""
    return [f"{v:{sign}.1f} [{a:{sign}.1f}, {b:{sign}.1f}]" for v, a, b in rows[[value, low, high]].to_numpy()]
