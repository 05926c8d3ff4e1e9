"""The explorer: every test image on its way through a model, to choose and to filter; `explorer.js` draws it.

What it draws travels in compressed payloads: one with the images of a data set (`pictured`), one with what models are
compared by (`fates.compared`), and one with the states of a model on a data set (`fates.state`). In a notebook they lie
in the page; the book moves them to files that are loaded when they are chosen."""

import base64
import html
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import HTML
from PIL import Image

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation import fates
from mlprobe_utils.evaluation.health import STAGE_NAMES
from mlprobe_utils.evaluation.points import POOLING_NAMES
from mlprobe_utils.plots.figures import in_explorer
from mlprobe_utils.plots.tables import Table, captioned, embedded

TILE, COLUMNS, QUALITY = 48, 25, 60  # of the sheet of all images: pixels, images in a row, of JPEG
HERE = Path(__file__)


def pictured(manifest: pd.DataFrame, options: Sequence[str], pixels: Callable[[int], np.ndarray] | None) -> dict:
    """The images of a data set, in the order of their names. `manifest`: image, option and, where they are known,
    patient and duplicate_group; `pixels`: of the image in a row, uint8 [height, width, 3]; None: without pictures and
    names, for patients' images that are not to be published."""
    manifest = manifest.sort_values("image")
    known = {
        name: manifest.get(name, pd.Series(None, manifest.index, object)) for name in ("patient", "duplicate_group")
    }
    groups = {name: [None if pd.isna(value) else value for value in own] for name, own in known.items()}
    found = {"options": [*options], "labels": [options.index(option) for option in manifest["option"]]} | groups
    if pixels is None:
        return found | {"names": None, "patient": None, "duplicate_group": None, "sprites": None}
    rows = -(-len(manifest) // COLUMNS)
    sprites = Image.new("RGB", (COLUMNS * TILE, rows * TILE))
    for place, position in enumerate(manifest.index):
        tile = Image.fromarray(pixels(position)).resize((TILE, TILE), Image.Resampling.BILINEAR)
        sprites.paste(tile, (place % COLUMNS * TILE, place // COLUMNS * TILE))
    source = embedded(sprites, "JPEG", quality=QUALITY)
    return found | {"names": manifest["image"].tolist(), "sprites": source, "tile": TILE, "columns": COLUMNS}


def explore(rows: pd.DataFrame, answers: pd.DataFrame, images: Sequence, name: str = "own model") -> HTML:
    """Follows each test image from the first vision block to the answer: choose one, filter by what happened to it.

    >>> view = mp.explore(rows, answers, images)
    >>> view.data[:22]
    '<div class="explorer" '

    Args:
        rows: from `probe`, of the features of `extract`.
        answers: from `answer`, of the same model.
        images: those that both were made from, of `image_folder` or `image_list`.
        name: of the model.

    Returns:
        HTML for a notebook, or to save: with the pictures and all data in it. InputError for rows without test images,
        without probes of the image tokens in vision tower, connector and LLM, or of other images."""
    labelled = {"model": name, "dataset": "own images", "stage": "finetuned"}
    probed, predicted = (own.assign(**labelled) for own in (rows, answers))
    table = fates.decoded(probed, predicted)
    if missing := [image for image in table.index if image not in images.names]:
        raise InputError(f"image {missing[0]} is not among `images`: give those that the rows were made from")
    own = fates.answers_to(table, predicted)
    drawn = fates.state(table, own, fates.fates(table, own))
    manifest = images.table.rename(columns={"label": "option"})
    manifest = manifest[manifest["image"].isin(table.index)]
    place = f"{name}/own images"
    payloads = {
        place: [{"stage": "finetuned", "run": 0} | drawn],
        "models/own images": {name: fates.compared(table, own, drawn)},
        "images/own images": pictured(manifest, [*table.columns.unique(2)], images.__getitem__),
    }
    return explorer(payloads, {name: name}, {"own images": "own images"})


def outcome_table(counts: pd.DataFrame, names: Mapping[str, str]) -> Table:
    """The counts of `analysis.explorer.counted`, each a link to its images."""
    cells, states = _cells(counts, names)
    for fate, name in fates.FATES.items():
        cells[name] = [_link(str(count), own, fate=fate) for count, own in zip(counts[name], states, strict=True)]
    return captioned(cells, "Test images of each outcome; a number leads to its images.")


def drop_table(drops: pd.DataFrame, names: Mapping[str, str]) -> Table:
    """Some rows of `analysis.explorer.largest_drops`; the number of an image leads to it."""
    cells, states = _cells(drops, names)
    rows = zip(drops.to_dict("records"), states, strict=True)
    cells["image"] = [_link(f"image {row['number']}", own, image=row["number"]) for row, own in rows]
    cells["class"] = drops["class"].map(html.escape)
    cells["between"] = drops["start"] + " and " + drops["end"]
    percents = zip(drops["before"], drops["after"], strict=True)
    cells["probability (%)"] = [f"{before:.0f} → {after:.0f}" for before, after in percents]
    return captioned(cells.assign(outcome=drops["fate"]), "Largest drops; an image leads to its curves.")


def _cells(table: pd.DataFrame, names: Mapping[str, str]) -> tuple[pd.DataFrame, list[dict]]:
    """The first columns of a table about states of models, as HTML, and these states."""
    cells = table[["model", "dataset"]].replace(names).map(html.escape).rename(columns={"dataset": "data set"})
    return cells.assign(run=table["run"].astype(str)), table[["model", "dataset", "stage", "run"]].to_dict("records")


def _link(words: str, state: Mapping, **further: object) -> str:
    return f'<a href="{html.escape(in_explorer(**state, **further))}">{words}</a>'


def explorer(payloads: Mapping[str, dict], models: Mapping[str, str], datasets: Mapping[str, str]) -> HTML:
    """The explorer with its payloads: `images/<data set>`, `models/<data set>` and `<model>/<data set>` (a list of
    states with stage and run); `models` and `datasets`: slug -> name."""
    names = {
        "models": models,
        "datasets": datasets,
        "fates": fates.FATES,
        "stages": STAGE_NAMES,
        "poolings": POOLING_NAMES,
    }
    packed = "".join(
        f'<script type="text/plain" class="explorer-data" data-name="{html.escape(name)}">{packed_of(own)}</script>'
        for name, own in payloads.items()
    )
    look, script = (HERE.with_suffix(suffix).read_text() for suffix in (".css", ".js"))
    opening = f'<div class="explorer" data-names="{html.escape(json.dumps(names))}">'
    return HTML(f"{opening}<style>{look}</style>{packed}</div><script>{script}</script>")


def packed_of(payload: dict) -> str:
    return base64.b64encode(zlib.compress(json.dumps(payload, separators=(",", ":")).encode(), 9)).decode()
