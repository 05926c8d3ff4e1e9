"""The line charts of the book: small multiples, one row per model and one column per data set unless stated. `names` is
everywhere slug -> name of models and data sets, in the order of rows and columns."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import altair as alt
import pandas as pd

from mlprobe_utils.evaluation.health import SCORES, STAGE_NAMES, STATE
from mlprobe_utils.evaluation.metrics import METRICS, PAPER_METRICS, best_without_model
from mlprobe_utils.evaluation.names import CONTROL_TASK, RANDOM_WEIGHTS
from mlprobe_utils.evaluation.own_rows import accuracy
from mlprobe_utils.evaluation.points import POOLING_NAMES, POOLINGS, PROBED, is_point, main_path
from mlprobe_utils.evaluation.question import ORDER_NAMES
from mlprobe_utils.plots.drawing import COLOURS
from mlprobe_utils.plots.figures import JOINT, LIGHT, Figure, Key, in_explorer
from mlprobe_utils.plots.lines import ANSWER, BAND, BAND_OPACITY, POINTS, Axes, lines

if TYPE_CHECKING:
    from mlprobe_utils.pipeline.fault_card import DamagedModel

METRIC_NAMES = {name: name.replace("_", " ") for name in METRICS} | {"f1": "F1", "auc": "AUC", "mcc": "MCC"}
FEW = 6  # models that lines in one panel can tell apart
STAGES = [Key(name, "stage", COLOURS[n], dashed=n == 0) for n, name in enumerate(STAGE_NAMES.values())]
BLIND = "best model-free baseline"
CONTROLS = [
    Key(CONTROL_TASK, "control", COLOURS[2], thin=True),
    Key(RANDOM_WEIGHTS, "control", COLOURS[4], dashed=True, thin=True),
    Key(BLIND, "control", COLOURS[3], thin=True),
]
HEALTHY, PLANTED = "healthy", "healthy and with a planted fault"
ACCURACY, BY_LAYER = Axes("accuracy (%)"), Axes("accuracy (%)", "LLM layer")
ALONG = "in the order of the forward pass"
PROFILE = Axes("score (%)", ALONG)


def probe_curves(
    scores: pd.DataFrame,
    outputs: pd.DataFrame,
    names: Mapping[str, str],
    metrics: Sequence[str] = ("accuracy",),
    controls: pd.DataFrame | None = None,
    bands: Mapping[str, pd.DataFrame] | None = None,
) -> Figure:
    """Figure 3: probe metrics at every point (`metrics.probe_scores`, of one pooling), and the final output's
    (`metrics.output_scores`) as a diamond; of `controls` (`scoring.control_scores`) the control task after fine-tuning,
    random weights, and the best that needs no model; metric -> `bands` (`certainty.bands`), unless empty, as areas."""
    bands = {metric: band for metric, band in (bands or {}).items() if len(band)}
    long = pd.concat([_of_metric(metric, scores, outputs, controls, bands.get(metric)) for metric in metrics])
    shown = [METRIC_NAMES[metric] for metric in metrics]
    title = f"Layer-wise probing{'' if shown[1:] else f' {shown[0]}'} before and after fine-tuning"
    title += "" if controls is None else ", with controls and baselines"
    title += " (areas: 95 % bands over new seeds and images)" if bands else ""
    keys, by = STAGES if controls is None else [*STAGES, *CONTROLS], ["metric"] * bool(shown[1:])
    axes = Axes(f"{' or '.join(shown)} (%)")
    figure = lines(long.reset_index(drop=True), keys, axes, title, names, ("model", *by, "dataset"))
    slugs = {name: slug for slug, name in names.items()}
    ends = [panel.title.split(JOINT) for panel in figure.panels]
    known = [(slugs.get(own[0]), slugs.get(own[-1])) for own in ends]
    links = [in_explorer(model=model, dataset=dataset) if model and dataset else "" for model, dataset in known]
    return replace(figure, panels=[replace(panel, link=to) for panel, to in zip(figure.panels, links, strict=True)])


def _of_metric(
    metric: str,
    scores: pd.DataFrame,
    outputs: pd.DataFrame,
    controls: pd.DataFrame | None,
    band: pd.DataFrame | None,
) -> pd.DataFrame:
    """What `probe_curves` draws of one metric."""
    points = scores if band is None else scores.merge(band, "left", [*STATE, "point"])
    parts = [_points_and_answer(points, outputs).assign(series=lambda own: own["stage"].map(STAGE_NAMES))]
    if controls is not None:
        places = scores[["model", "dataset", "point"]].drop_duplicates()
        blind = places["dataset"].map(best_without_model(controls, metric))
        drawn = controls["control"].isin([CONTROL_TASK, RANDOM_WEIGHTS]) & (controls["stage"] != "pretrained")
        probed = controls[drawn].merge(places).assign(series=lambda own: own["control"])
        of_controls = pd.concat([probed, places.assign(series=BLIND, **{metric: blind})])
        parts.append(of_controls[["model", "dataset", "point", "series", metric]].assign(run=0))
    long = pd.concat(parts, ignore_index=True)
    return long.assign(metric=METRIC_NAMES[metric], value=long[metric])


def metric_curves(scores: pd.DataFrame, outputs: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Figures S4 to S17: the paper's five metrics of one model at every point, one row per metric."""
    long = _points_and_answer(scores, outputs).melt([*STATE, "run", "point"], list(PAPER_METRICS), var_name="metric")
    long["metric"] = long["metric"].map(METRIC_NAMES)
    title = f"Five metrics of {names[long['model'].iloc[0]]} at every probe point, before and after fine-tuning"
    return lines(long, STAGES, Axes("percent"), title, names, ("metric", "dataset"))


