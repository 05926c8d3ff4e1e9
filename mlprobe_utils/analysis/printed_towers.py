"""The paper's Tables 2 and 3 by arithmetic: the average gap, cells that are no whole number of images."""

import numpy as np
import pandas as pd

from mlprobe_utils.analysis.printed_gains import IMAGES
from mlprobe_utils.pipeline.cards import PUBLISHED
from mlprobe_utils.pipeline.published import paper_profiles

FINE_TUNED, PROBED, ALONE = "MLLM SFT", "Feature Probing", "Vision Tower SFT"  # as Table 3 calls its rows
_HALF = 0.005 + 1e-9  # what rounding to two decimals can do


def printed_gaps() -> pd.DataFrame:
    """The average gap of each model of Table 2, as printed and in the two ways that it can be computed.

    Returns:
        model, printed (percent), mean relative change (percent), mean difference (points), both frozen less adapted,
        over accuracy and F1 of all data sets; reading: those of the two that round to what is printed.
    """
    rows = []
    for model, own in _table2().groupby(level="model", sort=False):
        frozen, adapted = (own.xs(tower, level="vision_tower") for tower in ("frozen", "lora"))
        found = {
            "mean relative change": 100 * (frozen / adapted - 1).to_numpy().mean(),
            "mean difference": (frozen - adapted).to_numpy().mean(),
        }
        printed = _gaps_as_printed()[model]
        fits = [name for name, value in found.items() if abs(value - printed) <= _HALF]
        rows.append({"model": model, "printed": printed} | found | {"reading": ", ".join(fits) or "neither"})
    return pd.DataFrame(rows)


def printed_changes() -> pd.DataFrame:
    """Accuracies of Table 2: model, dataset, adapted, frozen (percent), difference (points), images, least p.

    `images` is the difference as a number of test images. The paper does not print on how many images the two
    disagree: with as few as can be, each of these the same way, an exact paired test gives the least p there can be.
    """
    rows = _table2()["acc"].unstack("vision_tower").reset_index()
    change = rows["frozen"] - rows["lora"]
    images = _images(change, rows["dataset"])
    table = pd.DataFrame({"model": rows["model"], "dataset": rows["dataset"], "adapted": rows["lora"]})
    found = {"frozen": rows["frozen"], "difference": change, "images": images}
    return table.assign(**found, **{"p (least)": _least_p(images)})


def fits(accuracy: float, images: int) -> bool:
    """Whether an accuracy, in percent with two decimals, is a whole number of right answers to so many images."""
    return abs(100 * round(accuracy / 100 * images) / images - accuracy) <= _HALF


def printed_paradigms() -> pd.DataFrame:
    """Table 3, cell by cell: model, dataset, paradigm, printed, right, fits instead, swapped with, corrected.

    `right` is the number of right answers that a cell stands for, null where it is none; `fits instead` names the data
    sets whose number of images would explain such a cell. Two cells of a row are swapped if neither is explained by its
    own data set, and each by the other's; `corrected` has them exchanged (percent).
    """
    table = pd.read_csv(PUBLISHED / "table3.csv").rename(columns={"acc": "printed"})
    table = table[["model", "dataset", "paradigm", "printed"]]
    whole = [fits(cell.printed, IMAGES[cell.dataset]) for cell in table.itertuples()]
    counts = (table["printed"] / 100 * table["dataset"].map(IMAGES)).round().astype("Int64")
    instead = [
        [] if own else [name for name, images in IMAGES.items() if fits(cell.printed, images)]
        for own, cell in zip(whole, table.itertuples(), strict=True)
    ]
    table = table.assign(right=counts.where(whole), corrected=table["printed"])
    table["fits instead"], table["swapped with"] = [", ".join(names) for names in instead], ""
    for _, own in table.groupby(["model", "paradigm"]):
        for one in own.index:
            for other in own.index:
                if table.at[other, "dataset"] in instead[one] and table.at[one, "dataset"] in instead[other]:
                    table.at[one, "swapped with"] = table.at[other, "dataset"]
                    table.at[one, "corrected"] = table.at[other, "printed"]
    return table


def printed_differences(column: str = "printed") -> pd.DataFrame:
    """What the tower alone gains in Table 3: model, dataset, less, difference (points), images, p (least).

    Args:
        column: `printed`, or `corrected` with swapped cells exchanged.

    Returns:
        `less` is the row of the table that is taken from it; `images` and `p (least)` are as of `printed_changes`.
    """
    wide = printed_paradigms().pivot(index=["model", "dataset"], columns="paradigm", values=column)
    gains = pd.DataFrame({other: wide[ALONE] - wide[other] for other in (FINE_TUNED, PROBED)}).reset_index()
    table = gains.melt(["model", "dataset"], var_name="less", value_name="difference")
    images = _images(table["difference"], table["dataset"])
    return table.assign(images=images, **{"p (least)": _least_p(images)})


def disagreements() -> pd.DataFrame:
    """Where Table 3 and Table 1 print another accuracy of the same fine-tuned model: model, dataset, and both."""
    third = printed_paradigms().query("paradigm == @FINE_TUNED")[["model", "dataset", "printed"]]
    both = third.merge(paper_profiles()[["model", "dataset", "P_final"]], how="left")
    both = both.rename(columns={"printed": "Table 3", "P_final": "Table 1"})
    return both[both["Table 3"] != both["Table 1"]].reset_index(drop=True)


def _images(change: pd.Series, datasets: pd.Series) -> pd.Series:
    """A difference in points as a number of test images."""
    return (change / 100 * datasets.map(IMAGES)).round().astype(int)


def _least_p(images: pd.Series) -> pd.Series:
    return np.minimum(1.0, 2.0 ** (1 - images.abs()))


def _table2() -> pd.DataFrame:
    """acc and f1 by model, dataset and vision_tower, percent."""
    table = pd.read_csv(PUBLISHED / "table2.csv")
    return table.set_index(["model", "dataset", "vision_tower"])[["acc", "f1"]]


def _gaps_as_printed() -> dict[str, float]:
    printed = pd.read_csv(PUBLISHED / "table2.csv").dropna(subset="average_gap").drop_duplicates("model")
    return dict(zip(printed["model"], printed["average_gap"].str.rstrip("%").astype(float), strict=True))
