"""Rows and outcomes: what the schema lets through comes back, each in its place and at its site; what is not: named."""

import itertools

import numpy as np
import pandas as pd
import pandera.errors
import pytest
from simulated_rows import FIRST, LAST, SITES, labels_of, made, names_of

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.metrics import RESAMPLED, score
from mlprobe_utils.evaluation.names import LAST_TOKEN, OUTPUT, PROBED_SITES, REFERENCE
from mlprobe_utils.evaluation.outcomes import Outcomes, outcomes, output_outcomes, single_outcomes, site_outcomes
from mlprobe_utils.evaluation.rows import SCHEMA, image_rows, options_of, write_rows
from mlprobe_utils.stats.resampling import resample

IMAGES = pd.DataFrame({"image": ["c", "a", "b"], "option": ["Yes", "No", "Yes"], "split": "test"})
CONSTANT = {"model": "m", "dataset": "d", "data_hash": "0" * 64, "split_rule": "paper", "stage": "pretrained"}
CONSTANT |= {"order": "image_first", "probe": "main", "pooling": "image_mean"}
OPTIONS = ["Yes", "No", "Unsure"]


def rows() -> pd.DataFrame:
    """Two seeds of two points; at V.01 image a is wrong with seed 1."""
    frames = []
    for seed, point in itertools.product((0, 1), ("V.00", "V.01")):
        yes = np.array([0.9, 0.8 if (seed, point) == (1, "V.01") else 0.2, 0.6])
        both = np.stack([yes, 1 - yes], axis=1)
        frames.append(image_rows(IMAGES, ["Yes", "No"], both, seed=seed, point=point, **CONSTANT))
    return pd.concat(frames, ignore_index=True)


def test_each_in_its_place():
    found = outcomes(rows())
    assert (found.points, found.images) == (["V.00", "V.01"], ["a", "b", "c"])
    assert (found.seeds, found.options, found.truth.tolist()) == ([0, 1], ["Yes", "No"], [1, 0, 0])
    np.testing.assert_allclose(found.probabilities[1, 1], [[0.8, 0.2], [0.6, 0.4], [0.9, 0.1]])
    expected = np.ones((2, 2, 3), dtype=bool)
    expected[1, 1, 0] = False
    assert (found.correct == expected).all()
    mixed = rows().groupby(["seed", "point"], sort=False).sample(frac=1, random_state=0)
    assert (outcomes(mixed).correct == expected).all()
    assert (found.at("V.01").correct == expected[:, 1:]).all()
    assert (found.at("V.01", "V.00").probabilities == found.probabilities[:, ::-1]).all()


def of(truth: np.ndarray) -> Outcomes:
    """Some answers of two seeds at three points to images of these classes; their probabilities have many ties."""
    rng, shape = np.random.default_rng(0), (2, 3, len(truth))
    predicted, probabilities = rng.integers(-1, 3, shape), rng.integers(0, 6, (*shape, 3)) / 5
    return Outcomes(predicted, truth, probabilities, [0, 1], ["V.00", "V.01", "C.00"], names_of(len(truth)), OPTIONS)