def recipe_curves(
    scores: Mapping[str, pd.DataFrame],
    names: Mapping[str, str],
    metric: str = "accuracy",
    by: str = "probe settings",
) -> Figure:
    """Curves after fine-tuning, a line per probe setting, or what `by` says; name -> probe scores of one pooling."""
    curves = pd.concat([own.assign(series=name, value=own[metric]) for name, own in scores.items()])
    curves = curves[curves["stage"] == "finetuned"]
    keys = [Key(name, by, COLOURS[1 + n % 5], dashed=n > 0) for n, name in enumerate(scores)]
    title = f"Probing {METRIC_NAMES[metric]} after fine-tuning by {by}"
    return lines(curves, keys, Axes(f"{METRIC_NAMES[metric]} (%)"), title, names)


def learning_curves(curves: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Training and validation loss over epochs, from `results.learning_curves`."""
    losses = {"training_loss": "training images", "validation_loss": "validation images"}
    long = curves.assign(x=curves["epoch"].astype(int).astype(str)).rename(columns=losses)
    long = long.melt(["model", "dataset", "run", "x"], list(losses.values()), var_name="series")
    keys = [Key(name, "images", COLOURS[1 + n], dashed=n == 1) for n, name in enumerate(losses.values())]
    axes = Axes("loss per answer token (nats, log scale)", "epoch", "", 3, logarithmic=True)
    return lines(long, keys, axes, "Learning curves of fine-tuning", names)


def stage_profiles(profile: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """The profiles of one model, from `health.profile`, a line per stage."""
    long = profile.melt(STATE, list(SCORES), var_name="x")
    return lines(long, STAGES, PROFILE, "Four-score health profiles", names, (None, "dataset"))


def fault_curves(
    table: pd.DataFrame, damaged: Sequence["DamagedModel"], names: Mapping[str, str], pooling: str = "image_mean"
) -> Figure:
    """Probing accuracy at every point and of the answer, healthy and damaged; a vertical line where the damage is. Of
    `fault_effects.effects`; `damaged` are those of one healthy model."""
    long = main_path(table, pooling).melt(["model", "dataset", "point", "place"], ["intact", "damaged"], "state")
    return _by_fault(long, damaged, names, ACCURACY, "Probing accuracy of {}, {} (vertical line: where it is)", "place")


def fault_overview(table: pd.DataFrame, damaged: Sequence["DamagedModel"], names: Mapping[str, str]) -> Figure:
    """As `fault_curves`, in one panel: the healthy model, and a line for each of the strongest faults."""
    strongest = {one.slug: f"fault: {one.fault.name.partition(',')[0]}" for one in damaged if one.is_strongest}
    of_faults = main_path(table)[lambda rows: rows["model"].isin(strongest)]
    lost = of_faults.assign(series=of_faults["model"].map(strongest), value=of_faults["damaged"])
    whole = of_faults.drop_duplicates(["dataset", "point"]).assign(series=HEALTHY, value=lambda rows: rows["intact"])
    model = names[damaged[0].model]
    long = pd.concat([whole, lost])[["dataset", "point", "series", "value"]].assign(model=model)
    looks = zip(strongest.values(), COLOURS[:1] + COLOURS[2:], strict=False)
    keys = [Key(name, "model", colour, dashed=True) for name, colour in looks]
    keys = [Key(HEALTHY, "model", COLOURS[1]), *keys]
    title = f"{model} without a fault and with a fault at a known place: accuracy of probes and answers"
    return lines(long.replace({"dataset": names}), keys, ACCURACY, title, by=(None, "dataset"))


def fault_profiles(profiles: pd.DataFrame, damaged: Sequence["DamagedModel"], names: Mapping[str, str]) -> Figure:
    """The four scores of the healthy model and of each damaged one, from `health.profile` of both, of one stage."""
    scores = profiles.melt(["model", "dataset"], list(SCORES), var_name="point")
    states = [(one.slug, *pair) for one in damaged for pair in (("intact", one.model), ("damaged", one.slug))]
    parts = [scores[scores["model"] == slug].assign(model=of, state=state) for of, state, slug in states]
    return _by_fault(pd.concat(parts), damaged, names, PROFILE, "Four-score profiles of {}, {}")


def _by_fault(
    long: pd.DataFrame, damaged: Sequence, names: Mapping[str, str], axes: Axes, title: str, marked: str | None = None
) -> Figure:
    """Lines of `long` (model: a damaged one; state: it, or the intact one; dataset, point, value); a row per fault."""
    faults = {one.slug: one.fault.name for one in damaged}
    strengths = {one.slug: one.strength for one in damaged}
    healthy, model = long["state"] == "intact", names[damaged[0].model]
    long = long.assign(fault=long["model"].map(faults), series=long["model"].map(strengths).mask(healthy, HEALTHY))
    long = long.assign(dataset=long["dataset"].map(names), model=model)
    long = long.drop_duplicates(["fault", "series", "dataset", "point"])  # the healthy model's, once for every strength
    named = zip(dict.fromkeys(strengths.values()), (COLOURS[3], COLOURS[0], *COLOURS), strict=False)
    keys = [Key(HEALTHY, "model", COLOURS[1], dashed=True), *(Key(name, "model", colour) for name, colour in named)]
    return lines(long, keys, axes, title.format(model, PLANTED), by=("fault", "dataset"), marked=marked)


def both_curves(differences: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Figure 5: comprehension and utilization at every LLM layer, from `comprehension.differences`."""
    long = differences.drop(columns="value").melt([*STATE, "point"], [*POOLINGS])
    long["series"] = long["variable"] + ", " + long["stage"].map(STAGE_NAMES)
    curves = itertools.product(zip(POOLINGS, COLOURS, strict=False), STAGES)
    keys = [Key(f"{name}, {key.name}", "curve", colour, dashed=key.dashed) for (name, colour), key in curves]
    return lines(long, keys, BY_LAYER, "Comprehension (image tokens) and utilization (last token) by LLM layer", names)


def difference_curves(differences: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Utilization - comprehension at every LLM layer, with simultaneous bands, from `comprehension.differences`."""
    axes = replace(BY_LAYER, vertical="utilization - comprehension (pp)", unit=" pp")
    title = "Utilization - comprehension, with 95 % bands over new seeds and images"
    return lines(differences, STAGES, axes, title, names)


def lens_curves(table: pd.DataFrame, names: Mapping[str, str], meaning: str, title: str) -> Figure:
    """A quantity of the logit lens (`comprehension.true_option` or `settled`) at every LLM layer, before and after."""
    long = table.assign(run=table["run"].astype("Int64").fillna(0))
    return lines(long, STAGES, replace(BY_LAYER, vertical=f"{meaning} (%)"), title, names)


def order_curves(curves: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Accuracy of image tokens and answer, a line per prompt order: `comprehension.order_curves` of one stage."""
    stage = STAGE_NAMES[curves["stage"].iloc[0]]
    keys = [Key(name, "order", COLOURS[n], dashed=n > 0) for n, name in enumerate(ORDER_NAMES.values())]
    title = f"Accuracy of image tokens and answers {stage}, by prompt order (areas: 95 % bands)"
    return lines(curves.assign(series=curves["order"].map(ORDER_NAMES)), keys, ACCURACY, title, names)


def edit_curves(curves: pd.DataFrame, names: Mapping[str, str], vertical: str, title: str) -> Figure:
    """What an edit at each point does, a line per edit, with 95 % intervals; a row per data set, a column per model. Of
    `interventions.curves`."""
    series = dict.fromkeys(curves["series"])
    keys = [Key(name, "edit", COLOURS[n], dashed=n > 0) for n, name in enumerate(series)]
    axes = Axes(vertical, "edited probe point, in the order of the forward pass", whole=True)
    return lines(curves, keys, axes, f"{title} (areas: 95 % intervals)", names, by=("dataset", "model"))


def plot(
    rows: pd.DataFrame, answers: pd.DataFrame | None = None, metric: str = "accuracy", **choices
) -> alt.LayerChart:
    """A metric at every probe point with its interval, and that of the answers as a horizontal line.

    >>> mp.plot(rows, answers).save("curve.svg")

    `rows` and `answers` are from `probe` and `answer`; `metric`, `choices` (`split`, `level`, `positive`) and
    InputError are as in `accuracy`."""
    curve = accuracy(rows, metric, **choices)
    curve["line"] = [
        f"{PROBED[point[0]]}, {POOLING_NAMES[pooling or 'image_mean']}" if is_point(point) else "other features"
        for point, pooling in zip(curve["point"], curve["pooling"], strict=True)
    ]
    value, x = f"{METRIC_NAMES[metric]} (%)", alt.X("point:N", sort=None, title=POINTS)
    colour = alt.Color("line:N", sort=None, title=None).scale(range=LIGHT).legend(labelLimit=0)
    base, scale = alt.Chart(curve).encode(x=x, color=colour), alt.Scale(zero=False)
    tooltip = ["point:N", "line:N", *(alt.Tooltip(f"{name}:Q", format=".1f") for name in (metric, "low", "high"))]
    layers = [
        base.mark_area(opacity=BAND_OPACITY).encode(y=alt.Y("low:Q", title=value, scale=scale), y2="high:Q"),
        base.mark_line(point=True).encode(y=alt.Y(f"{metric}:Q", title=value, scale=scale), tooltip=tooltip),
    ]
    if answers is not None:
        final = alt.Chart(accuracy(answers, metric, **choices)).encode(y=f"{metric}:Q")
        layers.append(final.mark_rule(strokeDash=[4, 3]))
        layers.append(final.mark_text(align="right", dy=-6).encode(x=alt.value("width"), text=alt.value("answers")))
    words = f"{value} of probes at {curve['point'].nunique()} probe points, with intervals"
    return alt.layer(*layers).properties(width=480, height=240, description=words)


def _points_and_answer(scores: pd.DataFrame, outputs: pd.DataFrame) -> pd.DataFrame:
    """Probe scores and behind them the final output's; its point is ANSWER."""
    long = pd.concat([scores, outputs.assign(point=ANSWER)])
    return long[[*STATE, "run", "point", *METRICS, *(end for end in BAND if end in long)]]
