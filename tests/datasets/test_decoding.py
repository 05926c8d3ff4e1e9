"""Images: how files are decoded and which are refused; what duplicate groups join and keep apart."""

import hashlib
import io
import os
import random
import resource
import warnings
import zipfile
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_releases import encoded, image_bytes, picture
from PIL import Image, ImageEnhance
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, SecondaryCaptureImageStorage

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets import components
from mlprobe_utils.datasets.decoding import MOST_TIMES, SUFFIXES, decode
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.datasets.settings import Images

KEPT = Images(decode_limit=10_000, max_pixels=10_000)
LARGE = Images(decode_limit=100_000, max_pixels=100_000)
REAL = Images(decode_limit=10**7, max_pixels=10**7)
SQUARE = Images(decode_limit=10_000, max_pixels=4096, square_side=16)


def pixels_of(image: Image.Image, settings: Images = KEPT, **options) -> np.ndarray:
    return decode(encoded(image, **options), "x.png", settings)[2]


def test_what_is_recorded():
    data = image_bytes(1, "JPEG")
    facts, thumbnail, pixels = decode(data, "a/liar.PNG", KEPT)  # a JPEG named .png
    assert len(facts.pop("perceptual_hash")) == 64
    expected = {"width": 48, "height": 40, "mode": "RGB", "format": "JPEG", "extension": ".png", "bytes": len(data)}
    expected |= {"frames": 1, "levels": 255, "burned_in": None}
    assert facts == expected | {"sha256": hashlib.sha256(data).hexdigest()}
    assert (thumbnail.shape, pixels.shape, pixels.dtype) == ((32, 32), (40, 48, 3), np.uint8)


def test_every_mode_and_format_shows_its_picture_sixteen_bits_keep_their_range_and_transparent_pixels_are_black():
    for mode in ("L", "RGB", "RGBA", "1", "P", "LA"):
        image = picture(2, mode=mode)
        facts, _, pixels = decode(encoded(image), "x.png", KEPT)
        assert facts["mode"] == mode
        assert np.array_equal(pixels, np.asarray(image.convert("RGB")))
    for kind, options in {"TIFF": {}, "BMP": {}, "WEBP": {"lossless": True}}.items():
        assert np.array_equal(pixels_of(picture(2), kind=kind, **options), np.asarray(picture(2)))
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
        ((2 * MOST_TIMES, 2), KEPT, (2, 2 * MOST_TIMES, 3)),  # no longer is any
    ],
)
def test_the_size_of_the_working_copy_which_is_not_aliased(size, settings, shape):
    assert pixels_of(picture(3, size=size), settings).shape == shape
    stripes = np.zeros((96, 96), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert abs(pixels_of(Image.fromarray(stripes), SQUARE).astype(int) - 127).max() < 20


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8))
CUT = [encoded(NOISE, kind)[:length] for kind in ("PNG", "JPEG") for length in (1000, 3000)]

NONE = [b"", b"<html>404</html>", b"\x89PNG\r\n\x1a\n", encoded(picture(1), "GIF")]
DAMAGED = r"truncated or damaged \(.*\)"
BROKEN_EXIF = b"Exif\0\0MM\0*" + bytes.fromhex("00000008000201120003000000010006000001170007000000010000000000000000")
TEXT = PngInfo()
TEXT.add_text("notes", "x" * 2_000_000, zip=True)
SAVE = "save it again, as PNG without metadata"


def header_of(side: int) -> bytes:
    """A PNG that claims to be a square of this side."""
    header = bytearray(encoded(Image.new("1", (8, 8))))
    header[16:24] = side.to_bytes(4, "big") * 2  # IHDR; its checksum is put right
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    return bytes(header)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        *((cut, f"is {DAMAGED}: download it again") for cut in CUT),
        *((none, f"is ({DAMAGED}|empty, 0 bytes|not a readable image of PNG, .*): download it again") for none in NONE),
        (encoded(NOISE, "JPEG", exif=BROKEN_EXIF), f"has EXIF data that cannot be read.*{SAVE}"),
        (encoded(NOISE, "PNG", pnginfo=TEXT), f"is not a readable image.*{SAVE}"),
        (encoded(picture(1, size=(2, 2 * MOST_TIMES + 1))), "is 2 x 401 pixels, .*200 times .*: crop it"),
        *((header_of(side), ".*decode_limit") for side in (101, 10_000, 30_000)),
    ],
)
def test_what_is_refused_is_named_with_the_mend(data, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=rf"a/x\.png {words}"):
            decode(data, "a/x.png", KEPT)


def groups_of(files: dict[str, bytes]) -> dict[str, str | None]:
    facts, thumbnails, _ = zip(*(decode(data, f"{name}.png", LARGE) for name, data in files.items()), strict=True)
    groups = components.duplicate_groups(pd.DataFrame(facts).assign(image=[*files]), np.stack(thumbnails))
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


