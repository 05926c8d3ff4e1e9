"""Makes a phantom set in the layout of the release that it stands in for, with the parameters of its images."""

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
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
from mlprobe_utils.synthetic.phantoms.modalities import DRAWN, draw, picture

MODALITY_OF = {"busi": "ultrasound", "covid-ct": "ct", "chest-xray": "xray", "folder": "whirlpool"}  # of a layout
SPLITS = ("all", "train", "val", "test")  # their order is part of an image's seed; "all" without official splits
JPEG_QUALITY = 92
PATHS = {  # layout, or class where names differ -> path in the release; focal pneumonia is of bacteria
    "busi": "Dataset_BUSI_with_GT/{label}/{label} ({patient}).png",
    "covid-ct": "Images-processed/CT_{label}/slice-{slice:04d}.png",  # of one form for both classes, each name once
    "folder": "{split}/{label}/{patient:04d}.png",
    "NORMAL": "chest_xray/{split}/NORMAL/IM-{patient:04d}-0001.jpeg",
    "PNEUMONIA": "chest_xray/{split}/PNEUMONIA/person{patient}_{kind}_{patient}.jpeg",
}


class Recipe(Part):
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
    InputError for an unknown card, class or split, a card of real images, and an invalid recipe."""
    card = load_data_card(slug)
    if not card.synthetic:
        phantoms = [s for s in slugs(DataCard) if load_data_card(s).synthetic]
        raise InputError(f"'{slug}' is not a phantom, its images are not made here. Phantoms: {', '.join(phantoms)}.")
    if card.layout not in MODALITY_OF:
        raise unknown(f"layout of the phantom '{slug}'", card.layout, MODALITY_OF)
    recipe = read_recipe(card)
    if strange := [split for split in card.release_counts if split not in SPLITS]:
        raise unknown("split", strange[0], SPLITS)
    own = phantom(card)
    own.make(lambda folder: write(card, recipe, folder))
    return own.folder


def drawn(card: DataCard, recipe: Recipe, stream: str, label: str, *place: int) -> tuple[np.ndarray, dict]:
    """One image of a class, uint8 [side, side], and its parameters: a function of the recipe, the class and the place
    in the stream, not of any count. Raises InputError for an unknown class."""
    modality = MODALITY_OF[card.layout]
    labels = DRAWN[modality].LABELS  # their order, not the card's, so that reordering a card redraws nothing
    if label not in labels:
        raise unknown(f"class of {modality} phantoms", label, labels)
    rng = generator(stream, recipe.seed, labels.index(label), *place)
    return draw(modality, label, rng, recipe.side, difficulty=recipe.difficulty, shortcut=recipe.shortcut)


def twins(card: DataCard, recipe: Recipe, number: int) -> dict[str, np.ndarray]:
    """One image of each class, uint8 [side, side], of the same examination: position, anatomy, gain and noise are
    drawn once for all, and so is the chance behind the class's signs. All are typical of their class."""
    modality, found = DRAWN[MODALITY_OF[card.layout]], {}
    seeds = [("twins", recipe.seed, number, part) for part in range(3)]
    for label in modality.LABELS:
        parameters, signs = {}, generator(*seeds[1])
        while parameters.get("looks_like") != label or parameters.get("opacities") == []:  # clear, none like the twin's
            parameters = modality.nuisance(generator(*seeds[0])) | {"shortcut": False}
            parameters |= modality.findings(label, parameters, recipe.difficulty, signs)
        found[label] = picture(MODALITY_OF[card.layout], parameters, generator(*seeds[2]), recipe.side)
    return found


def write(card: DataCard, recipe: Recipe, folder: Path) -> pd.DataFrame:
    """Draws all images of a card's `release_counts` into an existing folder: grey (mode L) and of one format, so that
    nothing but the picture tells the class. Returns the table of `phantom_parameters.parquet`: `path` in the folder,
    `label`, `split`, `patient` and the parameters (lists as JSON text; null where one does not apply)."""
    patients, records = Counter(), []
    counts = [(label, split, n) for split, classes in card.release_counts.items() for label, n in classes.items()]
    for label, split, number in ((label, split, i) for label, split, n in counts for i in range(n)):
        pixels, parameters = drawn(card, recipe, "dataset", label, SPLITS.index(split), number)
        patients.update([label])
        patient, kind = patients[label], "virus" if parameters.get("pattern") == "diffuse" else "bacteria"
        names = {"patient": patient, "slice": 2 * patient - (label == "COVID"), "kind": kind}
        path = (PATHS.get(card.layout) or PATHS[label]).format(label=label, split=split, **names)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / path, quality=JPEG_QUALITY)  # which PNG ignores
        if card.layout == "busi":
            mask = ultrasound.lesion_mask(parameters, recipe.side)
            Image.fromarray(mask).save(folder / (path.removesuffix(".png") + "_mask.png"))
        row = {"path": path, "label": label, "split": split, "patient": f"{label}-{patient}"}
        records.append(row | {k: json.dumps(v) if isinstance(v, list) else v for k, v in parameters.items()})
    table = pd.DataFrame(records)
    if card.layout == "covid-ct":
        _write_lists(table, folder)
    write_parquet(table, folder / "phantom_parameters.parquet")
    return table


def _write_lists(table: pd.DataFrame, folder: Path) -> None:
    """COVID-CT's lists of splits and its tables of patients."""
    names = table.assign(name=table["path"].str.rpartition("/")[2])
    for (label, split), own in names.groupby(["label", "split"])["name"]:
        path = folder / f"Data-split/{label}/{split}CT_{label}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(own + "\n"), encoding="utf-8")
    covid, without = (names[names["label"] == label].reset_index() for label in ("COVID", "NonCOVID"))
    patients = {"File name": covid["name"], "Patient ID": covid["patient"].str.replace("COVID-", "Patient ")}
    crawled = {"image name": without["name"], "patient id": [f"phantom_patient_{i}" for i in without.index]}
    pd.DataFrame(patients).to_csv(folder / "COVID-CT-MetaInfo.csv", index=False, lineterminator="\n")
    pd.DataFrame(crawled).to_csv(folder / "NonCOVID-CT-MetaInfo.csv", lineterminator="\n")
