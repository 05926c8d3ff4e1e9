"""The paper's printed numbers by arithmetic: what pages show of them, and what no run changes.

Accuracies are whole numbers of images, gains and gaps follow from them. The paper prints the mean gain of five adapted
models over their bases (section 5, figure 4) and no accuracy of a base: all possible bases are tried. Tables 2 and 3
are recomputed, the LLMs of Table 1 set beside flat curves, and gains beside what an exact test finds. Writes a table of
each to data/published/recomputed.
"""

from collections.abc import Callable, Iterable
from itertools import permutations, product
from pathlib import Path

import detectable
import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import owens_t

from mlprobe_utils.analysis.health import QUANTILES, flat_scores
from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.pipeline.cards import PUBLISHED, ModelCard, load_model_card, load_protocol, slugs
from mlprobe_utils.pipeline.published import IMAGES, paper_profiles, published_config

FOLDER = PUBLISHED / "recomputed"
LEAST = 0.4  # accuracy of a base that is tried
MEANINGS: dict[str, Callable] = {  # of shares, one a data set: numbers, or arrays that broadcast
    "mean difference": lambda own, base: (sum(own) - sum(base)) / len(IMAGES),
    "mean of relative changes": lambda own, base: sum(a / b - 1 for a, b in zip(own, base, strict=True)) / len(IMAGES),
    "relative change of the mean": lambda own, base: sum(own) / sum(base) - 1,
}
FINE_TUNED, PROBED, ALONE = "MLLM SFT", "Feature Probing", "Vision Tower SFT"  # as Table 3 calls its rows
DISAGREEMENTS = {"fewest possible": None, "5 %": 5.0, "10 %": 10.0, "20 %": 20.0}  # of two models, in images
ROUNDING = 0.005 + 1e-9  # what rounding to two decimals can do


def printed_answers() -> pd.DataFrame:
    """P_final of Table 1 as unrounded shares, a row a model, a column a data set of IMAGES."""
    printed = paper_profiles().pivot_table("P_final", "model", "dataset", sort=False)[[*IMAGES]]
    images = pd.Series(IMAGES)
    return (printed / 100 * images).round() / images


def bases_that_fit(answers: np.ndarray, gains: np.ndarray, meaning: str) -> np.ndarray:
    """The bases that give all gains as they are printed (percent [models]), by numbers of correct answers: int [bases,
    data sets of IMAGES]. `answers`: shares of the adapted models' correct answers, float [models, data sets]."""
    least = [int(LEAST * images) for images in IMAGES.values()]
    tried = np.ix_(*(np.arange(start, images + 1) for start, images in zip(least, IMAGES.values(), strict=True)))
    shares = [counts / images for counts, images in zip(tried, IMAGES.values(), strict=True)]
    found = (100 * MEANINGS[meaning](own, shares) - gain for own, gain in zip(answers, gains, strict=True))
    return np.argwhere(np.logical_and.reduce([np.abs(off) <= ROUNDING for off in found])) + least


def search() -> pd.DataFrame:
    """Every base and meaning of a gain: base, models, definition of a gain, bases that fit (their number)."""
    answers, gains, rows = printed_answers(), pd.read_csv(PUBLISHED / "gains.csv").groupby("base", sort=False), []
    for (base, own), meaning in product(gains, MEANINGS):
        found = bases_that_fit(answers.loc[own["model"]].to_numpy(), own["gain"].to_numpy(), meaning)
        rows.append((base, len(own), meaning, len(found)))
    return pd.DataFrame(rows, columns=["base", "models", "definition of a gain", "bases that fit"])


