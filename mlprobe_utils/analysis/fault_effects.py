"""How strong planted faults are, and what they do to a model's curves: each point intact against damaged."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.health import SCORES
from mlprobe_utils.evaluation.points import ANSWER, MODULES, POOLING_NAMES, flow_order, main_path
from mlprobe_utils.evaluation.rows import predicted_option
from mlprobe_utils.pipeline.fault_card import KINDS, DamagedModel, all_faults
from mlprobe_utils.pipeline.laboratory_results import BOTH, exact_interval, measured
from mlprobe_utils.pipeline.results import DAMAGED_RUN, Selection, prediction_rows, probe_rows
from mlprobe_utils.stats.intervals import intervals
from mlprobe_utils.stats.resampling import accuracy, resample

PLACES = MODULES | {ANSWER: "semantic mapping"}
OF = ["dataset", "model"]
KEYS = ["point", "pooling"]
WHERE = ("before", "at", "after")


def kind_table() -> pd.DataFrame:
    """A row per kind of fault: what happens to states or logits, planted in (modules), class information."""
    modules = {n: dict.fromkeys(PLACES[one.module] for one in all_faults() if one.kind == n) for n in KINDS}
    rows = [(kind.words, ", ".join(modules[n]), "destroyed" if kind.destroys else "kept") for n, kind in KINDS.items()]
    return pd.DataFrame(rows, columns=["what happens to states or logits", "planted in", "class information"])


def effects(healthy: Selection, selection: Selection, damaged: Sequence[DamagedModel]) -> pd.DataFrame:
    """A row per damaged model, data set, probe point and pooling, one for the answer (point `output`, no pooling), in
    the order the data flows; `healthy`: results of the model in which all faults are planted, on the same data sets.
    Returns dataset, model (slug of the damaged one), place (the damaged point, or `output`), point, pooling, images,
    where (of WHERE, from the place), intact, damaged (accuracy, percent), change, low, high (pp; of these probes on new
    images: in a phantom set every image is a patient of its own). Raises InputError for a model that was not run."""
    before, after, frames = _correct(healthy), _correct(selection), []
    for one, dataset in itertools.product(damaged, selection.datasets):
        own = after[(after["model"] == one.slug) & (after["dataset"] == dataset)]
        points = sorted({point for point in own["point"] if point != ANSWER}, key=flow_order)
        flow, place = [*points, ANSWER], one.fault.place(points) or ANSWER
        pairs = before[before["dataset"] == dataset].merge(own, on=[*KEYS, "image"], suffixes=("_intact", "_damaged"))
        groups = dict(list(pairs.sort_values("image", kind="stable").groupby(KEYS, dropna=False, sort=False)))
        sides = ("correct_intact", "correct_damaged")
        both = [np.stack([pair[side].to_numpy(bool) for pair in groups.values()]) for side in sides]
        images = both[0].shape[1]
        drawn = resample(np.arange(images))
        intact, broken = (accuracy(correct, drawn) for correct in both)
        where = [WHERE[1 + np.sign(flow.index(point) - flow.index(place))] for point, _ in groups]
        rows = [(dataset, one.slug, place, *key, images, side) for key, side in zip(groups, where, strict=True)]
        table = pd.DataFrame(rows, columns=[*OF, "place", *KEYS, "images", "where"])
        ends = intervals(broken - intact).rename(columns={"value": "change"})[["change", "low", "high"]]
        table = table.assign(intact=intact.values, damaged=broken.values).join(ends)
        frames.append(table.sort_values("point", key=lambda column: column.map(flow.index), kind="stable"))
    return pd.concat(frames, ignore_index=True)


def _correct(selection: Selection) -> pd.DataFrame:
    """model, dataset, point, pooling, image, correct: of the fine-tuned run that faults are planted in, test images."""
    probes, answers, frames = probe_rows(selection), prediction_rows(selection), []
    for rows, predicted in ((probes, predicted_option(probes)), (answers, answers["parsed"])):
        own = rows.assign(correct=predicted == rows["label"], point=rows["point"].fillna(ANSWER))
        own = own[(own["split"] == "test") & (own["stage"] == "finetuned") & (own["run"] == DAMAGED_RUN)]
        frames.append(own[["model", "dataset", *KEYS, "image", "correct"]])
    return pd.concat(frames, ignore_index=True)


def around(table: pd.DataFrame) -> pd.DataFrame:
    """Of each damaged model and data set in `effects` the last point before the damaged place, it, the first after it:
    of image tokens (or the answer), and of the last token, where that has a state at the place."""
    parts = []
    for (_, own), pooling in itertools.product(table.groupby(OF, sort=False), ("image_mean", "last_token")):
        path = main_path(own, pooling)
        before, at, after = (path[path["where"] == where] for where in WHERE)
        if len(at):
            parts += [before.tail(1), at, after.head(1)]
    return pd.concat(parts, ignore_index=True).drop_duplicates([*OF, *KEYS])


def first_drop(table: pd.DataFrame) -> pd.DataFrame:
    """The first point of a curve of `effects` whose interval lies below 0, or `nowhere`: dataset, model, damaged at,
    first drop, module."""
    path = main_path(table)
    first = path.groupby(OF, sort=False)["place"].first().rename("damaged at").to_frame()
    first["first drop"] = path[path["high"] < 0].groupby(OF)["point"].first()
    first["module"] = first["first drop"].map(lambda p: PLACES[p if p == ANSWER else p[0]], na_action="ignore")
    return first.fillna({"first drop": "nowhere", "module": "none"}).reset_index()


def profile_changes(profiles: pd.DataFrame, damaged: Sequence[DamagedModel]) -> pd.DataFrame:
    """Scores of damaged models minus the healthy one's (pp), means over data sets: model, SCORES, falls most where
    damaged. Of `health.profile` of all these models, of one stage."""
    scores, records = profiles.set_index(["model", "dataset"])[list(SCORES)], []
    for one in damaged:
        change = (scores.loc[one.slug] - scores.loc[one.model]).mean()
        where = "P_final" if one.fault.module == ANSWER else f"FHS_{one.fault.module}"
        hit = {"falls most where damaged": "yes" if change.idxmin() == where else "no"}
        records.append({"model": one.slug} | change.to_dict() | hit)
    return pd.DataFrame(records)


def strengths_of(healthy: Selection, damaged: Sequence[DamagedModel]) -> pd.DataFrame:
    """`laboratory_results.measured` of damaged models, `model` their slugs."""
    keys = [(one.slug, one.model, one.fault.slug, one.points_lost) for one in damaged]
    keys = pd.DataFrame(keys, columns=["slug", "model", "fault", "wanted"])
    found = keys.merge(measured(healthy), on=["model", "fault", "wanted"])
    return found.drop(columns="model").rename(columns={"slug": "model"})


def strength_table(strengths: pd.DataFrame) -> pd.DataFrame:
    """`strengths_of` for a page: the loss of the reference measurement at each damaged point; exact intervals."""
    severity = strengths["severity"].map("{:.3f}".format)
    table = strengths[["dataset", "model"]].assign(**{"damaged at": strengths["point"], "severity": severity})
    for name in BOTH:
        rows = strengths[[name, "images"]].to_numpy()
        table[f"{name} (%)"] = [_with_ends(100 * correct / of, *exact_interval(correct, of)) for correct, of in rows]
    changes = [_with_ends(*row, "+") for row in -strengths[["lost", "lost_high", "lost_low"]].to_numpy()]
    reached = strengths["reached"].map({True: "yes", False: "no"})
    return table.assign(**{"target (pp)": -strengths["wanted"], "change (pp)": changes, "target reached": reached})


def effect_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `effects` for a page: accuracies, and the change with its interval."""
    table = rows[["model", "where", "point"]].assign(state=rows["pooling"].map(POOLING_NAMES).fillna("answer"))
    changes = [_with_ends(*row, "+") for row in rows[["change", "low", "high"]].to_numpy()]
    return table.assign(**{"intact (%)": rows["intact"], "damaged (%)": rows["damaged"], "change (pp)": changes})


def _with_ends(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
