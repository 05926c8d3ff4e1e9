"""The charts of the book: what is drawn against what. Small multiples, with their numbers beneath."""

import itertools
from collections.abc import Mapping, Sequence

import pandas as pd

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.evaluation.claims import best_without_model
from mlprobe_utils.evaluation.control_names import CONTROL_TASK, MAJORITY, RANDOM_WEIGHTS
from mlprobe_utils.evaluation.health import SCORES, STAGE_NAMES, in_words
from mlprobe_utils.evaluation.metrics import METRICS, PAPER_METRICS
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.plots.figures import Figure, Key, Panel, figure
from mlprobe_utils.plots.line_panels import BAND, Values, domain_of, line_panel, line_words, stations
from mlprobe_utils.plots.panels import COLOURS, square_panel

METRIC_NAMES = {name: name.replace("_", " ") for name in METRICS} | {"f1": "F1", "auc": "AUC", "mcc": "MCC"}
ANSWER = "answer"  # the station after the last layer: what the model says
ANSWERS = (ANSWER, "P_final")
MOST_COLUMNS = 3
MANY = 15  # panels; more are drawn compact
FEW = 6  # models that lines in one panel can tell apart
MEAN = "mean over models"
ORDER = ("model", "dataset", "stage")  # of the rows that a chart draws
STAGES = [Key(name, "stage", COLOURS[n], dashed=n == 0) for n, name in enumerate(STAGE_NAMES.values())]
BLIND = "best without a model"
CONTROLS = [
    Key(CONTROL_TASK, "control", COLOURS[2], thin=True),
    Key(RANDOM_WEIGHTS, "control", COLOURS[4], dashed=True, thin=True),
    Key(BLIND, "control", COLOURS[3], thin=True),
]
FLOW = "as the information flows"
POINTS = "probe point, in the order the data flows"


def probe_curves(
    scores: pd.DataFrame,
    outputs: pd.DataFrame,
    names: Mapping[str, str],
    metric: str = "accuracy",
    controls: pd.DataFrame | None = None,
    bands: pd.DataFrame | None = None,
    what: str = "Layer-wise probing",
) -> Figure:
    """Figure 3: a probe metric at every point, before and after, and the final output's as a diamond at the end.

    Args:
        scores: from `metrics.probe_scores`, one pooling.
        outputs: from `metrics.output_scores`.
        names: slug -> name of models and data sets, in the order of rows and columns.
        metric: one of METRICS.
        controls: from `scoring.control_scores`; drawn are the control task after fine-tuning, random weights, and the
            best that needs no model.
        bands: from `certainty.bands`, drawn as areas; none where it is empty.
        what: reads the points, for the caption.

    Returns:
        One row a model, one column a data set.

    Raises:
        InputError: unknown metric.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    banded = bands is not None and len(bands) > 0
    if banded:
        scores = scores.merge(bands, "left", ["model", "dataset", "stage", "point"])
    long = _points_and_answer(scores, outputs, names)
    long["value"], long["series"] = long[metric], long["stage"]
    title = f"{what} {METRIC_NAMES[metric]} before and after fine-tuning"
    keys = [*STAGES, *model_keys(long)]
    if controls is not None:
        long = pd.concat([long, _controls(scores, controls, names, metric)], ignore_index=True)
        keys += CONTROLS
        title += ", and what they have to beat"
    if banded:
        title += " (areas: 95 % bands, of new seeds and images)"
    return lines(long, ("model", "dataset"), keys, _percent(metric), title)


def metric_curves(scores: pd.DataFrame, outputs: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Figures S4 to S17: the paper's five metrics of one model at every point, before and after; one row a metric.

    Args: as of `probe_curves`, of one model.
    """
    long = _points_and_answer(scores, outputs, names)
    long = long.melt(["model", "dataset", "stage", "run", "x"], list(PAPER_METRICS), var_name="metric")
    long = long.assign(metric=long["metric"].map(METRIC_NAMES), series=long["stage"])
    title = f"Five metrics of {long['model'].iloc[0]} at every probe point, before and after fine-tuning"
    return lines(long, ("metric", "dataset"), STAGES, Values("percent"), title)


def recipe_curves(scores: Mapping[str, pd.DataFrame], names: Mapping[str, str], metric: str = "accuracy") -> Figure:
    """Image-token curves after fine-tuning, a line a probe recipe; one row a model, one column a data set.

    Args:
        scores: recipe -> from `metrics.probe_scores`, of one run.
        names, metric: as in `probe_curves`.
    """
    curves = pd.concat([own.assign(series=name) for name, own in scores.items()])
    curves = curves[(curves["pooling"] == "image_mean") & (curves["stage"] == "finetuned")]
    long = in_words(curves, names, ORDER).rename(columns={"point": "x", metric: "value"})
    keys = [Key(name, "recipe", COLOURS[1 + n % 5], dashed=n > 0) for n, name in enumerate(scores)]
    title = f"Probing {METRIC_NAMES[metric]} after fine-tuning by probe recipe"
    return lines(long, ("model", "dataset"), [*keys, *model_keys(long)], _percent(metric), title)


