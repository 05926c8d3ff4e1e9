"""The paper's printed numbers: what its gains and gaps are of, cells in the wrong place, and what the project keeps."""

import io

import numpy as np
import pandas as pd
import printed_numbers
import pytest
from simulations import simulate_correct

from mlprobe_utils.analysis.health import flat_scores
from mlprobe_utils.evaluation.health import health_score
from mlprobe_utils.pipeline.cards import DataCard, load_data_card, slugs
from mlprobe_utils.pipeline.published import IMAGES, paper_profiles


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return printed_numbers.tables()


def test_the_tables_that_pages_show_are_what_is_computed(tables):
    assert {path.stem for path in printed_numbers.FOLDER.iterdir()} == {*tables}
    for name, table in tables.items():
        kept = pd.read_csv(printed_numbers.FOLDER / f"{name}.csv", float_precision="round_trip")
        pd.testing.assert_frame_equal(kept, pd.read_csv(io.StringIO(table.to_csv(index=False))), rtol=1e-6)


def test_the_average_gap_is_the_mean_relative_change_over_all_six_numbers():
    table = printed_numbers.printed_gaps().set_index("model")
    assert table["published"].to_dict() == {"HuatuoGPT-Vision-7B": -0.38, "MedGemma-4B": 0.27}
    assert (table["meaning"] == "mean relative change").all()
    assert table["mean relative change"].tolist() == pytest.approx([-0.378, 0.265], abs=0.001)
    assert table["mean difference"].tolist() == pytest.approx([-0.32, 0.10], abs=0.005)


def test_differences_of_table_2_are_whole_numbers_of_images():
    table = printed_numbers.printed_changes().set_index(["model", "dataset"])
    assert len(table) == 6
    shares = 100 * table["images"] / table.index.get_level_values("dataset").map(IMAGES)
    np.testing.assert_allclose(shares, table["difference"], atol=0.011)
    assert table.loc[("HuatuoGPT-Vision-7B", "BUSI"), ["images", "p (least)"]].tolist() == [-2, 0.5]
    assert table.loc[("HuatuoGPT-Vision-7B", "COVID19-CT"), "p (least)"] == 1
    assert table.loc[("MedGemma-4B", "Chest-Xray"), "p (least)"] < 1e-6


def test_the_two_exchanged_cells_are_found_and_no_others():
    found = printed_numbers.printed_paradigms()
    assert len(found) == 18
    odd = found[found["correct"].isna()].drop(columns=["correct", "fits instead"])
    place = {"model": "MedGemma-1.5-4B", "paradigm": "Vision Tower SFT"}
    ct = place | {"dataset": "COVID19-CT", "published": 89.10, "corrected": 85.22, "swapped with": "Chest-Xray"}
    xray = place | {"dataset": "Chest-Xray", "published": 85.22, "corrected": 89.10, "swapped with": "COVID19-CT"}
    assert odd.to_dict("records") == [ct, xray]
    even = found[found["correct"].notna()]
    assert (even["corrected"] == even["published"]).all()
    np.testing.assert_allclose(100 * even["correct"] / even["dataset"].map(IMAGES), even["published"], atol=0.011)


def test_every_printed_answer_is_a_whole_number_of_images():
    answers, printed = printed_numbers.printed_answers(), paper_profiles().set_index(["model", "dataset"])["P_final"]
    rounded = (100 * answers).round(2).stack()
    np.testing.assert_allclose(rounded, printed.loc[rounded.index])  # audit, point 1
    assert answers.at["MedGemma-4B", "BUSI"] == 126 / 150


@pytest.mark.parametrize("meaning", printed_numbers.MEANINGS)
def test_a_planted_base_is_found_and_no_base_for_gains_that_none_has(meaning):
    base = np.array([120, 160, 470])
    answers = np.array([[126, 170, 450], [118, 165, 500], [130, 150, 460]]) / list(IMAGES.values())
    gain, shares = printed_numbers.MEANINGS[meaning], base / list(IMAGES.values())
    gains = np.round(100 * np.array([gain(own, shares) for own in answers]), 2)
    found = printed_numbers.bases_that_fit(answers, gains, meaning)
    assert base.tolist() in found.tolist()
    assert len(printed_numbers.bases_that_fit(answers, gains + np.array([0, 0, 3]), meaning)) == 0


def test_the_search_leaves_what_the_audit_found(tables):
    found = tables["bases_that_fit"].set_index(["base", "definition of a gain"])["bases that fit"]
    qwen, gemma = found["Qwen2.5-VL-7B"], found["Gemma-3-4B"]
    assert (qwen == 0).all()
    assert gemma["mean of relative changes"] == 3  # audit, point 8, has 4: one more where Table 1 is taken as rounded
    assert (gemma.drop("mean of relative changes") == 0).all()


@pytest.mark.parametrize("correlation", [0, 0.9])
def test_flat_scores_are_those_of_simulated_answers(correlation):
    generator, curve = np.random.default_rng(0), np.full(20, 0.85)
    drawn = [simulate_correct(curve, 150, correlation, generator).mean(axis=1) for _ in range(200)]
    simulated = 100 * health_score(np.array(drawn), 0.2)
    flat = flat_scores(0.85, printed_numbers.flat_covariance(0.85, 20, 150, correlation), 0.2)
    assert abs(np.mean(flat) - np.mean(simulated)) < 4 * np.std(simulated) / np.sqrt(200)
    assert np.std(flat) == pytest.approx(np.std(simulated), rel=0.2)


def test_a_score_is_placed_among_flat_ones():
    scores = pd.DataFrame({"points": 28, "images": 150, "level": 85.0, "score": [40.0, 75.0, 100.0]})
    found = printed_numbers.against_flat(scores, 0.2, [0.9])
    assert found["position"].iloc[[0, 2]].tolist() == [0, 100]
    assert found["outside"].tolist() == [True, False, True]
    assert ((found["2.5 %"] < found["50 %"]) & (found["50 %"] < found["97.5 %"])).all()


def test_the_papers_deeper_llms_score_lower_and_no_longer_do_beside_a_flat_curve():
    """Audit, point 12; the second where neighbouring layers agree as much as those of the miniatures do."""
    llms = printed_numbers.paper_llms()
    assert len(llms) == 42
    assert llms.notna().all(axis=None)
    cards = [card for slug in slugs(DataCard) if not (card := load_data_card(slug)).synthetic]
    sizes = {card.name: sum((card.test_counts or card.release_counts["test"]).values()) for card in cards}
    assert llms.groupby("dataset")["images"].unique().map(list).to_dict() == {name: [n] for name, n in sizes.items()}
    found = printed_numbers.depth_trend(printed_numbers.against_flat(llms, 0.2, [0.99]))
    assert found["Spearman"].round(2).tolist() == [-0.53, -0.45, -0.51]
    assert found["p"].round(2).tolist() == [0.05, 0.11, 0.06]
    assert (found["Spearman beside flat"].abs() < 0.4).all()
