"""Charts of the book: one theme, inline SVG with a title and a description, readable without JavaScript."""

import html

import altair as alt
import pandas as pd
import vl_convert

from mlprobe_utils.errors import unknown
from mlprobe_utils.metrics import METRICS
from mlprobe_utils.profiles import SCORES

STAGE_NAMES = {"pretrained": "before fine-tuning", "finetuned": "after fine-tuning"}
# Okabe and Ito's colours: told apart by colour-blind readers, on white and on black
COLOURS = {"before fine-tuning": "#E69F00", "after fine-tuning": "#0072B2"}
METRIC_NAMES = {"accuracy": "accuracy", "f1": "F1", "precision": "precision", "recall": "recall", "auc": "AUC"}
FINAL = "final"


def enable() -> None:
    """Makes every chart of a notebook come out as inline SVG."""
    alt.renderers.register("inline_svg", _render)
    alt.renderers.enable("inline_svg")
    alt.data_transformers.disable_max_rows()


def _render(spec: dict, **_) -> dict:
    description = spec["description"]
    title = spec.get("usermeta", {}).get("title", description)
    svg = vl_convert.vegalite_to_svg(spec | {"config": _theme()})
    start, rest = svg.split(">", 1)
    labels = f"<title>{html.escape(title)}</title><desc>{html.escape(description)}</desc>"
    picture = f'{start} style="max-width:100%;height:auto">{labels}{rest}'
    return {
        "text/html": f'<figure class="chart">{picture}<figcaption>{html.escape(title)}</figcaption></figure>',
        "text/plain": description,
    }


def _theme() -> dict:
    text = {"labelColor": "currentColor", "titleColor": "currentColor", "titleFontWeight": "normal"}
    return {
        "background": "transparent",
        "font": "sans-serif",
        "view": {"stroke": None},
        "axis": {**text, "domainColor": "gray", "tickColor": "gray", "gridColor": "gray", "gridOpacity": 0.25},
        "header": {"labelColor": "currentColor", "titleColor": "currentColor", "labelFontSize": 12},
        "legend": {**text, "orient": "top", "title": None},
        "title": {"color": "currentColor"},
        "text": {"color": "currentColor"},
    }


def described(chart, title: str, description: str):
    """The chart with a title and a description in words for those who cannot see it."""
    return chart.properties(description=description, usermeta={"title": title})


