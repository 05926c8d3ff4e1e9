"""Which epoch of a training is shown: the last, the best on validation, or the best on the test images.

The code of Ren et al. (2025), whose comparison the paper's figure 1 follows, keeps the epoch that is best on the test
folder. What that adds to an accuracy is measured here, and how much of it is there on images that did not choose.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from mlprobe_utils.analysis.baselines import LAST, ON_TEST, ON_VALIDATION, Trained, correct_at, epochs_chosen
from mlprobe_utils.stats.intervals import PROBE, intervals
from mlprobe_utils.stats.resampling import Difference, Resamples, Statistic, accuracy
from mlprobe_utils.stats.simulated_answers import simulate_correct

HALVINGS = 20  # of the test images, to choose on one half and count on the other


def right_of_other_half(own: Trained, clusters: np.ndarray, seed: int = 0) -> np.ndarray:
    """Each test image judged at the epoch that is best on a half it is not in, bool [runs * HALVINGS, 1, images].

    Args:
        clusters: which images belong together, int [images]; they stay in one half.
        seed: of the halves.
    """
    correct, generator = own.test.correct, np.random.default_rng(seed)
    members = np.unique(clusters, return_inverse=True)[1]
    judged = []
    for _ in range(HALVINGS):
        half = generator.permutation(members.max() + 1)[members] % 2 == 0
        best = {side: correct[:, :, half == side].mean(axis=2).argmax(axis=1) for side in (True, False)}
        after = {side: correct_at(own, epochs)[:, 0] for side, epochs in best.items()}
        judged.append(np.where(half, after[False], after[True]))
    return np.concatenate(judged)[:, None]


def mean_accuracy(correct: Sequence[np.ndarray], drawn: Resamples) -> Statistic:
    """Accuracy of a group, one point: the mean over its members, bool [runs, 1, images], each the mean over runs."""
    return _mean([accuracy(own, drawn) for own in correct])


def best_accuracy(trainings: Sequence[Trained], drawn: Resamples) -> Statistic:
    """As `mean_accuracy`, of the epochs that are best on the images themselves: in every resample chosen anew."""
    every = [accuracy(own.test.correct, drawn) for own in trainings]
    best = [(own.values.max(axis=-1, keepdims=True), own.resampled.max(axis=-1, keepdims=True)) for own in every]
    return _mean([replace(own, values=v, resampled=r) for own, (v, r) in zip(every, best, strict=True)])


def additions(trained: Mapping[str, Sequence[Trained]], drawn: Mapping[str, Resamples]) -> pd.DataFrame:
    """What choosing on test adds to the mean accuracy of the baselines, and what is left of it; a row a data set.

    Args:
        trained: data set -> baselines.
        drawn: data set -> resamples of its test images.

    Returns:
        dataset, baselines, accuracy at the last epoch, chosen on validation, chosen on test; then two differences from
        what validation chose, with intervals (percentage points): `added` by choosing on test, which is never below 0,
        and `left`, by choosing on other test images than those that count.
    """
    records = []
    for dataset, own in trained.items():
        resamples = drawn[dataset]
        correct = {rule: [correct_at(one, epochs_chosen(one, rule)) for one in own] for rule in (LAST, ON_VALIDATION)}
        rules = {rule: mean_accuracy(of_all, resamples) for rule, of_all in correct.items()}
        best, before = best_accuracy(own, resamples), rules[ON_VALIDATION]
        others = mean_accuracy([right_of_other_half(one, resamples.clusters) for one in own], resamples)
        record = {"dataset": dataset, "baselines": len(own)}
        record |= {rule: float(found.values[0]) for rule, found in (rules | {ON_TEST: best}).items()}
        for name, after in (("added", best), ("left", others)):
            found = intervals(Difference(after, before), PROBE).iloc[0]
            record |= {name: found["value"], f"{name}, low": found["low"], f"{name}, high": found["high"]}
        record["added, low"] = max(record["added, low"], 0.0)
        records.append(record)
    return pd.DataFrame(records)


def addition_of_each(trained: Mapping[str, Sequence[Trained]], drawn: Mapping[str, Resamples]) -> pd.DataFrame:
    """As `additions`, a row a data set and baseline (its slug); `epoch (…)` are the epochs that its runs chose."""
    frames = []
    for dataset, own in trained.items():
        for one in own:
            found = additions({dataset: [one]}, drawn).drop(columns="baselines")
            found.insert(1, "baseline", one.slug)
            for rule in (ON_VALIDATION, ON_TEST):
                places = epochs_chosen(one, rule)
                found[f"epoch ({rule})"] = ", ".join(str(one.test.points[place]) for place in places)
            frames.append(found)
    return pd.concat(frames, ignore_index=True)


def by_chance(
    epochs: int, images: Iterable[int], correlations: Iterable[float], share: float, repeats: int, seed: int = 0
) -> pd.DataFrame:
    """What choosing on test adds where all epochs are equally good: simulated, in points.

    Args:
        images: sizes of a test set, all images independent.
        correlations: between the correct answers of two epochs (of the Gaussian copula of `simulate_correct`).
        share: true accuracy of every epoch.
        repeats: trainings simulated of each size and correlation.

    Returns:
        images, correlation, added (the best epoch's accuracy less the true one), error (its standard error).
    """
    records = []
    for size in images:
        for correlation in correlations:
            generator = np.random.default_rng([seed, epochs, size, int(1000 * correlation)])
            simulated = (np.full(epochs, share), size, correlation, generator, "shared")
            best = [simulate_correct(*simulated).mean(axis=1).max() for _ in range(repeats)]
            added = 100 * (np.array(best) - share)
            error = added.std(ddof=1) / np.sqrt(repeats)
            records.append({"images": size, "correlation": correlation, "added": added.mean(), "error": error})
    return pd.DataFrame(records)


def _mean(of_members: Sequence[Statistic]) -> Statistic:
    """The mean over members and, within each, over its runs: values [1]."""
    values = np.mean([own.values.mean(axis=0) for own in of_members], axis=0)
    resampled = np.mean([own.resampled.mean(axis=1) for own in of_members], axis=0)
    return replace(of_members[0], values=values, resampled=resampled)
