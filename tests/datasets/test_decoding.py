"""Images: how files are decoded and which are refused; what duplicate groups join and keep apart."""

import hashlib
import warnings
import zlib

import numpy as np
import pandas as pd
import pytest
from made_releases import encoded, image_bytes, picture
from PIL import Image, ImageEnhance

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets import components
from mlprobe_utils.datasets.components import duplicate_groups
from mlprobe_utils.datasets.decoding import decode
from mlprobe_utils.datasets.settings import Images

KEPT = Images(decode_limit=10_000, max_pixels=10_000)
LARGE = Images(decode_limit=100_000, max_pixels=100_000)
SQUARE = Images(decode_limit=10_000, max_pixels=4096, square_side=16)


def pixels_of(image: Image.Image, settings: Images = KEPT, **options) -> np.ndarray:
    return decode(encoded(image, **options), "x.png", settings)[2]


def test_what_is_recorded():
    data = image_bytes(1, "JPEG")
    facts, thumbnail, pixels = decode(data, "a/liar.PNG", KEPT)  # a JPEG named .png
    assert len(facts.pop("perceptual_hash")) == 64
    expected = {"width": 48, "height": 40, "mode": "RGB", "format": "JPEG", "extension": ".png", "bytes": len(data)}
    assert facts == expected | {"sha256": hashlib.sha256(data).hexdigest()}
    assert (thumbnail.shape, pixels.shape, pixels.dtype) == ((32, 32), (40, 48, 3), np.uint8)


def test_every_mode_shows_its_picture_sixteen_bits_keep_their_range_and_transparent_pixels_are_black():
    for mode in ("L", "RGB", "RGBA", "1", "P", "LA"):
        image = picture(2, mode=mode)
        facts, _, pixels = decode(encoded(image), "x.png", KEPT)
        assert facts["mode"] == mode
        assert np.array_equal(pixels, np.asarray(image.convert("RGB")))
    ramp = np.linspace(0, 65535, 40 * 48).reshape(40, 48).astype(np.uint16)
    assert np.array_equal(pixels_of(Image.fromarray(ramp))[..., 0], ramp // 257)
    hidden = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    hidden.putpixel((0, 0), (200, 100, 50, 255))
    pixels = pixels_of(hidden)
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert pixels[1:].max() == 0
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 255, 255, 0, 0, 0])
    assert pixels_of(palette, transparency=0).max() == 0


@pytest.mark.parametrize(
    ("size", "settings", "shape"),
    [
        ((8, 4), SQUARE, (16, 16, 3)),
        ((99, 7), Images(decode_limit=10_000, max_pixels=100), (2, 37, 3)),
        ((30, 20), Images(decode_limit=10_000, max_pixels=600), (20, 30, 3)),
    ],
)
def test_the_size_of_the_working_copy_which_is_not_aliased(size, settings, shape):
    assert pixels_of(picture(3, size=size), settings).shape == shape
    stripes = np.zeros((96, 96), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert abs(pixels_of(Image.fromarray(stripes), SQUARE).astype(int) - 127).max() < 20


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8))
CUT = [encoded(NOISE, kind)[:length] for kind in ("PNG", "JPEG") for length in (1000, 3000)]


@pytest.mark.parametrize("data", [*CUT, b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n", encoded(picture(1), "BMP")])
def test_a_cut_file_and_what_is_no_image_are_refused(data):
    words = "cut short or damaged" if data in CUT else "(cut short or damaged|not a readable PNG or JPEG image)"
    with pytest.raises(InputError, match=rf"a/x\.png is {words}: download it again"):
        decode(data, "a/x.png", KEPT)


@pytest.mark.parametrize("side", [101, 10_000, 30_000])
def test_too_large_an_image_is_refused_by_its_header(side):
    header = bytearray(encoded(Image.new("1", (8, 8))))
    header[16:24] = side.to_bytes(4, "big") * 2  # IHDR; its checksum is put right
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=r"a/x\.png .*decode_limit"):
            decode(bytes(header), "a/x.png", KEPT)


def groups_of(files: dict[str, bytes]) -> dict[str, str | None]:
    facts, thumbnails, _ = zip(*(decode(data, f"{name}.png", LARGE) for name, data in files.items()), strict=True)
    groups = duplicate_groups(pd.DataFrame(facts).assign(image=[*files]), np.stack(thumbnails))
    return dict(zip(files, groups.where(groups.notna(), None), strict=True))


def test_copies_are_joined_and_pictures_kept_apart():
    original = picture(0, size=(160, 120))
    files = {f"other{i}": image_bytes(100 + i, size=(160, 120)) for i in range(20)}
    files |= {
        "a": encoded(original),
        "b_same_bytes": encoded(original),
        "c_jpeg": encoded(original, "JPEG", quality=60),
        "d_smaller": encoded(original.resize((90, 64))),
        "e_brighter": encoded(ImageEnhance.Brightness(original).enhance(1.1)),
        "f_paler": encoded(ImageEnhance.Contrast(original).enhance(0.7)),
    }
    groups = groups_of(files)
    assert {groups[name] for name in files if not name.startswith("other")} == {"d001"}
    assert {groups[name] for name in files if name.startswith("other")} == {None}
    blank = encoded(Image.new("L", (20, 20)))  # whose bytes alone are alike
    assert groups_of({"a": blank, "b": blank}) == {"a": "d001", "b": "d001"}
    assert groups_of({"a": blank}) == {"a": None}


def test_group_names_do_not_depend_on_the_order(monkeypatch):
    monkeypatch.setattr(components, "BLOCK", 5)  # the last block holds one image
    files = {f"{i:02d}": image_bytes(i // 2 if i < 8 else i) for i in range(16)}
    expected = groups_of(files)
    assert [expected[f"{i:02d}"] for i in range(9)] == [f"d00{i // 2 + 1}" for i in range(8)] + [None]
    for seed in range(3):
        names = np.random.default_rng(seed).permutation(sorted(files))
        assert groups_of({name: files[name] for name in names}) == expected


def test_images_that_share_an_anatomy_are_kept_apart():
    rng = np.random.default_rng(0)
    anatomy, *own = (np.asarray(picture(seed, size=(64, 64), mode="L"), float) for seed in (0, *range(1000, 1060)))
    mixed = [0.85 * anatomy + 0.15 * one + rng.normal(0, 5, (64, 64)) for one in own]
    files = {f"{i:02d}": encoded(Image.fromarray(one.clip(0, 255).astype(np.uint8))) for i, one in enumerate(mixed)}
    assert set(groups_of(files).values()) == {None}
