"""Images of a data set on a page."""

import base64
import html
import io

import numpy as np
import pandas as pd
from IPython.display import HTML
from PIL import Image

from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.plots.tables import MOST_TEXT


def thumbnails(images: list[np.ndarray], captions: list[str], side: int = 128) -> HTML:
    """Images beside each other with captions, as data within the page; working copies, enlarged without smoothing."""
    figures = []
    for image, caption in zip(images, captions, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(image)).save(buffer, "PNG")
        source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        text = html.escape(caption)
        figures.append(
            '<figure style="display:inline-block;width:12em;vertical-align:top;margin:0 1em 1em 0">'
            f'<img src="{source}" alt="{text}" height="{side}" style="image-rendering:pixelated">'
            f"<figcaption>{text}</figcaption></figure>"
        )
    return HTML("".join(figures))


def class_samples(image_set: ImageSet, split: str) -> HTML:
    """The first training image of each class with its true answer (figures S1 to S3 of the paper)."""
    rows = image_set.part(split, "train")
    images, captions = [], []
    for of_class in image_set.card.classes:
        images.append(image_set.pixels(rows.index[rows["label"] == of_class.name][0]))
        captions.append(f"{image_set.card.name}. Ground truth: {of_class.option}.")
    return thumbnails(images, captions)


def answered(image_set: ImageSet, rows: pd.DataFrame) -> HTML:
    """Images with what a model wrote about each and the truth; `rows` are prediction rows of this image set."""
    position = pd.Series(image_set.manifest.index, index=image_set.manifest["image"])
    images = [image_set.pixels(position[image]) for image in rows["image"]]
    written = rows["text"].str.strip().str.slice(0, MOST_TEXT)
    name = image_set.card.name
    captions = [f"{name}. “{text}” Truth: {label}." for text, label in zip(written, rows["label"], strict=True)]
    return thumbnails(images, captions)