@pytest.mark.parametrize("name", RESAMPLED)
@pytest.mark.parametrize("positive", [None, "No"])
def test_scores_equal_those_of_the_images_drawn(name, positive):
    found, drawn = of(np.random.default_rng(1).integers(0, 3, 60)), resample(np.arange(60) // 2, resamples=8)
    scored = found.score(name, positive, drawn)
    for counts, row in zip([np.ones(60, dtype=int), *drawn.counts], [scored.values, *scored.resampled], strict=True):
        images = np.repeat(np.arange(60), counts)
        for place in np.ndindex(2, 3):
            arrays = found.truth[images], found.predicted[place][images], found.probabilities[place][images]
            assert row[place] == pytest.approx(score(*arrays, OPTIONS, positive)[name])


def test_a_mean_over_classes_rests_on_the_small_ones():
    found, drawn = of(np.repeat([0, 1, 2], [24, 84, 42])), resample(np.arange(150))
    assert found.score("recall", None, drawn).clusters == pytest.approx(9 / (1 / 24 + 1 / 84 + 1 / 42))
    assert found.score("recall", "Yes", drawn).clusters == 24


@pytest.mark.parametrize(
    ("having", "clusters", "said"),
    [
        (0, np.arange(60), "class 'No' is missing from 100% of the resamples, as only 0 patients"),
        (20, np.where(np.arange(60) < 20, 0, np.arange(60)), "class 'No' is missing from 3.% .* as only 1 patients"),
        (2, np.arange(60), "recall: class 'No' is missing from 1.% .* as only 2 patients"),
    ],
)
def test_a_class_that_hangs_on_few_patients_is_named(having, clusters, said):
    found = of((np.arange(60) < having).astype(int))
    with pytest.raises(InputError, match=said):
        found.score("recall", "No", resample(clusters))
    assert found.score("accuracy", "No", resample(clusters)).resampled.shape == (2000, 2, 3)  # needs no class
    scored = of((np.arange(60) < 4).astype(int)).score("recall", "No", resample(np.arange(60)))
    assert 0 < np.isnan(scored.resampled).any(axis=(1, 2)).mean() < 0.05  # few resamples lack it: left out of those
    assert not np.isnan(scored.values).any()
    with pytest.raises(InputError, match="unknown metric 'recal': did you mean 'recall'"):
        found.score("recal", None, resample(clusters))


def test_an_unparsed_final_output_is_wrong_whatever_its_probabilities():
    told = rows().query("point == 'V.00'").assign(point=None, probe=None, pooling=None, seed=None)
    told = told.assign(run=[0] * 3 + [1] * 3, parsed=["Yes", "No", None, "No", "No", "Yes"])
    found = output_outcomes(told)
    assert (found.points, found.seeds) == ([OUTPUT], [0, 1])
    assert found.predicted[:, 0].tolist() == [[1, -1, 0], [1, 0, 1]]  # images a, b, c
    assert found.correct[:, 0].tolist() == [[True, False, True], [True, True, False]]
    alone = output_outcomes(told.iloc[:3].assign(run=pd.array([None] * 3, "Int64")))
    assert (alone.correct == found.correct[:1]).all()
    assert alone.seeds == [None]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda r: r.iloc[:0], "no rows"),
        (lambda r: r.assign(stage=["pretrained"] * 6 + ["finetuned"] * 6), "choose one value of stage"),
        (lambda r: r.assign(p_Yes=r["p_Yes"].where(r.index != 4)), "m on d, V.01: 1 images have no probability"),
        (lambda r: r.drop(index=4), "m on d, seed 0, V.01: image a occurs 0 times"),
        (lambda r: pd.concat([r, r.iloc[[5]]]), "m on d, seed 0, V.01: image b occurs 2 times"),
    ],
)
def test_what_is_missing_is_named(broken, said):
    with pytest.raises(InputError, match=said):
        outcomes(broken(rows()))


