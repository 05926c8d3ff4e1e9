"""Writes a whole phantom set in the public layout of the release that it stands in for.

Beside the layout lies `phantom_parameters.parquet`: one row an image with what generated it.
"""

import json
from pathlib import Path

import pandas as pd
from PIL import Image

from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.pipeline.cards import DataCard
from mlprobe_utils.synthetic.phantoms import ct, ultrasound, xray
from mlprobe_utils.synthetic.phantoms.layouts import Place, image_path, mask_path, places, text_files
from mlprobe_utils.synthetic.phantoms.marks import Shortcut
from mlprobe_utils.synthetic.phantoms.seeds import generator

MODALITY_OF = {"busi": ultrasound, "covid-ct": ct, "chest-xray": xray}
SPLITS = ("all", "train", "val", "test")  # their order is part of an image's seed
JPEG_QUALITY = 92


def write(
    card: DataCard, seed: int, side: int, difficulty: float, shortcut: Shortcut | None, folder: Path
) -> pd.DataFrame:
    """Draws and writes all images that `card.release_counts` asks for.

    All images of a set are grey (mode L) and of one format: nothing but the picture tells the class.

    Args:
        card: of a phantom; its layout chooses the modality.
        seed: an image depends on it, its class, its split and its running number there, not on any count.
        side: pixels.
        difficulty: 0 (easy) to 1 (hard).
        shortcut: planted, if given.
        folder: exists; filled.

    Returns:
        The table of `phantom_parameters.parquet`: `path` (relative to the folder), `label`, `split`, `patient` and one
        column a parameter (lists as JSON text; null where a parameter does not apply).

    Raises:
        InputError: a class that the modality does not know.
    """
    every = list(places(card.release_counts))
    table = pd.DataFrame([_write_image(card.layout, p, seed, side, difficulty, shortcut, folder) for p in every])
    for path, content in text_files(card.layout, every).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    write_parquet(table, folder / "phantom_parameters.parquet")
    return table


def _write_image(
    layout: str, place: Place, seed: int, side: int, difficulty: float, shortcut: Shortcut | None, folder: Path
) -> dict:
    """Writes one image, and its mask where the release has masks; returns its row of the table."""
    module = MODALITY_OF[layout]
    # the class's place in the module, not in the card, so that reordering a card redraws nothing;
    # a class that is unknown there gets the error from `draw`
    index = module.LABELS.index(place.label) if place.label in module.LABELS else len(module.LABELS)
    rng = generator("dataset", seed, index, SPLITS.index(place.split), place.number)
    pixels, parameters = module.draw(place.label, rng, side, difficulty, shortcut)
    path = image_path(layout, place, parameters)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    if path.endswith(".jpeg"):
        Image.fromarray(pixels).save(folder / path, quality=JPEG_QUALITY)
    else:
        Image.fromarray(pixels).save(folder / path)
    if layout == "busi":
        Image.fromarray(ultrasound.lesion_mask(parameters, side)).save(folder / mask_path(path))
    columns = {name: json.dumps(value) if isinstance(value, list) else value for name, value in parameters.items()}
    patient = f"{place.label}-{place.overall}"
    return {"path": path, "label": place.label, "split": place.split, "patient": patient} | columns
