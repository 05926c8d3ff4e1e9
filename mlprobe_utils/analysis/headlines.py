"""The front page's sentences as claims, each a function of rows: of those of the test images, and once more of those of
phantoms that nothing else is made from. A claim held where its verdict is the same on both. Both times answers are
those of the first run, and means are over models and phantom sets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from mlprobe_utils.analysis import diagnosis_tables as tables
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.names import CONNECTOR, IMAGE_TOKENS, OUTPUT, VISION_TOWER
from mlprobe_utils.evaluation.outcomes import site_outcomes
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.fault_card import ROWS, DamagedModel
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.results import REPLICATION, Selection
from mlprobe_utils.pipeline.tested import groups
from mlprobe_utils.stats.intervals import RECIPE

STEPS = {  # the site that a step leads to -> in words
    CONNECTOR: "from the vision tower to the connector",
    IMAGE_TOKENS: "from the connector to the LLM's last layer",
    OUTPUT: "from the LLM's last layer to the answer",
}
Found = tuple[str, object]  # in words, and the verdict
# of the accuracy (percent, stage by site), and the main failure mode of each fine-tuned model on each data set, or null
Claim = Callable[[pd.DataFrame, pd.Series], Found]


def lead_of_probes(accuracy: pd.Series) -> Found:
    lead = accuracy[IMAGE_TOKENS] - accuracy[OUTPUT]
    return f"{lead:+.1f} pp", lead > 0


def least_favourable_step(accuracy: pd.Series) -> Found:
    steps = accuracy[[VISION_TOWER, *STEPS]].diff()[1:]
    return f"{STEPS[steps.idxmin()]}, {steps.min():+.1f} pp", steps.idxmin()


def faults_found(planted: Sequence[DamagedModel], sites: pd.DataFrame, modes: pd.Series) -> Found:
    right = modes == modes.index.get_level_values("model").map({one.slug: one.mode for one in planted})
    return f"{right.sum()} of {len(right)} cases", right.to_dict()


CLAIMS: dict[str, Claim] = {
    "probes minus answers, before fine-tuning": lambda sites, modes: lead_of_probes(sites.loc["pretrained"]),
    "probes minus answers, after fine-tuning": lambda sites, modes: lead_of_probes(sites.loc["finetuned"]),
    "least favourable step after fine-tuning": lambda sites, modes: least_favourable_step(sites.loc["finetuned"]),
    "losses detected after fine-tuning": lambda sites, modes: (
        f"{modes.notna().sum()} of {len(modes)} pairs",
        modes.dropna().to_dict(),
    ),
}


def replicated(claims: Mapping[str, Claim], selection: Selection, image_sets: Mapping[str, ImageSet]) -> pd.DataFrame:
    """Each claim on the test images of the phantom sets and on as many fresh ones, which nothing else is made from:
    finding, test images, fresh phantoms, replicated (yes, no). No rows without a phantom set. Raises InputError for
    what was not run."""
    columns = ["finding", "test images", "fresh phantoms", "replicated"]
    own = replace(selection, datasets=tuple(d for d in selection.datasets if load_data_card(d).synthetic))
    if not own.datasets:
        return pd.DataFrame(columns=columns)
    healthy = replace(own, models=tuple(dict.fromkeys(model.partition("+")[0] for model in own.models)))
    tested = results.end_rows(own), results.prediction_rows(own), results.reference_rows(healthy), image_sets
    drawn = results.gather(own, [REPLICATION], ROWS)
    of_images, probed = drawn["control"].notna(), drawn["point"].notna()
    reference = drawn[of_images].drop_duplicates(["dataset", "image"])  # which every model's rows hold
    images = reference.assign(option=reference["label"], patient=None, duplicate_group=None)
    images = images.assign(split_paper="test", split_clean="test").groupby("dataset")
    fresh = {slug: replace(image_sets[slug], manifest=own.reset_index(drop=True)) for slug, own in images}
    again = drawn[probed], drawn[~probed & ~of_images], reference, fresh
    evidence = [_evidence(own, *rows) for rows in (tested, again)]
    records = []
    for name, claim in claims.items():
        (here, verdict), (there, other) = (claim(*one) for one in evidence)
        records.append((name, here, there, "yes" if verdict == other else "no"))
    return pd.DataFrame(records, columns=columns)


def _evidence(
    selection: Selection, probed: pd.DataFrame, predicted: pd.DataFrame, reference: pd.DataFrame, sets: Mapping
) -> tuple[pd.DataFrame, pd.Series]:
    """What a claim takes."""
    records, answers, split_rule = [], tables.by_state(predicted), selection.split_rule
    for state, rows, _, images in groups(probed, STATE, sets, split_rule):
        correct = site_outcomes(rows, answers[(*state.values(),)], None, images)
        records.append(state | {site: 100 * own.mean() for site, own in correct.items()})
    given = reference, sets, split_rule, tables.usual_losses(selection), [RECIPE]
    found = tables.in_short(tables.diagnoses(probed[probed["stage"] == "finetuned"], predicted, *given))
    sites = pd.DataFrame(records).groupby("stage").mean(numeric_only=True)
    return sites, found.set_index(["dataset", "model"])["main"]