@pytest.fixture
def sites() -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Tables of rows, and the names of their images."""
    return made(dict(zip(SITES, np.linspace(0.95, 0.5, len(SITES)), strict=True)), 20), names_of(20)


def test_every_site_has_the_outcomes_of_its_rows(sites):
    tables, names = sites
    other = {name: rows.assign(split="validation", label="No") for name, rows in tables.items()}  # does not count
    correct = site_outcomes(**{name: pd.concat([rows, other[name]]) for name, rows in tables.items()}, images=names)
    assert tuple(correct) == SITES
    ill = labels_of(20) == "Yes"
    for site, (module, pooling, end) in PROBED_SITES.items():
        rows = tables["probed"]
        rows = rows[(rows["point"] == (LAST[module] if end else FIRST)) & (rows["pooling"] == pooling)]
        said = rows.pivot(index="seed", columns="image", values="p_Yes") > 0.5
        assert (correct[site] == (said == ill)).all(axis=None)
    answers, reference = (tables[name].sort_values("image") for name in ("predicted", "reference"))
    assert correct[OUTPUT].tolist() == answers["parsed"].eq(answers["label"]).tolist()
    assert correct[REFERENCE].tolist() == ((reference["p_Yes"] > 0.5) == ill).tolist()
    assert not single_outcomes(tables["predicted"].assign(parsed=None), names, "answers", parsed=True).any()


def test_what_a_site_lacks_or_has_twice_is_named(sites):
    tables, names = sites
    probed = tables["probed"]
    for module, pooling, _ in PROBED_SITES.values():
        rest = probed[(probed["pooling"] != pooling) | (probed["point"].str[0] != module)]
        with pytest.raises(InputError, match=f"m on d, .*: no probe rows of module {module}, {pooling}"):
            site_outcomes(**tables | {"probed": rest}, images=names)
    for name, site in (("predicted", OUTPUT), ("reference", REFERENCE)):
        with pytest.raises(InputError, match=f"m on d, {site}: test image 0000.png occurs 0 .*compute the missing"):
            site_outcomes(**tables | {name: tables[name].iloc[:0]}, images=names)
    last = (probed["pooling"] == PROBED_SITES[LAST_TOKEN][1]) & (probed["image"] == "0007.png")
    with pytest.raises(InputError, match=rf"{LAST_TOKEN}: test image 0007\.png occurs 0 times"):
        site_outcomes(**tables | {"probed": probed[~last]}, images=names)
    twice = pd.concat([tables["predicted"], tables["predicted"].assign(run=1)])
    with pytest.raises(InputError, match="occurs 2 times, expected once: choose one run"):
        site_outcomes(**tables | {"predicted": twice}, images=names)
    with pytest.raises(InputError, match=r"image 0019\.png is not a test image of this split"):
        site_outcomes(**tables, images=names[:-1])


KINDS = ["Normal", "Benign", "Malignant"]
CONSTANTS = {"model": "tiny", "dataset": "busi", "data_hash": "0" * 64, "split_rule": "paper", "stage": "finetuned"}
CONSTANTS |= {"order": "image_first", "run": 1, "seed": 3, "point": "V.07", "pooling": "image_mean"}
PAIR = pd.DataFrame(
    {"image": ["a.png", "b.png"], "option": ["Benign", "Normal"], "split": ["validation", "test"]},
    index=[17, 4],  # positions in an image set
)
WRONG = {"model": [None], "image": [None], "label": [None], "run": [-1], "seed": [-1], "surprise": [1]}
WRONG |= {"stage": ["fine-tuned", None], "order": ["image-first", None], "split": ["train"], "split_rule": ["official"]}
WRONG |= {"point": ["X.01", "V.7"], "pooling": ["mean"], "data_hash": ["abc"], "p_Benign": [1.01, -0.01]}


def two_rows(**changed) -> pd.DataFrame:
    return image_rows(PAIR, KINDS, np.array([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]]), **CONSTANTS | changed)


def test_rows_of_all_kinds_and_data_sets_come_back_as_they_were_written_with_their_nulls(tmp_path):
    """Coercion to text must not turn an absent point into the text "None"."""
    final = two_rows(stage="pretrained", run=None, seed=None, point=None, pooling=None)
    final = final.assign(text=["benign!", ""], parsed=["Benign", None])
    given = PAIR.assign(option=["Yes", "No"]), ["Yes", "No"], np.full((2, 2), 0.5)
    other = image_rows(*given, **CONSTANTS | {"dataset": "covid19-ct", "point": "D.00"})  # of a side path
    for number, frame in enumerate((two_rows(), final, other)):
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
    assert options_of(back[back["dataset"] == "busi"]) == KINDS
    assert options_of(back[back["dataset"] == "covid19-ct"]) == ["Yes", "No"]


@pytest.mark.parametrize("column", WRONG)
def test_wrong_rows_are_refused_and_not_written(tmp_path, column):
    for value in WRONG[column]:
        with pytest.raises((pandera.errors.SchemaError, pandera.errors.SchemaErrors), match=column):
            write_rows(two_rows().assign(**{column: value}), tmp_path / "rows.parquet")
    assert not list(tmp_path.iterdir())


def test_a_probability_that_is_not_finite_is_no_row():
    probabilities = np.array([[0.2, 0.5, 0.3], [np.nan, 0.0, 1.0]])
    with pytest.raises(InputError, match=r"tiny on busi: .* 1 of 2 images are not finite, first b\.png"):
        image_rows(PAIR, KINDS, probabilities, **CONSTANTS)
