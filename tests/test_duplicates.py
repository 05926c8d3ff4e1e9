"""Duplicate groups: what they join, what they keep apart."""

import io
import time

import numpy as np
from made_releases import image_bytes, picture
from PIL import Image, ImageEnhance

from mlprobe_utils.cards import Images
from mlprobe_utils.datasets.decoding import decode
from mlprobe_utils.datasets.duplicates import duplicate_groups

SETTINGS = Images(decode_limit=100_000, max_pixels=100_000)


def groups_of(files: dict[str, bytes]) -> dict[str, str | None]:
    decoded = [decode(data, f"{name}.png", SETTINGS) for name, data in files.items()]
    hashes, thumbnails = [d.perceptual_hash for d in decoded], np.stack([d.thumbnail for d in decoded])
    return dict(zip(files, duplicate_groups(list(files), [d.sha256 for d in decoded], hashes, thumbnails), strict=True))


def saved(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_copies_are_joined_and_pictures_kept_apart():
    original = picture(0, size=(160, 120))
    files = {f"other{i}": image_bytes(100 + i, size=(160, 120)) for i in range(20)}
    files |= {
        "a": saved(original),
        "b_same_bytes": saved(original),
        "c_jpeg": saved(original, "JPEG", quality=60),
        "d_smaller": saved(original.resize((90, 64))),
        "e_brighter": saved(ImageEnhance.Brightness(original).enhance(1.1)),
        "f_paler": saved(ImageEnhance.Contrast(original).enhance(0.7)),
    }
    groups = groups_of(files)
    assert {groups[name] for name in files if not name.startswith("other")} == {"d001"}
    assert all(groups[name] is None for name in files if name.startswith("other"))


def test_group_names_do_not_depend_on_the_order():
    files = {f"{i:02d}": image_bytes(i // 2 if i < 8 else i) for i in range(16)}
    expected = groups_of(files)
    assert [expected[f"{i:02d}"] for i in range(9)] == [f"d00{i // 2 + 1}" for i in range(8)] + [None]
    for seed in range(3):
        names = np.random.default_rng(seed).permutation(sorted(files))
        assert groups_of({name: files[name] for name in names}) == expected


def test_byte_identical_images_are_joined_whatever_they_show():
    blank = saved(Image.new("L", (20, 20)))
    assert groups_of({"a": blank, "b": blank}) == {"a": "d001", "b": "d001"}
    assert groups_of({"a": blank}) == {"a": None}


def test_images_that_share_an_anatomy_are_kept_apart():
    rng = np.random.default_rng(0)
    anatomy = np.asarray(picture(0, size=(64, 64), mode="L"), dtype=float)
    files = {}
    for i in range(60):
        own = np.asarray(picture(1000 + i, size=(64, 64), mode="L"), dtype=float)
        mixed = 0.85 * anatomy + 0.15 * own + rng.normal(0, 5, (64, 64))
        files[f"{i:02d}"] = saved(Image.fromarray(mixed.clip(0, 255).astype(np.uint8)))
    assert set(groups_of(files).values()) == {None}


def test_thousands_of_images_take_seconds():
    count = 5856
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(count)]
    thumbnails = rng.integers(0, 256, (count, 32, 32), dtype=np.uint8)
    start = time.time()
    groups = duplicate_groups(names, names, [rng.bytes(32).hex() for _ in names], thumbnails)
    assert groups == [None] * count
    assert time.time() - start < 20
