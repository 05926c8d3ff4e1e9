"""Charts: what is drawn is what was measured, every number is in the table, and the colours can be distinguished."""

import functools
import itertools
import json
import re
import xml.etree.ElementTree as ET

import altair as alt
import numpy as np
import pandas as pd
import pytest
from drawn_charts import SVG, downloaded, drawings, marks, words_in

from mlprobe_utils.evaluation.health import SCORES, STAGE_NAMES
from mlprobe_utils.evaluation.metrics import METRICS
from mlprobe_utils.evaluation.points import is_point
from mlprobe_utils.plots import charts, figures, squares
from mlprobe_utils.plots.drawing import COLOURS, enable

POINTS, LAYERS = ["V.00", "V.01", "C.00", "L.00", "L.01"], ["L.00", "L.01", "L.02"]
NAMES = {"one": "Model & <One>", "two": "Model Two", "b": "Set B", "a": "Set A"}
# Machado et al. 2009, severity 1, on linear RGB
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # of linear RGB
LAB = np.array([[0, 116, 0], [500, -500, 0], [0, 200, -200]])  # CIELAB of cube roots; a constant moves no distance


def made(models=("one", "two"), datasets=("a", "b"), runs=2, answers=70.0):
    """Scores of every probe and final output: value = 50 + place of the point + 10 after fine-tuning + run."""
    rows, outputs = [], []
    for model, dataset, stage, run in itertools.product(models, datasets, ("pretrained", "finetuned"), range(runs)):
        key = {"model": model, "dataset": dataset, "stage": stage, "run": run}
        high = 10 * (stage == "finetuned") + run
        for place, point in enumerate(POINTS):
            rows.append(key | {"pooling": "image_mean", "point": point} | dict.fromkeys(METRICS, 50.0 + place + high))
        outputs.append(key | dict.fromkeys(METRICS, answers if stage == "finetuned" else 0.0))
    return pd.DataFrame(rows), pd.DataFrame(outputs)


def lines_in(drawing: ET.Element) -> dict[str, list[str]]:
    """Texts of every mark that has some, by the names of what they are of."""
    return {names: texts for names, texts, _ in marks(drawing)}


def test_curves_show_the_means_over_runs_at_every_point_and_the_answer():
    scores, outputs = made()
    scores["accuracy"] += 1 / 3
    figure, one = charts.probe_curves(scores, outputs, NAMES), "Model &amp; &lt;One&gt;"
    lines = lines_in(drawings(figure)[0])
    assert [*lines] == [f"{NAMES['one']}|{stage} fine-tuning" for stage in ("after", "before")]
    means = {"V.00": 60.8, "V.01": 61.8, "C.00": 62.8, "L.00": 63.8, "L.01": 64.8, "answer": 70.0}
    assert next(iter(lines.values())) == [f"{point} {mean} %" for point, mean in means.items()]
    titles = re.findall(r'chart-panel-title">(.*?)</p>', figure.html)
    assert titles == [f"{one} · Set B", f"{one} · Set A", "Model Two · Set B", "Model Two · Set A"]
    assert 'style="--columns:2"' in figure.html
    numbers = downloaded(figure).set_index(["model", "data set", "stage"])
    assert numbers.shape == (8, len(POINTS) + 1)
    of_one = numbers.loc[("Model Two", "Set A", "after fine-tuning"), POINTS]
    np.testing.assert_allclose(of_one, 60.5 + np.arange(5) + 1 / 3, rtol=1e-5)  # unrounded
    for _, texts, path in itertools.chain(*map(marks, drawings(figure))):
        places = np.array(re.findall(r"-?[\d.]+", path), float).reshape(-1, 2)
        assert len(places) == len(texts) == 6  # a vertex for each text
        assert (np.diff(places[:5], axis=0) * [1, -1] > 0).all()  # SVG counts downwards
        assert path.count("M") == 4  # vision tower, connector, LLM and answer are not joined


