"""Decoding: what is recorded, what the working copy is, which files are refused."""

import hashlib
import io
import warnings
import zlib

import numpy as np
import pytest
from made_releases import image_bytes, picture
from PIL import Image

from mlprobe_utils.cards import Images
from mlprobe_utils.datasets.decoding import THUMBNAIL_SIDE, decode
from mlprobe_utils.errors import InputError

KEPT = Images(decode_limit=10_000, max_pixels=10_000)
SQUARE = Images(decode_limit=10_000, max_pixels=4096, square_side=16)


def encoded(image, kind="PNG", **options):
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
    assert decoded.pixels.shape == (40, 48, 3)
    assert decoded.pixels.dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P", "LA"])
def test_every_mode_shows_its_picture(mode):
    image = picture(2, mode=mode)
    decoded = decode(encoded(image), "x.png", KEPT)
    assert decoded.mode == mode
    assert np.array_equal(decoded.pixels, np.asarray(image.convert("RGB")))


def test_sixteen_bit_grey_keeps_its_range():
    ramp = np.linspace(0, 65535, 40 * 48).reshape(40, 48).astype(np.uint16)
    decoded = decode(encoded(Image.fromarray(ramp)), "x.png", KEPT)
    assert decoded.mode == "I;16"
    assert np.array_equal(decoded.pixels[..., 0], ramp // 257)


def test_transparent_pixels_lie_on_black():
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
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_cut_file_is_refused(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises(InputError, match=r"a/x\.png is cut short or damaged: download it again"):
        decode(data[: int(len(data) * share)], "a/x.png", KEPT)


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n", encoded(picture(1), "BMP")])
def test_what_is_no_image_is_refused(data):
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
