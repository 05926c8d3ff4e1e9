"""Small releases in the layouts of the three real sets, made of random pictures, for the tests of `datasets`."""

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

CHEST_NAMES = {"NORMAL": "IM-{:04d}-0001.jpeg", "PNEUMONIA": "person{}_bacteria_1.jpeg"}


def picture(seed: int, size: tuple[int, int] = (48, 40), mode: str = "RGB") -> Image.Image:
    """A smooth random picture; two seeds give two clearly different ones."""
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def image_bytes(seed: int = 0, kind: str = "PNG", **options) -> bytes:
    return encoded(picture(seed, **options), kind)


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def make_busi(root: Path, counts: dict[str, int] | None = None) -> Path:
    """`Dataset_BUSI_with_GT` with a mask beside every image (two beside the first)."""
    release = root / "Dataset_BUSI_with_GT"
    seed = 0
    for label, count in (counts or {"benign": 4, "malignant": 3, "normal": 2}).items():
        for i in range(1, count + 1):
            write(release / label / f"{label} ({i}).png", image_bytes(seed))
            write(release / label / f"{label} ({i})_mask.png", image_bytes(10_000, mode="1"))
            seed += 1
        write(release / label / f"{label} (1)_mask_1.png", image_bytes(10_001, mode="1"))
    return release


def make_chest_xray(root: Path, per_class: dict[str, int] | None = None) -> Path:
    """`chest_xray` with so many images a class in each split; every one its own patient."""
    release = root / "chest_xray"
    number = 0
    for split, count in (per_class or {"train": 3, "val": 1, "test": 2}).items():
        for label, name in CHEST_NAMES.items():
            for _ in range(count):
                write(release / split / label / name.format(number), image_bytes(20_000 + number, "JPEG", mode="L"))
                number += 1
    return release


def make_covid_ct(root: Path, per_class: dict[str, int] | None = None) -> Path:
    """A `COVID-CT` with `%` in the names of COVID, JPEG in NonCOVID, and two images a patient."""
    release = root / "COVID-CT"
    seed = 30_000
    for label, suffix, kind in (("COVID", ".png", "PNG"), ("NonCOVID", ".jpg", "JPEG")):
        rows = []
        for split, count in (per_class or {"train": 4, "val": 2, "test": 2}).items():
            names = [f"{split}-p{i // 2}%{i}{suffix}" for i in range(count)]
            for i, name in enumerate(names):
                seed += 1
                write(release / "Images-processed" / f"CT_{label}" / name, image_bytes(seed, kind))
                rows.append({"image name": name, "patient id": f"{split} {i // 2}"})
            write(release / "Data-split" / label / f"{split}CT_{label}.txt", "\n".join(names) + "\n")
        write(release / f"{label}-CT-MetaInfo.csv", pd.DataFrame(rows).to_csv())
    return release


def zipped(folder: Path) -> Path:
    """Packs a folder into a zip of its name in place of it, as a release is published."""
    archive = shutil.make_archive(str(folder), "zip", folder.parent, folder.name)
    shutil.rmtree(folder)
    return Path(archive)
