"""The diagnoses of a run: verdicts on every model, data set and stage, in words, and the read-out gap taken apart."""

import collections
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation import diagnosis
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.names import CONTROL_RUN, LAST_TOKEN, OUTPUT, PROBED_SITES, READ_OUT_GAP
from mlprobe_utils.evaluation.outcomes import outcomes, point_at, single_outcomes, site_outcomes
from mlprobe_utils.evaluation.rows import OPTION, options_of
from mlprobe_utils.pipeline import laboratory_results, results
from mlprobe_utils.pipeline.fault_card import DamagedModel, load_trial
from mlprobe_utils.pipeline.images import ImageSet
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import groups
from mlprobe_utils.stats import paired
from mlprobe_utils.stats.intervals import PROBE, RECIPE

NOTHING = "no loss beyond the thresholds"
RANKED, READ_OUT = "options ranked by the output layer", "readout of the options' probabilities"
STEPS = (  # behind the last token; RANKED is the logit lens at the last layer, READ_OUT is fitted, not the model's own
    diagnosis.Statement("ranking vs. last token", READ_OUT_GAP, (LAST_TOKEN,), (RANKED,)),
    diagnosis.Statement("answer vs. ranking", READ_OUT_GAP, (RANKED,), (OUTPUT,)),
    diagnosis.Statement("answer vs. fitted readout", READ_OUT_GAP, (READ_OUT,), (OUTPUT,)),
)
LOST, GAINED, NEITHER = "lost", "gained", paired.NEITHER
LEAST = np.finfo(float).tiny  # a probability below counts as this one: that of 0 has no logarithm


def diagnoses(
    probed: pd.DataFrame,
    predicted: pd.DataFrame,
    reference: pd.DataFrame,
    image_sets: Mapping[str, ImageSet],
    split_rule: str,
    known: Mapping[str, Mapping[str, diagnosis.Usual]],
    scopes: Sequence[str] = (PROBE, RECIPE),
) -> pd.DataFrame:
    """The verdicts on every state that has probes of several seeds: STATE, scope, and the columns of
    `diagnosis.verdicts`, corrected over all models and data sets of a scope and stage. Arguments are of
    `results.end_rows`, `results.prediction_rows`, `results.reference_rows` and `usual_losses`."""
    frames, answers, least = [], by_state(predicted), load_trial().least_loss
    for state, rows, drawn, images in groups(probed, STATE, image_sets, split_rule):
        of_set = reference[reference["dataset"] == state["dataset"]]
        correct = site_outcomes(rows, answers[(*state.values(),)], of_set, images)
        for scope in scopes:
            lost = diagnosis.losses(correct, drawn, scope).assign(**state, scope=scope)
            frames.append(diagnosis.against_usual(lost, known[state["model"]], least))
    tables = [own for _, own in pd.concat(frames, ignore_index=True).groupby(["scope", "stage"], sort=False)]
    return pd.concat(map(diagnosis.verdicts, tables)).sort_index()


def of_edited(edited: Selection, healthy: Selection, image_sets: Mapping[str, ImageSet]) -> pd.DataFrame:
    """`diagnoses` of the fine-tuned states whose states are edited, healthy and damaged, for RECIPE."""
    probed = results.end_rows(edited)
    rows = probed[probed["stage"] == "finetuned"], results.prediction_rows(edited), results.reference_rows(healthy)
    return diagnoses(*rows, image_sets, edited.split_rule, usual_losses(edited), [RECIPE])


def by_state(rows: pd.DataFrame) -> dict[tuple[str, ...], pd.DataFrame]:
    """The rows of test images of each STATE, maybe none; after fine-tuning of CONTROL_RUN, which has several seeds."""
    diagnosed = rows[(rows["split"] == "test") & (rows["run"].fillna(CONTROL_RUN) == CONTROL_RUN)]
    return collections.defaultdict(lambda: diagnosed.iloc[:0], iter(diagnosed.groupby(STATE, sort=False)))


def in_short(judged: pd.DataFrame) -> pd.DataFrame:
    """`diagnoses` in words: STATE, scope, main (mode, by `diagnosis.main_first`, or null), diagnosis (the statements
    detected, with their loss in pp, its simultaneous interval and the sites, or why there is none), ruled out and
    inconclusive (counts)."""
    records = []
    for key, own in judged.groupby([*STATE, "scope"], sort=False):
        named, counts = own[own["verdict"] == diagnosis.NAMED], own["verdict"].value_counts()
        words = [
            f"{s.statement}: {-s.value:.1f} ({-s.band_high:.1f} to {-s.band_low:.1f}), {s.before} → {s.after}"
            for s in named.itertuples()
        ]
        words = "; ".join(words) or (diagnosis.UNDECIDED if diagnosis.UNDECIDED in counts else NOTHING)
        others = [counts.get(verdict, 0) for verdict in (diagnosis.RULED_OUT, diagnosis.UNDECIDED)]
        main = next(iter(diagnosis.main_first(named)["mode"]), None)
        records.append((*key, main, words, *others))
    return pd.DataFrame(records, columns=[*STATE, "scope", "main", "diagnosis", "ruled out", "inconclusive"])


