"""Outcomes from rows: each in its place whatever the order of the rows, and what is missing is named."""

import numpy as np
import pandas as pd
import pytest

from mlprobe_utils.errors import InputError
from mlprobe_utils.outcomes import outcomes
from mlprobe_utils.rows import image_rows

IMAGES = pd.DataFrame({"image": ["c", "a", "b"], "option": ["Yes", "No", "Yes"], "part": "test"})
CONSTANT = {"model": "m", "dataset": "d", "data_hash": "0" * 64, "split": "paper", "stage": "pretrained"}
CONSTANT |= {"order": "image_first", "probe": "main", "pooling": "image_mean"}


def rows() -> pd.DataFrame:
    """Two runs of two points; at V.01 image a is wrong in run 1."""
    frames = []
    for run in (0, 1):
        for point in ("V.00", "V.01"):
            yes = np.array([0.9, 0.8 if (run, point) == (1, "V.01") else 0.2, 0.6])
            both = np.stack([yes, 1 - yes], axis=1)
            frames.append(image_rows(IMAGES, ["Yes", "No"], both, run=run, point=point, **CONSTANT))
    return pd.concat(frames, ignore_index=True)


def test_each_in_its_place():
    found = outcomes(rows())
    assert found.points == ["V.00", "V.01"]
    assert found.images == ["a", "b", "c"]
    expected = np.ones((2, 2, 3), dtype=bool)
    expected[1, 1, 0] = False
    assert (found.right == expected).all()
    mixed = rows().groupby(["run", "point"], sort=False).sample(frac=1, random_state=0)
    assert (outcomes(mixed).right == expected).all()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda r: r.iloc[:0], "no rows"),
        (lambda r: r.assign(stage=["pretrained"] * 6 + ["finetuned"] * 6), "choose one of stage"),
        (lambda r: r.assign(pooling=[None] * 3 + ["last_token"] * 9), "choose one of pooling"),
        (lambda r: r.assign(p_Yes=r["p_Yes"].where(r.index != 4)), "m on d: the probe at V.01 gave 1 images no"),
        (lambda r: r.drop(index=4), "run 0, point V.01: image a is there 0 times"),
        (lambda r: pd.concat([r, r.iloc[[5]]]), "run 0, point V.01: image b is there 2 times"),
        (lambda r: r.iloc[:9], "2 runs of 2 points are not all there"),
    ],
)
def test_what_is_missing_is_named(broken, said):
    with pytest.raises(InputError, match=said):
        outcomes(broken(rows()))
