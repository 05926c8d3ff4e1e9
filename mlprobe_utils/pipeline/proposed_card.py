"""A data card for a folder of images, proposed from what lies in it."""

import re
from pathlib import Path

import pandas as pd
import yaml

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.folders import list_images
from mlprobe_utils.datasets.settings import NOT_STATED
from mlprobe_utils.pipeline.artefacts import relative
from mlprobe_utils.pipeline.cards import DataCard, card_path, write_card

MASKS = "*_mask*"


def propose_card(folder: Path, slug: str | None) -> str:
    """Writes data/datasets/SLUG.yml (None: the folder's name) for the images of a folder, and returns its text. Raises
    InputError for a card that is there already, and for a folder or names of classes that no card can describe."""
    folder = folder.expanduser().resolve()
    slug = slug or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.stem)
    if (path := card_path(DataCard, slug)).exists():
        raise InputError(f"{relative(path)} is there already: edit it, or choose another name with --slug")
    tree = FileTree(folder)
    masks = [MASKS] if any("_mask" in file for file in tree.paths) else []
    table, left_out = list_images(tree, leave_out=masks)
    if table["label"].nunique() < 2:
        raise InputError(f"{folder} holds the class '{table['label'].iloc[0]}' alone: add another one to tell it from")
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
        "splits": _counted(table["split"]) or "none given, they will be drawn",
        "patients": table["patient"].nunique() or "not known",
        "files left out": sum(left_out.values()),
    }
    text = "".join(f"# {name}: {value}\n" for name, value in found.items())
    text += yaml.safe_dump(content | ({"leave_out": masks} if masks else {}), allow_unicode=True, sort_keys=False)
    write_card(DataCard, path, text)
    return text


def _counted(values: pd.Series) -> str:
    return ", ".join(f"{value} {count}" for value, count in values.value_counts().sort_index().items())