def usual_losses(selection: Selection) -> dict[str, dict[str, diagnosis.Usual]]:
    """Model -> statement -> what undamaged models of other families lose."""
    families = results.families(selection)
    by_family = laboratory_results.read().usual(set(families.values()))
    return {model: by_family[family] for model, family in families.items()}


def against_planted(judged: pd.DataFrame, damaged: Sequence[DamagedModel]) -> pd.DataFrame:
    """`diagnoses` of damaged models, of one scope: dataset, model, planted (mode), strength, diagnosis, detected (yes:
    the planted mode is the main one; another mode, no)."""
    short = in_short(judged)
    own = short["model"].map({one.slug: one for one in damaged})
    mode = own.map(lambda one: one.mode)
    detected = (short["main"] == mode).map({True: "yes", False: "another mode"}).where(short["main"].notna(), "no")
    columns = {"planted": mode, "strength": own.map(lambda one: one.strength), "diagnosis": short["diagnosis"]}
    return short[["dataset", "model"]].assign(**columns, detected=detected)


def mapping_losses(
    probed: pd.DataFrame,
    lens: pd.DataFrame,
    predicted: pd.DataFrame,
    readout: pd.DataFrame,
    image_sets: Mapping[str, ImageSet],
    split_rule: str,
) -> pd.DataFrame:
    """What is lost in each of STEPS from the last token's state to the answer, and beside a fitted readout: where
    probabilities separate the classes, but name the wrong ones, the readout is correct and the answer is not. Of
    `results.end_rows`, `results.lens_rows`, `results.prediction_rows` and `readout_rows`. Returns three rows a state:
    STATE, the columns of `diagnosis.losses`, and verdict by the simultaneous interval: LOST, GAINED or NEITHER. Raises
    InputError if rows of a state or of an image are missing."""
    module, pooling, end = PROBED_SITES[LAST_TOKEN]
    of_last_token = probed[(probed["pooling"] == pooling) & probed["point"].str.startswith(module)]
    frames, tables = [], [by_state(own) for own in (lens, predicted, readout)]
    for state, rows, drawn, images in groups(of_last_token, STATE, image_sets, split_rule):
        correct = {LAST_TOKEN: outcomes(rows[rows["point"] == point_at(rows, end)]).correct[:, 0]}
        ranked, answered, read = (own[(*state.values(),)] for own in tables)
        place = f"{state['model']} on {state['dataset']}"
        if ranked.empty:
            raise InputError(f"{place}, {state['stage']}: no rows of '{RANKED}'")
        ranked = ranked[ranked["point"] == point_at(ranked, end)]
        for site, own in ((RANKED, ranked), (OUTPUT, answered), (READ_OUT, read)):
            correct[site] = single_outcomes(own, images, f"{place}, {site}", parsed=site == OUTPUT)
        frames.append(diagnosis.losses(correct, drawn, statements=STEPS).assign(**state))
    found = pd.concat(frames, ignore_index=True)
    return found.assign(verdict=np.select([found["band_high"] < 0, found["band_low"] > 0], [LOST, GAINED], NEITHER))


def readout_rows(prediction_rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the test images predicted anew from the options' probabilities: `probe` "readout", no text and parsed. By
    a multinomial logistic regression on their standardised logarithms, fitted on the few validation images of the same
    state and run: what it does no better than the answers is not proved absent. Raises InputError if validation images
    are not of several classes."""
    frames = []
    for _, own in prediction_rows.groupby(["model", "fault", "dataset", "stage", "run"], dropna=False, sort=False):
        columns = [OPTION + option for option in options_of(own)]
        fitted, tested = (own[own["split"] == split] for split in ("validation", "test"))
        if (classes := fitted["label"].nunique()) < 2:
            where = f"{own['model'].iloc[0]} on {own['dataset'].iloc[0]}"
            needed = f"a readout is fitted on validation images of several classes, found {classes}"
            raise InputError(f"{where}: {needed}: raise validation_fraction in the protocol's splits")
        scores, shown = (np.log(one[columns].clip(lower=LEAST)) for one in (fitted, tested))
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(scores, fitted["label"])
        predicted = pd.DataFrame(model.predict_proba(shown), tested.index, OPTION + model.classes_)
        probabilities = predicted.reindex(columns=columns, fill_value=0.0)
        kept = tested.drop(columns=["text", "parsed", "thought_cut"], errors="ignore")
        frames.append(kept.assign(probe="readout", **probabilities))
    return pd.concat(frames, ignore_index=True)
