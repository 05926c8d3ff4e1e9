"""DICOM files as Pillow reads others: 8 bits a channel, in the file's own window. Nothing but the picture is taken."""

import numpy as np
from PIL import Image, ImageFile

from mlprobe_utils.common.errors import InputError

EXTRA, DECODERS = "pip install -e .[dicom]", "pip install -e .[dicom-compressed]"
FAR = 1e9  # beyond any stored value: what a window makes of it is an end of its range


class _Reader(ImageFile.StubHandler):
    def open(self, image: ImageFile.StubImageFile) -> None:
        try:
            from pydicom import dcmread
        except ImportError as error:
            raise InputError(f"is a DICOM file, but pydicom is not installed: {EXTRA}") from error
        image.fp.seek(0)
        header = dcmread(image.fp, stop_before_pixels=True)
        if "Rows" not in header:
            modality = header.get("Modality", "unknown")
            raise InputError(f"is a DICOM file without an image (modality {modality}): remove it")
        image._size = header.Columns, header.Rows
        image._mode = "L" if "MONOCHROME" in header.PhotometricInterpretation else "RGB"
        image.n_frames = int(header.get("NumberOfFrames", None) or 1)
        image.info["burned_in"] = header.get("BurnedInAnnotation")

    def load(self, image: ImageFile.StubImageFile) -> Image.Image:
        from pydicom import dcmread
        from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

        image.fp.seek(0)
        dataset = dcmread(image.fp)
        if "PixelData" not in dataset:
            raise InputError("is a DICOM file without pixels: export it again, with its image")
        try:
            stored = pixel_array(dataset, index=image.frame)
        except (NotImplementedError, RuntimeError) as error:
            syntax = dataset.file_meta.TransferSyntaxUID.name
            wrong = f"is a DICOM file compressed as {syntax}, which needs a decoder"
            raise InputError(f"{wrong}: {DECODERS}") from error
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            stored = apply_color_lut(stored, dataset) >> 8
        if image.mode == "RGB":
            return Image.fromarray(stored.astype(np.uint8))
        grey, low, high = _windowed(apply_modality_lut(stored, dataset), dataset)
        grey = np.clip((grey - low) / max(high - low, 1), 0, 1)
        if dataset.PhotometricInterpretation == "MONOCHROME1":  # its lowest value is white
            grey = 1 - grey
        return Image.fromarray(np.round(255 * grey).astype(np.uint8))


class DicomFile(ImageFile.StubImageFile):
    """A DICOM file of which only the header is read; `info` holds `burned_in`, its BurnedInAnnotation or None."""

    format, format_description = "DICOM", "Digital Imaging and Communications in Medicine"
    _handler, frame = _Reader(), 0

    def _open(self) -> None:
        if self.fp.read(132)[128:] != b"DICM":
            raise SyntaxError("not a DICOM file")

    def seek(self, frame: int) -> None:
        self.frame = frame


def _windowed(values: np.ndarray, dataset) -> tuple[np.ndarray, float, float]:
    """The values as the file's first window shows them, and the ends of their range; without a window, their own."""
    from pydicom.pixels import apply_voi_lut, apply_windowing

    if "WindowWidth" in dataset:
        shown = apply_windowing(np.append(values.astype(float), [-FAR, FAR]), dataset)
        return shown[:-2].reshape(values.shape), *shown[-2:]
    if "VOILUTSequence" in dataset:
        return apply_voi_lut(values, dataset), 0, 2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1
    return values, values.min(), values.max()


Image.register_open(DicomFile.format, DicomFile)