def printed_gaps() -> pd.DataFrame:
    """The average gap of each model of Table 2, frozen minus adapted, over accuracy and F1 of all data sets: model,
    published, mean relative change (percent), mean difference (pp), meaning (those of the two that round to what is
    printed)."""
    table, rows = pd.read_csv(PUBLISHED / "table2.csv"), []
    for model, own in table.groupby("model", sort=False):
        printed = float(own["average_gap"].dropna().iloc[0].rstrip("%"))
        towers = own.set_index(["dataset", "vision_tower"])[["acc", "f1"]]
        frozen, adapted = (towers.xs(tower, level="vision_tower").to_numpy() for tower in ("frozen", "lora"))
        gaps = 100 * np.mean(frozen / adapted - 1), np.mean(frozen - adapted)
        found = dict(zip(("mean relative change", "mean difference"), gaps, strict=True))
        meaning = [name for name, value in found.items() if abs(value - printed) <= ROUNDING]
        rows.append({"model": model, "published": printed} | found | {"meaning": ", ".join(meaning) or "neither"})
    return pd.DataFrame(rows)


def printed_changes() -> pd.DataFrame:
    """Accuracies of Table 2: model, dataset, adapted, frozen (percent), difference, images (the difference in test
    images), p (least) (of an exact paired test, if they disagree on no other images: the paper does not print it)."""
    table = pd.read_csv(PUBLISHED / "table2.csv").set_index(["model", "dataset", "vision_tower"])["acc"]
    table = table.unstack("vision_tower").reset_index().rename(columns={"lora": "adapted"}).rename_axis(columns=None)
    table = table[["model", "dataset", "adapted", "frozen"]]
    return _in_images(table.assign(difference=table["frozen"] - table["adapted"]))


def printed_paradigms() -> pd.DataFrame:
    """Table 3, cell by cell: model, dataset, paradigm, published, correct (the number of correct answers that a cell
    stands for, null where it is none), corrected (percent), fits instead (the data sets for whose number of images it
    is one), swapped with. Two cells of a row are swapped if neither fits its own data set, and each the other's;
    `corrected` has them exchanged."""
    table = pd.read_csv(PUBLISHED / "table3.csv").rename(columns={"acc": "published"})
    table = table[["model", "dataset", "paradigm", "published"]]
    fitting = [
        [name for name, images in IMAGES.items() if abs(100 * round(own / 100 * images) / images - own) <= ROUNDING]
        for own in table["published"]
    ]
    whole = [dataset in names for dataset, names in zip(table["dataset"], fitting, strict=True)]
    instead = [[] if own else names for own, names in zip(whole, fitting, strict=True)]
    counts = (table["published"] / 100 * table["dataset"].map(IMAGES)).round().astype("Int64")
    table = table.assign(correct=counts.where(whole), corrected=table["published"])
    table["fits instead"], table["swapped with"] = [", ".join(names) for names in instead], ""
    for _, own in table.groupby(["model", "paradigm"]):
        for one, other in permutations(own.index, 2):
            if table.at[other, "dataset"] in instead[one] and table.at[one, "dataset"] in instead[other]:
                table.at[one, "swapped with"] = table.at[other, "dataset"]
                table.at[one, "corrected"] = table.at[other, "published"]
    return table


def printed_differences(column: str) -> pd.DataFrame:
    """Table 3, tower alone minus a paradigm: model, dataset, reference (that paradigm), difference, and as
    `printed_changes`."""
    wide = printed_paradigms().pivot(index=["model", "dataset"], columns="paradigm", values=column)
    gains = pd.DataFrame({other: wide[ALONE] - wide[other] for other in (FINE_TUNED, PROBED)}).reset_index()
    return _in_images(gains.melt(["model", "dataset"], var_name="reference", value_name="difference"))


def _in_images(table: pd.DataFrame) -> pd.DataFrame:
    images = (table["difference"] / 100 * table["dataset"].map(IMAGES)).round().astype(int)
    return table.assign(images=images, **{"p (least)": np.minimum(1.0, 2.0 ** (1 - images.abs()))})


# the LLMs of Table 1 beside flat curves


