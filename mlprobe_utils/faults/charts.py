"""Curves of a model, healthy and with a planted fault, one panel a fault and data set. Does not import torch."""

from collections.abc import Mapping, Sequence

import pandas as pd

from mlprobe_utils.charts import ANSWER as ANSWERED
from mlprobe_utils.charts import FLOW, lines
from mlprobe_utils.damaged_models import DamagedModel
from mlprobe_utils.faults.card import ANSWER
from mlprobe_utils.faults.effects import main_path
from mlprobe_utils.figures import Figure, Key
from mlprobe_utils.line_panels import Values
from mlprobe_utils.panels import COLOURS
from mlprobe_utils.profiles import SCORES

HEALTHY = "healthy"


def fault_curves(
    table: pd.DataFrame,
    damaged: Sequence[DamagedModel],
    names: Mapping[str, str],
    pooling: str = "image_mean",
) -> Figure:
    """Probing accuracy at every point and of the answer, healthy and damaged; a vertical line where the damage is.

    Args:
        table: from `effects.effects`.
        damaged: the damaged models that it is of, of one healthy model.
        names: slug -> name of that model and of the data sets.
        pooling: of the features.
    """
    path = main_path(table, pooling).replace({"point": {ANSWER: ANSWERED}, "place": {ANSWER: ANSWERED}})
    path = path.rename(columns={"point": "x"})
    healthy = path.assign(value=path["intact"], model=damaged[0].model)
    long = _by_fault(pd.concat([healthy, path.assign(value=path["damaged"])]), damaged, names)
    long = long.merge(path[["model", "dataset", "place"]].drop_duplicates().pipe(_places, damaged, names))
    title = f"Probing accuracy of {names[damaged[0].model]}, healthy and with a planted fault (vertical line)"
    values = Values("accuracy (%)")
    return lines(long, ("fault", "dataset"), _series(damaged), values, title, marked="place")


def fault_profiles(profiles: pd.DataFrame, damaged: Sequence[DamagedModel], names: Mapping[str, str]) -> Figure:
    """The four scores of the healthy model and of each damaged one.

    Args:
        profiles: from `profiles.profile`, of both, of one stage.
        damaged, names: as in `fault_curves`.
    """
    long = profiles.melt(["model", "dataset"], list(SCORES), var_name="x")
    title = f"Four-score profiles of {names[damaged[0].model]}, healthy and with a planted fault"
    long, values = _by_fault(long, damaged, names), Values("score (%)")
    return lines(long, ("fault", "dataset"), _series(damaged), values, title, FLOW)


def _series(damaged: Sequence[DamagedModel]) -> list[Key]:
    words = dict.fromkeys(one.strength for one in damaged)
    keys = [Key(word, "model", colour) for word, colour in zip(words, (COLOURS[3], COLOURS[0], *COLOURS), strict=False)]
    return [Key(HEALTHY, "model", COLOURS[1], dashed=True), *keys]


def _by_fault(long: pd.DataFrame, damaged: Sequence[DamagedModel], names: Mapping[str, str]) -> pd.DataFrame:
    """Rows of damaged models under the name of their fault, with those of the healthy one in every fault's panel."""
    parts = []
    for one in damaged:
        for slug, series in ((one.model, HEALTHY), (one.slug, one.strength)):
            own = long[long["model"] == slug]
            parts.append(own.assign(fault=one.fault.name, series=series))
    whole = pd.concat(parts).drop_duplicates(["fault", "series", "dataset", "x"])
    whole = whole.assign(dataset=whole["dataset"].map(names), model=names[damaged[0].model])
    return whole[["fault", "dataset", "series", "model", "x", "value"]].reset_index(drop=True)


def _places(places: pd.DataFrame, damaged: Sequence[DamagedModel], names: Mapping[str, str]) -> pd.DataFrame:
    fault = places["model"].map({one.slug: one.fault.name for one in damaged})
    return places.assign(fault=fault, dataset=places["dataset"].map(names)).drop(columns="model").drop_duplicates()
