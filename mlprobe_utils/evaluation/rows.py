"""The schema of the rows that everything after the features is computed from: one row per image and probe point.

`run` is the fine-tuning that the features come from (of the pretrained model the seed, or null where many seeds probe
one state), `probe` the protocol's settings, `seed` the probe's own. What does not apply is null:

- final outputs have no probe, seed and point, but the generated `text`, the `parsed` option (null: unparsed), and
  `thought_cut`: the limit of tokens came before an answer;
- an answer to another wording of the question has its name in `control` (`Release.other_prompts`);
- layer transfer has in `probe` the point at which it was fitted, a vision tower trained alone what was trained of it;
- a control without a model has no model, stage and order, one with random weights no stage. The `label` of the control
  task and of memorisation is the one trained on, not the true one; only memorisation has train images;
- a baseline has its slug in `model`, the training's seed in `run` and the number of epochs trained in `epoch`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.evaluation.points import POINT, POOLING_NAMES
from mlprobe_utils.evaluation.question import ORDERS

OPTION = "p_"
MAIN_PROBE = "main"  # the probe settings of scores and diagnosis
SPLIT_RULES = ("paper", "clean")
SPLITS = ("train", "validation", "test", "unused")
STAGES = ("pretrained", "finetuned")
STATE = ["model", "stage", "order"]
NOT_OF_BASELINES = ["fault", "stage", "order", "probe", "seed", "point", "pooling", "control"]
_MAYBE = {"nullable": True}
SCHEMA = pa.DataFrameSchema(
    {name: pa.Column(str) for name in ("dataset", "image", "label")}
    | {name: pa.Column(str, **_MAYBE) for name in ("model", "fault", "probe", "control")}
    | {name: pa.Column(str, **_MAYBE, required=False) for name in ("text", "parsed")}
    | {name: pa.Column("Int64", pa.Check.ge(0), **_MAYBE) for name in ("run", "seed")}
    | {
        "data_hash": pa.Column(str, pa.Check.str_length(64, 64)),
        "split_rule": pa.Column(str, pa.Check.isin(SPLIT_RULES)),
        "split": pa.Column(str, pa.Check.isin(["train", "validation", "test"])),
        "stage": pa.Column(str, pa.Check.isin(STAGES), **_MAYBE),
        "order": pa.Column(str, pa.Check.isin([*ORDERS]), **_MAYBE),
        "point": pa.Column(str, pa.Check.str_matches(f"^{POINT}$"), **_MAYBE),
        "pooling": pa.Column(str, pa.Check.isin([*POOLING_NAMES]), **_MAYBE),
        "epoch": pa.Column("Int64", pa.Check.ge(1), **_MAYBE, required=False),
        "thought_cut": pa.Column("boolean", **_MAYBE, required=False),
        r"^p_.+": pa.Column(float, pa.Check.in_range(0, 1), regex=True, nullable=True),
    },
    checks=[
        pa.Check(
            lambda rows: rows["control"].notna() | of_baselines(rows) | rows[STATE].notna().all(axis=1),
            error="model, stage or order is null in a row of no control and no baseline",
        ),
        pa.Check(
            lambda rows: ~of_baselines(rows) | (rows["model"].notna() & rows[NOT_OF_BASELINES].isna().all(axis=1)),
            error=f"model is null in a row of a baseline, or not null is one of {', '.join(NOT_OF_BASELINES)}",
        ),
        pa.Check(
            lambda rows: rows["control"].notna() | (rows["split"] != "train"),
            error="split is 'train' in a row of no control",
        ),
    ],
    strict=True,
    coerce=True,
)


def of_baselines(rows: pd.DataFrame) -> pd.Series:
    return rows["epoch"].notna() if "epoch" in rows else pd.Series(False, rows.index)


def image_rows(images: pd.DataFrame, options: list[str], probabilities: np.ndarray | None, **constants) -> pd.DataFrame:
    """Rows for `images` (columns image, option, split), with constant columns and probabilities [images, options], None
    for nan; InputError for one that is not finite."""
    rows = images[["image", "option", "split"]].reset_index(drop=True).rename(columns={"option": "label"})
    nulls = dict.fromkeys(("fault", "run", "probe", "seed", "point", "pooling", "control"))
    named = dict.fromkeys((OPTION + option for option in options), np.nan)
    if probabilities is not None:
        check_finite(probabilities, images["image"], f"{constants.get('model')} on {constants.get('dataset')}")
        named = dict(zip(named, probabilities.T.astype(float), strict=True))
    return rows.assign(**nulls | constants | named)


def check_finite(probabilities: np.ndarray, images: Sequence[str], place: str) -> None:
    """Raises InputError for probabilities [images, options] that are not finite; it names the first such image."""
    if (wrong := ~np.isfinite(probabilities).all(axis=1)).any():
        found = f"{place}: the probabilities of {wrong.sum()} of {len(wrong)} images are not finite"
        mend = "run the model in float32 (`precision`), or train its adapter with a lower learning rate"
        raise InputError(f"{found}, first {[*images][wrong.argmax()]}. Weights or states overflow: {mend}")


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """Validates rows against the schema and writes them (parquet, atomically)."""
    write_parquet(SCHEMA.validate(rows), path)


def options_of(rows: pd.DataFrame) -> list[str]:
    """The options with probabilities in the rows of one data set."""
    return [c.removeprefix(OPTION) for c in rows.columns if c.startswith(OPTION) and rows[c].notna().any()]


def predicted_option(rows: pd.DataFrame) -> pd.Series:
    """The most probable option of each row, among those of its own data set."""
    options = options_of(rows)
    probabilities = rows[[OPTION + option for option in options]].fillna(-1).to_numpy()  # nan would be the largest
    return pd.Series(np.array(options)[probabilities.argmax(axis=1)], index=rows.index)
