"""Images of a data set on a page."""

import base64
import html
import io

import numpy as np
from IPython.display import HTML
from PIL import Image

from mlprobe_utils.datasets.image_set import ImageSet


def thumbnails(images: list[np.ndarray], captions: list[str], side: int = 128) -> HTML:
    """Images beside each other with captions, as data within the page; working copies, enlarged without smoothing."""
    figures = []
    for image, caption in zip(images, captions, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(image)).save(buffer, "PNG")
        source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        text = html.escape(caption)
        figures.append(
            f'<figure style="display:inline-block;margin:0 1em 1em 0"><img src="{source}" alt="{text}" height="{side}" '
            f'style="image-rendering:pixelated"><figcaption>{text}</figcaption></figure>'
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
