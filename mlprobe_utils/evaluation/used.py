"""Does the model use what can be decoded, and where does it stop using it? Outcomes under the edits of a sweep.

A probe shows what a layer contains, an edit what the model does with it. Without a twin two kinds of edit can locate a
fault that keeps the class decodable: skipping a harmful block (answers are correct more often without it), and ranking
the options by the output layer from the last state (correct more often than the answer). The connector cannot be
skipped: it is inferred where no other part can do as much harm. Moving a state to another class's mean shows whether
its direction is used, but not where: behind the damage the model no longer understands the decoded direction, and
before it what the model understands no longer gets through."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation.rows import predicted_option
from mlprobe_utils.stats.intervals import intervals
from mlprobe_utils.stats.paired import ALPHA, Pair, holm
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
PAIRS, TESTED = "pairs", "test"  # images that are edited: pairs of classes, and test images
OF_WHAT = ["edit", "point", "tokens"]
TIED = 0.99  # share of the largest change, from which on another part's is as large
SMALLEST = 1.0  # pp: no block with a smaller change is harmful
RESTORED = 0.5  # share of what a twin's answers are better by, from which on a part that is put back restores them


class Shares(NamedTuple):
    """Of what is missing, 0 to 1."""

    named: float  # must be restored by skipping a block, for it to be the location
    excluded: float  # must not be restorable by skipping any block, for the connector to be the location


def effects(rows: pd.DataFrame) -> pd.DataFrame:
    """What each edit does, of the rows of one state: OF_WHAT, images, value (percent), low and high. Of cuts it is the
    share of answers that change, of FOLLOWS, among images answered correctly, that of answers that become the partner's
    label (nan where fewer than two are right); of all others accuracy. Images, or pairs of them, are drawn anew."""
    frames = []
    for kind, own in rows.groupby("images", sort=False):
        truth, other, predicted, clusters = _wide(own)
        before, every = predicted[NOTHING, "", ""], np.full(len(truth), True)
        changed = {key: found != before for key, found in predicted.items() if key[0] in (CUT, CUT_LAST)}
        followed = {key: found == other for key, found in predicted.items() if key[0] in FOLLOWS}
        right = {key: found == truth for key, found in predicted.items() if key not in changed | followed}
        for hits, images in ((changed, every), (followed, before == truth), (right, every)):
            if not hits:
                continue
            known = pd.DataFrame(np.nan, range(len(hits)), ["value", "low", "high"])  # where nothing can follow
            if len({*clusters[images]}) > 1:
                counted = np.stack([own[images] for own in hits.values()])
                known = intervals(accuracy(counted, resample(clusters[images])))[[*known]]
            frames.append(pd.DataFrame([*hits], columns=OF_WHAT).assign(images=kind).join(known))
    return pd.concat(frames, ignore_index=True)


def gains(rows: pd.DataFrame) -> pd.DataFrame:
    """By how much accuracy rises without each block, and as the output layer ranks them: edit, point,
    part (of PARTS), change (pp), low, high, p (two-sided, exact). Rows as of `effects`, of TESTED images."""
    truth, _, predicted, clusters = _wide(rows[rows["images"] == TESTED])
    keys = [key for key in predicted if key[0] in (SKIPPED, RANKED)]
    layers = 1 + max(int(point[2:]) for _, point, _ in keys if point[0] == "L")
    parts = [OUTPUT if edit == RANKED else part_of(point, layers) for edit, point, _ in keys]
    after = np.stack([predicted[key] == truth for key in keys])
    before = (predicted[NOTHING, "", ""] == truth)[None]
    tests = Pair({}, before, after, resample(clusters)).tests().rename(columns={"value": "change"})
    return pd.DataFrame(keys, columns=OF_WHAT).assign(part=parts).join(tests[["change", "low", "high", "p"]])


def decodable(probed: pd.DataFrame) -> float:
    """The most that probes decode at any point of one state, of any pooling (percent, mean over seeds)."""
    right = (predicted_option(probed) == probed["label"]).groupby([probed["point"], probed["pooling"]]).mean()
    return 100 * float(right.max())


def answered(rows: pd.DataFrame) -> float:
    """Accuracy of the options that a model ranks first, unedited, on TESTED images (percent)."""
    truth, _, predicted, _ = _wide(rows[rows["images"] == TESTED])
    return 100 * float((predicted[NOTHING, "", ""] == truth).mean())


def by_part(found: pd.DataFrame) -> pd.DataFrame:
    """The block of each part that does most harm, of `gains`: its row, with what it does in words, the highest `high`
    of the part's blocks, and p corrected for all blocks (Holm)."""
    words = [f"{own.change:+.0f} pp ({own.low:+.0f} to {own.high:+.0f})" for own in found.itertuples()]
    found = found.assign(words=words, p=holm(found["p"]), high=found.groupby("part")["high"].transform("max"))
    return found.loc[found.groupby("part", sort=False)["change"].idxmax()].reset_index(drop=True)


