"""How far an answer depends on the wording of the question: accuracy under every prompt, on the same images."""

from collections.abc import Mapping

import pandas as pd

from mlprobe_utils.evaluation.outcomes import single_outcomes
from mlprobe_utils.evaluation.question import OWN_PROMPT
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.tested import groups
from mlprobe_utils.stats.intervals import intervals
from mlprobe_utils.stats.paired import WORDS, Pair, compare
from mlprobe_utils.stats.resampling import accuracy


def changes(rows: pd.DataFrame, image_sets: Mapping[str, ImageSet], split_rule: str) -> pd.DataFrame:
    """Every other prompt against the card's own, of `results.prompt_rows`: dataset, model, prompt, accuracy, unparsed
    (percent), OWN_PROMPT (accuracy under it), own low, own high (its interval), change and further columns of
    `paired.compare`, with verdict of WORDS, and outside (whether accuracy is, of that interval)."""
    pairs, by = [], ["dataset", "model", "prompt", "accuracy", "unparsed", OWN_PROMPT, "own low", "own high"]
    for place, group, drawn, images in groups(rows, by[:2], image_sets, split_rule):
        parts = dict(iter(group.groupby("control", sort=False)))
        right = {name: single_outcomes(own, images, f"{place}, {name}", parsed=True) for name, own in parts.items()}
        own = right.pop(OWN_PROMPT)[None]
        interval = intervals(accuracy(own, drawn)).loc[0, ["low", "high"]]
        for name, correct in right.items():
            shares = correct.mean(), parts[name]["parsed"].isna().mean(), own.mean()
            values = [*place.values(), name, *(100 * share for share in shares), *interval]
            pairs.append(Pair(dict(zip(by, values, strict=True)), own, correct[None], drawn))
    return compare(pairs, by, words=WORDS).assign(outside=lambda t: ~t["accuracy"].between(t["own low"], t["own high"]))
