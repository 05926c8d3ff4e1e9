"""How far a run's order of models by health score depends on conventions, module by module."""

from collections.abc import Mapping

import pandas as pd

from mlprobe_utils.evaluation.outcomes import of_modules, outcomes
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.evaluation.rank_stability import rank_stability, resampled_curves
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import resamples_of_tested

RESAMPLES = 200  # of the images, for the intervals
RUN = 0
COLUMNS = ["dataset", "module", "changed", "to", "models", "tau", "low", "high"]


def rank_table(rows: pd.DataFrame, image_sets: Mapping[str, ImageSet], split: str, penalty: float) -> pd.DataFrame:
    """`rank_stability.rank_stability` of every data set and module, after fine-tuning, of run 0.

    The metrics are accuracy (the reference) and balanced accuracy; resamples that lack a class are not used.

    Args:
        rows: probe rows of several models.
        image_sets: by slug, of the rows' data sets.
        split: of the rows.
        penalty: lambda of the reference.

    Returns:
        COLUMNS, tau with the ends of its 95 % interval; no rows where there is but one model.

    Raises:
        InputError: rows that are not whole.
        ValueError: a curve without a health score, in a resample too.
    """
    rows = of_modules(rows)
    rows = rows[(rows["stage"] == "finetuned") & (rows["run"] == RUN)]
    tables = []
    for dataset, of_dataset in rows.groupby("dataset", sort=False) if rows["model"].nunique() > 1 else ():
        drawn, images = resamples_of_tested(image_sets[dataset], split)
        labels = of_dataset.drop_duplicates("image").set_index("image").loc[images, "label"].to_numpy()
        whole = [(drawn.counts[:, labels == label] > 0).any(axis=1) for label in set(labels)]
        counts = drawn.counts[pd.DataFrame(whole).all()][:RESAMPLES]
        found = {model: outcomes(own) for model, own in of_dataset.groupby("model", sort=False)}
        for module in MODULES:
            curves = {"accuracy": {}, "balanced accuracy": {}}
            for model, own in found.items():
                correct = own.at(*own.of_module(module)).right[0]
                curves["accuracy"][model] = resampled_curves(correct, counts)
                curves["balanced accuracy"][model] = resampled_curves(correct, counts, labels)
            tables.append(rank_stability(curves, penalty).assign(dataset=dataset, module=module))
    return pd.concat(tables, ignore_index=True)[COLUMNS] if tables else pd.DataFrame(columns=COLUMNS)


def by_choice(ranks: pd.DataFrame) -> pd.DataFrame:
    """Over all data sets and modules of `rank_table`, by convention: changed, to, models, tau (mean), lowest tau."""
    by = ranks.groupby(["changed", "to"], sort=False)
    found = by.agg(models=("models", "first"), tau=("tau", "mean"), lowest=("tau", "min"))
    return found.rename(columns={"tau": "tau (mean)", "lowest": "lowest tau"}).reset_index()


def in_short(ranks: pd.DataFrame) -> dict[str, str]:
    """What moves the order of `rank_table` most, and what redrawn images do to it, in a few words: choice, images."""
    known = ranks.dropna(subset="tau")
    words = dict.fromkeys(("choice", "images"), "there are too few models for an order")
    for name, own in (("choice", known[known["changed"] != "images"]), ("images", known[known["changed"] == "images"])):
        if len(own):
            least = own.loc[own["tau"].astype(float).idxmin()]
            place = f"{MODULES[least['module']]}, {least['dataset']}"
            what = f"{least['changed']}: {least['to']}, " if name == "choice" else ""
            words[name] = f"tau {least['tau']:.2f} ({what}{place})"
    return words
