"""Small multiples of lines over probe points or other positions."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.names import OUTPUT
from mlprobe_utils.evaluation.points import ANSWER as MAPPED
from mlprobe_utils.evaluation.points import SIDE_PATHS, flow_order, is_point
from mlprobe_utils.plots.drawing import HEIGHT, LARGE, WIDTH, channel, description, layer, panel
from mlprobe_utils.plots.figures import BETWEEN, JOINT, MOST_PANELS, Figure, Key, columns_of, in_words

ANSWER = "answer"  # the position after the last layer: the generated answer
ANSWERS = (ANSWER, "P_final")
LAST = dict.fromkeys((OUTPUT, MAPPED), ANSWER)
POINTS = "probe point, in the order of the forward pass"
BAND = ("band_low", "band_high")
BAND_OPACITY = 0.2
MOST_LABELS = 20  # positions that can all be labelled under a panel
MOST_LETTERS = 30  # beside each other under a panel
_LINE = ["model", "series"]  # what makes marks one line


@dataclass(frozen=True)
class Axes:
    vertical: str
    horizontal: str = POINTS
    unit: str = " %"
    decimals: int = 1
    logarithmic: bool = False
    whole: bool = False  # from 0 to 100; else it begins a little below the probes


def lines(
    long: pd.DataFrame,
    keys: Sequence[Key],
    axes: Axes,
    title: str,
    names: Mapping[str, str] | None = None,
    by: Sequence[str | None] = ("model", "dataset"),
    marked: str | None = None,
) -> Figure:
    """Small multiples of lines: means over runs strong, single runs faint, answers as diamonds. A value below the axis
    is drawn at the lower edge and written there: it would flatten all curves.

    Args:
        long: columns point or x (a position), value, series (the name that has a colour; without it the stage), model,
            those of `by`, run where there are several, and those of BAND for an area behind a line (nan: none).
        keys: first those of the series; those of models, where there are several, are added.
        names: slug -> name of models and data sets, in the order of the page; None: `long` has names.
        by: the columns whose values make the rows of panels (None: one row), and the last one's their columns.
        marked: the column with the position of a panel's vertical line."""
    long = long.rename(columns={"point": "x"}).replace({"x": LAST, marked: LAST})
    long = long if names is None else in_words(long, names, STATE)
    long = long.assign(run=long.get("run", 0), series=long.get("series", long.get("stage")))
    long = long.dropna(subset="value").reset_index(drop=True)
    placed = [long[column] if column else pd.Series("", long.index, name="all") for column in by]
    found = [site for site in long["x"].unique() if site not in ANSWERS]
    points, rest = sorted(filter(is_point, found), key=flow_order), [site for site in found if not is_point(site)]
    order, domain = [*points, *rest, *(site for site in ANSWERS if site in set(long["x"]))], _domain(long, axes)
    panels_of = dict(iter(long.groupby(placed, sort=False)))
    parts = {place: panels_of[place] for place in itertools.product(*map(pd.unique, placed)) if place in panels_of}
    facets = tuple(filter(None, by)) if len(parts) > MOST_PANELS else ()
    kind, size = keys[0].kind, LARGE if facets or len(parts) == 1 else (WIDTH, HEIGHT)
    models = [model for model in long["model"].unique() if model not in {key.name for key in keys}]
    if len(models) > 1 and "model" not in facets:  # else every panel names its model
        series = [key for key in keys if key.kind == kind]
        keys = [*series, *(Key(model, "model") for model in models), *keys[len(series) :]]
    panels = []
    for place, own in parts.items():
        of_row = set(long.loc[placed[0] == place[0], "x"])  # depths differ: a row has the points of its own models
        sites = [x for x in order if x in of_row]
        tables = _tables(own, sites, axes, domain)
        if marked:
            tables["marked"] = pd.DataFrame({"x": own[marked][:1]})
        looks = _looks(sites, keys, axes, domain).items()
        layers = [layer(name, mark, look, **channels) for name, (mark, look, channels) in looks if name in tables]
        panels.append(panel(JOINT.join(filter(None, place)), layers, size, tables, _words(own)))
    line = list(dict.fromkeys([*filter(None, by), "model", kind]))
    drawn = long.assign(**{kind: long["series"]}).groupby([*line, "x"], sort=False)
    numbers = drawn["value"].mean().unstack("x")[order]
    if BAND[0] in long:
        ends = {end.replace("_", ", "): drawn[end].mean().unstack("x")[order].dropna(how="all") for end in BAND}
        numbers = pd.concat({"mean": numbers} | ends, names=["number"]).reorder_levels([*line, "number"])
    numbers = numbers.rename_axis(columns=None).reset_index()
    described = keys, (axes.vertical, axes.horizontal), numbers, axes.decimals
    return Figure(panels, title, columns_of(long, by[0], by[-1]), facets, *described)


