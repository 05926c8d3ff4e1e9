"""Makes a phantom set in the public layout of the release that it stands in for, with the parameters of its images."""

import json
from pathlib import Path
from typing import Annotated

import pandas as pd
from PIL import Image
from pydantic import Field

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.common.settings import Part, settings
from mlprobe_utils.pipeline.cards import DataCard, load_data_card, slugs
from mlprobe_utils.pipeline.images import phantom
from mlprobe_utils.synthetic.phantoms import ultrasound
from mlprobe_utils.synthetic.phantoms.canvas import Shortcut, generator
from mlprobe_utils.synthetic.phantoms.modalities import class_index, draw

MADE_BY = "phantoms"  # the command
MODALITY_OF = {"busi": "ultrasound", "covid-ct": "ct", "chest-xray": "xray"}  # layout -> modality
SPLITS = ("all", "train", "val", "test")  # their order is part of an image's seed; "all" without official splits
JPEG_QUALITY = 92


class Recipe(Part):
    """The recipe block of a phantom's card."""

    seed: Annotated[int, Field(ge=0)]
    side: Annotated[int, Field(ge=32, le=512)]  # pixels
    difficulty: Annotated[float, Field(ge=0, le=1)]  # 0 easy, 1 hard
    shortcut: Shortcut | None = None


def read_recipe(card: DataCard) -> Recipe:
    """The recipe of a phantom's card. Raises InputError unless it is valid, and its shortcut in a class of the card."""
    recipe = settings(Recipe, f"data/datasets/{card.slug}.yml, recipe", card.recipe or {})
    if recipe.shortcut and recipe.shortcut.label not in (labels := [known.name for known in card.classes]):
        raise unknown(f"class of data/datasets/{card.slug}.yml in recipe.shortcut.label", recipe.shortcut.label, labels)
    return recipe


def make(slug: str) -> Path:
    """Makes the phantom set of a data card unless it is current, and returns its folder, OUTPUTS/phantoms/SLUG. Raises
    InputError for no such card, no phantom, a recipe that is not valid, an unknown class or split."""
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
    """Draws all images of a card's `release_counts` and writes them into an existing folder.

    All images of a set are grey (mode L) and of one format: nothing but the picture tells the class. An image depends
    on the seed, its class, its split and its running number there, not on any count. Returns the table of
    `phantom_parameters.parquet`: `path` (relative to the folder), `label`, `split`, `patient` and the parameters (lists
    as JSON text; null where a parameter does not apply). Raises InputError for a class that is not known.
    """
    every = places(card.release_counts)
    records = [_write_image(card.layout, place, recipe, folder) for place in every.itertuples()]
    if card.layout == "covid-ct":
        _write_lists(every, folder)
    table = pd.DataFrame(records)
    write_parquet(table, folder / "phantom_parameters.parquet")
    return table


def places(counts: dict[str, dict[str, int]]) -> pd.DataFrame:
    """The images of a release: label, split, number (within these, from 0), patient (within the label, from 1)."""
    rows = [(label, split, n) for split, classes in counts.items() for label, of in classes.items() for n in range(of)]
    table = pd.DataFrame(rows, columns=["label", "split", "number"])
    return table.assign(patient=table.groupby("label").cumcount() + 1)


def slice_name(label: str, patient: int) -> str:
    """Of a CT slice: of one form for both classes, each name given once in the release."""
    return f"slice-{2 * patient - (label == 'COVID'):04d}.png"


def _write_image(layout: str, place, recipe: Recipe, folder: Path) -> dict:
    """Writes one image, and its mask where the release has masks; returns its row of the table."""
    modality = MODALITY_OF[layout]
    # the class's place in the modality, not in the card, so that reordering a card redraws nothing
    index = class_index(modality, place.label)
    rng = generator("dataset", recipe.seed, index, SPLITS.index(place.split), place.number)
    options = {"difficulty": recipe.difficulty, "shortcut": recipe.shortcut}
    pixels, parameters = draw(modality, place.label, rng, recipe.side, **options)
    path = _image_path(layout, place, parameters)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / path, **({"quality": JPEG_QUALITY} if path.endswith(".jpeg") else {}))
    if layout == "busi":
        mask = folder / (path.removesuffix(".png") + "_mask.png")
        Image.fromarray(ultrasound.lesion_mask(parameters, recipe.side)).save(mask)
    columns = {name: json.dumps(value) if isinstance(value, list) else value for name, value in parameters.items()}
    patient = f"{place.label}-{place.patient}"
    return {"path": path, "label": place.label, "split": place.split, "patient": patient} | columns


def _image_path(layout: str, place, parameters: dict) -> str:
    """In the release; Chest-Xray's names tell bacterial (focal) from viral (diffuse) pneumonia."""
    label, patient = place.label, place.patient
    if layout == "busi":
        return f"Dataset_BUSI_with_GT/{label}/{label} ({patient}).png"
    if layout == "covid-ct":
        return f"Images-processed/CT_{label}/{slice_name(label, patient)}"
    kind = "virus" if parameters["pattern"] == "diffuse" else "bacteria"
    name = f"IM-{patient:04d}-0001" if label == "NORMAL" else f"person{patient}_{kind}_{patient}"
    return f"chest_xray/{place.split}/{label}/{name}.jpeg"


def _write_lists(every: pd.DataFrame, folder: Path) -> None:
    """COVID-CT's lists of splits and its tables of patients."""
    names = every.assign(name=[slice_name(*row) for row in zip(every["label"], every["patient"], strict=True)])
    for (label, split), own in names.groupby(["label", "split"]):
        path = folder / f"Data-split/{label}/{split}CT_{label}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in own["name"]), encoding="utf-8")
    covid, without = (names[names["label"] == label] for label in ("COVID", "NonCOVID"))
    patients = pd.DataFrame({"File name": covid["name"], "Patient ID": "Patient " + covid["patient"].astype(str)})
    patients.to_csv(folder / "COVID-CT-MetaInfo.csv", index=False, lineterminator="\n")
    crawled = pd.DataFrame({"image name": without["name"].to_list()})
    crawled = crawled.assign(**{"patient id": [f"phantom_patient_{i}" for i in crawled.index]})
    crawled.to_csv(folder / "NonCOVID-CT-MetaInfo.csv", lineterminator="\n")