def probe_curves(scores: pd.DataFrame, outputs: pd.DataFrame, names: dict[str, str], metric: str = "accuracy"):
    """Figure 3: a probe metric at every point, before and after, and the final output's as a diamond at the end.

    Args:
        scores: from `metrics.probe_scores`, one pooling.
        outputs: from `metrics.output_scores`.
        names: slug -> name of models and data sets.
        metric: one of METRICS.

    Returns:
        A grid of line charts: one row a model, one column a data set; lines are means over runs, dots single runs. A
        final output far below all probes is written at the lower edge with its value, or it would flatten the curves.

    Raises:
        InputError: unknown metric.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    keys = ["model", "dataset", "stage"]
    final = outputs.groupby(keys, sort=False)[metric].mean().reset_index().assign(point=FINAL)
    curves = pd.concat([scores, final])[[*keys, "run", "point", metric]]
    curves = curves.replace({"stage": STAGE_NAMES, "model": names, "dataset": names})
    floor = 10 * int((scores[metric].min() - 5) // 10)
    colour = alt.Color("stage:N", scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())))
    x, place = _point_axis(scores, FINAL), alt.Scale(domainMin=floor)
    y = alt.Y(f"mean({metric}):Q", title=f"{METRIC_NAMES[metric]} (%)", scale=place)
    base = alt.Chart(curves)
    probes, output, low = alt.datum.point != FINAL, alt.datum.point == FINAL, alt.datum[metric] < floor
    lines = base.transform_filter(probes).transform_calculate(module="datum.point[0]")
    finals = base.transform_filter(output)
    edge = finals.transform_filter(low).transform_calculate(said=f"'▼ ' + format(datum.{metric}, '.0f')")
    layers = alt.layer(
        lines.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, detail="module:N"),
        lines.mark_point(size=12, opacity=0.6, filled=True).encode(x=x, y=f"{metric}:Q", color=colour),
        finals.transform_filter(~low).mark_point(shape="diamond", size=70, filled=True).encode(x=x, y=y, color=colour),
        edge.mark_text(align="right", dx=6, dy=-7).encode(x=x, y=alt.datum(floor), text="said:N", color=colour),
    ).properties(width=190, height=150)
    title = f"Layer-wise probing {METRIC_NAMES[metric]} before and after fine-tuning"
    return described(_grid(layers, names), title, _words(curves, metric, title))


def recipe_curves(scores: dict[str, pd.DataFrame], names: dict[str, str], metric: str = "accuracy"):
    """Image-token curves after fine-tuning, a line a probe recipe; one row a model, one column a data set.

    Args:
        scores: recipe -> from `metrics.probe_scores`.
        names, metric: as in `probe_curves`.
    """
    curves = pd.concat([own.assign(recipe=name) for name, own in scores.items()])
    curves = curves[(curves["pooling"] == "image_mean") & (curves["stage"] == "finetuned")]
    curves = curves.replace({"model": names, "dataset": names})
    lines = (
        alt.Chart(curves)
        .transform_calculate(module="datum.point[0]")
        .mark_line(strokeWidth=2)
        .encode(
            x=_point_axis(curves),
            y=alt.Y(f"mean({metric}):Q", title=f"{METRIC_NAMES[metric]} (%)", scale=alt.Scale(zero=False)),
            color=alt.Color("recipe:N", sort=list(scores), scale=alt.Scale(range=["#0072B2", "#D55E00", "#009E73"])),
            detail="module:N",
        )
        .properties(width=190, height=120)
    )
    means = curves.groupby(["model", "dataset", "recipe"])[metric].mean()
    words = "; ".join(f"{model}, {data}, {recipe}: {value:.1f}" for (model, data, recipe), value in means.items())
    title = f"Probing {METRIC_NAMES[metric]} after fine-tuning by probe recipe"
    return described(_grid(lines, names), title, f"{title}, percent. Mean over points: {words}.")


def _point_axis(scores: pd.DataFrame, *more: str) -> alt.X:
    """Probe points in the order the data flows, and what comes after them."""
    order = [*sorted(scores["point"].unique(), key=lambda point: ("VCL".index(point[0]), point)), *more]
    axis = alt.Axis(labelAngle=-90, labelOverlap=False)
    return alt.X("point:N", sort=order, title="probe point, in the order the data flows", axis=axis)


def _grid(chart, names: dict[str, str]):
    """One row a model, one column a data set, in the order of `names`."""
    same = {"title": None, "sort": list(names.values())}
    return chart.facet(row=alt.Row("model:N", **same), column=alt.Column("dataset:N", **same))


def _words(curves: pd.DataFrame, metric: str, title: str) -> str:
    means = curves.groupby(["model", "dataset", "stage", "point"])[metric].mean()
    parts = []
    for (model, dataset, stage), values in means.groupby(level=[0, 1, 2]):
        probes = values.droplevel([0, 1, 2]).drop(FINAL, errors="ignore")
        parts.append(
            f"{model}, {dataset}, {stage}: from {probes.min():.1f} at {probes.idxmin()} to {probes.max():.1f} at "
            f"{probes.idxmax()}"
        )
    return f"{title}, percent. " + "; ".join(parts) + "."


def learning_curves(curves: pd.DataFrame, names: dict[str, str]):
    """Training and validation loss over epochs; one row a model, one column a data set, a line a run."""
    long = curves.melt(
        ["model", "dataset", "run", "epoch"], ["training_loss", "validation_loss"], var_name="images", value_name="loss"
    ).replace({"images": {"training_loss": "train", "validation_loss": "validation"}, "model": names, "dataset": names})
    chart = (
        alt.Chart(long)
        .mark_line()
        .encode(
            x=alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("loss:Q", title="loss per answer token (nats)", scale=alt.Scale(type="log")),
            color=alt.Color("images:N", scale=alt.Scale(range=["#0072B2", "#D55E00"])),
            detail="run:N",
        )
        .properties(width=190, height=120)
    )
    last = long[long["epoch"] == long["epoch"].max()].groupby(["model", "dataset", "images"])["loss"].mean()
    words = "; ".join(f"{model}, {data}, {images}: {loss:.3f}" for (model, data, images), loss in last.items())
    title = "Learning curves of the fine-tuning"
    return described(_grid(chart, names), title, f"{title}. Loss after the last epoch: {words}.")


def confusion(rows: pd.DataFrame, names: dict[str, str]):
    """Answers against truth on one data set: images of a cell summed over runs; one column a model."""
    counts = rows.assign(answer=rows["parsed"].fillna("unparsed")).groupby(["model", "label", "answer"]).size()
    table = counts.rename("images").reset_index().replace({"model": names})
    base = alt.Chart(table).encode(x=alt.X("answer:N", title="answer"), y=alt.Y("label:N", title="truth"))
    squares = base.mark_rect().encode(
        color=alt.Color("images:Q", scale=alt.Scale(scheme="blues"), legend=None), opacity=alt.value(0.75)
    )
    chart = (
        alt.layer(squares, base.mark_text(fontSize=13).encode(text="images:Q"))
        .properties(width=150, height=110)
        .facet(column=alt.Column("model:N", title=None, sort=list(names.values())))
    )
    cells = table[["model", "label", "answer", "images"]].itertuples(index=False)
    words = "; ".join(f"{model}: {truth} answered {answer}: {n}" for model, truth, answer, n in cells)
    title = f"Answers to the test images of {names[rows['dataset'].iloc[0]]} after fine-tuning, summed over runs"
    return described(chart, title, words)


def health_profiles(profile: pd.DataFrame, names: dict[str, str]):
    """FHS_V -> FHS_C -> FHS_L -> P_final of every model, before and after; one row a model, one column a data set."""
    long = profile.melt(["model", "dataset", "stage"], list(SCORES), var_name="score", value_name="value")
    long = long.replace({"stage": STAGE_NAMES, "model": names, "dataset": names})
    chart = (
        alt.Chart(long)
        .mark_line(point=True)
        .encode(
            x=alt.X("score:N", sort=list(SCORES), title=None, axis=alt.Axis(labelAngle=0)),
            y=alt.Y("value:Q", title="score (%)", scale=alt.Scale(zero=False)),
            color=alt.Color("stage:N", scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values()))),
        )
        .properties(width=190, height=140)
    )
    values = long.set_index(["model", "dataset", "stage", "score"])["value"]
    words = "; ".join(f"{m}, {d}, {s}, {n}: {value:.1f}" for (m, d, s, n), value in values.items())
    return described(_grid(chart, names), "Four-score health profiles", words + ".")
