"""Forest plots: values with intervals, in blocks with a line per model, one panel per data set."""

from collections.abc import Mapping, Sequence
from math import ceil, floor

import pandas as pd

from mlprobe_utils.evaluation.diagnosis import NAMED, RULED_OUT, UNDECIDED
from mlprobe_utils.evaluation.names import CATEGORIES, FROZEN_TOWER, MAJORITY, MLLM, TRADITIONAL
from mlprobe_utils.plots.drawing import COLOURS, LARGE, WIDTH, channel, description, layer, panel
from mlprobe_utils.plots.figures import MOST_COLUMNS, Figure, Key, Panel, in_words

VERDICTS = (NAMED, RULED_OUT, UNDECIDED)
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down")
LOOKS = zip((*CATEGORIES, MLLM, FROZEN_TOWER), COLOURS, SHAPES, strict=False)
CATEGORY_KEYS = [Key(name, "category", colour, shape=shape) for name, colour, shape in LOOKS]
FEW = 6  # models whose lines stand apart
TITLE_LINES = 2  # of a block, for its title
RULES = {  # across all blocks
    "": {"color": "gray"},
    TRADITIONAL: {"color": "gray", "strokeDash": [3, 2], "strokeWidth": 1.5},
    MAJORITY: {"color": "gray", "strokeDash": [1, 2], "strokeWidth": 1.5},
}


def change_chart(
    changes: pd.DataFrame, names: Mapping[str, str], title: str, verdicts: Sequence[str] = VERDICTS
) -> Figure:
    """Changes in accuracy with their intervals: a block per statement, with a tick at the threshold where there is one.
    `changes` has model, dataset, statement, the change (`value`, `change` or `difference`) and its interval (`band_low`
    and `band_high`, else `low` and `high`) in pp, verdict, threshold. `verdicts`: below 0, above 0 or no loss, neither.
    """
    if "band_low" in changes:
        changes = changes.drop(columns=["low", "high"], errors="ignore")
    ends = {"value": "change", "difference": "change", "band_low": "low", "band_high": "high"}
    rows = in_words(changes.rename(columns=ends), names, ("dataset", "model"))
    words = "{r.model}, {r.statement}: {r.change:+.1f} ({r.low:+.1f} to {r.high:+.1f}) pp, {r.verdict}"
    rows = rows.assign(block=rows["statement"], kind=rows["verdict"], value=rows["change"])
    looks = zip(verdicts, (0, 1, 3), ("diamond", "circle", "square"), strict=True)
    keys = [Key(word, "verdict", COLOURS[place], shape=shape) for word, place, shape in looks]
    if rows["model"].nunique() > 1:
        keys += [Key(model, "model") for model in rows["model"].unique()]
    numbers, ticks = rows[["dataset", "model", "statement", "change", "low", "high", "verdict"]], rows[:0]
    if "threshold" in rows:
        title += " (ticks: detection thresholds)"
        numbers = numbers.assign(threshold=rows["threshold"])
        ticks = rows[["dataset", "block", "model"]].assign(value=-rows["threshold"])
    zero = pd.DataFrame({"dataset": rows["dataset"].unique(), "name": "", "value": 0.0})
    pitch = 14 if rows["model"].nunique() <= FEW else 8
    axes = ("one block per statement, one line per model", "change in accuracy (pp); losses are left of 0")
    panels = _panels(rows, words, zero, ticks, keys, pitch, gap=1, step=5, least=(-5, 5))
    return Figure(panels, title, min(MOST_COLUMNS, len(panels)), (), keys, axes, numbers)


def accuracy_chart(
    accuracies: pd.DataFrame, means: pd.DataFrame, majority: Mapping[str, float], names: Mapping[str, str], title: str
) -> Figure:
    """Every model's accuracy with its interval, by category, beside the mean of all baselines and the majority class.
    Of `baselines.accuracies` and `baselines.group_means`; `majority`: data set (slug) -> accuracy in percent."""
    rows, means = (in_words(table, names, ("dataset",)) for table in (accuracies, means))
    numbers = rows[["dataset", "group", "model", "value", "low", "high"]]
    numbers = numbers.rename(columns={"group": "category", "value": "accuracy"})
    rows = rows.assign(block=rows["group"], kind=rows["group"])
    words = "{r.model} ({r.kind}): {r.value:.1f} % ({r.low:.1f} to {r.high:.1f})"
    blind = in_words(pd.DataFrame({"dataset": [*majority], "name": MAJORITY, "value": [*majority.values()]}), names, ())
    rules = pd.concat([means[means["group"] == TRADITIONAL].rename(columns={"group": "name"}), blind])
    ticks = means[means["group"] != TRADITIONAL].assign(block=means["group"], kind=means["group"])
    ticks["tip"] = [description([m.kind], f"mean of {m.kind}: {m.value:.1f} %") for m in ticks.itertuples()]
    keys = [key for key in CATEGORY_KEYS if key.name in set(rows["group"])]
    title += " (ticks: category means; dashed: mean of all traditional classifiers; dotted: majority class)"
    axes = ("one block per category, one line per model", "accuracy on the test images (%)")
    panels = _panels(rows, words, rules, ticks, keys, pitch=10, gap=0, step=10)
    return Figure(panels, title, min(MOST_COLUMNS, len(panels)), (), keys, axes, numbers)


