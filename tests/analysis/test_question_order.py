"""Orders compared: a planted effect of what comes first is found where it is, and nothing where there is none."""

import numpy as np
import pandas as pd
import pytest
from made_rows import answers_of, right_of
from station_rows import SEEDS, image_set, rows_of

from mlprobe_utils.analysis import question_order
from mlprobe_utils.analysis.question_order import COMPARED, HIGHER, LOWER, NEITHER, Reading, readings_of
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.orders import ORDER_NAMES, ORDERS
from mlprobe_utils.evaluation.rows import STAGES
from mlprobe_utils.evaluation.stations import IMAGE_TOKENS, LAST_TOKEN, OUTPUT
from mlprobe_utils.pipeline.tested import resamples_of_tested
from mlprobe_utils.plots.charts import order_curves
from mlprobe_utils.plots.forest import change_chart
from mlprobe_utils.stats.intervals import PROBE, RECIPE

IMAGES = 300
HARD = np.random.default_rng(2).random(IMAGES)
DRAWN, NAMES = resamples_of_tested(image_set(IMAGES), "paper")
POINTS = [("V.05", "image_mean"), ("C.01", "image_mean"), ("L.00", "image_mean"), ("L.03", "image_mean")]
POINTS += [("L.00", "last_token"), ("L.03", "last_token")]
EQUAL = {IMAGE_TOKENS: 0.7, LAST_TOKEN: 0.7, OUTPUT: 0.7}
WHERE = {("L.03", "image_mean"): IMAGE_TOKENS, ("L.03", "last_token"): LAST_TOKEN}


def rows_in(order: str, shares: dict[str, float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Seed rows and prediction rows of both stages; only after fine-tuning an order has the shares."""
    number, seeds, answers = [*ORDERS].index(order), [], []
    for stage in STAGES:
        own = shares if stage == "finetuned" else EQUAL
        for seed in range(SEEDS):
            for place, (point, pooling) in enumerate(POINTS):
                # what is before the LLM is the same in every order
                luck = [seed, place, number if point[0] == "L" else 0, len(stage)]
                right = right_of(HARD, own.get(WHERE.get((point, pooling)), 0.7), luck)
                place_of = {"point": point, "pooling": pooling, "probe": "main", "seed": seed}
                run = None if stage == "pretrained" else 0
                seeds.append(rows_of(right, seed, stage=stage, order=order, run=run, **place_of))
        for run in (0, 1) if stage == "finetuned" else (None,):  # a second run, which has no probes with many seeds
            right = right_of(HARD, own[OUTPUT] if run != 1 else 0.1, [99, number, len(stage), run or 0])
            answers.append(answers_of(right, stage=stage, order=order, run=run))
    return pd.concat(seeds, ignore_index=True), pd.concat(answers, ignore_index=True)


def readings(**shares: dict[str, float]) -> list[Reading]:
    found = []
    for order in ORDERS:
        found += readings_of(*rows_in(order, EQUAL | shares.get(order, {})), order, DRAWN, NAMES)
    return found


@pytest.fixture(scope="module")
def planted() -> list[Reading]:
    """With the question first the image tokens tell more; irrelevant text first costs the answer."""
    return readings(question_first={IMAGE_TOKENS: 0.9}, irrelevant_first={OUTPUT: 0.4})


def test_a_planted_effect_is_significant_where_it_is_with_its_sign(planted):
    table = question_order.differences(planted)
    assert len(table) == 2 * len(COMPARED) * 3
    told = table[table["verdict"] != NEITHER].set_index(["stage", "station", "order", "less"])
    assert told["verdict"].to_dict() == {
        ("finetuned", IMAGE_TOKENS, "question_first", "image_first"): HIGHER,
        ("finetuned", IMAGE_TOKENS, "question_first", "irrelevant_first"): HIGHER,
        ("finetuned", OUTPUT, "irrelevant_first", "image_first"): LOWER,
        ("finetuned", OUTPUT, "question_first", "irrelevant_first"): HIGHER,
    }
    assert told["difference"].abs().to_numpy() == pytest.approx([20, 30, 20, 30], abs=12)
    assert (told["low"] * told["high"] > 0).all()
    assert set(table.loc[table["station"] == OUTPUT, "question"]) == {PROBE}
    assert set(table.loc[table["station"] != OUTPUT, "question"]) == {RECIPE}


def test_nothing_is_significant_where_orders_do_not_differ():
    table = question_order.differences(readings())
    assert (table["verdict"] == NEITHER).all()
    assert (table["low"] < table["high"]).all()


def test_answers_are_of_the_run_that_the_probes_are_of(planted):
    tuned = [own for own in planted if own.stage == "finetuned"]
    assert all(own.answers.seeds == [0] for own in tuned)
    assert [own.answers.right.mean() for own in tuned] == pytest.approx([0.7, 0.7, 0.4], abs=0.06)


def test_curves_are_the_means_with_their_bands(planted):
    table = question_order.curves(planted)
    assert set(table["order"]) == {*ORDERS}
    for reading in planted:
        place = " and ".join(f"{k} == '{v}'" for k, v in (reading.place | {"order": reading.order}).items())
        own = table.query(place).set_index("point")
        assert own.index.tolist() == [*reading.image_tokens.points, OUTPUT]
        probed = own.loc[reading.image_tokens.points]
        assert probed["value"].to_numpy() == pytest.approx(100 * reading.image_tokens.right.mean(axis=(0, 2)))
        assert (probed["band_low"] < probed["value"]).all()
        assert (probed["value"] < probed["band_high"]).all()
        assert own.at[OUTPUT, "value"] == pytest.approx(100 * reading.answers.right.mean())


def test_what_comes_before_the_llm_is_the_same_and_is_checked(planted):
    assert question_order.largest_before_the_llm(planted) == 0
    seeds, answers = rows_in("question_first", EQUAL)
    at_connector = (seeds["point"] == "C.01") & (seeds["image"] == NAMES[0])
    seeds.loc[at_connector, ["p_Yes", "p_No"]] = seeds.loc[at_connector, ["p_No", "p_Yes"]].to_numpy()
    other = readings_of(seeds, answers, "question_first", DRAWN, NAMES)
    rest = [own for own in planted if own.order != "question_first"]
    assert question_order.largest_before_the_llm([*rest, *other]) > 0


def test_rows_of_other_images_are_refused():
    seeds, answers = rows_in("image_first", EQUAL)
    with pytest.raises(InputError, match="m on d, pretrained, image_first: its rows are not of the test images"):
        readings_of(seeds, answers[answers["image"] != NAMES[0]], "image_first", DRAWN, NAMES)


def test_charts_tell_every_order_and_every_difference_with_its_interval(planted):
    names = {"m": "Model", "d": "Data"}
    curves = question_order.curves(planted)
    drawn = order_curves(curves[curves["stage"] == "finetuned"], names)
    for order in ORDER_NAMES.values():
        assert f'data-highlight="{order}"' in drawn.html
    assert "after fine-tuning" in drawn.html
    told = question_order.differences(planted)
    assert set(question_order.in_words(told)["less"]) == {"image first", "irrelevant first"}
    told = told[(told["stage"] == "finetuned") & (told["order"] == "question_first") & (told["less"] == "image_first")]
    verdicts = LOWER, HIGHER, NEITHER
    drawn = change_chart(told.assign(statement=told["station"]), names, "Question first less image first", verdicts)
    for row in told.itertuples():
        words = f"{row.station}: {row.difference:+.1f} ({row.low:+.1f} to {row.high:+.1f}) points, {row.verdict}"
        assert words in drawn.description
