"""What a flat curve scores by noise alone, and where the paper's LLMs stand beside it."""

import numpy as np
import pandas as pd
import pytest

from mlprobe_utils.cards import ModelCard, load_model_card, slugs
from mlprobe_utils.flat_health import (
    against_flat,
    beside_flat,
    depth_trend,
    flat_covariance,
    flat_scores,
    paper_layers,
    paper_llms,
    paper_test_sizes,
)
from mlprobe_utils.health import health_score
from mlprobe_utils.health_simulation import simulate_correct, true_curve


@pytest.mark.parametrize("correlation", [0, 0.9])
def test_flat_scores_are_those_of_simulated_answers(correlation):
    generator = np.random.default_rng(0)
    simulated = [
        100 * health_score(simulate_correct(np.full(20, 0.85), 150, correlation, generator).mean(axis=1), 0.2)
        for _ in range(400)
    ]
    flat = flat_scores(0.85, flat_covariance(0.85, 20, 150, correlation), 0.2)
    assert np.mean(flat) == pytest.approx(np.mean(simulated), abs=1)
    assert np.std(flat) == pytest.approx(np.std(simulated), rel=0.15)


def test_a_flat_score_falls_with_depth_and_rises_with_images():
    def median(points, images):
        return np.median(flat_scores(0.85, flat_covariance(0.85, points, images, 0.9), 0.2))

    assert median(64, 150) < median(28, 150) < median(2, 150) < 86
    assert median(64, 150) < median(64, 624) < median(64, 10**8) == pytest.approx(85, abs=0.1)


def test_a_score_is_placed_among_flat_ones():
    one = {"points": 28, "images": 150, "level": 85.0}
    scores = pd.DataFrame([one | {"score": score} for score in (40.0, 75.0, 100.0)])
    found = against_flat(scores, 0.2, [0.9])
    assert found["position"].iloc[[0, 2]].tolist() == [0, 100]
    assert found["outside"].tolist() == [True, False, True]
    assert (found["2.5 %"] < found["50 %"]).all()
    assert (found["50 %"] < found["97.5 %"]).all()


def test_a_flat_module_is_rarely_found_beside_its_flat_curve_and_a_volatile_one_always():
    generator = np.random.default_rng(0)

    def outside(shape):
        curve = true_curve(shape, 20)
        return np.mean(
            [beside_flat(simulate_correct(curve, 400, 0.9, generator), 0.2, repeats=400)["outside"] for _ in range(60)]
        )

    assert outside("flat") < 0.12
    assert outside("volatile") > 0.9


def test_few_images_have_a_flat_curve_too():
    """Noise does not take a run's flat curve below half an image."""
    found = beside_flat(np.array([[True, True, False], [True, False, False]]), 0.2)
    assert 0 < found["2.5 %"] <= found["50 %"] <= found["97.5 %"]
    one_point = beside_flat(np.array([[True, True, False]]), 0.2)
    assert one_point["score"] == pytest.approx(200 / 3)


def test_the_papers_llms_are_placed():
    llms = paper_llms()
    assert len(llms) == 42
    assert llms.notna().all(axis=None)
    found = against_flat(llms, 0.2, repeats=200)
    assert len(found) == 3 * 42
    assert found["position"].between(0, 100).all()


def test_the_papers_deeper_llms_score_lower_and_no_longer_do_beside_a_flat_curve():
    """Audit, point 12; the second where neighbouring layers agree as much as those of the miniatures do."""
    found = depth_trend(against_flat(paper_llms(), 0.2, [0.99]))
    assert found["Spearman"].round(2).tolist() == [-0.53, -0.45, -0.51]
    assert found["p"].round(2).tolist() == [0.05, 0.11, 0.06]
    assert (found["Spearman beside flat"].abs() < 0.4).all()


def test_test_sizes_are_what_printed_accuracies_are_multiples_of():
    """Every P_final of Table 1 is a whole number of images (audit, point 1)."""
    llms = paper_llms()
    assert paper_test_sizes() == {"BUSI": 150, "COVID19-CT": 203, "Chest-Xray": 624}
    right = llms["level"] * llms["images"] / 100
    assert ((right - right.round()).abs() <= 0.00501 * llms["images"] / 100).all()


@pytest.mark.slow
def test_layers_are_the_points_that_the_models_have():
    from mlprobe_utils.parameter_counts import count

    cards = {card.table1: card for slug in slugs(ModelCard) if (card := load_model_card(slug)).table1}
    assert paper_layers() == {name: count(card.architecture).points["L"] for name, card in cards.items()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((1.0, 3, 9, 0), "level is 1.0"), ((0.8, 0, 9, 0), "points is 0"), ((0.8, 3, 0, 0), "images is 0")],
)
def test_flat_curves_that_cannot_be_are_an_error(arguments, said):
    with pytest.raises(ValueError, match=said):
        flat_covariance(*arguments)


def test_a_level_too_near_to_0_is_an_error():
    with pytest.raises(ValueError, match=r"level is 0\.05: noise takes curves down to 0"):
        flat_scores(0.05, flat_covariance(0.05, 20, 20, 0), 0.2)