def test_a_side_path_is_a_titled_curve_between_vision_tower_and_connector_where_a_model_has_one():
    scores, outputs = made()
    side = scores[(scores["model"] == "one") & scores["point"].isin(["V.00", "V.01"])]
    side = side.assign(point=side["point"].str.replace("V", "D"), **dict.fromkeys(METRICS, 55.0))
    drawn = charts.probe_curves(pd.concat([scores, side]), outputs, NAMES)
    assert list(downloaded(drawn)) == ["model", "data set", "stage", *POINTS[:2], "D.00", "D.01", *POINTS[2:], "answer"]
    own, other = drawings(drawn)[:2], drawings(drawn)[2:]
    words = words_in(own[0])
    assert words.count("deepstack") == 1
    assert [word for word in words if is_point(word or "")] == [*POINTS[:2], "D.00", "D.01", *POINTS[2:]]
    for _, texts, path in marks(own[0]):
        assert ({"D.00 55.0 %", "D.01 55.0 %"} <= set(texts), path.count("M")) == (True, 5)  # joined to no neighbour
    alone = drawings(charts.probe_curves(scores, outputs, NAMES))
    assert [*map(ET.tostring, other)] == [*map(ET.tostring, alone[2:])]


def test_an_answer_below_the_axis_stands_at_its_edge_a_low_probe_in_its_place_and_a_missing_one_nowhere():
    scores, outputs = made()
    words = words_in(drawings(charts.probe_curves(scores, outputs, NAMES))[0])
    assert "▼ 0" in words
    assert max(float(word) for word in words if word.isdigit()) >= 70
    low = scores.assign(mcc=scores["mcc"].mask(scores["point"] == "L.00", -7).mask(scores["point"] == "L.01"))
    drawing = drawings(charts.probe_curves(low, outputs, NAMES, ["mcc"]))[0]
    texts = {*itertools.chain(*lines_in(drawing).values())}
    assert "L.00 -7.0 %" in texts
    assert not [text for text in texts if text.startswith("L.01") or "nan" in text]  # a missing value leaves a gap
    assert not [word for word in words_in(drawing) if word.startswith("▼")]


@pytest.mark.parametrize("name", ["metric", "recipe", "learning", "stages", "confusion"])
def test_every_chart_describes_itself_and_gives_all_its_numbers(name):
    figure = one_of_each()[name]
    for drawing in drawings(figure):
        assert drawing.find(f"{SVG}title").text
        assert len(drawing.find(f"{SVG}desc").text) > 30
    numbers = downloaded(figure)
    cells = len(numbers) * (1 if name == "confusion" else numbers.select_dtypes("number").shape[1])
    assert sum(len(texts) for drawing in drawings(figure) for _, texts, _ in marks(drawing)) >= cells > 0
    assert figure._repr_mimebundle_()["text/plain"] == figure.description
    known = "|".join(re.findall(r'data-series="(.*?)"', figure.html)).split("|")
    assert {*re.findall(r'data-highlight="(.*?)"', figure.html)} <= {*known}


@pytest.mark.parametrize("name", ["probe", "confusion"])
def test_a_figure_is_a_chart_of_the_same_data_and_is_saved(name, tmp_path):
    figure = one_of_each()[name]
    chart = figure.chart.to_dict()
    assert len(chart["concat"]) == len(figure.panels)
    assert not re.search(r"var\(|currentColor", json.dumps(chart))
    for kind in ("svg", "png"):
        figure.save(tmp_path / f"figure.{kind}")
    words = {*words_in(ET.parse(tmp_path / "figure.svg").getroot())}
    assert {figure.title, *(panel.title for panel in figure.panels)} <= words
    assert ({*STAGE_NAMES.values()} <= words) == (name == "probe")  # the legend
    assert figures.LIGHT[1] in (tmp_path / "figure.svg").read_text()
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_metrics_of_one_model_are_rows_and_confusion_counts_unparsed_answers():
    scores, outputs = made(models=("one",))
    scores["f1"] /= 2
    means = downloaded(charts.metric_curves(scores, outputs, NAMES)).groupby("metric", sort=False)["V.00"].mean()
    assert means.to_dict() == dict.fromkeys(("accuracy", "F1", "precision", "recall", "AUC"), 55.5) | {"F1": 27.75}
    numbers = downloaded(one_of_each()["confusion"]).set_index(["truth", "answer"])["images"]
    assert numbers.unstack()[["No", "Yes", "unparsed"]].to_numpy().tolist() == [[0, 1, 0], [0, 1, 1]]


