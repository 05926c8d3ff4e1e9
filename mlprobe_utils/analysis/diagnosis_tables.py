"""The diagnoses of a run: verdicts on every model, data set and stage, and what they say in words."""

import collections
from collections.abc import Mapping, Sequence

import pandas as pd

from mlprobe_utils.evaluation.control_names import CONTROL_RUN
from mlprobe_utils.evaluation.diagnosis import (
    MISALIGNMENT,
    NAMED,
    RULED_OUT,
    STATEMENTS,
    UNTOLD,
    losses,
    main_mode,
    verdicts,
)
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.outcomes import site_outcomes
from mlprobe_utils.pipeline import laboratory_results, results
from mlprobe_utils.pipeline.damaged_models import DamagedModel
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import groups
from mlprobe_utils.stats.intervals import PROBE, QUESTIONS, RECIPE

NOTHING = "nothing is lost beyond the thresholds"
DIAGNOSED_RUN = CONTROL_RUN  # the fine-tuned state whose probes have several seeds


def statement_table(thresholds: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """The statements as rows for a page: mode, what is lost between which sites, and thresholds in points.

    Args:
        thresholds: family -> statement -> points; a column each.
    """
    columns = ["mode", "more can be decoded at", "than at", *(f"threshold for {family}" for family in thresholds)]
    rows = []
    for own in STATEMENTS:
        after = own.after[0] + (", and than at every site after it" if len(own.after) > 1 else "")
        rows.append((own.mode, own.before, after, *(points[own.name] for points in thresholds.values())))
    return pd.DataFrame(rows, columns=columns)


def diagnoses(
    probed: pd.DataFrame,
    predicted: pd.DataFrame,
    reference: pd.DataFrame,
    image_sets: Mapping[str, ImageSet],
    split_rule: str,
    thresholds: Mapping[str, Mapping[str, float]],
    questions: Sequence[str] = tuple(QUESTIONS),
) -> pd.DataFrame:
    """The verdicts on every state that has probes of several seeds.

    Args:
        probed, predicted, reference: from `results.end_rows`, `results.prediction_rows` and `results.reference_rows`.
        image_sets, split_rule: by slug, of the rows.
        thresholds: model -> statement -> points, set on models of other families than its own.
        questions: of `intervals.QUESTIONS`.

    Returns:
        Five rows a model, data set, stage and question: these and the columns of `diagnosis.verdicts`.
    """
    frames, answers = [], by_state(predicted)
    for state, rows, drawn, images in groups(probed, STATE, image_sets, split_rule):
        of_set = reference[reference["dataset"] == state["dataset"]]
        correct = site_outcomes(rows, answers[(*state.values(),)], of_set, images)
        for question in questions:
            found = verdicts(losses(correct, drawn, question), thresholds[state["model"]])
            frames.append(found.assign(**state, question=question))
    return pd.concat(frames, ignore_index=True)


def by_state(rows: pd.DataFrame) -> dict[tuple[str, ...], pd.DataFrame]:
    """The rows of test images of each STATE, maybe none; after fine-tuning those of the run that is diagnosed."""
    diagnosed = rows[(rows["split"] == "test") & (rows["run"].fillna(DIAGNOSED_RUN) == DIAGNOSED_RUN)]
    return collections.defaultdict(lambda: diagnosed.iloc[:0], iter(diagnosed.groupby(STATE, sort=False)))


def in_short(judged: pd.DataFrame) -> pd.DataFrame:
    """What was diagnosed, in words, from `diagnoses`.

    Returns:
        A row a model, data set, stage and question: these, main (the main mode, null where none is named), diagnosis
        (the statements named, with their loss in points and its simultaneous interval; or why there is none), ruled out
        and left open (statements, counted).
    """
    records = []
    for key, own in judged.groupby([*STATE, "question"], sort=False):
        named = own[own["verdict"] == NAMED]
        words = [f"{s.statement}: {-s.value:.1f} ({-s.band_high:.1f} to {-s.band_low:.1f})" for s in named.itertuples()]
        counts = own["verdict"].value_counts()
        otherwise = UNTOLD if UNTOLD in counts else NOTHING
        record = dict(zip([*STATE, "question"], key, strict=True)) | {"main": main_mode(own)}
        record |= {"diagnosis": "; ".join(words) or otherwise}
        records.append(record | {"ruled out": counts.get(RULED_OUT, 0), "left open": counts.get(UNTOLD, 0)})
    return pd.DataFrame(records)


def disagreements(judged: pd.DataFrame) -> pd.DataFrame:
    """The statements on which the two questions give different verdicts: STATE, statement, a column a question."""
    wide = judged.pivot_table("verdict", [*STATE, "statement"], "question", aggfunc="first", sort=False)
    return wide[wide[PROBE] != wide[RECIPE]][[*QUESTIONS]].rename_axis(columns=None).reset_index()


def misalignment_and_unparsed(judged: pd.DataFrame, outputs: pd.DataFrame) -> pd.DataFrame:
    """The loss from the last token to the answer beside the share of answers that name no option, or several.

    Args:
        judged: from `diagnoses`, of one question.
        outputs: from `scoring.output_scores`.

    Returns:
        model, dataset, stage, lost, low, high (points; simultaneous with the other statements), verdict, unparsed (%).
    """
    own = judged[judged["statement"] == MISALIGNMENT]
    lost = own[STATE].assign(lost=-own["value"], low=-own["band_high"], high=-own["band_low"], verdict=own["verdict"])
    diagnosed = outputs[outputs["run"].fillna(DIAGNOSED_RUN) == DIAGNOSED_RUN]
    unparsed = diagnosed[[*STATE, "unparsed"]].rename(columns={"unparsed": "unparsed (%)"})
    return lost.merge(unparsed, on=STATE, validate="one_to_one")


def thresholds_of(*selections: Selection) -> dict[str, dict[str, float]]:
    """Model -> statement -> the least loss that counts, from the laboratory's undamaged cases of other families.

    Raises:
        InputError: a model that was not run; as `laboratory_results.read` and `Laboratory.thresholds`.
    """
    families = {model: family for own in selections for model, family in results.families(own).items()}
    by_family = laboratory_results.read().thresholds(set(families.values()))
    return {model: by_family[family] for model, family in families.items()}


def detection(judged: pd.DataFrame) -> pd.DataFrame:
    """How often `against_planted` finds the planted mode: planted, strength, cases, detected, another mode, none."""
    counts = judged.groupby(["planted", "strength"], sort=False)["detected"].value_counts().unstack(fill_value=0)
    counts = counts.reindex(columns=["yes", "another mode", "no"], fill_value=0)
    counts = counts.set_axis(["detected", "another mode", "none"], axis=1).rename_axis(columns=None)
    return counts.assign(cases=counts.sum(axis=1))[["cases", *counts.columns]].reset_index()


def against_planted(judged: pd.DataFrame, damaged: Sequence[DamagedModel]) -> pd.DataFrame:
    """What was diagnosed in damaged models (from `diagnoses`, of one question) beside what was planted.

    Returns:
        A row a damaged model and data set: model, dataset, strength, planted (the mode), diagnosis (as of `in_short`),
        detected (yes: the planted mode is the main one; `another mode`; no).
    """
    planted = {one.slug: one for one in damaged}
    short = in_short(judged)
    own = short["model"].map(planted)
    mode = own.map(lambda one: one.mode)
    detected = (short["main"] == mode).map({True: "yes", False: "another mode"}).where(short["main"].notna(), "no")
    columns = {"planted": mode, "strength": own.map(lambda one: one.strength), "diagnosis": short["diagnosis"]}
    return short[["dataset", "model"]].assign(**columns, detected=detected)