def _panels(
    rows: pd.DataFrame,
    words: str,
    rules: pd.DataFrame,
    ticks: pd.DataFrame,
    keys: Sequence[Key],
    pitch: int,
    gap: int,
    step: int,
    least: tuple[int, ...] = (),
) -> list[Panel]:
    """A panel per data set, of `rows` (dataset, block, model, kind: a key with a shape, value, low, high), described by
    `words`; with `rules` across all blocks (dataset, name of RULES, value), and `ticks` (dataset, block, value) through
    a block, with `kind` and `tip`, or in the line of a `model`. Lines are `pitch` pixels apart, blocks `gap`
    lines; the horizontal axis ends at multiples of `step` and holds the values `least`."""
    least = (rows["low"].min(), rows["high"].max(), rules["value"].min(), *ticks["value"], *least)
    domain = [step * floor(min(least) / step), step * ceil(max(least) / step)]
    x = {"title": None, "scale": {"domain": domain, "nice": False, "zero": False}, "axis": {"tickCount": 4}}
    low, x = channel("low:Q", **x), channel("value:Q", **x)
    span = {"x": x, "y": channel("first:Q", axis=None), "y2": "last"}
    kinds = [key for key in keys if key.shape]
    names = [key.name for key in kinds]
    looks = [key.colour for key in kinds], [key.shape for key in kinds]
    colour, shape = (channel("kind:N", legend=None, scale={"domain": names, "range": ends}) for ends in looks)
    panels = []
    for dataset, own in rows.groupby("dataset", sort=False):
        of_rules, of_ticks = (table[table["dataset"] == dataset] for table in (rules, ticks))
        sizes = own.groupby("block", sort=False).size() + TITLE_LINES + gap
        tops, height = sizes.cumsum() - sizes, int(sizes.sum())
        places = own["block"].map(tops) + own.groupby("block").cumcount() + TITLE_LINES + 0.5
        own = own.assign(place=places, first=places - 0.5, last=places + 0.5)
        shown = [words.format(r=row) for row in own.itertuples()]
        own["tip"] = [description(of, tip) for *of, tip in zip(own["model"], own["kind"], shown, strict=True)]
        shown += [f"{rule.name}: {rule.value:.1f} %" for rule in of_rules.itertuples(index=False) if rule.name]
        of = [column for column in ("block", "model") if column in ticks]
        of_ticks = of_ticks.merge(own.groupby(of).agg({"first": "min", "last": "max"}), left_on=of, right_index=True)
        tables = {f"rule {name}": table for name, table in of_rules.groupby("name")} | {"ticks": of_ticks, "rows": own}
        tables["titles"] = pd.DataFrame({"block": tops.index, "place": tops + 1.35})
        y = channel("place:Q", axis=None, scale={"domain": [0, height], "reverse": True, "nice": False})
        marked = {"y": y, "color": colour, "description": "tip:N"}
        layers = [layer(f"rule {n}", "rule", look, x=x) for n, look in RULES.items() if f"rule {n}" in tables]
        if "tip" in ticks:
            layers.append(layer("ticks", "rule", {"strokeWidth": 2.5, "opacity": 0.8}, **marked | span))
        elif len(of_ticks):
            layers.append(layer("ticks", "rule", {"color": "gray", "strokeWidth": 1.5}, **span))
        layers += [
            layer("titles", "text", {"align": "left", "fontSize": 12}, x={"value": 0}, y=y, text="block:N"),
            layer("rows", "rule", {"strokeWidth": 1.5}, **marked, x=low, x2="high"),
            layer("rows", "point", {"filled": True, "size": 40, "opacity": 1}, **marked, x=x, shape=shape),
        ]
        width = LARGE[0] if rows["dataset"].nunique() == 1 else WIDTH
        panels.append(panel(dataset, layers, (width, height * pitch), tables, shown))
    return panels
