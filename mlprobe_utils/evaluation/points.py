"""Names of probe points: a letter for the part of the model, and a number from 0 in the order the data flows. `V.07` is
in the vision tower, `D.00` in deepstack: a side path, whose points have a curve of their own and enter no health score.
"""

import re

import pandas as pd

MODULES = {"V": "vision tower", "C": "connector", "L": "LLM"}
SIDE_PATHS = {"D": "deepstack"}  # from the vision tower past the connector into the LLM
PROBED = {letter: (MODULES | SIDE_PATHS)[letter] for letter in "VDCL"}  # both, in the order the data flows
POOLINGS = {"comprehension": "image_mean", "utilization": "last_token"}  # what each shows of an LLM's layer
PLACES = "image_places"  # keeps where image tokens are, which their mean discards
POOLING_NAMES = {"image_mean": "image tokens, mean", PLACES: "image tokens, by position", "last_token": "last token"}
ANSWER = "output"  # of the semantic mapping, from the last state to the options' logits
POINT = rf"[{''.join(PROBED)}]\.\d\d"


def is_point(name: str) -> bool:
    return re.fullmatch(POINT, name) is not None


def on_side_path(name: str) -> bool:
    return is_point(name) and name[0] in SIDE_PATHS


def flow_order(point: str) -> tuple[int, int]:
    """Sorts probe points as the data flows. Raises ValueError for a name that is none."""
    letter, number = point.split(".")
    return [*PROBED].index(letter), int(number)


def main_path(table: pd.DataFrame, pooling: str = "image_mean") -> pd.DataFrame:
    """The rows of one pooling and of the final output, without side paths."""
    of_pooling = table["pooling"].isin([pooling]) | table["pooling"].isna()
    return table[of_pooling & ~table["point"].map(on_side_path)]
