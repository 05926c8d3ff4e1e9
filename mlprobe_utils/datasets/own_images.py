"""Images as people have them: folders of classes, or lists of pictures; splits are drawn where none are given."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import hash_of
from mlprobe_utils.common.settings import paper
from mlprobe_utils.datasets import decoding, settings
from mlprobe_utils.datasets.components import components
from mlprobe_utils.datasets.file_tree import FileTree, check_names
from mlprobe_utils.datasets.folders import SPLIT_NAMES, check_images, list_images
from mlprobe_utils.datasets.splits import complete_splits

COLUMNS = ["image", "label", "split", "patient"]


@dataclass(frozen=True)
class _Picture:
    rgb: Callable[[], Image.Image]  # decodes it
    sha256: str
    size: tuple[int, int]  # height and width


class Images(Sequence):
    """Images with labels and splits: `images[i]` is uint8 [height, width, 3], RGB, decoded when it is needed.

    Attributes:
        table: one row per image: image (its name), label, split (train, validation or test), patient (null: unknown).
        clusters: int [images]; those of one patient, or of the very same file, have the same number.
        split_drawn: a sentence that says where the splits come from.
        data_hash: of all pictures.
    """

    def __init__(self, pictures: list[_Picture], table: pd.DataFrame, split_drawn: str):
        self._pictures, self.table, self.split_drawn = pictures, table[COLUMNS], split_drawn
        self.clusters = components(table)
        self.data_hash = hash_of([picture.sha256 for picture in pictures])

    @property
    def names(self) -> list[str]:
        return self.table["image"].tolist()

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each picture as it is stored, pixels."""
        return [picture.size for picture in self._pictures]

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, place):
        if isinstance(place, slice):
            return [self[own] for own in range(*place.indices(len(self)))]
        return np.array(self._pictures[place].rgb())  # a copy: torch warns of arrays that are not writable

    def rows(self, *splits: str) -> pd.DataFrame:
        """image, label, split and cluster of the images of some splits; the index is their place."""
        rows = self.table[["image", "label", "split"]].assign(cluster=self.clusters)
        return rows[rows["split"].isin(splits)]


def image_folder(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    leave_out: str | Collection[str] = (),
    accept: Collection[str] = (),
    seed: int = 0,
    validation_fraction: float | None = None,
    test_fraction: float = 0.2,
) -> Images:
    """Loads the images of a folder or zip: `<class>/*`, `<split>/<class>/*`, or any files with a table.

    >>> images = mp.image_folder(folder)
    >>> images.split_drawn
    'test: drawn, 0.2 of 24 images; validation: drawn, 0.15 of 19 images; by label, patients and copies whole, seed 0'

    Splits are called train, val (or valid, validation) and test. A table is a `metadata.csv`, `.jsonl` or `.parquet`
    with the columns file_name and, if known, label, split and patient. MedMNIST's `.npz` files are read as folders.
    A missing test split is drawn, and so is validation, from train.

    Args:
        columns: the table's names for these columns, such as {"label": "diagnosis"}.
        leave_out: pattern or patterns of files to ignore, such as "*_mask*".
        accept: "patients" in several labels or splits, and "copies" (files with equal bytes); otherwise refused.
        validation_fraction: share of the train images; None: as in the protocol `paper`.
        test_fraction: share of all images.

    Raises InputError for a folder that is missing or empty, files of none of `decoding.FORMATS` (hidden ones do not
    count) or outside of a class or split, a table that does not fit the files, a label without an image in a split,
    too few images.
    """
    tree = FileTree(Path(path))
    table, _ = list_images(tree, columns, [leave_out] if isinstance(leave_out, str) else leave_out)
    pictures = [_of_file(partial(tree.read, file), tree.source(file)) for file in table["image"]]
    return _images(pictures, table, accept, seed, validation_fraction, test_fraction)


