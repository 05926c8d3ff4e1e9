"""Tables of the pages that are more than a group-by: recipes, frequent answers, module ends, all points."""

import pandas as pd
from IPython.display import HTML

from mlprobe_utils.cards import Protocol, load_protocol
from mlprobe_utils.metrics import METRICS

MOST_TEXT = 80  # characters of an answer that a table shows


def show(table: pd.DataFrame, decimals: int = 1) -> HTML:
    """A table for the page: every text escaped, numbers with `decimals`; a wide one scrolls, an empty one says so."""
    if table.empty:
        return HTML("<p><em>No rows.</em></p>")
    body = table.to_html(
        index=False, border=0, classes="table", justify="left", float_format=f"{{:.{decimals}f}}".format, na_rep=""
    )
    return HTML(f'<div class="pst-scrollable-table-container">{body}</div>')


def recipe(protocol: Protocol, block: str) -> pd.DataFrame:
    """A block of the protocol, one row a hyperparameter, beside the same block of the `paper` protocol."""
    paper = getattr(load_protocol("paper"), block).model_dump()
    rows = [
        {"hyperparameter": key.replace("_", " "), "this run": _plain(value), "paper protocol": _plain(paper[key])}
        for key, value in getattr(protocol, block).model_dump().items()
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


def module_ends(scores: pd.DataFrame, outputs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric at the last point of each module and of the final output, mean over runs."""
    keys = ["dataset", "model", "stage"]
    means = scores.groupby([*keys, "point"])[metric].mean().reset_index()
    means["module"] = means["point"].str[0] + " end"
    ends = means.sort_values("point").groupby([*keys, "module"])[metric].last().unstack("module")
    final = outputs.groupby(keys)[metric].mean().rename("final output")
    return ends[["V end", "C end", "L end"]].join(final).reset_index()


def all_points(scores: pd.DataFrame) -> pd.DataFrame:
    """All five metrics at every point, mean over runs."""
    keys = ["dataset", "model", "stage", "pooling", "point"]
    return scores.groupby(keys, as_index=False)[list(METRICS)].mean()
