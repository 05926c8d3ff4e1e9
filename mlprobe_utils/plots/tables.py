"""Tables of the pages that are more than a group-by: settings, answers, module ends, score profiles; and images."""

import base64
import html
import io
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import pandas as pd
from IPython.display import HTML
from PIL import Image

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.settings import Part
from mlprobe_utils.evaluation.health import SCORES
from mlprobe_utils.plots.figures import download, head_html, scrolling

if TYPE_CHECKING:
    from mlprobe_utils.datasets.image_set import ImageSet

MOST_TEXT = 80  # characters of an answer that a table shows
ARROW = " → "


class Table(pd.DataFrame):
    """A table that is shown in a form of the page's; what is derived from it is a plain DataFrame."""

    _metadata: ClassVar[list[str]] = ["form"]  # what pandas takes for an attribute, not for a column

    def __init__(self, table: pd.DataFrame, form: Callable[[pd.DataFrame], str]):
        super().__init__(table)
        self.form = form

    def _repr_html_(self) -> str:
        return self.form(self)


def show(table: pd.DataFrame, decimals: int = 1, title: str = "table") -> Table:
    """A table for the page, as `head_html` writes it; `title` names the file of a long one."""
    return Table(table, partial(head_html, decimals=decimals, title=title))


def note(words: str) -> HTML:
    return HTML(f'<aside class="admonition note"><p>{html.escape(words)}</p></aside>')


def file(table: pd.DataFrame, title: str) -> Table:
    """A table that is too long for a page, as a CSV file to download."""
    return Table(table, partial(download, title=title))


def captioned(cells: pd.DataFrame, caption: str) -> Table:
    """A table whose cells and columns are HTML, with a caption; a wide one scrolls."""
    return Table(cells, partial(_captioned, caption=caption))


def _captioned(cells: pd.DataFrame, caption: str, style: str = "") -> str:
    head = "".join(f"<th>{cell}</th>" for cell in cells)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells.to_numpy())
    table = f'<table class="table" style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f"<figure>{scrolling(table)}<figcaption>{caption}</figcaption></figure>"


def recipe(own: Part, paper: Part) -> pd.DataFrame:
    """A block of a protocol, one row per hyperparameter: its value, that of the `paper` protocol, and what it means."""
    fields, words = type(own).model_fields, {True: "yes", False: "no"}
    values = [[words[v] if isinstance(v, bool) else str(v) for v in one.model_dump().values()] for one in (own, paper)]
    columns = dict(zip(("this run", "paper protocol"), values, strict=True))
    meanings = [field.description for field in fields.values()]
    return pd.DataFrame({"hyperparameter": [key.replace("_", " ") for key in fields], **columns, "meaning": meanings})


