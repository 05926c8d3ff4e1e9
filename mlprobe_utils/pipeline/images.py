"""Image sets: a card proposed for one, its artefacts, making its manifest with working copies beside it, loading it."""

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import hash_of
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.image_set import MANIFEST, ImageSet
from mlprobe_utils.datasets.settings import NOT_STATED
from mlprobe_utils.evaluation.metrics import METRICS
from mlprobe_utils.pipeline import artefacts, cards
from mlprobe_utils.pipeline.artefacts import Artefact, read_made_from, relative
from mlprobe_utils.pipeline.cards import DataCard, Protocol, load_data_card, load_protocol, recorded

UNEQUAL = 5  # times as many test images of one class as of another: accuracy is then mostly that of the largest
# what a manifest is made from, of a data card
READ_FIELDS = {"layout", "columns", "leave_out", "accept", "classes", "frame"}
READ_FIELDS |= {"release_counts", "test_counts", "test_fraction"}


def phantom(card: DataCard) -> Artefact:
    """The images of a phantom set, in the layout of the public release."""
    drawn = {"layout": card.layout, "release_counts": card.release_counts, "recipe": card.recipe}
    return Artefact(artefacts.OUTPUTS / "phantoms" / card.slug, "phantom", drawn)


def main_metric(image_sets: Iterable[ImageSet], split_rule: str) -> tuple[str, str]:
    """The metric of pages that name none, and why: accuracy, or balanced accuracy where a data set is very unequal."""
    for image_set in image_sets:
        counts = image_set.rows_of(split_rule, "test")["option"].value_counts()
        if counts.max() >= UNEQUAL * counts.min():
            most, least = (f"{counts[option]} of {option!r}" for option in (counts.index[0], counts.index[-1]))
            return "balanced_accuracy", f"{image_set.card.name} has {most} and {least} among its test images"
    return METRICS[0], ""


def located(card: DataCard, data: str | Path | None) -> Path | None:
    """Where an image set lies: a phantom in outputs/, another in its card's `root` or else in `data`."""
    if card.synthetic:
        return phantom(card).folder
    return artefacts.ROOT / Path(card.root).expanduser() if card.root else Path(data) if data else None


def manifest(card: DataCard, protocol: Protocol, data: Path | None = None) -> Artefact:
    """The manifest of an image set, with its working copies; `data` is where it is `located`."""
    read = recorded(card, {*DataCard.model_fields} - READ_FIELDS)
    inputs = {"card": read, "images": recorded(protocol.images), "splits": recorded(protocol.splits)}
    folder = artefacts.OUTPUTS / protocol.slug / card.slug / "data"
    if card.synthetic:
        return Artefact(folder, "manifest", inputs, (phantom(card),))
    return Artefact(folder, "manifest", inputs | {"source": FileTree(data).fingerprint() if data else None})


def build_manifest(slug: str, protocol_slug: str, data: Path | None) -> Path:
    """Makes the manifest of an image set where it is not current, and returns its folder; `data` as of `manifest`.
    Raises InputError for anything wrong with the cards, the folder, the layout or an image."""
    from mlprobe_utils.datasets.manifest import write_manifest  # which imports what no page needs

    card, protocol = load_data_card(slug), load_protocol(protocol_slug)
    if (images := located(card, data)) is None:
        ways = "with DATA=<folder> (make), --data <folder>, or `root` in its card; data/README.md says what to download"
        mend = f"give its folder {ways}. Or choose phantoms, such as busi-phantom"
        raise InputError(f"{slug} is a real data set, which this project may not distribute: {mend}")
    own = manifest(card, protocol, images)
    own.make(lambda folder: write_manifest(FileTree(images), card, protocol.images, protocol.splits, folder))
    return own.folder


def load_image_set(slug: str, protocol_slug: str) -> ImageSet:
    """Loads what `build_manifest` made. Raises InputError, with the command, where it is missing or a card changed."""
    wanted = manifest(card := load_data_card(slug), load_protocol(protocol_slug))
    folder, data = wanted.folder, "" if card.synthetic or card.root else " --data <folder>"
    command = f"python -m mlprobe_utils manifest {slug} --protocol {protocol_slug}{data}"
    made_from = read_made_from(folder, command)
    if any(made_from[key] != value for key, value in wanted.inputs.items() if key != "source"):
        raise InputError(f"{relative(folder)} was made with another card or protocol: run `{command}`")
    rows, identity, report = _read(folder, artefacts.content_hash(folder))
    return ImageSet(card, rows, hash_of([identity, made_from["images"], card.template]), report, folder)


@cache  # a book's check for what is current comes back to each set again and again
def _read(folder: Path, content: str) -> tuple[pd.DataFrame, dict, dict]:
    """A manifest, its columns that a result depends on, and the report, of a folder with this content."""
    rows = MANIFEST.validate(artefacts.read_rows(folder / "manifest.parquet"))
    identity = rows[["image", "sha256", "label", "option", "split_paper", "split_clean"]].to_dict("list")
    return rows, identity, json.loads((folder / "report.json").read_text())


def propose_card(folder: Path, slug: str | None) -> None:
    """Writes and prints data/datasets/SLUG.yml (None: the folder's name) for a folder of images, if there is none."""
    from mlprobe_utils.datasets.folders import list_images  # which imports what no page needs

    folder = folder.expanduser().resolve()
    slug = slug or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.stem)
    if (path := cards.card_path(DataCard, slug)).exists():
        raise InputError(f"{relative(path)} already exists: edit it, or choose another name with --slug")
    tree = FileTree(folder)
    masks = ["*_mask*"] if any("_mask" in file for file in tree.paths) else []
    table, left_out = list_images(tree, leave_out=masks)
    if table["label"].nunique() < 2:
        raise InputError(f"{folder} holds the class '{table['label'].iloc[0]}' alone: add a second class")
    options = {label: label[:1].upper() + label[1:] for label in sorted(table["label"].unique())}
    *others, last = (f"'{option}'" for option in options.values())
    content = {
        "name": folder.stem,
        "root": relative(folder),
        "classes": [{"name": label, "option": option} for label, option in options.items()],
        "template": f"<image> Carefully examine the image. Please answer {', '.join(others)} or {last}.",
        "licence": NOT_STATED,
    }
    found = {
        "images": _counted(table["label"]),
        "splits": _counted(table["split"]) or "none given, will be drawn",
        "patients": table["patient"].nunique() or "unknown",
        "files left out": sum(left_out.values()),
    }
    text = "".join(f"# {name}: {value}\n" for name, value in found.items())
    text += yaml.safe_dump(content | ({"leave_out": masks} if masks else {}), allow_unicode=True, sort_keys=False)
    cards.write_card(DataCard, path, text)
    print(text)


def _counted(values: pd.Series) -> str:
    return ", ".join(f"{value} {count}" for value, count in values.value_counts().sort_index().items())
