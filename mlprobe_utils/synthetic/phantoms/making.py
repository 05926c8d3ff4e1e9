"""Makes a phantom set in the public layout of the release that it stands in for, or returns at once if it is current.

Beside the layout lies `phantom_parameters.parquet`: one row an image with what generated it.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.pipeline.cards import DataCard, load_data_card, slugs
from mlprobe_utils.pipeline.images import phantom
from mlprobe_utils.synthetic.phantoms import ultrasound
from mlprobe_utils.synthetic.phantoms.marks import Shortcut
from mlprobe_utils.synthetic.phantoms.modalities import class_index, draw
from mlprobe_utils.synthetic.phantoms.randomness import generator

MADE_BY = "phantoms"  # the command
MODALITY_OF = {"busi": "ultrasound", "covid-ct": "ct", "chest-xray": "xray"}  # layout -> modality
SPLITS = ("all", "train", "val", "test")  # their order is part of an image's seed; "all" without official splits
JPEG_QUALITY = 92


class Recipe(BaseModel):
    """The recipe block of a phantom's card."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    seed: Annotated[int, Field(ge=0)]
    side: Annotated[int, Field(ge=32, le=512)]  # pixels
    difficulty: Annotated[float, Field(ge=0, le=1)]
    shortcut: Shortcut | None = None


def read_recipe(card: DataCard) -> Recipe:
    """The recipe of a phantom's card. Raises InputError unless it is valid, and its shortcut in a class of the card."""
    try:
        recipe = Recipe.model_validate(card.recipe or {})
    except ValidationError as error:
        problems = "; ".join(f"recipe.{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise InputError(
            f"data/datasets/{card.slug}.yml: {problems}. A recipe holds seed (0 or more), side (32 to 512 pixels), "
            "difficulty (0, easy, to 1, hard) and, if one is to be planted, shortcut: its label and its agreement "
            "(0.5 to 1)."
        ) from error
    labels = [known.name for known in card.classes]
    if recipe.shortcut and recipe.shortcut.label not in labels:
        raise InputError(
            f"data/datasets/{card.slug}.yml: recipe.shortcut.label: '{recipe.shortcut.label}' is not a class of the "
            f"card. Classes: {', '.join(labels)}."
        )
    return recipe


def make(slug: str) -> Path:
    """Makes the phantom set of a data card unless it is current, and returns its folder, OUTPUTS/phantoms/SLUG.

    Raises:
        InputError: no such card, not a phantom, a recipe that is not valid, or a class or split that is not known here.
    """
    card = load_data_card(slug)
    if card.made_by != MADE_BY:
        phantoms = [s for s in slugs(DataCard) if load_data_card(s).made_by == MADE_BY]
        raise InputError(f"'{slug}' is not a phantom, its images are not made here. Phantoms: {', '.join(phantoms)}.")
    recipe = read_recipe(card)
    if strange := [split for split in card.release_counts if split not in SPLITS]:
        raise unknown("split", strange[0], SPLITS)
    if not (own := phantom(card)).is_current():
        with own.making() as partial:
            write(card, recipe, partial)
    return own.folder


def write(card: DataCard, recipe: Recipe, folder: Path) -> pd.DataFrame:
    """Draws all images that `card.release_counts` asks for and writes them into an existing folder.

    All images of a set are grey (mode L) and of one format: nothing but the picture tells the class. An image depends
    on the seed, its class, its split and its running number there, not on any count.

    Returns:
        The table of `phantom_parameters.parquet`: `path` (relative to the folder), `label`, `split`, `patient` and one
        column a parameter (lists as JSON text; null where a parameter does not apply).

    Raises:
        InputError: a class that the modality does not know.
    """
    every = list(places(card.release_counts))
    table = pd.DataFrame([_write_image(card.layout, place, recipe, folder) for place in every])
    for path, content in text_files(card.layout, every).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")
    write_parquet(table, folder / "phantom_parameters.parquet")
    return table


@dataclass(frozen=True)
class Place:
    """One image of a release."""

    label: str
    split: str
    number: int  # running number within the class and split, from 0
    overall: int  # running number within the class over all splits, from 1: also the patient's number

    @property
    def slice_name(self) -> str:
        """Of a CT slice: of one form for both classes, each name given once in the release."""
        return f"slice-{2 * self.overall - (self.label == 'COVID'):04d}.png"


def places(counts: dict[str, dict[str, int]]) -> Iterator[Place]:
    """Every image of a release, from `release_counts` of a data card."""
    before: dict[str, int] = {}
    for split, classes in counts.items():
        for label, count in classes.items():
            start = before.get(label, 0)
            for number in range(count):
                yield Place(label, split, number, start + number + 1)
            before[label] = start + count


def _write_image(layout: str, place: Place, recipe: Recipe, folder: Path) -> dict:
    """Writes one image, and its mask where the release has masks; returns its row of the table."""
    modality = MODALITY_OF[layout]
    # the class's place in the modality, not in the card, so that reordering a card redraws nothing
    index = class_index(modality, place.label)
    rng = generator("dataset", recipe.seed, index, SPLITS.index(place.split), place.number)
    pixels, parameters = draw(modality, place.label, rng, recipe.side, recipe.difficulty, recipe.shortcut)
    path = _image_path(layout, place, parameters)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / path, **({"quality": JPEG_QUALITY} if path.endswith(".jpeg") else {}))
    if layout == "busi":
        mask = folder / (path.removesuffix(".png") + "_mask.png")
        Image.fromarray(ultrasound.lesion_mask(parameters, recipe.side)).save(mask)
    columns = {name: json.dumps(value) if isinstance(value, list) else value for name, value in parameters.items()}
    patient = f"{place.label}-{place.overall}"
    return {"path": path, "label": place.label, "split": place.split, "patient": patient} | columns


def _image_path(layout: str, place: Place, parameters: dict) -> str:
    """In the release; Chest-Xray's names tell bacterial (focal) from viral (diffuse) pneumonia."""
    if layout == "busi":
        return f"Dataset_BUSI_with_GT/{place.label}/{place.label} ({place.overall}).png"
    if layout == "covid-ct":
        return f"Images-processed/CT_{place.label}/{place.slice_name}"
    folder = f"chest_xray/{place.split}/{place.label}"
    if place.label == "NORMAL":
        return f"{folder}/IM-{place.overall:04d}-0001.jpeg"
    kind = "virus" if parameters["pattern"] == "diffuse" else "bacteria"
    return f"{folder}/person{place.overall}_{kind}_{place.overall}.jpeg"


def text_files(layout: str, every: list[Place]) -> dict[str, str]:
    """The release's split lists and metadata, path -> content; empty where a release has none."""
    if layout != "covid-ct":
        return {}
    files: dict[str, str] = {}
    for place in every:
        path = f"Data-split/{place.label}/{place.split}CT_{place.label}.txt"
        files[path] = files.get(path, "") + f"{place.slice_name}\n"
    patients = [[place.slice_name, f"Patient {place.overall}"] for place in every if place.label == "COVID"]
    without = [place.slice_name for place in every if place.label == "NonCOVID"]
    crawled = [[i, name, f"phantom_patient_{i}"] for i, name in enumerate(without)]
    return files | {
        "COVID-CT-MetaInfo.csv": _table(["File name", "Patient ID"], patients),
        "NonCOVID-CT-MetaInfo.csv": _table(["", "image name", "patient id"], crawled),
    }


def _table(header: list[str], rows: list[list]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