def _domain(long: pd.DataFrame, axes: Axes) -> tuple[float, float]:
    """The vertical axis that all panels share: from a little below the lowest value that is no answer's."""
    if axes.whole:
        return 0.0, 100.0
    high = float(long[[*({"value", BAND[1]} & {*long})]].max(axis=None))
    lowest = long.loc[~long["x"].isin(ANSWERS), "value"].min()
    low = max(min(0.0, lowest), 10 * ((lowest - 5) // 10))  # below 0 only what is
    return (lowest, high) if axes.logarithmic else (low, max(high, low + 10))


def _words(own: pd.DataFrame) -> Iterator[str]:
    means = own.groupby([*_LINE, "x"], sort=False)["value"].mean().unstack("x", sort=False)
    for (model, series), line in means.iterrows():
        name = series if own["model"].nunique() == 1 else " ".join(dict.fromkeys([model, series]))
        yield f"{name} from {line.min():.3g} at {line.idxmin()} to {line.max():.3g} at {line.idxmax()}"


def _tables(
    own: pd.DataFrame, order: Sequence[str], axes: Axes, domain: tuple[float, float]
) -> dict[str, pd.DataFrame]:
    """What a panel draws, by the names of `_looks`; only what is not empty."""
    runs = _vertices(own[[*_LINE, "x", "value", "run"]], [*_LINE, "run"], order, domain[0])
    means = _vertices(own.groupby([*_LINE, "x"], sort=False)["value"].mean().reset_index(), _LINE, order, domain[0])
    there, answers = means["value"].notna(), means["x"].isin(ANSWERS)
    tips = means["x"] + " " + means["value"].map(f"{{:.{axes.decimals}f}}{axes.unit}".format)
    together = tips[there].groupby([means[column] for column in _LINE]).transform(BETWEEN.join)
    means["tip"] = means["silent"] + together  # of a path Vega takes the first vertex's description
    several = runs.groupby(_LINE)["run"].transform("nunique") > 1
    apart = runs["x"].isin(ANSWERS) & any(map(is_point, order))  # no line leads from a probe to an answer
    alone = means.groupby([*_LINE, "part"])["value"].transform("count").eq(1)
    low = means[means["value"] < domain[0]]
    aside = {title: [x for x in order if is_point(x) and x[0] == letter] for letter, title in SIDE_PATHS.items()}
    tables = {}
    if BAND[0] in own:  # a light area a module, a light bar where a module has one point; cut at the axis
        ends = own.dropna(subset=[*BAND]).drop_duplicates([*_LINE, "x"])[[*_LINE, "x", *BAND]].assign(value=0.0)
        ends = _vertices(ends, _LINE, order, domain[0]).dropna(subset="value")
        ends[[*BAND]] = ends[[*BAND]].clip(*domain)
        single = ends.groupby([*_LINE, "part"])["x"].transform("count") == 1
        tables |= {"areas": ends[~single], "bars": ends[single]}
    tables |= {
        "runs": runs[several & ~apart],
        "means": means,
        "answers": means[answers & there],
        "alone": means[alone & there & ~answers],
        "side paths": pd.DataFrame([{"x": own[len(own) // 2], "text": title} for title, own in aside.items() if own]),
        "low": low.assign(text=low["value"].map("▼ {:.0f}".format)),
    }
    return {name: table for name, table in tables.items() if len(table)}


def _vertices(table: pd.DataFrame, line: list[str], order: Sequence[str], floor: float) -> pd.DataFrame:
    """Vertices of lines in the order of positions; a line is broken, by a row without value, where a module ends."""
    table = table.assign(
        place=table["x"].map({site: float(place) for place, site in enumerate(order)}),
        part=[x[0] if is_point(x) else "" for x in table["x"]],
        drawn=table["value"].clip(lower=floor),
        silent=[description(pair) for pair in zip(table["model"], table["series"], strict=True)],
    ).sort_values([*line, "place"])
    after = table.groupby(line)["part"].shift(-1)
    ends = table[after.notna() & (after != table["part"])]
    gaps = ends.assign(place=ends["place"] + 0.5, drawn=None, value=None)
    return pd.concat([table, gaps.astype(table.dtypes)], ignore_index=True).sort_values([*line, "place"])


def _looks(
    order: Sequence[str], keys: Sequence[Key], axes: Axes, domain: tuple[float, float]
) -> dict[str, tuple[str, dict, dict]]:
    """Table of a panel -> mark, its look, and its channels; the lowest layer first."""
    axis = {"labelOverlap": True, "ticks": False, "labelPadding": 4}
    labels = [x for x in order if len(order) <= MOST_LABELS or x.endswith("0") or not is_point(x)]
    flat = len(labels) * max(map(len, labels)) < MOST_LETTERS
    axis |= {"values": labels, "labelAngle": 0 if flat else -25 if len(labels) < 8 else -90}
    coloured = [key for key in keys if key.colour]
    names = [key.name for key in coloured]

    def by_series(ends: list, **scale) -> dict:
        return channel("series:N", legend=None, scale={"domain": names, "range": ends} | scale)

    x = {"x": channel("x:N", sort=order, scale={"domain": order}, title=None, axis=axis)}
    upright = {"type": "log" if axes.logarithmic else "linear", "nice": not axes.logarithmic}
    y = {"title": None, "scale": {"domain": domain} | upright, "axis": {"tickCount": 5}}
    colour, silent = {"color": by_series([key.colour for key in coloured])}, {"description": "silent:N"}
    band = x | {"y": channel(f"{BAND[0]}:Q", **y), "y2": BAND[1]} | colour | silent
    floor = x | {"y": channel("drawn:Q", **y)}
    place = floor | colour
    line, model, point = place | {"order": "place:Q"}, channel("model:N"), {"filled": True, "opacity": 1}
    style = {
        "strokeWidth": by_series([1 if key.thin else 2 for key in coloured], type="ordinal"),
        "strokeDash": by_series([[4, 3] if key.dashed else [1, 0] for key in coloured]),
    }
    return {
        "marked": ("rule", {"color": "gray", "strokeDash": [1, 2], "strokeWidth": 1.5}, x),
        "areas": ("area", {"opacity": BAND_OPACITY}, band | {"detail": [model, channel("part:N")]}),
        "bars": ("rule", {"opacity": BAND_OPACITY, "strokeWidth": 6}, band),
        "runs": ("line", {"strokeWidth": 0.8, "opacity": 0.5}, line | silent | {"detail": [model, channel("run:N")]}),
        "means": ("line", {}, line | style | {"detail": model, "description": "tip:N"}),
        "answers": ("point", point | {"shape": "diamond", "size": 60}, place | silent),
        "alone": ("point", point | {"shape": "circle", "size": 30}, place | silent),
        "side paths": ("text", {"dy": -7, "fontSize": 12}, x | {"y": {"value": 0}, "text": "text:N"}),
        "low": ("text", {"align": "right", "dx": -6, "dy": -6, "fontSize": 12}, floor | silent | {"text": "text:N"}),
    }
