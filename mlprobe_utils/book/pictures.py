"""Images of a data set on a page."""

import base64
import html
import io
from collections.abc import Iterable

import pandas as pd
from IPython.display import HTML
from PIL import Image

from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.plots.tables import MOST_TEXT


def class_samples(image_set: ImageSet, split_rule: str) -> HTML:
    """The first training image of each class with its true answer (figures S1 to S3 of the paper)."""
    label = image_set.rows_of(split_rule, "train")["label"]
    first = {label.eq(own.name).idxmax(): f"Ground truth: {own.option}." for own in image_set.card.classes}
    return _thumbnails(image_set, first.items())


def answered(image_set: ImageSet, rows: pd.DataFrame) -> HTML:
    """Images with what a model wrote about each and the truth; `rows` are prediction rows of this image set."""
    position = pd.Series(image_set.manifest.index, index=image_set.manifest["image"])
    written = rows["text"].str.strip().str.slice(0, MOST_TEXT)
    captions = (f"“{text}” Truth: {label}." for text, label in zip(written, rows["label"], strict=True))
    return _thumbnails(image_set, zip(position[rows["image"]], captions, strict=True))


def _thumbnails(image_set: ImageSet, captioned: Iterable[tuple[int, str]]) -> HTML:
    """Working copies, by position, with captions side by side: data within the page, enlarged without smoothing."""
    figures = []
    for position, caption in captioned:
        buffer = io.BytesIO()
        Image.fromarray(image_set.pixels(position)).save(buffer, "PNG")
        source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        text = html.escape(f"{image_set.card.name}. {caption}")
        figures.append(
            '<figure style="display:inline-block;width:12em;vertical-align:top;margin:0 1em 1em 0">'
            f'<img src="{source}" alt="{text}" height="128" style="image-rendering:pixelated">'
            f"<figcaption>{text}</figcaption></figure>"
        )
    return HTML("".join(figures))
