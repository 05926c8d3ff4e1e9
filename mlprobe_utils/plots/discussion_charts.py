"""Charts of the discussions: paired differences as intervals, and curves of models that read in another order."""

from collections.abc import Mapping

import pandas as pd

from mlprobe_utils.evaluation.health import STAGE_NAMES, in_words
from mlprobe_utils.evaluation.orders import ORDER_NAMES
from mlprobe_utils.evaluation.stations import OUTPUT
from mlprobe_utils.plots.charts import ANSWER, ORDER, lines, model_keys
from mlprobe_utils.plots.diagnosis_charts import loss_chart
from mlprobe_utils.plots.figures import Figure, Key
from mlprobe_utils.plots.line_panels import Values
from mlprobe_utils.plots.panels import COLOURS


def difference_chart(
    told: pd.DataFrame, statement: pd.Series, names: Mapping[str, str], title: str, verdicts: tuple[str, str, str]
) -> Figure:
    """Paired differences with their intervals: a block a statement, a line a model, one panel a data set.

    Args:
        told: model, dataset, one column of the differences (`change` or `difference`), low, high (points), verdict.
        statement: what each row is about.
        names: slug -> name of models and data sets, in the order of the page.
        title: the caption.
        verdicts: the three there can be: below 0, above 0, and what cannot be told.
    """
    ends = {"change": "value", "difference": "value", "low": "band_low", "high": "band_high"}
    return loss_chart(told.rename(columns=ends).assign(statement=statement), names, title, verdicts)


def order_curves(curves: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """What probes read of the image tokens, and the answer, a line an order; one row a model, one column a data set.

    Args:
        curves: from `question_order.curves`, of one stage.
        names: as in `difference_chart`.
    """
    (stage,) = curves["stage"].unique()
    long = in_words(curves, names, ORDER).replace({"order": ORDER_NAMES})
    long = long.rename(columns={"point": "x", "order": "series"}).replace({"x": {OUTPUT: ANSWER}})
    keys = [Key(name, "order", COLOURS[n], dashed=n > 0) for n, name in enumerate(ORDER_NAMES.values())]
    title = f"Image tokens and answer {STAGE_NAMES[stage]}, by what the model reads first (areas: 95 % bands)"
    return lines(long, ("model", "dataset"), [*keys, *model_keys(long)], Values("accuracy (%)"), title)