def image_list(
    pictures: Sequence[str | Path | Image.Image | np.ndarray],
    labels: Sequence[str] | None = None,
    *,
    patients: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    accept: Collection[str] = ("copies",),
    seed: int = 0,
    validation_fraction: float | None = None,
    test_fraction: float = 0.2,
) -> Images:
    """Loads images from paths, PIL images, or arrays, uint8 [height, width, 3] or [height, width].

    >>> images = mp.image_list([np.zeros((8, 8), np.uint8), np.ones((9, 8, 3), np.uint8)])
    >>> images[0].shape
    (8, 8, 3)

    `labels`, `patients`, `splits` and `names` have one entry per image. Without labels all are test images; without
    names they have those of their files, or numbers. The other arguments and errors are those of `image_folder`. Raises
    InputError also for an array of another type or shape, columns of another length, and a name that occurs twice.
    """
    if not (count := len(pictures)):
        raise InputError("there are no images: give one or more")
    if names is None:
        paths = [Path(own) if isinstance(own, str | Path) else None for own in pictures]
        check_names(filter(None, paths))
        names = [path.name if path else f"{n:05d}" for n, path in enumerate(paths)]
        if len({*names}) < count:
            names = [str(own) if path else name for own, path, name in zip(pictures, paths, names, strict=True)]
    columns = dict(zip(COLUMNS, (names, labels, splits, patients), strict=True))
    for name, own in columns.items():
        if own is not None and len(own) != count:
            raise InputError(f"{count} images, but {len(own)} of `{name}`: give one per image")
    found = [_picture(own, str(name)) for own, name in zip(pictures, names, strict=True)]
    table = pd.DataFrame(columns, dtype=object).map(str, na_action="ignore").astype(object)
    return _images(found, table, accept, seed, validation_fraction, test_fraction)


def _picture(given: str | Path | Image.Image | np.ndarray, name: str) -> _Picture:
    if isinstance(given, str | Path):
        if not Path(given).is_file():
            raise InputError(f"there is no image {given}: correct the path")
        return _of_file(Path(given).read_bytes, str(given))
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or not (given.ndim == 2 or (given.ndim == 3 and given.shape[2] == 3)):
            raise InputError(f"image {name} is {given.dtype} {list(given.shape)}, expected uint8 [height, width(, 3)]")
        given = Image.fromarray(given)
    picture = decoding.read_rgb(given, f"image {name}")
    decoding.check_sides(picture.size, f"image {name}")
    return _Picture(picture.copy, hash_of(bytes(str(picture.size), "ascii") + picture.tobytes()), picture.size[::-1])


def _of_file(read: Callable[[], bytes], name: str) -> _Picture:
    limit, data = paper(settings.Images, "images").decode_limit, read()
    width, height = decoding.open_image(data, name, limit).size
    decoding.check_sides((width, height), name)
    decoded = lambda: decoding.read_rgb(decoding.open_image(read(), name, limit), name)  # noqa: E731
    return _Picture(decoded, hash_of(data), (height, width))


def _images(
    pictures: list[_Picture],
    table: pd.DataFrame,
    accept: Collection[str],
    seed: int,
    validation: float | None,
    test: float,
) -> Images:
    """Checks names and labels, and draws the splits that are not given."""
    table["duplicate_group"] = table["sha256"] = [picture.sha256 for picture in pictures]
    if (twice := table["image"].duplicated()).any():
        raise InputError(f"two images are named {table['image'][twice].iloc[0]}: give each a name of its own")
    if table["label"].isna().all():
        return Images(pictures, table.assign(split="test"), "no labels: all are test images")
    if (missing := table["label"].isna()).any():
        raise InputError(f"image {table['image'][missing].iloc[0]} has no label: give it one")
    if table["label"].nunique() == 1:
        raise InputError(f"all images have the label {table['label'].iloc[0]!r}: probes need two labels or more")
    table["split"] = table["split"].map(lambda name: SPLIT_NAMES.get(name.casefold(), name), na_action="ignore")
    check_images(table, accept)
    validation = validation or paper(settings.Splits, "splits").validation_fraction
    table["split"], words = complete_splits(table, test, validation, seed)
    return Images(pictures, table, words)