def place(parts: Sequence[Mapping], missing: float, shares: Shares) -> tuple[str, str]:
    """One of PARTS, or INCONCLUSIVE, and why in words, without a twin. `parts` are the rows of `by_part`, `missing` is
    what can be decoded and is not answered (pp)."""
    least = max(shares.named * missing, SMALLEST)
    enough = [own for own in parts if own["p"] < ALPHA and own["change"] >= least]
    if not enough and all(own["high"] < shares.excluded * missing for own in parts):
        return CONNECTOR, f"no skippable block explains {least:.0f} pp, and the connector cannot be skipped"
    if not enough:
        return INCONCLUSIVE, f"no block certainly explains {least:.0f} pp, but some might"
    best, *others = sorted(enough, key=lambda own: -own["change"])
    if rivals := [own["point"] for own in others if own["change"] > TIED * best["change"]]:
        return INCONCLUSIVE, f"{best['words']} without {best['point']}, and about as much without {rivals[0]}"
    if best["part"] == OUTPUT:
        words = "when the output layer ranks the options: the class arrives, but is mapped to the wrong word"
        return OUTPUT, f"{best['words']} {words}"
    return best["part"], f"{best['words']} without {best['point']}"


def place_by_twin(rows: pd.DataFrame) -> str:
    """One of PARTS: the first that restores what the twin's answers are better by, once its states are put back up to
    the end of that part; the output, where none does. INCONCLUSIVE where the twin's are no better. Rows as of
    `effects`, of a sweep with a twin."""
    truth, _, predicted, _ = _wide(rows[rows["images"] == TESTED])
    right = {key: (own == truth).mean() for key, own in predicted.items()}
    intact, broken = right[TWIN, "", ""], right[NOTHING, "", ""]
    if intact <= broken:
        return INCONCLUSIVE
    restored = [part for part in PARTS[:-1] if right[PUT_BACK, part, ""] - broken >= RESTORED * (intact - broken)]
    return restored[0] if restored else OUTPUT


def part_of(point: str, layers: int) -> str:
    """Which of PARTS a point is in; of the LLM's, by the number of its layers. OUTPUT for `points.ANSWER`."""
    if point[0] == "L":
        return FIRST_HALF if int(point[2:]) < (layers + 1) // 2 else SECOND_HALF
    return {"V": VISION_TOWER, "C": CONNECTOR}.get(point[0], OUTPUT)


def _wide(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, dict[tuple, np.ndarray], np.ndarray]:
    """Labels and partners' labels [images], (edit, point, tokens) -> predicted option [images], and which images belong
    together."""
    rows = rows.assign(predicted=predicted_option(rows), tokens=rows["tokens"].fillna(""))
    by = rows.sort_values("image", kind="stable").groupby(OF_WHAT, sort=False)
    first = by.get_group((NOTHING, "", ""))
    predicted = {key: own["predicted"].to_numpy() for key, own in by}
    members = np.arange(len(first)) // (2 if first["images"].iloc[0] == PAIRS else 1)
    return first["label"].to_numpy(), first["other"].to_numpy(), predicted, members
