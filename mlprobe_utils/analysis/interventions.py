"""Chapter "Is it used?": what edits of a model's states do to its answers, and where that places a fault."""

from collections.abc import Callable, Mapping

import pandas as pd

from mlprobe_utils.evaluation import used
from mlprobe_utils.evaluation.diagnosis import NAMED
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.points import flow_order
from mlprobe_utils.evaluation.used import CUT, CUT_LAST, ERASED, MOVED, MOVED_AT_RANDOM, PATCHED, PUT_BACK, SKIPPED

# (edit, tokens) -> a line of a chart
BLIND = {(CUT, "text"): "all text", (CUT_LAST, "last_token"): "the last token alone"}
FROM_PARTNER = {(PATCHED, "image_tokens"): "image tokens", (PATCHED, "text"): "all text"}
FROM_PARTNER |= {(PATCHED, "last_token"): "the last token alone"}
IMAGE_MOVED = {(MOVED, "image_tokens"): "to the other class", (MOVED_AT_RANDOM, "image_tokens"): "as far elsewhere"}
LAST_MOVED = {(edit, "last_token"): name for (edit, _), name in IMAGE_MOVED.items()}
CLASSES_ERASED = {(ERASED, "image_tokens"): "from the image tokens", (ERASED, "last_token"): "from the last token"}
WITHOUT = {(SKIPPED, ""): "without the block"}
USED, ELSEWHERE, UNUSED = "used", "used, but not along this direction", "not used"


def effects(rows: pd.DataFrame) -> pd.DataFrame:
    """`used.effects` of every state in `results.intervention_rows`, with STATE."""
    by_state = rows.groupby(STATE, sort=False)
    found = [used.effects(own).assign(**dict(zip(STATE, state, strict=True))) for state, own in by_state]
    return pd.concat(found, ignore_index=True)


def curves(found: pd.DataFrame, shown: Mapping[tuple[str, str], str], stage: str = "finetuned") -> pd.DataFrame:
    """Of `effects` those of some edits and tokens, by their names, as `charts.edit_curves` takes them."""
    keys = pd.Series([*zip(found["edit"], found["tokens"], strict=True)], found.index)
    own = found[keys.isin([*shown]) & (found["stage"] == stage)]
    return own.assign(series=keys.map(shown)).rename(columns={"low": "band_low", "high": "band_high"})


def last_readers(found: pd.DataFrame) -> pd.DataFrame:
    """The last layer from which on answers still depend on what text sees of the image, by `effects`: cut from there
    on, more than 5 % of them change for certain. STATE, layer, or null."""
    return _layers(found[found["edit"] == CUT], 5, max)


def deciding_layers(found: pd.DataFrame) -> pd.DataFrame:
    """The first layer at which the last token's state decides most answers for certain, by `effects`: STATE, layer, or
    null."""
    return _layers(found[(found["edit"] == PATCHED) & (found["tokens"] == "last_token")], 50, min)


def _layers(found: pd.DataFrame, least: float, end: Callable) -> pd.DataFrame:
    """The first (`min`) or last (`max`) layer with more than `least` percent for certain."""
    certain = ((state, own.loc[own["low"] > least, "point"]) for state, own in found.groupby(STATE, sort=False))
    layers = [(*state, end(points, key=flow_order, default=None)) for state, points in certain]
    return pd.DataFrame(layers, columns=[*STATE, "layer"])


def uses(found: pd.DataFrame) -> pd.DataFrame:
    """Whether the direction between the classes is used at each LLM layer and kind of token, by `effects`: STATE,
    point, tokens, patched, moved, moved at random (percent of answers that follow), use. Used: more answers follow it
    than as large a step elsewhere, for certain; else, if the whole state of the other image makes more follow than
    that: used, but not along this direction; null where no image is answered correctly."""
    names = {PATCHED: "patched", MOVED: "moved", MOVED_AT_RANDOM: "moved at random"}
    table = found[found["edit"].isin(names) & (found["tokens"] != "text")]
    wide = table.pivot(index=[*STATE, "point", "tokens"], columns="edit", values=["value", "low", "high"])
    wide = wide[wide.index.get_level_values("point").str.startswith("L")]
    follows = wide["value", PATCHED].notna()
    moved = wide["low", MOVED] > wide["high", MOVED_AT_RANDOM]
    patched = wide["low", PATCHED] > wide["high", MOVED_AT_RANDOM]
    use = moved.map({True: USED, False: UNUSED}).mask(~moved & patched, ELSEWHERE).where(follows)
    return pd.DataFrame({name: wide["value", edit] for edit, name in names.items()}).assign(use=use).reset_index()


def restored(found: pd.DataFrame) -> pd.DataFrame:
    """Accuracy with a twin's states put back up to the end of each part, by `effects`: STATE, and a column for nothing,
    each part and the twin itself, percent with interval."""
    names = {used.NOTHING: "nothing", used.TWIN: "the twin itself"}
    own = found[found["edit"].isin([*names, PUT_BACK]) & (found["images"] == used.TESTED)]
    own = own[(own["edit"] == used.TWIN).groupby([own[name] for name in STATE]).transform("any")]
    own = own.assign(part=own["edit"].map(names).fillna(own["point"]))
    own["shown"] = [f"{row.value:.0f} [{row.low:.0f}, {row.high:.0f}]" for row in own.itertuples()]
    order = [name for name in ("nothing", *used.PARTS, "the twin itself") if name in set(own["part"])]
    return own.pivot(index=STATE, columns="part", values="shown")[order].rename_axis(columns=None).reset_index()


def placed(
    rows: pd.DataFrame, probed: pd.DataFrame, judged: pd.DataFrame, shares: Mapping[str, used.Shares]
) -> pd.DataFrame:
    """Where the fault of each fine-tuned state is, by interventions: STATE, image read until, last token decides from
    (layers, or null), detected (modes of the diagnosis), missing (decodable and not answered, pp), place, why, and
    by twin (null without one). Where nothing is detected, nothing is placed. `probed` are `results.end_rows`, `judged`
    `diagnosis_tables.diagnoses` of one scope, `shares` `laboratory_results.Laboratory.shares`."""
    finetuned, records = rows[rows["stage"] == "finetuned"], []
    probes, verdicts = (table.groupby(STATE) for table in (probed, judged))
    for state, own in finetuned.groupby(STATE, sort=False):
        of_state = verdicts.get_group(state)
        named = of_state.loc[of_state["verdict"] == NAMED, "mode"]
        missing = used.decodable(probes.get_group(state)) - used.answered(own)
        parts = used.by_part(used.gains(own)).to_dict("records")
        place, why = used.place(parts, missing, shares[state[0]]) if len(named) else (None, None)
        twin = used.place_by_twin(own) if (own["edit"] == used.TWIN).any() else None
        records.append((*state, "; ".join(dict.fromkeys(named)), missing, place, why, twin))
    table = pd.DataFrame(records, columns=[*STATE, "detected", "missing (pp)", "place", "why", "by twin"])
    found = effects(finetuned)
    read = last_readers(found).rename(columns={"layer": "image read until"})
    return read.merge(deciding_layers(found).rename(columns={"layer": "last token decides from"})).merge(table)
