"""Charts of the LLM: every number is drawn and described, with the band where there is one."""

import itertools

import numpy as np
import pandas as pd
from drawn_charts import downloaded, drawings, marks

from mlprobe_utils.analysis.comprehension import ABOVE, BELOW, NEITHER
from mlprobe_utils.plots import llm_charts

NAMES = {"one": "Model One", "two": "Model Two", "a": "Set A"}
POINTS = ["L.00", "L.01", "L.02"]


def told() -> pd.DataFrame:
    rows = pd.DataFrame(itertools.product(("one", "two"), ("pretrained", "finetuned"), POINTS))
    rows.columns = ["model", "stage", "point"]
    value = -10.0 + 10 * rows["point"].map(POINTS.index)
    verdicts = rows["point"].map(dict(zip(POINTS, (BELOW, NEITHER, ABOVE), strict=True)))
    rows = rows.assign(dataset="a", comprehension=80.0, utilization=80 + value, value=value, verdict=verdicts)
    return rows.assign(band_low=value - 4, band_high=value + 4)


def test_both_curves_are_lines_of_their_own_in_both_stages():
    figure = llm_charts.both_curves(told(), NAMES)
    assert len(drawings(figure)) == 2
    lines = {names.split("|")[1]: texts for names, texts, _ in marks(drawings(figure)[0])}
    assert len(lines) == 4
    for stage in ("before fine-tuning", "after fine-tuning"):
        assert lines[f"comprehension, {stage}"] == [f"{point} 80.0 %" for point in POINTS]
        assert lines[f"utilization, {stage}"] == ["L.00 70.0 %", "L.01 80.0 %", "L.02 90.0 %"]


def test_differences_are_in_points_with_their_bands():
    figure = llm_charts.difference_curves(told(), NAMES)
    texts = [texts for _, texts, _ in marks(drawings(figure)[0])]
    assert ["L.00 -10.0 points", "L.01 0.0 points", "L.02 10.0 points"] in texts
    numbers = downloaded(figure)
    assert set(numbers["number"]) == {"mean", "band, low", "band, high"}
    low = numbers[(numbers["number"] == "band, low") & (numbers["model"] == "Model One")]
    np.testing.assert_allclose(low[POINTS], [[-14, -4, 6]] * 2)


def test_the_lens_is_drawn_for_the_pretrained_model_too_which_has_no_run():
    table = pd.DataFrame(itertools.product(["one"], ["a"], ["pretrained"], [pd.NA], POINTS))
    table.columns = ["model", "dataset", "stage", "run", "point"]
    figure = llm_charts.lens_curves(table.assign(value=[30.0, 40.0, 50.0]), NAMES, "probability", "The lens")
    (line,) = marks(drawings(figure)[0])
    assert line[1] == ["L.00 30.0 %", "L.01 40.0 %", "L.02 50.0 %"]
    assert "probability (%)" in figure.html


def test_every_pair_of_layers_is_a_square_with_its_accuracy():
    pairs = pd.DataFrame(itertools.product(POINTS, POINTS), columns=["fitted at", "read at"])
    scores = pairs.assign(model="one", dataset="a", stage="finetuned", pooling="last_token", accuracy=np.arange(9.0))
    figure = llm_charts.transfer_squares(scores, NAMES)
    (drawing,) = drawings(figure)
    found = {texts[0] for _, texts, _ in marks(drawing)}
    assert found == {f"fitted at {row[0]}, read at {row[1]}: {n:.1f} %" for n, row in enumerate(pairs.to_numpy())}
    assert "last token · Set A" in figure.html
    assert downloaded(figure)["accuracy"].tolist() == list(range(9))
