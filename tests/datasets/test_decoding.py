"""Images: how files are decoded and which are refused; what duplicate groups join and keep apart."""

import hashlib
import io
import time
import warnings
import zlib

import numpy as np
import pytest
from made_releases import image_bytes, picture
from PIL import Image, ImageEnhance

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.components import duplicate_groups
from mlprobe_utils.datasets.decoding import THUMBNAIL_SIDE, decode
from mlprobe_utils.datasets.settings import Images

KEPT = Images(decode_limit=10_000, max_pixels=10_000)
LARGE = Images(decode_limit=100_000, max_pixels=100_000)
SQUARE = Images(decode_limit=10_000, max_pixels=4096, square_side=16)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_what_is_recorded():
    data = image_bytes(1, "JPEG")
    decoded = decode(data, "a/liar.PNG", KEPT)  # a JPEG named .png
    assert (decoded.width, decoded.height, decoded.mode) == (48, 40, "RGB")
    assert (decoded.format, decoded.extension, decoded.bytes) == ("JPEG", ".png", len(data))
    assert decoded.sha256 == hashlib.sha256(data).hexdigest()
    assert len(decoded.perceptual_hash) == 64
    assert decoded.thumbnail.shape == (THUMBNAIL_SIDE, THUMBNAIL_SIDE)
    assert (decoded.pixels.shape, decoded.pixels.dtype) == ((40, 48, 3), np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P", "LA"])
def test_every_mode_shows_its_picture(mode):
    image = picture(2, mode=mode)
    decoded = decode(encoded(image), "x.png", KEPT)
    assert decoded.mode == mode
    assert np.array_equal(decoded.pixels, np.asarray(image.convert("RGB")))


def test_sixteen_bit_grey_keeps_its_range_and_transparent_pixels_lie_on_black():
    ramp = np.linspace(0, 65535, 40 * 48).reshape(40, 48).astype(np.uint16)
    decoded = decode(encoded(Image.fromarray(ramp)), "x.png", KEPT)
    assert decoded.mode == "I;16"
    assert np.array_equal(decoded.pixels[..., 0], ramp // 257)
    hidden = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    hidden.putpixel((0, 0), (200, 100, 50, 255))
    pixels = decode(encoded(hidden), "x.png", KEPT).pixels
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert pixels[1:].max() == 0
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 255, 255, 0, 0, 0])
    assert decode(encoded(palette, transparency=0), "x.png", KEPT).pixels.max() == 0


@pytest.mark.parametrize(
    ("size", "settings", "shape"),
    [
        ((48, 40), SQUARE, (16, 16, 3)),
        ((8, 4), SQUARE, (16, 16, 3)),
        ((100, 50), Images(decode_limit=10_000, max_pixels=1250), (25, 50, 3)),
        ((99, 7), Images(decode_limit=10_000, max_pixels=100), (2, 37, 3)),
        ((2000, 1), Images(decode_limit=10_000, max_pixels=10), (1, 141, 3)),
        ((30, 20), Images(decode_limit=10_000, max_pixels=600), (20, 30, 3)),
    ],
)
def test_the_size_of_the_working_copy(size, settings, shape):
    assert decode(image_bytes(3, size=size), "x.png", settings).pixels.shape == shape


def test_reducing_does_not_alias():
    stripes = np.zeros((96, 96), dtype=np.uint8)
    stripes[:, ::2] = 255
    pixels = decode(encoded(Image.fromarray(stripes)), "x.png", SQUARE).pixels
    assert abs(pixels.astype(int) - 127).max() < 20


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_cut_file_is_refused_and_what_is_no_image(kind):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for share in (0.3, 0.9):
        with pytest.raises(InputError, match=r"a/x\.png is cut short or damaged: download it again"):
            decode(data[: int(len(data) * share)], "a/x.png", KEPT)
    for data in (b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n", encoded(picture(1), "BMP")):
        with pytest.raises(InputError, match=r"a/x\.png is (not a readable PNG or JPEG|cut short)"):
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
    decoded = [decode(data, f"{name}.png", LARGE) for name, data in files.items()]
    hashes, thumbnails = [d.perceptual_hash for d in decoded], np.stack([d.thumbnail for d in decoded])
    return dict(zip(files, duplicate_groups(list(files), [d.sha256 for d in decoded], hashes, thumbnails), strict=True))


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
    assert all(groups[name] is None for name in files if name.startswith("other"))
    blank = encoded(Image.new("L", (20, 20)))  # whose bytes alone are alike
    assert groups_of({"a": blank, "b": blank}) == {"a": "d001", "b": "d001"}
    assert groups_of({"a": blank}) == {"a": None}


def test_group_names_do_not_depend_on_the_order():
    files = {f"{i:02d}": image_bytes(i // 2 if i < 8 else i) for i in range(16)}
    expected = groups_of(files)
    assert [expected[f"{i:02d}"] for i in range(9)] == [f"d00{i // 2 + 1}" for i in range(8)] + [None]
    for seed in range(3):
        names = np.random.default_rng(seed).permutation(sorted(files))
        assert groups_of({name: files[name] for name in names}) == expected


def test_images_that_share_an_anatomy_are_kept_apart():
    rng = np.random.default_rng(0)
    anatomy = np.asarray(picture(0, size=(64, 64), mode="L"), dtype=float)
    files = {}
    for i in range(60):
        own = np.asarray(picture(1000 + i, size=(64, 64), mode="L"), dtype=float)
        mixed = 0.85 * anatomy + 0.15 * own + rng.normal(0, 5, (64, 64))
        files[f"{i:02d}"] = encoded(Image.fromarray(mixed.clip(0, 255).astype(np.uint8)))
    assert set(groups_of(files).values()) == {None}


@pytest.mark.slow
def test_thousands_of_images_take_seconds():
    rng = np.random.default_rng(0)
    names = [str(i) for i in range(5856)]
    thumbnails = rng.integers(0, 256, (len(names), 32, 32), dtype=np.uint8)
    start = time.time()
    assert duplicate_groups(names, names, [rng.bytes(32).hex() for _ in names], thumbnails) == [None] * len(names)
    assert time.time() - start < 20
