"""Corrected scores from rows: the module's own answers in the order of the flow, whole patients, and what has none."""

import itertools

import numpy as np
import pandas as pd
import pytest
from simulated_rows import image_set, rows_of

from mlprobe_utils.analysis import health
from mlprobe_utils.analysis.health import SCORES
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.datasets.components import components
from mlprobe_utils.evaluation.health import corrected_health
from mlprobe_utils.evaluation.rows import STAGES, predicted_option
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.stats.resampling import resample

POINTS = ["V.00", "V.01", "V.02", "D.00", "C.00", "L.00", "L.01"]
IMAGES = 40
SET = image_set(IMAGES)


def probed(share=0.8, wrong_at: str = "", points=POINTS, model="m", seed=0) -> pd.DataFrame:
    """Probe rows of two runs, right in a share of the images and never at one point; and of all other kinds."""
    generator, frames = np.random.default_rng(seed), []
    kinds = [{}, {"split": "validation"}, {"probe": "raw"}, {"pooling": "last_token"}]
    for stage, run, point in itertools.product(STAGES, (0, 1), points):
        own = {"model": model, "dataset": "covid19-ct", "stage": stage, "run": run, "seed": run, "point": point}
        own |= {"probe": "main", "pooling": "image_mean"}
        right = generator.random(IMAGES) < (0 if point == wrong_at else share)
        frames += [rows_of(~right if kind else right, **own | kind) for kind in kinds]
    return pd.concat(frames, ignore_index=True)


def answers(rows: pd.DataFrame, stage: str, run: int, module: str) -> np.ndarray:
    own = rows[(rows["split"] == "test") & (rows["probe"] == "main") & (rows["pooling"] == "image_mean")]
    own = own[(own["stage"] == stage) & (own["run"] == run) & (own["point"].str[0] == module)]
    own = own.assign(correct=predicted_option(own) == own["label"])
    return own.pivot(index="point", columns="image", values="correct").to_numpy(bool)


def test_scores_are_those_of_each_modules_own_answers():
    rows = probed()
    found = health.corrected_scores(rows.sample(frac=1, random_state=0), SET, "paper", 0.2)
    assert found["module"].value_counts().to_dict() == {"V": 4, "C": 4, "L": 4}
    found = found.set_index(["stage", "run", "module"])
    for place, points in ((("finetuned", 1, "V"), 3), (("pretrained", 0, "C"), 1), (("finetuned", 0, "L"), 2)):
        correct = answers(rows, *place)
        row = found.loc[place]
        assert (row["points"], row["images"]) == (points, IMAGES)
        assert tuple(row[["raw", "score", "low", "high"]]) == pytest.approx(corrected_health(correct, 0.2))
        assert tuple(row[SCORES[4:]]) == tuple(health.flat_range(correct, 0.2))


def test_images_of_a_patient_are_drawn_together():
    place, rows, pairs = ("finetuned", 0, "V"), probed(), image_set(IMAGES)
    correct = answers(rows, *place)
    pairs.manifest["patient"] = [f"patient {place // 2}" for place in range(IMAGES)]
    together = health.corrected_scores(rows, pairs, "paper", 0.2).set_index(["stage", "run", "module"])
    counts = resample(components(pairs.manifest)).counts
    expected = (*corrected_health(correct, 0.2, counts), *health.flat_range(correct, 0.2, counts))
    assert tuple(together.loc[place, SCORES]) == pytest.approx(expected)
    assert together.loc[place, "high"] != pytest.approx(corrected_health(correct, 0.2).high)


def test_scores_at_the_edges():
    """Of a module of one point; of one with a point that is never right, beside others; of one that is always right."""

    def of_one_run(**how) -> pd.DataFrame:
        rows = probed(**how).query("stage == 'finetuned' and run == 0")
        return health.corrected_scores(rows, SET, "paper", 0.2)

    found = of_one_run(points=["V.00", "C.00", "L.00"])
    assert (found["points"] == 1).all()
    assert found["score"].to_numpy() == pytest.approx(found["raw"].to_numpy(), abs=0.1)  # none rises above 100 %
    assert (found["flat_low"] < found["flat_high"]).all()
    found = of_one_run(wrong_at="V.02").set_index("module")
    assert found[SCORES].isna().sum(axis=1).to_dict() == {"V": len(SCORES), "C": 0, "L": 0}
    assert of_one_run(share=1)[SCORES].to_numpy() == pytest.approx(np.full((3, len(SCORES)), 100.0))


def test_one_test_image_or_other_images_are_an_error():
    rows = probed()
    with pytest.raises(InputError, match="m covid19-ct pretrained: its rows are not from the test images"):
        health.corrected_scores(rows[rows["image"] != rows["image"].iloc[0]], SET, "paper", 0.2)
    with pytest.raises(InputError, match=r"d: its test set .* add test images"):
        health.corrected_scores(rows, image_set(1), "paper", 0.2)


def test_a_module_without_a_score_is_an_error_with_place_and_remedy(outputs, monkeypatch):
    monkeypatch.setattr(health, "load_image_set", lambda slug, protocol: SET)
    one = Selection(("m",), ("covid19-ct",), "miniature", "paper")
    folder = one.folder("m", "covid19-ct") / "probes"
    for number, wrong_at in enumerate(("", "L.01")):
        with artefacts.artefact(folder, {"number": number, "upstream": {}}) as temporary:
            write_parquet(probed(wrong_at=wrong_at), temporary / "probes.parquet")
        if not wrong_at:
            assert health.health_of_run(one)["score"].notna().all()
    with pytest.raises(InputError, match=r"m on covid19-ct, LLM \(pretrained, run 0\).*add test images"):
        health.health_of_run(one)
