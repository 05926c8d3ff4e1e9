"""The schema of the rows: what it lets through comes back unchanged, what it should refuse it refuses."""

import numpy as np
import pandas as pd
import pandera.errors
import pytest

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.rows import SCHEMA, image_rows, options_of, write_rows

OPTIONS = ["Normal", "Benign", "Malignant"]
CONSTANTS = {"model": "tiny", "dataset": "busi", "data_hash": "0" * 64, "split_rule": "paper", "stage": "finetuned"}
CONSTANTS |= {"order": "image_first", "run": 1, "seed": 3, "point": "V.07", "pooling": "image_mean"}
IMAGES = pd.DataFrame(
    {"image": ["a.png", "b.png"], "option": ["Benign", "Normal"], "split": ["validation", "test"]},
    index=[17, 4],  # positions in an image set
)
WRONG = {"model": [None], "image": [None], "label": [None], "run": [-1], "seed": [-1], "surprise": [1]}
WRONG |= {"stage": ["fine-tuned", None], "order": ["image-first", None], "split": ["train"], "split_rule": ["official"]}
WRONG |= {"point": ["X.01", "V.7"], "pooling": ["mean"], "data_hash": ["abc"], "p_Benign": [1.01, -0.01]}


def rows(**changed) -> pd.DataFrame:
    return image_rows(IMAGES, OPTIONS, np.array([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]]), **CONSTANTS | changed)


def test_rows_of_all_kinds_and_data_sets_come_back_as_they_were_written_with_their_nulls(tmp_path):
    """Coercion to text must not turn an absent point into the text "None"."""
    final = rows(stage="pretrained", run=None, seed=None, point=None, pooling=None)
    final = final.assign(text=["benign!", ""], parsed=["Benign", None])
    given = IMAGES.assign(option=["Yes", "No"]), ["Yes", "No"], np.full((2, 2), 0.5)
    other = image_rows(*given, **CONSTANTS | {"dataset": "covid19-ct", "point": "D.00"})  # of a side path
    for number, frame in enumerate((rows(), final, other)):
        write_rows(frame, tmp_path / f"{number}.parquet")
    first, *others = (pd.read_parquet(tmp_path / f"{number}.parquet") for number in range(3))
    columns = ["image", "label", "split", "p_Normal", "p_Benign", "p_Malignant"]
    written = [["a.png", "Benign", "validation", 0.2, 0.5, 0.3], ["b.png", "Normal", "test", 0, 0, 1]]
    assert first[columns].to_numpy().tolist() == written
    assert {column: first[column][0] for column in CONSTANTS} == CONSTANTS
    back = SCHEMA.validate(pd.concat([first, *others], ignore_index=True))
    of_final = back[["run", "seed", "point", "pooling"]].isna().all(axis=1)
    assert of_final.tolist() == [False, False, True, True, False, False]
    assert back["text"][2:4].tolist() == ["benign!", ""]
    assert back["parsed"].isna().tolist() == [True, True, False, True, True, True]
    assert options_of(back[back["dataset"] == "busi"]) == OPTIONS
    assert options_of(back[back["dataset"] == "covid19-ct"]) == ["Yes", "No"]


@pytest.mark.parametrize("column", WRONG)
def test_wrong_rows_are_refused_and_not_written(tmp_path, column):
    for value in WRONG[column]:
        with pytest.raises((pandera.errors.SchemaError, pandera.errors.SchemaErrors), match=column):
            write_rows(rows().assign(**{column: value}), tmp_path / "rows.parquet")
    assert not list(tmp_path.iterdir())


def test_a_probability_that_is_not_finite_is_no_row():
    probabilities = np.array([[0.2, 0.5, 0.3], [np.nan, 0.0, 1.0]])
    with pytest.raises(InputError, match=r"tiny on busi: .* 1 of 2 images are not finite, first b\.png"):
        image_rows(IMAGES, OPTIONS, probabilities, **CONSTANTS)