def dicom(stored: np.ndarray, photometric: str = "MONOCHROME2", syntax: str = ExplicitVRLittleEndian, **tags) -> bytes:
    """A DICOM file of a grey picture [height, width], of several frames, or of RGB."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.PatientName, data.PatientID, data.Modality = "Doe^Jane", "4711", "CT"
    data.set_pixel_data(stored, photometric, stored.dtype.itemsize * 8)
    data.file_meta.TransferSyntaxUID, data.file_meta.MediaStorageSOPInstanceUID = syntax, data.SOPInstanceUID
    for name, value in tags.items():
        setattr(data, name, value) if value is not None else delattr(data, name)
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


RAMP = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48) * 2  # 12 bits


def shown(stored: np.ndarray, low: float, high: float) -> np.ndarray:
    return 255 * np.clip((stored.astype(float) - low) / (high - low), 0, 1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (dicom(RAMP), shown(RAMP, 0, RAMP.max())),
        # DICOM PS3.3, C.11.2.1.2.1: the window's centre lies half a step below
        (dicom(RAMP, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400),
         shown(2 * RAMP.astype(int) - 1024, 39.5 - 199.5, 39.5 + 199.5)),
        (dicom(RAMP, "MONOCHROME1"), 255 - shown(RAMP, 0, RAMP.max())),
        (dicom(np.stack([RAMP, RAMP[::-1]])), shown(RAMP, 0, RAMP.max())),
        (dicom(np.stack([RAMP % 256] * 3, axis=-1).astype(np.uint8), "RGB"), RAMP % 256),
    ],
    ids=["own range", "window", "inverted", "first frame", "colour"],
)  # fmt: skip
def test_dicom_is_shown_as_its_window_says(data, expected):
    facts, _, pixels = decode(data, "x.dcm", KEPT)
    assert np.abs(pixels[..., 0] - expected).max() <= 0.5 + 1e-6
    assert (facts["format"], facts["burned_in"]) == ("DICOM", None)


def test_a_chosen_frame_is_read_and_nothing_of_the_patient_is_kept():
    data = dicom(np.stack([RAMP, RAMP[::-1]]), BurnedInAnnotation="YES")
    facts, _, pixels = decode(data, "x.dcm", KEPT, frame=1)
    assert pixels[0, 0, 0] > pixels[-1, 0, 0]
    assert (facts["frames"], facts["burned_in"]) == (2, "YES")
    assert not any(word in str(facts) for word in ("Doe", "4711"))
    with pytest.raises(InputError, match=r"x.dcm has 2 frames, but no number 2"):
        decode(data, "x.dcm", KEPT, frame=2)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (dicom(RAMP, PixelData=None), "x.dcm is a DICOM file without pixels"),
        (dicom(RAMP, Rows=None), r"x.dcm is a DICOM file without an image \(modality CT\)"),
        (dicom(RAMP, syntax=JPEG2000Lossless, PixelData=encapsulate([b"some"])), "as JPEG 2000 .*dicom-compr"),
    ],
)
def test_dicom_files_of_no_use_say_why(data, said):
    with pytest.raises(InputError, match=said):
        decode(data, "x.dcm", KEPT)


def test_twelve_bits_in_a_file_of_sixteen_keep_their_range():
    facts, _, pixels = decode(encoded(Image.fromarray(RAMP)), "x.png", KEPT)
    assert facts["levels"] == 4095
    assert np.array_equal(pixels[..., 0], RAMP.astype(int) * 255 // 4095)
    with pytest.raises(InputError, match=r"x.tif holds fractions of unknown range: convert it"):
        decode(encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"), "x.tif", KEPT)


@cache
def whole() -> list[tuple[str, bytes]]:
    """Suffixes and contents of undamaged files of every kind, and of real ones where there are any."""
    (turned := Image.Exif())[0x0112] = 6
    kinds = [*((kind, {"exif": turned}) for kind in ("PNG", "JPEG", "WEBP", "TIFF")), ("BMP", {})]
    kinds += [("TIFF", {"compression": own}) for own in ("tiff_lzw", "tiff_deflate")]
    files = [(kind, encoded(one, kind, **own)) for one in (picture(1, mode="L"), NOISE) for kind, own in kinds]
    files += [("dcm", dicom(RAMP, WindowCenter=40, WindowWidth=400)), ("dcm", dicom(np.stack([RAMP, RAMP])))]
    if real := os.environ.get("REAL_DATA"):
        paths = sorted(path for path in Path(real).rglob("*") if path.suffix in SUFFIXES)
        files += [(path.suffix[1:], path.read_bytes()) for path in paths[:: len(paths) // 9]]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(packed := io.BytesIO(), "w", method) as archive:
            for suffix, data in files[:4]:
                archive.writestr(f"a/b.{suffix}", data)
        files.append(("zip", packed.getvalue()))
    np.savez_compressed(packed := io.BytesIO(), a_images=np.zeros((2, 9, 9), np.uint8), a_labels=np.arange(2))
    return [*files, ("npz", packed.getvalue())]


def damaged(data: bytes, rng: random.Random) -> bytes:
    place = rng.choice([rng.randrange(len(data)), rng.randrange(150), len(data) - 1 - rng.randrange(150)])
    length, header = rng.choice([1, 1, 2, rng.randrange(200)]), rng.choice(whole())[1][: rng.randrange(1, 200)]
    before, some, after = data[:place], rng.randbytes(length), data[place + length :]
    ways = [before, before + some + after, before + bytes(length) + after, before + after, before + some + data[place:]]
    return rng.choice([*ways, data + some, header + data[len(header) :], header, b""])


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(1, 11))])
def test_a_damaged_file_is_read_in_its_size_or_refused_by_its_name(seed, tmp_path):
    rng, refused, before = random.Random(seed), [], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(100):
        kind, data = rng.choice(whole())
        suffix = f".{kind}" if kind in ("zip", "npz") else rng.choice(SUFFIXES)
        (path := tmp_path / str(number) / f"x{suffix}").parent.mkdir()
        path.write_bytes(damaged(data, rng))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                for name in (tree := FileTree(path.parent)).paths:
                    facts, _, pixels = decode(tree.read(name), tree.source(name), REAL)
                    assert sorted(pixels.shape) == sorted([facts["height"], facts["width"], 3])
            except InputError as error:
                refused.append((str(path), str(error)))
    assert all(path in said for path, said in refused)
    assert 40 <= len(refused) < 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**20  # KB