def flat_covariance(level: float, points: int, images: int, correlation: float) -> np.ndarray:
    """Covariance of `simulate_correct` for a flat curve at `level` (0 to 1), float [points, points]: Owen's T function
    gives the probability that two normal variables both lie below a quantile (Owen 1956)."""
    distance = np.arange(points)
    near = correlation**distance
    both = level - 2 * owens_t(stats.norm.ppf(level), np.sqrt((1 - near) / (1 + near)))
    covariance = (both - level**2) / images
    return covariance[np.abs(np.subtract.outer(distance, distance))]


def against_flat(
    scores: pd.DataFrame, penalty: float, correlations: Iterable[float] = (0.0, 0.9, 0.99)
) -> pd.DataFrame:
    """Where each of `scores` (points, images, level of the flat curve and score, percent) lies among those that a flat
    curve gets by noise alone: its columns, correlation (assumed of neighbouring points), 2.5 %, 50 %, 97.5 % (quantiles
    of the flat curve's score), position (percent of its scores that are lower), outside (of both ends)."""
    records = []
    for row, correlation in product(scores.to_dict("records"), correlations):
        covariance = flat_covariance(row["level"] / 100, row["points"], row["images"], correlation)
        flat = flat_scores(row["level"] / 100, covariance, penalty)
        low, middle, high = np.quantile(flat, QUANTILES)
        place = {"correlation": correlation, "2.5 %": low, "50 %": middle, "97.5 %": high}
        place |= {"position": 100 * np.mean(flat < row["score"]), "outside": not low <= row["score"] <= high}
        records.append(row | place)
    return pd.DataFrame(records)


def depth_trend(placed: pd.DataFrame) -> pd.DataFrame:
    """Whether deeper modules score lower: rank correlations over models of the number of points with score - level
    (Spearman, p), and with score - median of the flat curve (Spearman beside flat, p (beside flat)); a row a dataset
    and correlation of `against_flat`."""
    records = []
    for key, own in placed.groupby(["dataset", "correlation"], sort=False):
        plain, beside = (stats.spearmanr(own["points"], own["score"] - own[less]) for less in ("level", "50 %"))
        records.append((*key, len(own), plain.statistic, plain.pvalue, beside.statistic, beside.pvalue))
    columns = ["dataset", "correlation", "models", "Spearman", "p", "Spearman beside flat", "p (beside flat)"]
    return pd.DataFrame(records, columns=columns)


def paper_llms() -> pd.DataFrame:
    """The LLMs of Table 1 for `against_flat`: points are layers, images the test images, and level P_final, the
    accuracy of the answer, as the paper prints none of the last layer."""
    cards, printed = [card for slug in slugs(ModelCard) if (card := load_model_card(slug)).table1], paper_profiles()
    configs = {card.table1: published_config(card.architecture) for card in cards}
    layers = {name: config.get("text_config", config)["num_hidden_layers"] for name, config in configs.items()}
    found = printed[["model", "dataset"]].assign(points=printed["model"].map(layers))
    return found.assign(images=printed["dataset"].map(IMAGES), level=printed["P_final"], score=printed["FHS_L"])


def tables() -> dict[str, pd.DataFrame]:
    """Name of a file -> what it holds."""
    placed = against_flat(paper_llms(), load_protocol("paper").health.penalty)
    gains = pd.read_csv(PUBLISHED / "gains.csv")["gain"]
    differences = {cells: printed_differences(cells) for cells in ("published", "corrected")}
    return {
        "bases_that_fit": search(),
        "average_gaps": printed_gaps(),
        "table2_in_images": printed_changes(),
        "table3_cells": printed_paradigms(),
        "table3_differences": pd.concat(differences, names=["cells"]).reset_index("cells"),
        "gains_detectable": detectable.table(gains.abs().sort_values(), DISAGREEMENTS, IMAGES),
        "llms_beside_flat": placed,
        "depth_trend": depth_trend(placed),
    }


def main(folder: Path = FOLDER) -> None:
    folder.mkdir(exist_ok=True)
    for name, table in tables().items():
        atomic_write(folder / f"{name}.csv", table.to_csv(index=False))
        print(f"{name}: {len(table)} rows", flush=True)


if __name__ == "__main__":
    main()
