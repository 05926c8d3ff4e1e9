"""Orders compared: a planted effect of what comes first is found where it is, and nothing where there is none."""

import itertools

import numpy as np
import pandas as pd
import pytest
from simulated_rows import SEEDS, answers_of, image_set, right_of, rows_of

from mlprobe_utils.analysis import question_order
from mlprobe_utils.analysis.question_order import COMPARED, POINTS
from mlprobe_utils.evaluation.names import IMAGE_TOKENS, LAST_TOKEN, OUTPUT
from mlprobe_utils.evaluation.question import ORDERS
from mlprobe_utils.evaluation.rows import STAGES
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.results import Selection
from mlprobe_utils.pipeline.tested import Evaluated, evaluated
from mlprobe_utils.stats.intervals import PROBE
from mlprobe_utils.stats.paired import HIGHER, LOWER, NEITHER

IMAGES = 300
HARD = np.random.default_rng(2).random(IMAGES)
SELECTION, SETS = Selection(("m",), ("d",), "miniature", "paper"), {"d": image_set(IMAGES)}
PROBED = [("V.05", "image_mean"), ("C.01", "image_mean"), ("L.00", "image_mean"), ("L.03", "image_mean")]
PROBED += [("L.00", "last_token"), ("L.03", "last_token")]
EQUAL = {IMAGE_TOKENS: 0.7, LAST_TOKEN: 0.7, OUTPUT: 0.7}
WHERE = {("L.03", "image_mean"): IMAGE_TOKENS, ("L.03", "last_token"): LAST_TOKEN}


def rows_in(order: str, shares: dict[str, float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Seed rows and prediction rows of both stages; only after fine-tuning an order has the shares."""
    number, seeds, answers = [*ORDERS].index(order), [], []
    for stage, own in zip(STAGES, (EQUAL, shares), strict=True):
        first = None if stage == "pretrained" else 0
        for seed, (place, (point, pooling)) in itertools.product(range(SEEDS), enumerate(PROBED)):
            luck = [seed, place, number if point[0] == "L" else 0, len(stage)]  # the same in every order before the LLM
            right = right_of(HARD, own.get(WHERE.get((point, pooling)), 0.7), luck)
            columns = {"point": point, "pooling": pooling, "probe": "main", "seed": seed, "run": first}
            seeds.append(rows_of(right, seed, stage=stage, order=order, **columns))
        for run in (0, 1) if first == 0 else (None,):  # a second run, which has no probes with many seeds
            right = right_of(HARD, own[OUTPUT] if run != 1 else 0.1, [99, number, len(stage), run or 0])
            answers.append(answers_of(right, stage=stage, order=order, run=run))
    return pd.concat(seeds, ignore_index=True), pd.concat(answers, ignore_index=True)


@pytest.fixture(scope="module")
def planted() -> list[Evaluated]:
    """With the question first the image tokens hold more; irrelevant text first costs the answer."""
    shares = {"question_first": {IMAGE_TOKENS: 0.9}, "irrelevant_first": {OUTPUT: 0.4}}
    rows = {order: rows_in(order, EQUAL | shares.get(order, {})) for order in ORDERS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(question_order, "of_value", lambda selection, setting, order: order)
        patch.setattr(results, "seed_rows", lambda order: rows[order][0])
        patch.setattr(results, "prediction_rows", lambda order: rows[order][1])
        return evaluated(SELECTION, SETS, question_order.outcomes_of)


def test_a_planted_effect_is_significant_where_it_is_with_its_sign(planted):
    table = question_order.differences(planted)
    assert len(table) == 2 * len(COMPARED) * 3
    found = table[table["verdict"] != NEITHER].set_index(["stage", "site", "order", "less"])
    assert found["verdict"].to_dict() == {
        ("finetuned", IMAGE_TOKENS, "question_first", "image_first"): HIGHER,
        ("finetuned", IMAGE_TOKENS, "question_first", "irrelevant_first"): HIGHER,
        ("finetuned", OUTPUT, "irrelevant_first", "image_first"): LOWER,
        ("finetuned", OUTPUT, "question_first", "irrelevant_first"): HIGHER,
    }
    assert found["difference"].abs().to_numpy() == pytest.approx([20, 30, 20, 30], abs=12)
    assert ((table["scope"] == PROBE) == (table["site"] == OUTPUT)).all()


def test_curves_are_the_means_with_their_bands_and_the_answers_of_the_same_run(planted):
    table = question_order.curves(planted).set_index(["stage", "order", "point"]).sort_index()
    assert [table.at[("finetuned", order, OUTPUT), "value"] for order in ORDERS] == pytest.approx([70, 70, 40], abs=6)
    own = planted[0].outcomes["finetuned", "question_first", POINTS]
    curve = table.loc["finetuned", "question_first"].loc[own.points]
    assert curve["value"].to_numpy() == pytest.approx(100 * own.correct.mean(axis=(0, 2)))
    assert curve["value"].between(curve["band_low"], curve["band_high"], inclusive="neither").all()