def frequent_answers(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """The `most` most frequent texts of each model, data set and stage on the test images, with their share."""
    tested = rows[rows["split"] == "test"]
    texts = tested.assign(answer=tested["text"].str.slice(0, MOST_TEXT), parsed=tested["parsed"].fillna(""))
    keys = ["dataset", "model", "stage"]
    counted = texts.groupby([*keys, "answer", "parsed"]).size().rename("answers").reset_index()
    counted["share (%)"] = 100 * counted["answers"] / counted.groupby(keys)["answers"].transform("sum")
    top = counted.sort_values([*keys, "answers"], ascending=[True, True, False, False]).groupby(keys).head(most)
    return top.drop(columns="answers")


def unparsed_examples(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Prediction rows of `most` unparsed answers to test images of each data set, as different as there are."""
    unparsed = rows[(rows["split"] == "test") & rows["parsed"].isna()]
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


def profile_table(profiles: pd.DataFrame, names: Mapping[str, str], what: str, apart: Iterable[str] = ()) -> Table:
    """Table 1 of the paper, of `profiles` (of one stage, else InputError): a row per model, column per data set, in the
    order of `names` (slug -> name). The best score in a data set is bold, the worst underlined, ties
    (when rounded) too, unless all are equal. A row of averages follows several models, and below it those `apart`,
    which are in no average. `what` says in the caption which scores these are."""
    if profiles.duplicated(["dataset", "model"]).any():
        raise InputError("several profiles per model and data set: choose one stage")
    return Table(profiles, partial(_profile_html, names=names, what=what, apart=[*apart]))


def _profile_html(profiles: pd.DataFrame, names: Mapping[str, str], what: str, apart: list[str]) -> str:
    found = profiles["model"].unique(), profiles["dataset"].unique()
    models, datasets = (sorted(own, key=[*names, *own].index) for own in found)
    scores = profiles.set_index(["dataset", "model"])[list(SCORES)]
    printed, compared = scores.round(2), scores[~scores.index.isin(apart, level="model")]
    ends = compared.round(2).groupby("dataset")
    best, worst = (ends.transform(end).reindex(printed.index) for end in ("max", "min"))
    text = printed.map("{:.2f}".format)
    for tag, limit in (("strong", best), ("u", worst)):
        text = text.mask((printed == limit) & (best != worst), f"<{tag}>" + text + f"</{tag}>")
    cells = text.agg(ARROW.join, axis=1).unstack("dataset").reindex(index=models, columns=datasets)
    above = [model for model in models if model not in apart]
    rows = [cells.loc[above], cells.drop(index=above)]
    if several := len(above) > 1:
        averages = compared.groupby("dataset").mean().map("{:.2f}".format).agg(ARROW.join, axis=1)
        rows.insert(1, averages.to_frame("average").T)
    cells = pd.concat(rows)[datasets].fillna("")
    cells.insert(0, "model", [html.escape(names.get(model, model)) for model in cells.index])
    caption = f"{ARROW.join(SCORES)} (%), {html.escape(what)}."
    caption += " Best per data set in bold, worst underlined." if several else ""
    caption += f" Below {'the average' if several else 'it'}: the base models." if apart else ""
    cells.columns = [html.escape(names.get(column, column)) for column in cells]
    return _captioned(cells, caption, "white-space:nowrap;font-size:0.72em")


def class_samples(image_set: "ImageSet", split_rule: str) -> HTML:
    """The first training image of each class with its true answer (figures S1 to S3 of the paper)."""
    label = image_set.rows_of(split_rule, "train")["label"]
    first = {label.eq(own.name).idxmax(): f"True class: {own.option}." for own in image_set.card.classes}
    return _thumbnails(image_set, first.items())


def answered(image_set: "ImageSet", rows: pd.DataFrame) -> HTML:
    """Images with what a model wrote about each and the truth; `rows` are prediction rows of this image set."""
    position = pd.Series(image_set.manifest.index, index=image_set.manifest["image"])
    written = rows["text"].str.strip().str.slice(0, MOST_TEXT)
    captions = (f"“{text}” Truth: {label}." for text, label in zip(written, rows["label"], strict=True))
    return _thumbnails(image_set, zip(position[rows["image"]], captions, strict=True))


def _thumbnails(image_set: "ImageSet", captioned: Iterable[tuple[int, str]]) -> HTML:
    """Working copies, by position, with captions side by side: data within the page, enlarged without smoothing."""
    figures = []
    for position, caption in captioned:
        text = f"{image_set.card.name}. {caption}"
        figures.append(
            '<figure style="display:inline-block;width:12em;vertical-align:top;margin:0 1em 1em 0">'
            f"{picture(image_set, position, text)}<figcaption>{html.escape(text)}</figcaption></figure>"
        )
    return HTML("".join(figures))


def is_shown(image_set: "ImageSet") -> bool:
    """Whether pages show pictures and file names of it: real ones are left out where MLPROBE_PUBLISH is set."""
    return image_set.card.synthetic or not os.environ.get("MLPROBE_PUBLISH")


def embedded(image: Image.Image, kind: str, **options: int) -> str:
    """An image as an address that holds its data; `kind` and `options` as PIL's `save` takes them."""
    image.save(buffer := io.BytesIO(), kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def picture(image_set: "ImageSet", position: int, text: str) -> str:
    """A working copy as an element of a page, with its data and `text` for those who cannot see it."""
    if not is_shown(image_set):
        return "<p>The picture is not published.</p>"
    source = embedded(Image.fromarray(image_set.pixels(position)), "PNG")
    return f'<img src="{source}" alt="{html.escape(text)}" height="128" style="image-rendering:pixelated">'
