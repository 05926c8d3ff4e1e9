"""Traditional classifiers beside MLLMs: a gap that is planted is told with its sign, one that is not is not."""

import numpy as np
import pandas as pd
import pytest
from baseline_parts import final_outputs, training
from station_rows import image_set

from mlprobe_utils.baseline_charts import accuracy_chart
from mlprobe_utils.baseline_comparison import (
    ABOVE,
    BELOW,
    MLLM,
    NEITHER,
    TRADITIONAL,
    accuracies,
    claims,
    contests,
    gaps,
    group_means,
)
from mlprobe_utils.baseline_tables import list_table, status_table, trained_table
from mlprobe_utils.baselines.card import CATEGORIES, STATUSES, all_baselines, load_baseline
from mlprobe_utils.epoch_choice import LAST
from mlprobe_utils.errors import InputError

SLUGS = {"resnet": "CNN", "fasternet": "CNN", "s2-mlp": "MLP", "vit": "ViT"}
CARDS = [load_baseline(slug) for slug in SLUGS]


def compared(networks: dict[str, float], mllms: dict[str, float], images: int = 400, way: str = LAST) -> dict:
    trained = [training(slug, [0.5, share], images, seed=n) for n, (slug, share) in enumerate(networks.items())]
    predicted = pd.concat([final_outputs(model, share, images) for model, share in mllms.items()])
    return contests({"d": trained}, predicted, CARDS, {"d": image_set(images)}, "paper", way)


def the_same(share: float) -> dict[str, float]:
    return dict.fromkeys(SLUGS, share)


@pytest.mark.parametrize(
    ("networks", "mllms", "said", "below"),
    [(0.85, [0.7, 0.72], BELOW, 2), (0.8, [0.8, 0.79], NEITHER, 0), (0.6, [0.85, 0.8], ABOVE, 0)],
)
def test_the_claim_holds_where_it_was_planted_and_not_elsewhere(networks, mllms, said, below):
    found = claims(compared(the_same(networks), dict(zip(["m", "n"], mllms, strict=True)))).iloc[0]
    assert found["difference"] == pytest.approx(100 * (np.mean(mllms) - networks), abs=4)
    assert found["low"] < found["difference"] < found["high"]
    assert found["verdict"] == said
    assert found["MLLMs below"] == below
    assert (found["MLLMs"], found["baselines"]) == (2, 4)


def test_one_mllm_below_the_average_is_counted_though_the_mean_is_not():
    found = claims(compared(the_same(0.8), {"m": 0.6, "n": 0.98})).iloc[0]
    assert found["MLLMs below"] == 1
    assert found["verdict"] == NEITHER


def test_each_category_is_told_from_the_mllms_by_itself():
    found = gaps(compared({"resnet": 0.9, "fasternet": 0.9, "s2-mlp": 0.8, "vit": 0.6}, {"m": 0.8}))
    told = found.set_index("category")
    assert found["category"].tolist() == ["CNN", "MLP", "ViT"]
    assert told.loc["CNN", "high"] < 0 < told.loc["ViT", "low"]
    assert told.loc["MLP", "low"] < 0 < told.loc["MLP", "high"]


def test_a_mean_is_that_of_its_members_and_the_average_weighs_networks_alike():
    found = compared({"resnet": 0.9, "fasternet": 0.7, "s2-mlp": 0.8, "vit": 0.6}, {"m": 0.8, "n": 0.5})
    each, means = accuracies(found).set_index("model"), group_means(found).set_index("group")
    assert each.loc["m", "value"] == pytest.approx(80, abs=1)
    assert each["group"].to_dict() == SLUGS | {"m": MLLM, "n": MLLM}
    assert means.loc["CNN", "value"] == pytest.approx(each.loc[["resnet", "fasternet"], "value"].mean())
    assert means.loc[TRADITIONAL, "value"] == pytest.approx(each.loc[[*SLUGS], "value"].mean())
    assert means["members"].to_dict() == {"CNN": 2, "MLP": 1, "ViT": 1, MLLM: 2, TRADITIONAL: 4}
    for table in (each, means):
        assert (table["low"] < table["value"]).all()
        assert (table["value"] < table["high"]).all()


def test_answers_to_other_images_are_refused():
    predicted, sets = final_outputs("m", 0.8, 398), {"d": image_set(400)}
    with pytest.raises(InputError, match="m on d: its answers are not to the test images"):
        contests({"d": [training("resnet", [0.8])]}, predicted, CARDS[:1], sets, "paper", LAST)
    own = {"d": [training("resnet", [0.8], 398)]}
    with pytest.raises(InputError, match="resnet on d: its answers are not to the test images"):
        contests(own, final_outputs("m", 0.8), CARDS[:1], sets, "paper", LAST)


def test_the_chart_says_everyone_with_the_interval():
    found = compared({"resnet": 0.9, "fasternet": 0.7, "s2-mlp": 0.8, "vit": 0.6}, {"m": 0.8})
    each, means = accuracies(found), group_means(found)
    names = {"m": "Em", "resnet": "ResNet", "d": "Phantoms"}
    drawn = accuracy_chart(each, means, {"d": 55.5}, names, "Accuracies")
    assert drawn.html.count("<svg") == 1
    for row in each.replace(names).itertuples():
        told = f"{row.model} ({row.group}): {row.value:.1f} % ({row.low:.1f} to {row.high:.1f})"
        assert told in drawn.description
        assert told in drawn.html
    assert "majority class: 55.5 %" in drawn.description
    for word in ("Phantoms", "dashed: mean of all traditional", 'data-highlight="CNN"', "mean of CNN: "):
        assert word in drawn.html


def test_the_list_has_the_papers_numbers_and_says_how_sure_each_is():
    cards = all_baselines()
    table = status_table(cards).set_index("status")
    assert table[list(CATEGORIES)].sum().to_dict() == {"CNN": 8, "MLP": 4, "ViT": 4, "hybrid": 7}
    assert table["all"].to_dict() == {"cited": 11, "likely": 1, "inferred": 11}
    assert table["meaning"].to_dict() == STATUSES
    listed = list_table(cards)
    assert listed["category"].tolist() == sorted(listed["category"], key=CATEGORIES.index)
    assert listed.set_index("baseline").loc["S2-MLP", "built as"] == "this project: s2_mlp"
    assert "no commercial use" in listed.set_index("baseline").loc["FasterViT", "note"]
    own = trained_table(CARDS, {"d": [training(slug, [0.8]) for slug in SLUGS]}, "small")
    assert own["baseline"].tolist() == [card.name for card in CARDS]
    assert set(own["parameters"]) == {"1.23M"}
    assert set(own["trained at"]) == {"64 px"}