def learning_curves(curves: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Training and validation loss over epochs; one row a model, one column a data set.

    Args:
        curves: from `results.learning_curves`.
        names: as in `probe_curves`.
    """
    losses = {"training_loss": "training images", "validation_loss": "validation images"}
    long = curves.rename(columns=losses).melt(
        ["model", "dataset", "run", "epoch"], list(losses.values()), var_name="series"
    )
    long = in_words(long, names, ORDER).assign(x=long["epoch"].astype(int).astype(str))
    keys = [Key(name, "images", COLOURS[1 + n], dashed=n == 1) for n, name in enumerate(losses.values())]
    values = Values("loss per answer token (nats), logarithmic", "", 3, logarithmic=True)
    title = "Learning curves of the fine-tuning"
    return lines(long, ("model", "dataset"), [*keys, *model_keys(long)], values, title, "epoch")


def health_profiles(profile: pd.DataFrame, names: Mapping[str, str], series: Mapping[str, str]) -> Figure:
    """FHS_V -> FHS_C -> FHS_L -> P_final, a line a model; one row a series of models, one column a data set.

    Args:
        profile: from `profiles.profile`, of one stage.
        names: as in `probe_curves`; the models of a series in the order of their size.
        series: from `lineage.series`.
    """
    long = profile.melt(["model", "dataset"], list(SCORES), var_name="x")
    long["group"] = long["model"].map(series)
    long = in_words(long, names, ORDER)
    long["series"] = long["model"]
    of_group = long.drop_duplicates("model").groupby("group").cumcount()
    places = dict(zip(long.drop_duplicates("model")["model"], of_group, strict=True))
    keys = [Key(name, "model", COLOURS[place % len(COLOURS)], dashed=place % 2 == 1) for name, place in places.items()]
    return lines(long, ("group", "dataset"), keys, Values("score (%)"), "Four-score health profiles by series", FLOW)


def stage_profiles(profile: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """The profiles of one model, a line a stage; one column a data set.

    Args: `profile` from `profiles.profile`; `names` as in `probe_curves`.
    """
    long = in_words(profile.melt(["model", "dataset", "stage"], list(SCORES), var_name="x"), names, ORDER)
    long["series"] = long["stage"]
    return lines(long, (None, "dataset"), STAGES, Values("score (%)"), "Four-score health profiles", FLOW)


def journey(
    ends: pd.DataFrame, names: Mapping[str, str], metric: str = "accuracy", majority: Mapping[str, float] | None = None
) -> Figure:
    """Where the class can be read on its way: at the end of each module, and in the answer; one panel a data set.

    Of more than FEW models each is a faint line, and their mean a strong one.

    Args:
        ends: from `tables.module_ends`.
        names, metric: as in `probe_curves`.
        majority: name of a data set -> what naming its majority class scores, percent: a line that is no model's.
    """
    ways = {"V end": MODULES["V"], "C end": MODULES["C"], "L end": MODULES["L"], "final output": ANSWER}
    long = ends.rename(columns=ways).melt(["model", "dataset", "stage"], list(ways.values()), var_name="x")
    long = in_words(long, names, ORDER)
    long["series"] = long["stage"]
    title = f"What a probe reads where each module ends, and what the model answers: {METRIC_NAMES[metric]}"
    if (models := long["model"].nunique()) > FEW:
        long = long.assign(run=long["model"], model=MEAN)
        title += f", mean over {models} models (faint: each)"
    keys = [*STAGES, *model_keys(long)]
    if majority is not None:
        blind = long.drop_duplicates(["dataset", "x"]).assign(model=MAJORITY, series=MAJORITY)
        long = pd.concat([long, blind.assign(value=blind["dataset"].map(majority))])
        keys.append(Key(MAJORITY, "baseline", COLOURS[4], dashed=True))
    values = Values(f"{METRIC_NAMES[metric]} (%)", whole=True)
    return lines(long, (None, "dataset"), keys, values, title, FLOW)


def confusion(rows: pd.DataFrame, names: Mapping[str, str]) -> Figure:
    """Answers against truth on the test images of one stage, summed over runs; one row a model, one column a data set.

    Args:
        rows: prediction rows of one stage; only those of test images count.
        names: as in `probe_curves`.
    """
    tested = in_words(rows[rows["part"] == "test"], names, ORDER)
    tested["answer"] = tested["parsed"].fillna("unparsed")
    tables, panels = [], []
    pairs = tested.groupby(["model", "dataset"], sort=False)
    for (model, dataset), own in pairs:
        counts = pd.crosstab(own["label"], own["answer"])
        counts = counts.reindex(columns=[*counts.index, "unparsed"], fill_value=0)
        cells = counts.rename_axis("truth").stack().rename("images").reset_index().assign(model=model, dataset=dataset)
        cells["share"] = cells["images"] / cells.groupby("truth")["images"].transform("sum")
        tables.append(cells)
        words = "; ".join(f"{c.truth} answered {c.answer} {c.images} times" for c in cells.itertuples())
        squares = cells.rename(columns={"truth": "row", "answer": "column", "images": "number", "share": "shade"})
        squares["words"] = [
            f"{c.truth} answered {c.answer}: {c.images} images, {100 * c.share:.0f} % of {c.truth}"
            for c in cells.itertuples()
        ]
        compact = pairs.ngroups > MANY
        drawn = square_panel(squares, 11 if compact else 13, compact)
        panels.append(Panel(f"{model} · {dataset}", drawn, f"{model}, {dataset}: {words}."))
    title = f"Answers to the test images {tested['stage'].iloc[0]}, summed over runs"
    numbers = pd.concat(tables)[["model", "dataset", "truth", "answer", "images"]]
    numbers = numbers.rename(columns={"dataset": "data set"})
    return figure(panels, title, _columns(tested, "model", "dataset"), (), ("truth", "answer"), numbers)


def lines(
    long: pd.DataFrame,
    by: tuple[str | None, str],
    keys: Sequence[Key],
    values: Values,
    title: str,
    horizontal: str = POINTS,
    marked: str | None = None,
) -> Figure:
    """Small multiples of lines.

    Args:
        long: columns x (a station), value, series (the name that has a colour), model, those of `by`, and run where
            there are several.
        by: the columns whose values make the rows (None: one row) and the columns of panels.
        keys: first those of the series.
        marked: the column with the x at which a panel has a vertical line; None: no panel has one.
    """
    long = long.assign(run=long.get("run", 0)).dropna(subset="value").reset_index(drop=True)
    above, beside = (long[column] if column else pd.Series("", long.index) for column in by)
    order = stations(long["x"], ANSWERS)
    domain = domain_of(long, values, ANSWERS)
    there = [
        place
        for place in itertools.product(above.unique(), beside.unique())
        if ((above == place[0]) & (beside == place[1])).any()
    ]
    compact = len(there) > MANY
    panels = []
    for place in there:
        of_row = set(long.loc[above == place[0], "x"])  # depths differ: a row has the points of its own models
        own = long[(above == place[0]) & (beside == place[1])]
        name = " · ".join(filter(None, place))
        at = own[marked].iloc[0] if marked else None
        drawn = line_panel(own, [x for x in order if x in of_row], keys, values, domain, ANSWERS, compact, at)
        panels.append(Panel(name, drawn, f"{name}: {line_words(own)}."))
    if compact:  # every panel names its model
        keys = [key for key in keys if key.colour]
        horizontal += "".join(f"; {letter}: {name}" for letter, name in MODULES.items()) if horizontal == POINTS else ""
    lines = list(dict.fromkeys([*filter(None, by), "model", keys[0].kind]))
    drawn = long.assign(**{keys[0].kind: long["series"]}).groupby([*lines, "x"], sort=False)
    numbers = drawn["value"].mean().unstack("x")[order]
    if BAND[0] in long:
        ends = {end.replace("_", ", "): drawn[end].mean().unstack("x")[order].dropna(how="all") for end in BAND}
        numbers = pd.concat({"mean": numbers} | ends, names=["number"]).reorder_levels([*lines, "number"])
    numbers = numbers.rename_axis(columns=None).reset_index().rename(columns={"dataset": "data set"})
    return figure(panels, title, _columns(long, *by), keys, (values.meaning, horizontal), numbers, values.decimals)


def _columns(table: pd.DataFrame, row: str | None, column: str) -> int:
    """Panels beside each other: a data set each, or where there is only one the models."""
    beside = table[column].nunique()
    panels = beside if beside > 1 or not row else table[row].nunique()
    return 2 if panels == 4 else min(MOST_COLUMNS, panels)  # no panel alone in a second row


def _points_and_answer(scores: pd.DataFrame, outputs: pd.DataFrame, names: Mapping[str, str]) -> pd.DataFrame:
    """Probe scores and behind them the final output's; x is the probe point, or ANSWER."""
    long = pd.concat([scores.assign(x=scores["point"]), outputs.assign(x=ANSWER)])
    bands = [end for end in BAND if end in long]
    return in_words(long[["model", "dataset", "stage", "run", "x", *METRICS, *bands]], names, ORDER)


def _controls(scores: pd.DataFrame, controls: pd.DataFrame, names: Mapping[str, str], metric: str) -> pd.DataFrame:
    """Lines of controls, of the models and data sets that `scores` has: model, dataset, x, series, value, run."""
    places = scores[["model", "dataset", "point"]].drop_duplicates()
    blind = places.assign(series=BLIND, value=places["dataset"].map(best_without_model(controls, metric)))
    probed = controls[controls["control"].isin([CONTROL_TASK, RANDOM_WEIGHTS]) & (controls["stage"] != "pretrained")]
    probed = probed.merge(places).assign(series=lambda own: own["control"], value=lambda own: own[metric])
    long = pd.concat([probed, blind])[["model", "dataset", "point", "series", "value"]]
    return in_words(long.rename(columns={"point": "x"}).assign(run=0), names, ORDER)


def model_keys(long: pd.DataFrame) -> list[Key]:
    """Keys of the models, where there are several to single one out of."""
    models = long["model"].unique()
    return [Key(model, "model") for model in models] if len(models) > 1 else []


def _percent(metric: str) -> Values:
    return Values(f"{METRIC_NAMES[metric]} (%)")
