"""An image set as built: its manifest (one row an image) and its working copies. Reading, not making."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from mlprobe_utils import artefacts
from mlprobe_utils.artefacts import hash_of, read_made_from
from mlprobe_utils.cards import DataCard, Protocol, load_data_card, load_protocol
from mlprobe_utils.errors import InputError, unknown

SPLITS = ("paper", "clean")
PARTS = ("train", "validation", "test", "unused")
OFFICIAL_SPLITS = ("train", "val", "test")
_SIZE = pa.Column("int64", pa.Check.ge(1))
_TEXT = pa.Column(str)
_PART = pa.Column(str, pa.Check.isin(PARTS))
_HEXADECIMAL = pa.Column(str, pa.Check.str_matches(r"^[0-9a-f]{64}$"))
MANIFEST = pa.DataFrameSchema(
    {
        "image": pa.Column(str, unique=True),  # path inside the release, posix
        "label": _TEXT,  # the class as the release names it
        "option": _TEXT,  # the answer the template offers for it
        "official_split": pa.Column(str, pa.Check.isin(OFFICIAL_SPLITS), nullable=True),
        "patient": pa.Column(str, nullable=True),
        "duplicate_group": pa.Column(str, nullable=True),
        "split_paper": _PART,
        "split_clean": _PART,
        "sha256": _HEXADECIMAL,
        "bytes": _SIZE,
        "width": _SIZE,  # as stored in the release, pixels
        "height": _SIZE,
        "mode": _TEXT,  # as PIL names it
        "format": _TEXT,
        "extension": _TEXT,  # of the file's name, which may lie about the format
        "perceptual_hash": _HEXADECIMAL,
        "offset": pa.Column("int64", pa.Check.ge(0)),  # bytes into pixels.bin
        "stored_height": _SIZE,  # of the working copy, pixels
        "stored_width": _SIZE,
    },
    strict=True,
    coerce=True,
)


def manifest_folder(slug: str, protocol_slug: str) -> Path:
    return artefacts.OUTPUTS / protocol_slug / slug / "data"


def manifest_choices(card: DataCard, protocol: Protocol) -> dict:
    """What of the cards a manifest depends on."""
    return {
        "card": card.content_hash,
        "images": protocol.images.model_dump(),
        "splits": protocol.splits.model_dump(),
    }


@dataclass(frozen=True)
class ImageSet:
    """An image set as built: `manifest` has one row an image (schema MANIFEST), `data_hash` says which data it is.

    `data_hash` covers images, labels, both splits, the working copies' settings and the template.
    """

    card: DataCard
    manifest: pd.DataFrame
    data_hash: str
    report: dict
    folder: Path

    def part(self, split: str, part: str) -> pd.DataFrame:
        """The rows of one part (train, validation, test) of a split (paper, clean), with their row position as index.

        Raises:
            InputError: unknown split or part.
        """
        if split not in SPLITS:
            raise unknown("split", split, SPLITS)
        if part not in PARTS[:3]:
            raise unknown("part of a split", part, PARTS[:3])
        return self.manifest[self.manifest[f"split_{split}"] == part]

    def pixels(self, row_position: int) -> np.ndarray:
        """The working copy of the image in that row of the manifest: uint8 [height, width, 3], RGB."""
        offset, height, width = self._places[row_position]
        return np.array(self._pixels[offset : offset + height * width * 3]).reshape(height, width, 3)

    @cached_property
    def _places(self) -> np.ndarray:
        """Offset, height and width of each working copy: a row of the manifest takes many times as long to look up."""
        return self.manifest[["offset", "stored_height", "stored_width"]].to_numpy()

    @cached_property
    def _pixels(self) -> np.ndarray:
        return np.memmap(self.folder / "pixels.bin", dtype=np.uint8, mode="r")


def load_image_set(slug: str, protocol_slug: str) -> ImageSet:
    """Reads what `build_manifest` made.

    Raises:
        InputError: it was not made yet, or a card changed since; the message says the command.
    """
    card, protocol = load_data_card(slug), load_protocol(protocol_slug)
    folder = manifest_folder(slug, protocol_slug)
    command = f"python -m mlprobe_utils.datasets.manifest {slug} --protocol {protocol_slug}"
    command += "" if card.synthetic else " --data <folder>"
    made_from = read_made_from(folder, command)
    if any(made_from[key] != value for key, value in manifest_choices(card, protocol).items()):
        raise InputError(f"{artefacts.relative(folder)} was made from another card or protocol: run `{command}`")
    manifest = MANIFEST.validate(pd.read_parquet(folder / "manifest.parquet"))
    identity = manifest[["image", "sha256", "label", "option", "split_paper", "split_clean"]].to_dict("list")
    data_hash = hash_of([identity, made_from["images"], card.template])
    return ImageSet(card, manifest, data_hash, json.loads((folder / "report.json").read_text()), folder)
