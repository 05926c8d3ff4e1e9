"""Curves of intact and damaged models, one panel a fault, with the damaged place marked. Does not import torch."""

from collections.abc import Mapping

import pandas as pd

from mlprobe_utils.charts import ANSWER as ANSWERED
from mlprobe_utils.charts import ANSWERS, POINTS
from mlprobe_utils.faults.card import ANSWER
from mlprobe_utils.faults.effects import main_path
from mlprobe_utils.figures import Figure, Key, Panel, figure
from mlprobe_utils.line_panels import Values, domain_of, line_panel, line_words, stations
from mlprobe_utils.panels import COLOURS

COLUMNS = 2
SERIES = {"intact": Key("intact", "model", COLOURS[1], dashed=True), "damaged": Key("damaged", "model", COLOURS[0])}


def fault_curves(table: pd.DataFrame, names: Mapping[str, str], model: str, pooling: str = "image_mean") -> Figure:
    """Probing accuracy at every point and of the answer, intact and damaged; a vertical line where the damage is.

    Args:
        table: from `effects.effects`.
        names: fault -> name.
        model: the model's name.
        pooling: of the features.
    """
    path = main_path(table, pooling).rename(columns={"point": "x"})
    path = path.assign(x=path["x"].replace({ANSWER: ANSWERED}), place=path["place"].replace({ANSWER: ANSWERED}))
    keys = ["fault", "place", "x"]
    long = path.melt(keys, [*SERIES], var_name="series").assign(model=model, run=0)
    order, values = stations(long["x"], ANSWERS), Values("accuracy (%)")
    domain, panels = domain_of(long, values, ANSWERS), []
    for fault, own in long.groupby("fault", sort=False):
        place = own["place"].iloc[0]
        svg = line_panel(own, order, [*SERIES.values()], values, domain, ANSWERS, marked=place)
        panels.append(Panel(names[fault], svg, f"{names[fault]}, damaged at {place}: {line_words(own)}."))
    numbers = path.assign(fault=path["fault"].map(names))[["fault", "place", "x", "intact", "damaged"]]
    title = f"Probing accuracy of {model}, intact and damaged; the vertical line is the damaged place"
    axes = (values.meaning, POINTS)
    numbers = numbers.rename(columns={"place": "damaged at", "x": "point"})
    return figure(panels, title, COLUMNS, [*SERIES.values()], axes, numbers)
