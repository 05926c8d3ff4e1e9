"""Curves of a model, healthy and with a planted fault, one panel a fault and data set."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from mlprobe_utils.pipeline.damaged_models import DamagedModel

from mlprobe_utils.evaluation.health import SCORES
from mlprobe_utils.evaluation.points import ANSWER, main_path
from mlprobe_utils.plots.charts import ANSWER as ANSWERED
from mlprobe_utils.plots.charts import FLOW, lines
from mlprobe_utils.plots.figures import Figure, Key
from mlprobe_utils.plots.line_panels import Values
from mlprobe_utils.plots.panels import COLOURS

HEALTHY = "healthy"


def fault_curves(
    table: pd.DataFrame,
    damaged: Sequence["DamagedModel"],
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
    parts = []
    for one in damaged:
        own = path[path["model"] == one.slug]
        parts += [
            (one, HEALTHY, own.assign(value=own["intact"])),
            (one, one.strength, own.assign(value=own["damaged"])),
        ]
    long = _by_fault(parts, names)
    title = f"Probing accuracy of {names[damaged[0].model]}, healthy and with a planted fault (vertical line)"
    values = Values("accuracy (%)")
    return lines(long, ("fault", "dataset"), _series(damaged), values, title, marked="place")


def fault_profiles(profiles: pd.DataFrame, damaged: Sequence["DamagedModel"], names: Mapping[str, str]) -> Figure:
    """The four scores of the healthy model and of each damaged one.

    Args:
        profiles: from `profiles.profile`, of both, of one stage.
        damaged, names: as in `fault_curves`.
    """
    scores = profiles.melt(["model", "dataset"], list(SCORES), var_name="x")
    series = [(one, *pair) for one in damaged for pair in ((HEALTHY, one.model), (one.strength, one.slug))]
    long = _by_fault([(one, name, scores[scores["model"] == slug]) for one, name, slug in series], names)
    title = f"Four-score profiles of {names[damaged[0].model]}, healthy and with a planted fault"
    return lines(long, ("fault", "dataset"), _series(damaged), Values("score (%)"), title, FLOW)


def _series(damaged: Sequence["DamagedModel"]) -> list[Key]:
    words = dict.fromkeys(one.strength for one in damaged)
    keys = [Key(word, "model", colour) for word, colour in zip(words, (COLOURS[3], COLOURS[0], *COLOURS), strict=False)]
    return [Key(HEALTHY, "model", COLOURS[1], dashed=True), *keys]


def _by_fault(parts: Sequence[tuple["DamagedModel", str, pd.DataFrame]], names: Mapping[str, str]) -> pd.DataFrame:
    """Rows (dataset, x, value) of damaged models and the healthy one, each with its fault and the name of its line."""
    whole = pd.concat([own.assign(fault=one.fault.name, series=series) for one, series, own in parts])
    whole = whole.drop_duplicates(["fault", "series", "dataset", "x"])  # the healthy model's, once for every strength
    named = {"dataset": whole["dataset"].map(names), "model": names[parts[0][0].model]}
    return whole.assign(**named).reset_index(drop=True)
