"""Is what can be decoded also used, and where does it stop being used? Outcomes under the edits of a sweep.

A probe shows what is there, an edit what the model does with it. Without a twin two kinds of edit can place a fault
that keeps the class decodable: a block that does harm can be left out (answers are right more often without it), and
what the LLM ends with can be ranked by the output layer itself (right more often than the answer). The connector cannot
be left out: it remains where nothing else can do as much harm as there is. Moving a state to another class's mean says
whether its direction is used, and nothing of the place: behind a damage the model no longer understands the direction
that is decoded, and before it what it understands no longer gets through."""

import numpy as np
import pandas as pd

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.points import flow_order
from mlprobe_utils.evaluation.rows import predicted_option
from mlprobe_utils.stats.intervals import PROBE, intervals
from mlprobe_utils.stats.paired import ALPHA, holm, sign_flip_p
from mlprobe_utils.stats.resampling import accuracy, resample

# what is edited: nothing; text no longer sees the image, from a layer on, or the last token alone; a layer's states are
# the partner's; they are moved to the partner's class, or as far elsewhere; classes are taken out; a block is left out;
# an intact twin's states are put back up to the end of a part; the last state is ranked by the output layer
NOTHING, TWIN = "none", "twin"
CUT, CUT_LAST, PATCHED = "cut", "cut from the last token", "patched"
MOVED, MOVED_AT_RANDOM, ERASED = "moved", "moved at random", "erased"
SKIPPED, PUT_BACK, RANKED = "skipped", "put back", "ranked"
FOLLOWS = (PATCHED, MOVED, MOVED_AT_RANDOM)  # measured by answers that become the partner's label
VISION_TOWER, CONNECTOR = "vision tower", "connector"
FIRST_HALF, SECOND_HALF, OUTPUT = "first half of the LLM", "second half of the LLM", "output"
PARTS = (VISION_TOWER, CONNECTOR, FIRST_HALF, SECOND_HALF, OUTPUT)  # in which a fault is placed
INCONCLUSIVE = "inconclusive"
OF_WHAT = ["edit", "point", "tokens"]
RESTORED = 0.5  # share of what a twin's answers are better by, from which on a part that is put back restores them


def effects(rows: pd.DataFrame) -> pd.DataFrame:
    """What each edit does, of the rows of one `sweeps.sweep`: OF_WHAT; value (percent), low and high. Of cuts it is the
    share of answers that change, of FOLLOWS, among images answered right, that of answers that become the partner's
    label; of all others accuracy. Pairs of images are drawn anew. InputError where no image is answered right."""
    truth, other, predicted = _wide(rows)
    before = predicted[NOTHING, "", ""]
    right, pairs, frames = before == truth, np.arange(len(truth)) // 2, []
    if not right.any():
        raise InputError("of the images under edits none is answered right: nothing can be seen to change")
    kinds = {
        "changes": (lambda edit: edit in (CUT, CUT_LAST), slice(None), lambda found: found != before),
        "follows": (lambda edit: edit in FOLLOWS, right, lambda found: found == other),
        "right": (lambda edit: edit not in (CUT, CUT_LAST, *FOLLOWS), slice(None), lambda found: found == truth),
    }
    for measure, (chosen, images, counted) in kinds.items():
        if keys := [key for key in predicted if chosen(key[0])]:
            hits = np.stack([counted(predicted[key])[images] for key in keys])
            known = intervals(accuracy(hits, resample(pairs[images])))[["value", "low", "high"]]
            frames.append(pd.DataFrame(keys, columns=OF_WHAT).assign(measure=measure).join(known))
    return pd.concat(frames, ignore_index=True)


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """By how much answers are right more often without each block, and ranked by the output layer: edit, point, part
    (of PARTS), change (pp), error, low, high, p (two-sided, exact), better and worse: of how many images. Rows as of
    `effects`."""
    truth, _, predicted = _wide(rows)
    keys = [key for key in predicted if key[0] in (SKIPPED, RANKED)]
    layers = sorted({point for _, point, _ in keys if point[0] == "L"}, key=flow_order)
    middle = (int(layers[-1][2:]) + 1) // 2
    parts = [OUTPUT if edit == RANKED else _part(point, middle) for edit, point, _ in keys]
    pairs = np.arange(len(truth)) // 2
    return pd.DataFrame(keys, columns=OF_WHAT).assign(part=parts).join(_changes(predicted, truth, keys, pairs))


