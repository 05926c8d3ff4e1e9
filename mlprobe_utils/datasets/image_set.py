"""An image set as built: its manifest (one row per image) and its working copies."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.datasets.settings import Release
from mlprobe_utils.evaluation.rows import SPLIT_RULES, SPLITS

OFFICIAL_SPLITS = ("train", "val", "test")
_SIZE = pa.Column("int64", pa.Check.ge(1))
_TEXT = pa.Column(str)
_MAYBE = pa.Column(str, nullable=True)
_SPLIT = pa.Column(str, pa.Check.isin(SPLITS))
_HEXADECIMAL = pa.Column(str, pa.Check.str_matches(r"^[0-9a-f]{64}$"))
MANIFEST = pa.DataFrameSchema(
    {
        "image": pa.Column(str, unique=True),  # path inside the release, posix
        "label": _TEXT,  # the class as the release names it
        "option": _TEXT,  # the answer the template offers for it
        "official_split": pa.Column(str, pa.Check.isin(OFFICIAL_SPLITS), nullable=True),
        "patient": _MAYBE,
        "duplicate_group": _MAYBE,
        "split_paper": _SPLIT,
        "split_clean": _SPLIT,
        "sha256": _HEXADECIMAL,
        "bytes": _SIZE,
        "width": _SIZE,  # as stored in the release, pixels
        "height": _SIZE,
        "mode": _TEXT,  # as PIL names it
        "format": _TEXT,
        "extension": _TEXT,  # of the file's name, which may lie about the format
        "perceptual_hash": _HEXADECIMAL,
        "levels": _SIZE,  # the largest value that a grey level of its file can have: 255, 4095 or 65535
        "frames": _SIZE,  # of the file, one of which is used
        "burned_in": _MAYBE,  # of DICOM: whether text is burned into the picture (YES, NO), as far as the file says
        "offset": pa.Column("int64", pa.Check.ge(0)),  # bytes into pixels.bin
        "stored_height": _SIZE,  # of the working copy, pixels
        "stored_width": _SIZE,
    },
    strict=True,
    coerce=True,
)


@dataclass(frozen=True)
class ImageSet:
    """An image set as built; `image_set[i]` is `pixels(i)`."""

    card: Release
    manifest: pd.DataFrame  # one row per image, schema MANIFEST
    data_hash: str  # of images, labels, both splits, the working copies' settings and the template
    report: dict
    folder: Path

    @property
    def names(self) -> list[str]:
        return self.manifest["image"].tolist()

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, row_position: int) -> np.ndarray:
        return self.pixels(row_position)

    def rows_of(self, split_rule: str, split: str) -> pd.DataFrame:
        """The rows of a split by a rule (paper, clean), row position as index. InputError for an unknown one."""
        for what, value, known in (("split rule", split_rule, SPLIT_RULES), ("split", split, SPLITS[:3])):
            if value not in known:
                raise unknown(what, value, known)
        return self.manifest[self.manifest[f"split_{split_rule}"] == split]

    def pixels(self, row_position: int) -> np.ndarray:
        """The working copy of the image in that row of the manifest: uint8 [height, width, 3], RGB."""
        offset, height, width = self._places[row_position]
        return np.array(self._pixels[offset : offset + height * width * 3]).reshape(height, width, 3)

    @cached_property
    def _places(self) -> np.ndarray:
        """Offset, height and width of each working copy: looking up a row of the manifest takes many times as long."""
        return self.manifest[["offset", "stored_height", "stored_width"]].to_numpy()

    @cached_property
    def _pixels(self) -> np.ndarray:
        return np.memmap(self.folder / "pixels.bin", dtype=np.uint8, mode="r")