@functools.cache
def one_of_each() -> dict[str, figures.Figure]:
    scores, outputs = made()
    state = scores[["model", "dataset", "stage"]].drop_duplicates()
    profile = state.assign(**dict.fromkeys(SCORES, 60.0) | {"P_final": 3.0})
    losses = pd.DataFrame(itertools.product(["one", "two"], [0, 1], [1.0, 2.0]), columns=["model", "run", "epoch"])
    losses = losses.assign(dataset="a", training_loss=0.5, validation_loss=losses["epoch"])
    answers = pd.DataFrame({"label": ["Yes", "Yes", "No"], "parsed": ["Yes", None, "Yes"], "split": "test"})
    answers = answers.assign(model="one", dataset="a", stage="finetuned")
    return {
        "probe": charts.probe_curves(scores, outputs, NAMES),
        "metric": charts.metric_curves(*made(models=("one",)), NAMES),
        "recipe": charts.recipe_curves({"main": scores, "raw": scores}, NAMES),
        "learning": charts.learning_curves(losses, NAMES),
        "stages": charts.stage_profiles(profile[profile["model"] == "one"], NAMES),
        "confusion": squares.confusion(answers, NAMES),
    }


def test_controls_are_thin_lines_and_a_rule_of_their_own():
    scores, outputs = made()
    of_model = scores[["model", "dataset", "point"]].drop_duplicates().assign(run=0, pooling="image_mean")
    stages = [("control task", "finetuned", 51.0), ("control task", "pretrained", 9.0), ("random weights", None, 52.0)]
    of_model = [of_model.assign(control=control, stage=stage, accuracy=value) for control, stage, value in stages]
    blind = pd.DataFrame({"control": ["majority class"] * 2 + ["file format"] * 2, "dataset": [*"abab"]})
    controls = pd.concat([*of_model, blind.assign(accuracy=[50.0, 40.0, 45.0, 53.0])])
    figure = charts.probe_curves(scores, outputs, NAMES, controls=controls)
    for drawing, best in zip(drawings(figure), (53, 50) * 2, strict=True):
        shown = {names.split("|")[1]: texts for names, texts, _ in marks(drawing) if "fine-tuning" not in names}
        values = {"control task": 51, "random weights": 52, charts.BLIND: best}
        assert shown == {name: [f"{point} {value:.1f} %" for point in POINTS] for name, value in values.items()}
        told = [path for path in drawing.iter(f"{SVG}path") if path.get("data-told") and "L" in path.get("d")]
        widths = {path.get("data-series").split("|")[1]: path.get("stroke-width") for path in told}
        assert widths == dict.fromkeys(values, "1") | dict.fromkeys(STAGE_NAMES.values(), "2")
    assert len(downloaded(figure)) == 4 * (2 + 3)


def areas(drawing: ET.Element) -> list[ET.Element]:
    return [e for e in drawing.iter() if "0.2" in (e.get("opacity"), e.get("fill-opacity"), e.get("stroke-opacity"))]


