"""One image on its way through a model: what probes decode at the end of each module, and the answer."""

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd
from IPython.display import HTML

from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.plots.tables import picture

if TYPE_CHECKING:
    from mlprobe_utils.datasets.image_set import ImageSet


def image_flow(image_set: "ImageSet", answer: pd.Series, decoded: pd.DataFrame, title: str) -> HTML:
    """The image of a prediction row, the probability that a probe gives each option at the end of each module, and the
    answer. `decoded`: probe rows of that image at these points, on the mean of its tokens; `title` names the model."""
    manifest = image_set.manifest
    image = picture(image_set, manifest.index[manifest["image"] == answer["image"]][0], f"image of {answer['label']}")
    options = [own.option for own in image_set.card.classes]
    steps = [("image", f"{image}<p>true class: {html.escape(answer['label'])}</p>")]
    order = [*MODULES]
    for row in sorted(decoded.to_dict("records"), key=lambda row: order.index(row["point"][0])):
        module = MODULES[row["point"][0]]
        steps.append((module, _bars({option: row[f"p_{option}"] for option in options})))
    steps.append(("answer", f"<p>“{html.escape(answer['text'].strip())}”</p>"))
    items = "".join(f"<li><strong>{html.escape(name)}</strong>{content}</li>" for name, content in steps)
    return HTML(f'<figure class="flow"><ol>{items}</ol><figcaption>{html.escape(title)}</figcaption></figure>')


def _bars(probabilities: Mapping[str, float]) -> str:
    bar = '<p>{} {:.0f} %<span style="width:{:.0f}%"></span></p>'
    return "".join(bar.format(html.escape(name), 100 * p, 100 * p) for name, p in probabilities.items())
