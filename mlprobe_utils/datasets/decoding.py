"""From the bytes of an image file to what the manifest records of it and to the working copy that models see."""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

import imagehash
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import hash_of
from mlprobe_utils.datasets.dicom import DicomFile
from mlprobe_utils.datasets.settings import Images

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", DicomFile.format)
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".dcm")
LEVELS = (255, 4095, 65535)  # the largest value of 8, 12 and 16 bits
HASH_SIDE = 16  # 16 x 16 = 256 bits: 64 bits do not tell one chest film from another (see components.py)
THUMBNAIL_SIDE = 32  # pixels
MOST_TIMES = 200  # the other side's length: processors of Qwen's and Hulu-Med's models refuse a longer image
SAVE = "save it again, as PNG without metadata"
MEND = f"download it again, or {SAVE}"


def decode(data: bytes, name: str, settings: Images, frame: int = 0) -> tuple[dict, np.ndarray, np.ndarray]:
    """What the manifest records of an image file, its thumbnail (grey, uint8 [side, side]) and its working copy (RGB,
    uint8 [height, width, 3]). Thumbnail and perceptual hash are of the unreduced picture, whatever the protocol."""
    image = open_image(data, name, settings.decode_limit, frame)
    facts = {"width": image.width, "height": image.height, "mode": image.mode, "format": image.format}
    facts |= {"frames": getattr(image, "n_frames", 1), "burned_in": image.info.get("burned_in")}
    facts |= {"extension": PurePosixPath(name).suffix.lower(), "sha256": hash_of(data), "bytes": len(data)}
    picture = read_rgb(image, name)
    facts |= {"levels": levels(image), "perceptual_hash": str(imagehash.phash(picture, hash_size=HASH_SIDE))}
    thumbnail = picture.convert("L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC)
    pixels = working_copy(picture, settings)
    check_sides(pixels.size, name)
    return facts, np.asarray(thumbnail), np.asarray(pixels)


def open_image(data: bytes, name: str, decode_limit: int, frame: int = 0) -> Image.Image:
    """Reads the header of an image or of a frame. InputError for none of FORMATS, no such frame, too many pixels."""
    if not data:
        raise InputError(f"{name} is empty, 0 bytes: download it again")
    with _decoding(name, f"is not a readable image of {', '.join(FORMATS)}"):
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError as error:
            limits = f"decode_limit ({decode_limit} pixels) or Pillow's own limit"
            raise InputError(f"is larger than {limits}: reduce the image ({error})") from error
        if frame >= (frames := getattr(image, "n_frames", 1)):
            raise InputError(f"has {frames} frames, but no number {frame}, which the data card names")
        if frame:
            image.seek(frame)
    pixels = image.width * image.height
    if pixels > decode_limit:
        found = f"{name} has {image.width} x {image.height} = {pixels} pixels"
        limit = f"more than the protocol's images.decode_limit of {decode_limit}"
        raise InputError(f"{found}, {limit}: reduce the image or raise the limit")
    return image


def check_sides(size: tuple[int, int], name: str) -> None:
    if max(size) > MOST_TIMES * min(size):
        found = f"{name} is {size[0]} x {size[1]} pixels, with one side more than {MOST_TIMES} times the other"
        raise InputError(f"{found}, which models refuse: crop it, or leave it out (leave_out)")


def read_rgb(image: Image.Image, name: str) -> Image.Image:
    """Decodes an opened image (`to_rgb`). Raises InputError for one that is cut short, damaged or of fractions."""
    with _decoding(name, "is truncated or damaged"):
        image.load()
        return to_rgb(image)


@contextmanager
def _decoding(name: str, words: str) -> Iterator[None]:
    """Whatever a decoder raises (a wrong byte may lead anywhere) becomes an InputError; warnings are dropped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except InputError as error:
            raise InputError(f"{name} {error}") from error
        except Exception as error:
            cause = "" if isinstance(error, UnidentifiedImageError) else f" ({error or type(error).__name__})"
            raise InputError(f"{name} {words}{cause}: {MEND}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture as 8-bit RGB, as a viewer shows it: 16-bit grey keeps its range, `levels` (PIL alone would clip it),
    and transparent pixels become black, the background of CT, ultrasound and X-ray."""
    try:
        image = ImageOps.exif_transpose(image)
    except Exception as error:  # it writes the EXIF data anew, and raises whatever comes of a broken entry
        raise InputError(f"has EXIF data that cannot be read ({error}): {SAVE}") from error
    if image.mode == "F":
        raise InputError("holds fractions of unknown range: convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64) * LEVELS[0] // levels(image)
        return Image.fromarray(grey.clip(0, LEVELS[0]).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image.convert("RGB")


def levels(image: Image.Image) -> int:
    """Which of LEVELS is white: 12-bit values in a 16-bit file have their own range."""
    if not image.mode.startswith("I"):
        return LEVELS[0]
    most = np.asarray(image).max()
    return next((own for own in LEVELS if most <= own), LEVELS[-1])


def working_copy(picture: Image.Image, settings: Images) -> Image.Image:
    """The picture in the size that models see: a square, or reduced to `max_pixels` with its aspect kept."""
    size = (settings.square_side, settings.square_side)
    if settings.square_side is None:
        factor = min(1.0, math.sqrt(settings.max_pixels / (picture.width * picture.height)))
        size = (max(1, int(picture.width * factor)), max(1, int(picture.height * factor)))
    # PIL's bicubic filter widens with the reduction, so it does not alias
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)
