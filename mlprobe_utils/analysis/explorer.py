"""What the explorer shows of a run: the fate of every test image in every state of its models."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from mlprobe_utils.evaluation import fates
from mlprobe_utils.evaluation.fates import ANSWER, FATES, MEAN
from mlprobe_utils.evaluation.names import CONTROL_RUN
from mlprobe_utils.evaluation.points import on_side_path
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.results import Selection

STATE = ["model", "dataset", "stage", "run"]


@dataclass(frozen=True)
class Followed:
    """The test images in one state of a model, as `fates.decoded`, with the prediction rows."""

    table: pd.DataFrame
    answers: pd.DataFrame

    @property
    def options(self) -> list[str]:
        return [*self.table.columns.unique(2)]

    @cached_property
    def fates(self) -> pd.Series:
        return fates.fates(self.table, self.answers)


def followed(*selections: Selection) -> dict[tuple, Followed]:
    """STATE -> the test images in it; before fine-tuning with the probes of CONTROL_RUN, in damaged models without the
    logit lens."""
    found = {}
    for selection in selections:
        lens = [] if any("+" in model for model in selection.models) else [results.lens_rows(selection)]
        tables = [results.probe_rows(selection, split="test"), results.prediction_rows(selection), *lens]
        parts = [
            dict(iter(own.assign(run=own["run"].fillna(CONTROL_RUN)).groupby(STATE, sort=False))) for own in tables
        ]
        for key, predicted in parts[1].items():
            table = fates.decoded(parts[0][key], predicted, parts[2][key] if lens else None)
            found[key] = Followed(table, fates.answers_to(table, predicted))
    return found


def counted(found: Mapping[tuple, Followed]) -> pd.DataFrame:
    """STATE, and the number of test images of each fate."""
    counts = pd.DataFrame({key: own.fates.value_counts() for key, own in found.items()}).T
    counts = counts.reindex(columns=[*FATES], fill_value=0).fillna(0).astype(int).rename(columns=FATES)
    return counts.rename_axis(STATE).reset_index()


def largest_drops(found: Mapping[tuple, Followed], most: int) -> pd.DataFrame:
    """Of each state the `most` images whose true class loses most probability from one point of the path, by the mean
    of the image tokens, to the next: STATE, image, number (its place in the explorer), class, start, end (points),
    before, after, drop (percent), fate."""
    frames = []
    for key, own in found.items():
        path = own.table[[place for place in own.table if place[0] in (MEAN, ANSWER) and not on_side_path(place[1])]]
        true = path.columns.get_level_values(2).to_numpy() == own.answers[["label"]].to_numpy()
        curves = 100 * path.to_numpy()[true].reshape(len(path), -1)  # [images, points]
        points, rows = list(dict.fromkeys(path.columns.get_level_values(1))), np.arange(len(path))
        falls = curves[:, :-1] - curves[:, 1:]
        at = falls.argmax(axis=1)
        columns = dict(zip(STATE, key, strict=True)) | {
            "image": path.index,
            "number": rows + 1,
            "class": own.answers["label"].to_numpy(),
        }
        columns |= {
            "start": np.array(points)[at],
            "end": np.array(points)[at + 1],
            "fate": own.fates.map(FATES).to_numpy(),
        }
        columns |= {"before": curves[rows, at], "after": curves[rows, at + 1], "drop": falls[rows, at]}
        frames.append(pd.DataFrame(columns).nlargest(most, "drop"))
    return pd.concat(frames, ignore_index=True)


def payloads(found: Mapping[tuple, Followed]) -> dict[str, object]:
    """What `plots.explorer` takes beside the images: `<model>/<data set>`, and `models/<data set>` of the healthy
    models after their first fine-tuning."""
    sheets: dict = {}
    compared: dict = {}
    for (model, dataset, stage, run), own in found.items():
        drawn = fates.state(own.table, own.answers, own.fates)
        sheets.setdefault(f"{model}/{dataset}", []).append({"stage": stage, "run": int(run)} | drawn)
        if "+" not in model and (stage, run) == ("finetuned", CONTROL_RUN):
            compared.setdefault(f"models/{dataset}", {})[model] = fates.compared(own.table, own.answers, drawn)
    return sheets | compared