def by_part(found: pd.DataFrame) -> pd.DataFrame:
    """The block of each part that does most harm, of `gains`: its row, with the highest `high` of the part's blocks,
    and p corrected for all blocks (Holm)."""
    found = found.assign(p=holm(found["p"]), high=found.groupby("part")["high"].transform("max"))
    return found.loc[found.groupby("part", sort=False)["change"].idxmax()].reset_index(drop=True)


def place(found: pd.DataFrame, missing: float, share: float) -> tuple[str, str]:
    """One of PARTS, or INCONCLUSIVE, and why in words; by `by_part`, without a twin. `missing` is what can be decoded
    and is not answered (pp), `share` the part of it that a block has to explain, 0 to 1."""
    least, helps = share * missing, (found["p"] < ALPHA) & (found["change"] > 0)
    if (enough := found[helps & (found["change"] >= least)]).empty:
        if (found["high"] < least).all():
            return CONNECTOR, f"no block, and not the output, explains {least:.0f} pp; only the connector is left"
        return INCONCLUSIVE, f"no block explains {least:.0f} pp for certain, and some may"
    best = enough.loc[enough["change"].idxmax()]
    words = f"{best['change']:+.0f} pp ({best['low']:+.0f} to {best['high']:+.0f})"
    if best["edit"] == RANKED:
        return OUTPUT, f"ranked by the output layer itself, {words}: it arrives, and is not mapped to the right word"
    rivals = enough[(enough["part"] != best["part"]) & (enough["high"] > best["change"])]
    if len(rivals):
        return INCONCLUSIVE, f"without {best['point']} {words}, and about as much without {rivals['point'].iloc[0]}"
    return best["part"], f"without {best['point']} {words}"


def place_by_twin(rows: pd.DataFrame) -> str:
    """One of PARTS: the first that restores what the twin's answers are better by, once its states are put back up to
    the end of that part; the output, where none does. INCONCLUSIVE where the twin's are no better. Rows as of
    `effects`, of a sweep with a twin."""
    truth, _, predicted = _wide(rows)
    right = {key: (own == truth).mean() for key, own in predicted.items()}
    intact, broken = right[TWIN, "", ""], right[NOTHING, "", ""]
    if intact <= broken:
        return INCONCLUSIVE
    restored = [part for part in PARTS[:-1] if right[PUT_BACK, part, ""] - broken >= RESTORED * (intact - broken)]
    return restored[0] if restored else OUTPUT


def last_layer_that_reads(found: pd.DataFrame, least: float = 5.0) -> str | None:
    """The last layer from which on the answer still depends on what text sees of the image, by `effects`: cut from
    there on, the share of changed answers is more than `least` percent for certain. None: of no layer."""
    cut = found[(found["edit"] == CUT) & (found["low"] > least)]
    return max(cut["point"], key=flow_order, default=None)


def _part(point: str, middle: int) -> str:
    if point[0] == "V":
        return VISION_TOWER
    return FIRST_HALF if int(point[2:]) < middle else SECOND_HALF


def _changes(predicted: dict, truth: np.ndarray, keys: list[tuple], clusters: np.ndarray) -> pd.DataFrame:
    before = np.broadcast_to(predicted[NOTHING, "", ""] == truth, (len(keys), len(truth)))
    after, drawn = np.stack([predicted[key] == truth for key in keys]), resample(clusters)
    known = intervals(accuracy(after, drawn) - accuracy(before.copy(), drawn), PROBE)
    return known.rename(columns={"value": "change"})[["change", "error", "low", "high"]].assign(
        p=sign_flip_p(before, after, clusters),
        better=(after & ~before).sum(axis=1),
        worse=(before & ~after).sum(axis=1),
    )


def _wide(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, dict[tuple, np.ndarray]]:
    """Labels and partners' labels [images], and (edit, point, tokens) -> predicted option [images]."""
    rows = rows.assign(predicted=predicted_option(rows), tokens=rows["tokens"].fillna(""))
    by = rows.sort_values("image", kind="stable").groupby(OF_WHAT, sort=False)
    first = by.get_group((NOTHING, "", ""))
    return (*(first[c].to_numpy() for c in ("label", "other")), {k: own["predicted"].to_numpy() for k, own in by})
