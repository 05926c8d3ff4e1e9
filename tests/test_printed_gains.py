"""The paper's printed gains: which bases they can have been computed from."""

import numpy as np
import pytest

from mlprobe_utils.printed_gains import (
    IMAGES,
    MEANINGS,
    bases_that_fit,
    printed_answers,
    printed_gains,
    search,
)
from mlprobe_utils.profiles import paper_profiles


def test_every_printed_answer_is_a_whole_number_of_images():
    answers, printed = printed_answers(), paper_profiles().set_index(["model", "dataset"])["P_final"]
    rounded = (100 * answers).round(2).stack()
    np.testing.assert_allclose(rounded, printed.loc[rounded.index])  # audit, point 1
    assert answers.at["MedGemma-4B", "BUSI"] == 126 / 150
    assert printed_gains()["model"].isin(answers.index).all()


@pytest.mark.parametrize("meaning", MEANINGS)
def test_a_planted_base_is_found_and_no_base_for_gains_that_none_has(meaning):
    base = np.array([120, 160, 470])
    answers = np.array([[126, 170, 450], [118, 165, 500], [130, 150, 460]]) / list(IMAGES.values())
    gains = np.round(100 * np.array([MEANINGS[meaning](own, base / list(IMAGES.values())) for own in answers]), 2)
    found = bases_that_fit(answers, gains, meaning)
    assert base.tolist() in found.tolist()
    assert len(bases_that_fit(answers, gains + np.array([0, 0, 3]), meaning)) == 0


def test_what_the_search_leaves_is_what_the_audit_says():
    found = search().set_index(["base", "a gain is the"])["bases that fit"]
    qwen, gemma = found["Qwen2.5-VL-7B"], found["Gemma-3-4B"]
    assert (qwen == 0).all()
    assert gemma["mean of relative changes"] == 3  # audit, point 8, has 4: one more where Table 1 is taken as rounded
    assert (gemma.drop("mean of relative changes") == 0).all()
