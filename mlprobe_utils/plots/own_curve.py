"""The curve of a model of one's own, as a chart that shows in any notebook."""

import altair as alt
import pandas as pd

from mlprobe_utils.evaluation.own_rows import accuracy
from mlprobe_utils.evaluation.points import PROBED, is_point
from mlprobe_utils.plots.charts import METRIC_NAMES, POINTS
from mlprobe_utils.plots.line_panels import BAND_OPACITY
from mlprobe_utils.plots.panels import LIGHT


def plot(
    rows: pd.DataFrame, answers: pd.DataFrame | None = None, metric: str = "accuracy", **choices
) -> alt.LayerChart:
    """A metric at every probe point with its interval, and that of the answers as a horizontal line.

    >>> mp.plot(rows, answers).save("curve.svg")

    Args:
        rows: from `probe`.
        answers: from `answer`.
        metric: as of `accuracy`.
        choices: `part`, `level` and `positive`, as of `accuracy`.

    Raises:
        InputError: as `accuracy`.
    """
    curve = accuracy(rows, metric, **choices)
    curve["line"] = [_line(*own) for own in zip(curve["point"], curve["pooling"], strict=True)]
    lines, value = [*curve["line"].unique()], f"{METRIC_NAMES[metric]} (%)"
    colours = [LIGHT[place % len(LIGHT)] for place in range(len(lines))]
    base = alt.Chart(curve).encode(
        x=alt.X("point:N", sort=[*curve["point"].unique()], title=POINTS),
        color=alt.Color("line:N", title=None, legend=alt.Legend(labelLimit=0)).scale(domain=lines, range=colours),
    )
    scale = alt.Scale(zero=False)
    tooltip = ["point:N", "line:N", *(alt.Tooltip(f"{name}:Q", format=".1f") for name in (metric, "low", "high"))]
    layers = [
        base.mark_area(opacity=BAND_OPACITY).encode(y=alt.Y("low:Q", title=value, scale=scale), y2="high:Q"),
        base.mark_line(point=True).encode(y=alt.Y(f"{metric}:Q", title=value, scale=scale), tooltip=tooltip),
    ]
    if answers is not None:
        final = alt.Chart(accuracy(answers, metric, **choices))
        place = {"y": f"{metric}:Q", "x": alt.value("width")}
        layers.append(final.mark_rule(strokeDash=[4, 3]).encode(y=f"{metric}:Q"))
        layers.append(final.mark_text(align="right", dy=-6).encode(**place, text=alt.value("answers")))
    said = f"{value} of probes at {curve['point'].nunique()} points, with intervals"
    return alt.layer(*layers).properties(width=480, height=240, description=said)


def _line(point: str, pooling: str | None) -> str:
    """What a point's line is called: its module and pooling in words."""
    if not is_point(point):
        return "other features"
    return f"{PROBED[point[0]]}, {'last token' if pooling == 'last_token' else 'image tokens'}"
