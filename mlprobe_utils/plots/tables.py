"""Tables of the pages that are more than a group-by: recipes, answers, module ends, all points, score profiles."""

import html
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import ClassVar

import pandas as pd
from IPython.display import HTML

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.settings import Part
from mlprobe_utils.evaluation.health import SCORES
from mlprobe_utils.evaluation.metrics import METRICS
from mlprobe_utils.plots.figures import download, scrolling, scrolling_table

MOST_TEXT = 80  # characters of an answer that a table shows


class Table(pd.DataFrame):
    """A table that is shown in a form of the page's; what is derived from it is a plain DataFrame."""

    _metadata: ClassVar[list[str]] = ["form"]  # what pandas takes for an attribute, not for a column

    def __init__(self, table: pd.DataFrame, form: Callable[[pd.DataFrame], str]):
        super().__init__(table)
        self.form = form

    def _repr_html_(self) -> str:
        return self.form(self)


def show(table: pd.DataFrame, decimals: int = 1) -> Table:
    """A table for the page: every text escaped, numbers with `decimals`; a wide one scrolls, an empty one says so.

    Columns `p` and `p (…)` hold p values and have three decimals.
    """
    return Table(table, partial(table_html, decimals=decimals))


def table_html(table: pd.DataFrame, decimals: int = 1) -> str:
    """The HTML of `show`."""
    if table.empty:
        return "<p><em>No rows.</em></p>"
    of_p = [column for column in table if str(column).split(" (")[0] == "p"]
    table = table.assign(**{column: table[column].map(_p_value, na_action="ignore") for column in of_p})
    return scrolling_table(table, decimals)


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<\N{NO-BREAK SPACE}0.001"


def note(words: str) -> HTML:
    """A box with a sentence or two."""
    return HTML(f'<aside class="admonition note"><p>{html.escape(words)}</p></aside>')


def file(table: pd.DataFrame, title: str) -> Table:
    """A table that is too long for a page, as a CSV file to download."""
    return Table(table, partial(_link, title=title))


def _link(table: pd.DataFrame, title: str) -> str:
    return f"<p>{download(table, title)}</p>"


def captioned(cells: pd.DataFrame, caption: str) -> Table:
    """A table whose cells and columns are HTML, with a caption; a wide one scrolls."""
    return Table(cells, partial(_captioned, caption=caption))


def _captioned(cells: pd.DataFrame, caption: str, style: str = "") -> str:
    """`style` is the table's own, as CSS."""
    body = "".join(_row("td", row) for row in cells.to_numpy().tolist())
    table = f'<table class="table" style="{style}"><thead>{_row("th", cells)}</thead><tbody>{body}</tbody></table>'
    return f"<figure>{scrolling(table)}<figcaption>{caption}</figcaption></figure>"


def recipe(own: Part, paper: Part) -> pd.DataFrame:
    """A block of a protocol, one row a hyperparameter: its value, that of the `paper` protocol, and what it means."""
    of_paper = paper.model_dump()
    rows = [
        {
            "hyperparameter": key.replace("_", " "),
            "this run": _plain(value),
            "paper protocol": _plain(of_paper[key]),
            "meaning": type(own).model_fields[key].description,
        }
        for key, value in own.model_dump().items()
    ]
    return pd.DataFrame(rows)


