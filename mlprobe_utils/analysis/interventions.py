"""Chapter "Is it used?": what edits of a model's states do to its answers, and where that places a fault."""

from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from mlprobe_utils.evaluation import used
from mlprobe_utils.evaluation.diagnosis import NAMED
from mlprobe_utils.evaluation.health import STATE
from mlprobe_utils.evaluation.points import flow_order
from mlprobe_utils.evaluation.rows import OPTION
from mlprobe_utils.evaluation.used import (
    CUT,
    CUT_LAST,
    ERASED,
    MOVED,
    MOVED_AT_RANDOM,
    PATCHED,
    PUT_BACK,
    SKIPPED,
    Shares,
)

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
    found = [used.effects(own).assign(**dict(zip(STATE, state, strict=True))) for state, own in _states(rows)]
    return pd.concat(found, ignore_index=True)


def curves(found: pd.DataFrame, shown: Mapping[tuple[str, str], str], stage: str = "finetuned") -> pd.DataFrame:
    """Of `effects` those of some edits and tokens, by their names, as `charts.edit_curves` takes them."""
    keys = pd.Series([*zip(found["edit"], found["tokens"], strict=True)], found.index)
    own = found[keys.isin([*shown]) & (found["stage"] == stage)]
    return own.assign(series=keys.map(shown)).rename(columns={"low": "band_low", "high": "band_high"})


def last_readers(found: pd.DataFrame) -> pd.DataFrame:
    """The last layer whose attention to the image still changes answers, by `effects`: STATE, layer, or null."""
    return _layers(found[found["edit"] == CUT], used.last_layer_that_reads)


def deciding_layers(found: pd.DataFrame) -> pd.DataFrame:
    """The first layer at which the last token's state decides most answers for certain, by `effects`: STATE, layer, or
    null."""
    first = lambda own: min(own.loc[own["low"] > 50, "point"], key=flow_order, default=None)  # noqa: E731
    return _layers(found[(found["edit"] == PATCHED) & (found["tokens"] == "last_token")], first)


def _layers(found: pd.DataFrame, layer_of: Callable[[pd.DataFrame], str | None]) -> pd.DataFrame:
    layers = [(*state, layer_of(own)) for state, own in found.groupby(STATE, sort=False)]
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
    own = found[found["edit"].isin([used.NOTHING, PUT_BACK, used.TWIN]) & (found["images"] == used.TESTED)]
    with_twin = own.groupby(STATE)["edit"].transform(lambda edits: used.TWIN in set(edits)).astype(bool)
    names = {used.NOTHING: "nothing", used.TWIN: "the twin itself"}
    own = own[with_twin]
    own = own.assign(part=own["edit"].map(names).fillna(own["point"]))
    own["shown"] = [f"{row.value:.0f} [{row.low:.0f}, {row.high:.0f}]" for row in own.itertuples()]
    order = [name for name in ("nothing", *used.PARTS, "the twin itself") if name in set(own["part"])]
    return own.pivot(index=STATE, columns="part", values="shown")[order].rename_axis(columns=None).reset_index()


def placed(
    rows: pd.DataFrame, probed: pd.DataFrame, judged: pd.DataFrame, shares: Mapping[str, Shares]
) -> pd.DataFrame:
    """Where the fault of each fine-tuned state is, by interventions: STATE, image read until, last token decides from
    (layers, or null), detected (modes of the diagnosis), missing (decodable and not answered, pp), place, why, and
    by twin (null without one). Where nothing is detected, nothing is placed. `probed` are `results.end_rows`, `judged`
    `diagnosis_tables.diagnoses` of one scope, `shares` `laboratory_results.Laboratory.shares`."""
    finetuned, records = rows[rows["stage"] == "finetuned"], []
    for state, own in _states(finetuned):
        of_state = _of_state(judged, state)
        named = of_state.loc[of_state["verdict"] == NAMED, "mode"]
        missing = used.decodable(_of_state(probed, state)) - used.answered(own)
        parts = used.by_part(used.gains(own)).to_dict("records")
        place, why = used.place(parts, missing, shares[state[0]]) if len(named) else (None, None)
        twin = used.place_by_twin(own) if (own["edit"] == used.TWIN).any() else None
        records.append((*state, "; ".join(dict.fromkeys(named)), missing, place, why, twin))
    table = pd.DataFrame(records, columns=[*STATE, "detected", "missing (pp)", "place", "why", "by twin"])
    found = effects(finetuned)
    read = last_readers(found).rename(columns={"layer": "image read until"})
    return read.merge(deciding_layers(found).rename(columns={"layer": "last token decides from"})).merge(table)


def _of_state(rows: pd.DataFrame, state: tuple[str, ...]) -> pd.DataFrame:
    own = rows[(rows[STATE] == list(state)).all(axis=1)]
    return own.drop(columns=[name for name in own if name.startswith(OPTION) and own[name].isna().all()])


def _states(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """The rows of each state, without probabilities of options that its data set does not have."""
    for state, _ in rows.groupby(STATE, sort=False):
        yield state, _of_state(rows, state)
