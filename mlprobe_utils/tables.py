"""Tables of the pages that are more than a group-by: recipes, answers, module ends, all points, score profiles."""

import html
from collections.abc import Iterable, Mapping

import pandas as pd
from IPython.display import HTML

from mlprobe_utils.cards import Protocol, load_protocol
from mlprobe_utils.errors import unknown
from mlprobe_utils.figures import download, scrolling, scrolling_table
from mlprobe_utils.metrics import METRICS
from mlprobe_utils.profiles import SCORES, STAGE_NAMES

MOST_TEXT = 80  # characters of an answer that a table shows


def show(table: pd.DataFrame, decimals: int = 1) -> HTML:
    """A table for the page: every text escaped, numbers with `decimals`; a wide one scrolls, an empty one says so."""
    if table.empty:
        return HTML("<p><em>No rows.</em></p>")
    return HTML(scrolling_table(table, decimals))


def file(table: pd.DataFrame, title: str) -> HTML:
    """A table that is too long for a page, as a CSV file to download."""
    return HTML(f"<p>{download(table, title)}</p>")


def captioned(head: list[str], rows: list[list[str]], caption: str, style: str = "") -> HTML:
    """A table whose cells are HTML, with a caption; a wide one scrolls. `style` is the table's own, as CSS."""
    body = "".join(_row("td", row) for row in rows)
    table = f'<table class="table" style="{style}"><thead>{_row("th", head)}</thead><tbody>{body}</tbody></table>'
    return HTML(f"<figure>{scrolling(table)}<figcaption>{caption}</figcaption></figure>")


def recipe(protocol: Protocol, block: str) -> pd.DataFrame:
    """A block of the protocol, one row a hyperparameter: its value, that of the `paper` protocol, and what it means."""
    paper, own = getattr(load_protocol("paper"), block).model_dump(), getattr(protocol, block)
    rows = [
        {
            "hyperparameter": key.replace("_", " "),
            "this run": _plain(value),
            "paper protocol": _plain(paper[key]),
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


def recipe_differences(scores: dict[str, pd.DataFrame], metric: str) -> pd.DataFrame:
    """What probe recipes give beyond the first one, on image-token curves after fine-tuning; one row a pair and recipe.

    Args:
        scores: recipe -> from `metrics.probe_scores`, the main one first.

    Returns:
        dataset, model, recipe, mean difference (over points), largest difference, at (which point); percentage points.
    """
    keys = ["dataset", "model", "point"]
    means = {}
    for name, own in scores.items():
        of_images = own[(own["pooling"] == "image_mean") & (own["stage"] == "finetuned")]
        means[name] = of_images.groupby(keys)[metric].mean()
    main, *others = means
    records = []
    for name in others:
        for (dataset, model), own in (means[name] - means[main]).groupby(keys[:2]):
            at = own.abs().idxmax()
            records.append((dataset, model, name, own.mean(), own[at], at[2]))
    columns = ["dataset", "model", "recipe", "mean difference", "largest difference", "at"]
    return pd.DataFrame(records, columns=columns)


def all_points(scores: pd.DataFrame) -> pd.DataFrame:
    """All five metrics at every point, mean over runs."""
    keys = ["dataset", "model", "stage", "pooling", "point"]
    return scores.groupby(keys, as_index=False)[list(METRICS)].mean()


def profile_table(profiles: pd.DataFrame, stage: str, names: Mapping[str, str]) -> HTML:
    """Table 1 of the paper for one stage: a row a model, a column a data set, FHS_V → FHS_C → FHS_L → P_final.

    Of each score the best in a data set is bold and the worst underlined, all that tie as printed; nothing is marked
    where all are equal. With several models the last row is their average.

    Args:
        profiles: from `profiles.profile`, percent.
        stage: one of STAGES.
        names: slug -> name of models and data sets, in the order of rows and columns.

    Raises:
        InputError: unknown stage.
    """
    if stage not in STAGE_NAMES:
        raise unknown("stage", stage, STAGE_NAMES)
    of_stage = profiles[profiles["stage"] == stage]
    models, datasets = (_in_order(of_stage[column].unique(), names) for column in ("model", "dataset"))
    scores = of_stage.set_index(["dataset", "model"])[list(SCORES)]
    printed = scores.round(2)
    best, worst = printed.groupby("dataset").max(), printed.groupby("dataset").min()

    def cell(dataset: str, model: str) -> str:
        if (dataset, model) not in printed.index:
            return ""
        return _arrows(
            _marked(value, best.at[dataset, score], worst.at[dataset, score])
            for score, value in printed.loc[(dataset, model)].items()
        )

    rows = [[_named(model, names), *(cell(dataset, model) for dataset in datasets)] for model in models]
    if len(models) > 1:
        averages = scores.groupby("dataset").mean()
        rows.append(["average", *(_arrows(f"{value:.2f}" for value in averages.loc[d]) for d in datasets)])
    head = ["model", *(_named(dataset, names) for dataset in datasets)]
    marks = ". Best of a data set bold, worst underlined." if len(models) > 1 else "."
    return captioned(head, rows, f"{_arrows(SCORES)} (%), {STAGE_NAMES[stage]}{marks}", "white-space:nowrap")


def _in_order(slugs: Iterable[str], names: Mapping[str, str]) -> list[str]:
    """Slugs as `names` orders them, those without a name last."""
    order = list(names)
    return sorted(slugs, key=lambda slug: order.index(slug) if slug in names else len(order))


def _named(slug: str, names: Mapping[str, str]) -> str:
    return html.escape(names.get(slug, slug))


def _row(tag: str, cells: list[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"


def _arrows(values: Iterable[str]) -> str:
    return " → ".join(values)


def _marked(value: float, best: float, worst: float) -> str:
    """A score as printed, bold or underlined; with one value all round neither."""
    mark = None if best == worst else {best: "strong", worst: "u"}.get(value)
    return f"<{mark}>{value:.2f}</{mark}>" if mark else f"{value:.2f}"
