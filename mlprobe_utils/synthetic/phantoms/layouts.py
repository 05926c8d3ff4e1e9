"""Where the images of each public release lie, what they are called, and the text files that come with them."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """One image of a release."""

    label: str
    split: str  # "all" where the release has no official split
    number: int  # running number within the class and split, from 0
    overall: int  # running number within the class over all splits, from 1: also the patient's number


def places(counts: dict[str, dict[str, int]]) -> Iterator[Place]:
    """Every image of a release, from `release_counts` of a data card."""
    before: dict[str, int] = {}
    for split, classes in counts.items():
        for label, count in classes.items():
            start = before.get(label, 0)
            for number in range(count):
                yield Place(label, split, number, start + number + 1)
            before[label] = start + count


def image_path(layout: str, place: Place, parameters: dict) -> str:
    """Path of an image in a release, relative to the folder that holds it.

    Args:
        layout: "busi", "covid-ct" or "chest-xray".
        place: which image.
        parameters: as `draw` returned them; Chest-Xray's names tell bacterial (focal) from viral (diffuse) pneumonia.
    """
    if layout == "busi":
        return f"Dataset_BUSI_with_GT/{place.label}/{place.label} ({place.overall}).png"
    if layout == "covid-ct":
        return f"Images-processed/CT_{place.label}/{_slice_name(place)}"
    folder = f"chest_xray/{place.split}/{place.label}"
    if place.label == "NORMAL":
        return f"{folder}/IM-{place.overall:04d}-0001.jpeg"
    kind = "virus" if parameters["pattern"] == "diffuse" else "bacteria"
    return f"{folder}/person{place.overall}_{kind}_{place.overall}.jpeg"


def mask_path(image: str) -> str:
    """Path of the lesion mask beside a BUSI image."""
    return image.removesuffix(".png") + "_mask.png"


def text_files(layout: str, all_places: list[Place]) -> dict[str, str]:
    """The release's split lists and metadata, path -> content; empty where a release has none."""
    if layout != "covid-ct":
        return {}
    lists: dict[str, list[str]] = {}
    for place in all_places:
        path = f"Data-split/{place.label}/{place.split}CT_{place.label}.txt"
        lists.setdefault(path, []).append(_slice_name(place))
    files = {path: "".join(f"{name}\n" for name in names) for path, names in lists.items()}
    with_covid = [place for place in all_places if place.label == "COVID"]
    without = [place for place in all_places if place.label == "NonCOVID"]
    patients = [[_slice_name(place), f"Patient {place.overall}"] for place in with_covid]
    crawled = [[i, _slice_name(place), f"phantom_patient_{i}"] for i, place in enumerate(without)]
    return files | {
        "COVID-CT-MetaInfo.csv": _table(["File name", "Patient ID"], patients),
        "NonCOVID-CT-MetaInfo.csv": _table(["", "image name", "patient id"], crawled),
    }


def _slice_name(place: Place) -> str:
    """A name of one form for both classes, each name given once in the release."""
    return f"slice-{2 * place.overall - (place.label == 'COVID'):04d}.png"


def _table(header: list[str], rows: list[list]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()
