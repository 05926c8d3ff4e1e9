"""What another probe recipe reads beyond the main one, or less: paired, with intervals, module by module."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.outcomes import outcomes
from mlprobe_utils.evaluation.points import MODULES
from mlprobe_utils.evaluation.rows import MAIN_PROBE
from mlprobe_utils.pipeline.cards import Probe
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import resamples_of_tested
from mlprobe_utils.stats.mean_differences import of_mean
from mlprobe_utils.stats.paired_tests import holm, paired_tests

CURVE = ["dataset", "model", "stage"]


def recipe_changes(rows: Mapping[str, pd.DataFrame], image_sets: Mapping[str, ImageSet], split: str) -> pd.DataFrame:
    """Accuracy with each recipe less that with the main one, mean over a module's points, on the same images.

    Intervals and tests are of these probes on new images: a recipe's variants are fitted with one seed.

    Args:
        rows: recipe -> probe rows of one run and one pooling; MAIN_PROBE among them.
        image_sets, split: by slug, of the rows.

    Returns:
        dataset, model, stage, recipe, module (its letter), change, low, high (points), p, p (Holm) over all rows.

    Raises:
        InputError: as `outcomes`.
        ValueError: two recipes were fitted at different points.
    """
    drawn = {dataset: resamples_of_tested(image_sets[dataset], split)[0] for dataset in image_sets}
    tested = {name: own[own["part"] == "test"].groupby(CURVE, sort=False) for name, own in rows.items()}
    others = {name: dict(iter(groups)) for name, groups in tested.items() if name != MAIN_PROBE}
    records = []
    for place, own in tested[MAIN_PROBE]:
        main = outcomes(own)
        for name, groups in others.items():
            other = outcomes(groups[place])
            if other.points != main.points or other.images != main.images:
                raise ValueError(f"'{name}' was not fitted at the points, or read on the images, of '{MAIN_PROBE}'")
            for module in MODULES:
                points = main.of_module(module)
                # points take the place of seeds: what is asked is their mean
                sides = (np.moveaxis(side.at(*points).right, 0, 1) for side in (main, other))
                test = paired_tests(*sides, drawn[place[0]]).iloc[0]
                found = {"change": test["value"], "low": test["low"], "high": test["high"], "p": test["p"]}
                records.append(dict(zip(CURVE, place, strict=True)) | {"recipe": name, "module": module} | found)
    table = pd.DataFrame(records, columns=[*CURVE, "recipe", "module", "change", "low", "high", "p"])
    return table.assign(**{"p (Holm)": holm(table["p"])})


def counted(changes: pd.DataFrame) -> pd.DataFrame:
    """`recipe_changes`, counted: dataset, recipe, module, curves, change, low, high, told higher, told lower.

    Changes are means, from `of_mean`; told are those with p (Holm) below 5 %.
    """
    by = ["dataset", "recipe", "module"]
    told = changes["p (Holm)"] < 0.05
    ways = changes.assign(higher=told & (changes["change"] > 0), lower=told & (changes["change"] < 0))
    columns = {"curves": ("change", "size"), "told higher": ("higher", "sum"), "told lower": ("lower", "sum")}
    return of_mean(changes, "change", by).merge(ways.groupby(by, sort=False).agg(**columns).reset_index(), on=by)


def differing(recipes: Mapping[str, Probe]) -> pd.DataFrame:
    """What each recipe does otherwise than the main one: recipe, differs in."""
    main = recipes[MAIN_PROBE].model_dump()
    rows = []
    for name, probe in recipes.items():
        own = {key: value for key, value in probe.model_dump().items() if value != main[key]}
        words = ", ".join(f"{key.replace('_', ' ')} {value} (main: {main[key]})" for key, value in own.items())
        rows.append((name, words or "nothing: it is the one of all other chapters"))
    return pd.DataFrame(rows, columns=["recipe", "differs in"])


def extremes(changes: pd.DataFrame, recipe: str) -> pd.DataFrame:
    """The largest change that a recipe makes in each data set, up or down; empty for a recipe that was not run."""
    own = changes[changes["recipe"] == recipe]
    places = own["change"].abs().groupby(own["dataset"], sort=False).idxmax()
    return own.loc[places].drop(columns=["stage", "recipe", "p"]).reset_index(drop=True)


def label_efficiency(changes: pd.DataFrame, recipes: Mapping[str, Probe]) -> pd.DataFrame:
    """What is lost with fewer training images: `counted`, of the recipes that have fewer than the main one.

    Args:
        changes: from `recipe_changes`.
        recipes: of the protocol; the larger share comes first.
    """
    fewer = [name for name, own in recipes.items() if own.training_fraction < recipes[MAIN_PROBE].training_fraction]
    fewer.sort(key=lambda name: -recipes[name].training_fraction)
    own = [changes[changes["recipe"] == name] for name in fewer]
    return counted(pd.concat(own)) if own else counted(changes[:0])
