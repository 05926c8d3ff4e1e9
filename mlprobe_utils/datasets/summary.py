"""Tables of image sets for the pages: counts, splits, duplicates, leaks, file formats."""

from itertools import product

import pandas as pd

from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.datasets.splits import leaks
from mlprobe_utils.evaluation.rows import SPLIT_RULES, SPLITS

ImageSets = dict[str, ImageSet]
FORMAT = ["mode", "format", "extension"]  # columns of a manifest


def origins(image_sets: ImageSets) -> pd.DataFrame:
    """Where the images and splits of each data set come from, and how many files each of its patterns leaves out."""
    rows = []
    for image_set in image_sets.values():
        card, report = image_set.card, image_set.report
        left_out = ", ".join(f"{pattern}: {count}" for pattern, count in report["left_out"].items())
        row = {"data set": card.name, "images of": card.modality, "source": card.source, "licence": card.licence}
        row |= {"splits": report["splits"], "files left out": left_out or "none"}
        rows.append(row | {"accepted": ", ".join(card.accept) or "none"})
    return pd.DataFrame(rows)


def counts(image_sets: ImageSets) -> pd.DataFrame:
    """Images found and released (null: not stated): one row per data set, class and official split."""
    rows = []
    for image_set in image_sets.values():
        found, released = (image_set.report[name] for name in ("found", "released"))
        for one, split in product(image_set.card.classes, released | found):
            row = {"data set": image_set.card.name, "class": one.name, "answer": one.option, "official split": split}
            stated = released.get(split, {}).get(one.name, 0) if released else None
            rows.append(row | {"found": found.get(split, {}).get(one.name, 0), "released": stated})
    return pd.DataFrame(rows).astype({"released": "Int64"})


def file_facts(image_sets: ImageSets) -> pd.DataFrame:
    """What kind of files the images of each data set are, and of DICOM what is said of text burned into them."""
    rows = []
    for image_set in image_sets.values():
        for (kind, levels), own in image_set.manifest.groupby(["format", "levels"]):
            burned = own["burned_in"].fillna("not stated").value_counts().to_dict() if kind == "DICOM" else {}
            record = {"data set": image_set.card.name, "format": kind, "white": levels, "images": len(own)}
            record |= {"of several frames": int((own["frames"] > 1).sum()), "text burned in": str(burned or "")}
            rows.append(record)
    return pd.DataFrame(rows)


def split_sizes(image_sets: ImageSets) -> pd.DataFrame:
    """Images in each split by both rules: one row per data set and rule."""
    return pd.DataFrame(
        {"data set": image_set.card.name, "split rule": rule}
        | image_set.manifest[f"split_{rule}"].value_counts().reindex(SPLITS, fill_value=0).to_dict()
        for image_set in image_sets.values()
        for rule in SPLIT_RULES
    )


def duplicate_counts(image_sets: ImageSets) -> pd.DataFrame:
    """Duplicate groups of each data set, the images in them, and how many groups hold more than one label."""
    rows = []
    for image_set in image_sets.values():
        table = image_set.manifest
        groups = table.dropna(subset="duplicate_group").groupby("duplicate_group")
        row = {"data set": image_set.card.name, "images": len(table), "patients known": table["patient"].nunique()}
        row |= {"duplicate groups": groups.ngroups, "images in them": int(groups.size().sum())}
        row["byte-identical groups"] = int((groups["sha256"].nunique() < groups.size()).sum())
        rows.append(row | {"groups with several labels": int((groups["label"].nunique() > 1).sum())})
    return pd.DataFrame(rows)


def leak_counts(image_sets: ImageSets) -> pd.DataFrame:
    """Leaks by kind and by the splits they join, for both rules; one row saying so where there is none."""
    rows = []
    for image_set in image_sets.values():
        for rule in SPLIT_RULES:
            place = {"data set": image_set.card.name, "split rule": rule}
            found = leaks(image_set.manifest, rule)
            for (kind, splits), group in found.groupby(["kind", "splits"]):
                rows.append(place | {"kind": kind, "in": splits, "groups": len(group), "images": group["count"].sum()})
            if found.empty:
                rows.append(place | {"kind": "none found", "in": "", "groups": 0, "images": 0})
    return pd.DataFrame(rows)


def format_shortcuts(image_sets: ImageSets, split_rule: str) -> pd.DataFrame:
    """Test accuracy in percent of the file format and of the majority class, both fitted on all images but the test.
    The format's rule is the majority label of each combination of FORMAT, and that of all images for an unseen one."""
    rows = []
    for image_set in image_sets.values():
        test = image_set.rows_of(split_rule, "test")
        train = image_set.manifest.drop(test.index)
        majority = train["label"].mode()[0]  # of several the first by name
        rule = train.groupby(FORMAT)["label"].agg(lambda labels: labels.mode()[0]).rename("predicted")
        correct = test[FORMAT].join(rule, on=FORMAT)["predicted"].fillna(majority) == test["label"]
        row = {"data set": image_set.card.name, "formats": len(rule), "correct": f"{correct.sum()}/{len(test)}"}
        row["format alone (%)"] = 100 * correct.mean()
        rows.append(row | {"majority class (%)": 100 * (test["label"] == majority).mean()})
    return pd.DataFrame(rows)