def test_bands_are_light_areas_of_each_module_cut_at_the_axis_and_their_ends_are_in_the_file():
    scores, outputs = made()
    places = scores.loc[scores["run"] == 0, ["model", "dataset", "stage", "point", "accuracy"]]
    bands = places.assign(band_low=places["accuracy"] - 3, band_high=places["accuracy"] + 4).drop(columns="accuracy")
    figure = charts.probe_curves(scores, outputs, NAMES, bands={"accuracy": bands})
    for drawing in drawings(figure):
        tags = [mark.tag.removeprefix(SVG) for mark in areas(drawing)]
        assert sorted(tags) == ["line"] * 2 + ["path"] * 4  # a line a stage for the connector's one point
        assert len(marks(drawing)) == 2  # an area tells nothing that its line does not
    numbers = downloaded(figure).set_index(["model", "data set", "stage", "number"]).sort_index()
    rows = numbers.loc[("Model Two", "Set A", "after fine-tuning"), POINTS].loc[["mean", "band, low", "band, high"]]
    np.testing.assert_allclose(rows.astype(float), 60.0 + np.arange(5) + [[0.5], [-3], [4]])
    wide = charts.probe_curves(scores, outputs, NAMES, bands={"accuracy": bands.assign(band_low=0.0, band_high=100)})
    drawing = drawings(wide)[0]
    paths = " ".join(mark.get("d", "") for mark in areas(drawing))
    heights = [float(y) for y in re.findall(r"[\d.-]+,([\d.-]+)", paths)]
    assert 0 <= min(heights) <= max(heights) <= float(drawing.get("viewBox").split()[3])
    assert "band" not in charts.probe_curves(scores, outputs, NAMES, bands={"accuracy": bands.iloc[:0]}).html


def test_of_many_panels_one_is_open_and_the_others_are_folded_by_name():
    models = [f"m{n}" for n in range(11)]
    names = {model: f"Model {model}-mini" for model in models} | {"a": "Set A", "b": "Set B", "c": "Set C"}
    scores, outputs = made(models=models, datasets=("a", "b", "c"))
    deeper = scores[(scores["model"] == "m1") & (scores["point"] == "L.01")]
    figure = charts.probe_curves(pd.concat([scores, deeper.assign(point="L.02")]), outputs, names)
    drawn = drawings(figure)
    folds = re.findall(r'<details class="chart-choice"( open)?><summary>(.*?)</summary>', figure.html)
    assert [bool(is_open) for is_open, _ in folds] == [True] + [False] * 32
    assert {title for _, title in folds} == {f"{names[m]} · {names[d]}" for m in models for d in "abc"}
    assert len(drawn) == 33
    assert 'data-facets="model · data set"' in figure.html
    ends = [max(float(path.split("L")[-1].split(",")[0].strip("Z")) for _, _, path in marks(d)) for d in drawn]
    assert ends[3] != ends[0] == ends[6]  # a deeper model's row has more sites, and only that row
    assert (len(downloaded(figure)), "<table" in figure.html) == (66, False)
    assert len(figure.html) < 260_000
    assert set(re.findall(r'data-highlight="(.*?)"', figure.html)) == set(STAGE_NAMES.values())


def test_of_two_metrics_the_reader_chooses_one():
    scores, outputs = made()
    figure = charts.probe_curves(scores, outputs, NAMES, ["accuracy", "f1"], bands={"accuracy": scores.iloc[:0]})
    assert 'data-facets="model · metric · data set"' in figure.html
    titles = [title.split(" · ")[1:] for title in re.findall(r"<summary>([^<]* · [^<]*)</summary>", figure.html)]
    assert titles == 2 * [[metric, dataset] for metric in ("accuracy", "F1") for dataset in ("Set B", "Set A")]
    numbers = downloaded(figure).set_index("metric")
    assert numbers.loc["accuracy", POINTS].to_numpy().tolist() == numbers.loc["F1", POINTS].to_numpy().tolist()


def test_many_points_are_not_all_labelled_and_one_run_is_not_drawn_beside_its_mean():
    scores, outputs = made(models=("one",), datasets=("a",))
    last = scores[scores["point"] == "L.01"]
    deep = pd.concat([scores, *(last.assign(point=f"L.{place:02d}") for place in range(2, 64))])
    figure = charts.probe_curves(deep, outputs, NAMES)
    labels = words_in(drawings(figure)[0])
    assert 4 < len([label for label in labels if is_point(label or "")]) < 20  # of 67
    assert 'stroke-width="0.8"' in figure.html
    assert 'stroke-width="0.8"' not in charts.probe_curves(*made(runs=1), NAMES).html