def _plain(value) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def frequent_answers(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """The `most` most frequent texts of each model, data set and stage on the test images, with their share."""
    tested = rows[rows["part"] == "test"]
    texts = tested.assign(answer=tested["text"].str.slice(0, MOST_TEXT), parsed=tested["parsed"].fillna(""))
    keys = ["dataset", "model", "stage"]
    counted = texts.groupby([*keys, "answer", "parsed"]).size().rename("answers").reset_index()
    counted["share (%)"] = 100 * counted["answers"] / counted.groupby(keys)["answers"].transform("sum")
    top = counted.sort_values([*keys, "answers"], ascending=[True, True, False, False]).groupby(keys).head(most)
    return top.drop(columns="answers")


def unparsed_examples(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Prediction rows of `most` unparsed answers to test images of each data set, as different as there are."""
    unparsed = rows[(rows["part"] == "test") & rows["parsed"].isna()]
    first_of_a_text = unparsed.duplicated(["dataset", "text"])
    return unparsed.loc[first_of_a_text.sort_values(kind="stable").index].groupby("dataset").head(most)


def module_ends(scores: pd.DataFrame, outputs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric at the last point of each module and of the final output, mean over runs."""
    keys = ["dataset", "model", "stage"]
    means = scores.groupby([*keys, "point"])[metric].mean().reset_index()
    means["module"] = means["point"].str[0] + " end"
    ends = means.sort_values("point").groupby([*keys, "module"])[metric].last().unstack("module")
    final = outputs.groupby(keys)[metric].mean().rename("final output")
    return ends[["V end", "C end", "L end"]].join(final).reset_index()


def all_points(scores: pd.DataFrame) -> pd.DataFrame:
    """All metrics at every point, mean over runs."""
    keys = ["dataset", "model", "stage", "pooling", "point"]
    return scores.groupby(keys, as_index=False)[list(METRICS)].mean()


def profile_table(profiles: pd.DataFrame, names: Mapping[str, str], what: str, apart: Iterable[str] = ()) -> Table:
    """Table 1 of the paper, of `profiles`: a row a model, a column a data set, FHS_V → FHS_C → FHS_L → P_final.

    Of each score the best in a data set is bold and the worst underlined, all that tie as printed; nothing is marked
    where all are equal. With several models a row of their averages follows.

    Args:
        profiles: model, dataset and the four scores (percent), from `profiles.profile` for one stage, or the paper's.
        names: slug -> name of models and data sets, in the order of rows and columns.
        what: which scores these are, for the caption.
        apart: models that stand beneath the averages and count neither in them nor for best and worst, such as
            the general models that the others were adapted from.

    Raises:
        InputError: several rows of one model and data set, as of two stages.
    """
    states = profiles[["dataset", "model"]]
    for twice in states[states.duplicated()].itertuples():
        raise InputError(f"several profiles of {twice.model} on {twice.dataset}: choose one stage")
    return Table(profiles, partial(_profile_html, names=names, what=what, apart=[*apart]))


def _profile_html(profiles: pd.DataFrame, names: Mapping[str, str], what: str, apart: list[str]) -> str:
    models, datasets = (_in_order(profiles[column].unique(), names) for column in ("model", "dataset"))
    scores = profiles.set_index(["dataset", "model"])[list(SCORES)]
    printed = scores.round(2)
    compared = scores[~scores.index.isin(apart, level="model")]
    best, worst = (getattr(compared.round(2).groupby("dataset"), end)() for end in ("max", "min"))

    def row(model: str, *, marked: bool) -> list[str]:
        cells = [_named(model, names)]
        for dataset in datasets:
            values = printed.loc[(dataset, model)].items() if (dataset, model) in printed.index else ()
            limits = (best, worst) if marked else ()
            cells.append(
                _arrows(_marked(value, *(limit.at[dataset, score] for limit in limits)) for score, value in values)
            )
        return cells

    rows = [row(model, marked=True) for model in models if model not in apart]
    if several := len(rows) > 1:
        averages = compared.groupby("dataset").mean()
        rows.append(["average", *(_arrows(f"{value:.2f}" for value in averages.loc[d]) for d in datasets)])
    rows += [row(model, marked=False) for model in models if model in apart]
    caption = [f"{_arrows(SCORES)} (%), {html.escape(what)}."]
    caption += ["Best of a data set bold, worst underlined."] if several else []
    caption += [f"Beneath {'the average' if several else 'it'}: what others were adapted from."] if apart else []
    head = ["model", *(_named(dataset, names) for dataset in datasets)]
    return _captioned(pd.DataFrame(rows, columns=head), " ".join(caption), "white-space:nowrap;font-size:0.72em")


def _in_order(slugs: Iterable[str], names: Mapping[str, str]) -> list[str]:
    """Slugs as `names` orders them, those without a name last."""
    order = list(names)
    return sorted(slugs, key=lambda slug: order.index(slug) if slug in names else len(order))


def _named(slug: str, names: Mapping[str, str]) -> str:
    return html.escape(names.get(slug, slug))


def _row(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"


def _arrows(values: Iterable[str]) -> str:
    return " → ".join(values)


def _marked(value: float, best: float | None = None, worst: float | None = None) -> str:
    """A score as printed, bold or underlined; with one value all round neither."""
    mark = None if best == worst else {best: "strong", worst: "u"}.get(value)
    return f"<{mark}>{value:.2f}</{mark}>" if mark else f"{value:.2f}"