def test_comprehension_and_utilization_are_lines_of_their_own_in_both_stages_and_their_difference_has_a_band():
    rows = pd.DataFrame(itertools.product(("one", "two"), STAGE_NAMES, LAYERS), columns=["model", "stage", "point"])
    value = -10.0 + 10 * rows["point"].map(LAYERS.index)
    rows = rows.assign(dataset="a", comprehension=80.0, utilization=80 + value, value=value)
    rows = rows.assign(band_low=value - 4, band_high=value + 4)
    drawn = drawings(charts.both_curves(rows, NAMES))[0]
    lines = {names.split("|")[1]: [text.split()[1] for text in texts] for names, texts in lines_in(drawn).items()}
    both = {"comprehension": ["80.0"] * 3, "utilization": ["70.0", "80.0", "90.0"]}
    assert lines == {f"{name}, {stage}": own for name, own in both.items() for stage in STAGE_NAMES.values()}
    figure = charts.difference_curves(rows, NAMES)
    assert ["L.00 -10.0 pp", "L.01 0.0 pp", "L.02 10.0 pp"] in lines_in(drawings(figure)[0]).values()
    low = downloaded(figure).query("number == 'band, low' and model == 'Model Two'")
    np.testing.assert_allclose(low[LAYERS], [[-14, -4, 6]] * 2)
    lens = charts.lens_curves(rows.query("stage == 'pretrained'").assign(run=pd.NA), NAMES, "probability", "The lens")
    assert len(lines_in(drawings(lens)[0])) == 1  # a pretrained model has no run


def test_every_pair_of_layers_is_a_square_with_its_accuracy():
    pairs = pd.DataFrame(itertools.product(LAYERS, LAYERS), columns=["fitted at", "applied at"])
    scores = pairs.assign(model="one", dataset="a", stage="finetuned", pooling="last_token", accuracy=np.arange(9.0))
    figure = squares.transfer_squares(scores, NAMES)
    found = {texts[0] for _, texts, _ in marks(drawings(figure)[0])}
    assert found == {f"fitted at {row[0]}, applied at {row[1]}: {n:.1f} %" for n, row in enumerate(pairs.to_numpy())}
    assert "last token · Set A" in figure.html
    assert downloaded(figure)["accuracy"].tolist() == list(range(9))


def test_a_readers_own_chart_comes_out_as_a_described_figure():
    enable()
    own = alt.Chart(pd.DataFrame({"x": [1, 2], "y": [3, 4]})).mark_line().encode(x="x", y="y")
    with alt.renderers.enable("inline_svg"):
        bundle = own.properties(title="Mine", description="a line that rises")._repr_mimebundle_()
    assert re.search(">Mine<.*<figcaption>a line that rises", str(bundle))


@pytest.mark.parametrize(("ground", "palette"), [("#ffffff", figures.LIGHT), ("#121212", figures.DARK)])
def test_colours_contrast_with_the_page_and_are_distinguishable_to_everyone(ground, palette):
    assert len(palette) == len(COLOURS)
    rgb = np.array([[*bytes.fromhex(colour[1:])] for colour in (ground, *palette)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    page, *marks = linear @ XYZ[1] + 0.05
    assert all(max(page, mark) / min(page, mark) >= 4.5 for mark in marks)
    for deficiency in DEFICIENCIES.values():
        xyz = np.clip(linear[1:] @ np.transpose(deficiency), 0, 1) @ XYZ.T / XYZ.sum(axis=1)
        lab = np.cbrt(np.maximum(xyz, 1e-6)) @ LAB.T
        for one, other in itertools.combinations(lab, 2):
            assert np.linalg.norm(one - other) > 20  # CIE 1976; 2.3 is just noticeable
