"""The arithmetic of the paper's Tables 2 and 3: what its gap is a gap of, and cells that stand in the wrong place."""

import pandas as pd
import pytest

from mlprobe_utils import printed_towers
from mlprobe_utils.cards import PUBLISHED
from mlprobe_utils.printed_gains import IMAGES
from mlprobe_utils.printed_towers import fits


def test_the_average_gap_is_the_mean_relative_change_over_all_six_numbers():
    table = printed_towers.printed_gaps().set_index("model")
    assert table["printed"].to_dict() == {"HuatuoGPT-Vision-7B": -0.38, "MedGemma-4B": 0.27}
    assert (table["reading"] == "mean relative change").all()
    relative, points = table["mean relative change"], table["mean difference"]
    assert relative.tolist() == pytest.approx([-0.378, 0.265], abs=0.001)
    assert points.tolist() == pytest.approx([-0.32, 0.10], abs=0.005)
    printed = pd.read_csv(PUBLISHED / "table2.csv")
    for model, own in printed.groupby("model"):
        frozen, lora = (own[own["vision_tower"] == tower][["acc", "f1"]].to_numpy() for tower in ("frozen", "lora"))
        assert frozen.size == 6
        assert points[model] == pytest.approx(sum((frozen - lora).ravel()) / 6)


def test_differences_of_table_2_are_whole_numbers_of_images():
    table = printed_towers.printed_changes().set_index(["model", "dataset"])
    assert len(table) == 6
    for (_, dataset), row in table.iterrows():
        assert fits(row["adapted"], IMAGES[dataset])
        assert fits(row["frozen"], IMAGES[dataset])
        assert 100 * row["images"] / IMAGES[dataset] == pytest.approx(row["difference"], abs=0.011)
    assert table.loc[("HuatuoGPT-Vision-7B", "BUSI"), "images"] == -2
    assert table.loc[("HuatuoGPT-Vision-7B", "BUSI"), "p (least)"] == 0.5
    assert table.loc[("HuatuoGPT-Vision-7B", "COVID19-CT"), "p (least)"] == 1
    assert table.loc[("MedGemma-4B", "Chest-Xray"), "p (least)"] < 1e-6


def test_the_two_exchanged_cells_are_found_and_no_others():
    table = printed_towers.printed_paradigms()
    assert len(table) == 18
    odd = table[table["right"].isna()].set_index("dataset")
    assert set(odd["model"]) == {"MedGemma-1.5-4B"}
    assert set(odd["paradigm"]) == {"Vision Tower SFT"}
    assert odd["printed"].to_dict() == {"COVID19-CT": 89.10, "Chest-Xray": 85.22}
    assert odd["swapped with"].to_dict() == {"COVID19-CT": "Chest-Xray", "Chest-Xray": "COVID19-CT"}
    assert odd["corrected"].to_dict() == {"COVID19-CT": 85.22, "Chest-Xray": 89.10}
    assert round(89.10 / 100 * 624) == 556
    assert round(85.22 / 100 * 203) == 173
    even = table[table["right"].notna()]
    assert (even["corrected"] == even["printed"]).all()
    assert (even["swapped with"] == "").all()
    for row in even.itertuples():
        assert round(100 * row.right / IMAGES[row.dataset], 2) == pytest.approx(row.printed, abs=0.011)


def test_a_table_with_every_cell_in_its_place_has_nothing_to_exchange(tmp_path, monkeypatch):
    table = pd.read_csv(PUBLISHED / "table3.csv")
    mended = printed_towers.printed_paradigms()
    table["acc"] = mended["corrected"]
    table.to_csv(tmp_path / "table3.csv", index=False)
    monkeypatch.setattr(printed_towers, "PUBLISHED", tmp_path)
    again = printed_towers.printed_paradigms()
    assert again["right"].notna().all()
    assert (again["swapped with"] == "").all()


def test_differences_of_table_3_before_and_after_putting_cells_back():
    given = map(printed_towers.printed_differences, ("printed", "corrected"))
    printed, corrected = (table.set_index(["less", "model", "dataset"]) for table in given)
    model, gains = "MedGemma-1.5-4B", corrected["difference"]
    assert printed.at[("MLLM SFT", model, "COVID19-CT"), "difference"] == pytest.approx(89.10 - 83.74)
    assert gains["MLLM SFT", model, "COVID19-CT"] == pytest.approx(85.22 - 83.74)
    assert gains["MLLM SFT", model, "Chest-Xray"] == pytest.approx(89.10 - 70.03)
    assert corrected.at[("MLLM SFT", model, "COVID19-CT"), "images"] == 173 - 170
    assert corrected.at[("MLLM SFT", model, "COVID19-CT"), "p (least)"] == 0.25
    assert corrected.at[("Feature Probing", model, "BUSI"), "images"] == 140 - 129
    others = corrected.drop(index=model, level="model")
    pd.testing.assert_frame_equal(others, printed.drop(index=model, level="model"))


def test_the_one_disagreement_with_table_1_is_found():
    (row,) = printed_towers.disagreements().to_dict("records")
    assert row == {"model": "ShizhenGPT-7B-VL", "dataset": "COVID19-CT", "Table 3": 78.82, "Table 1": 81.28}


@pytest.mark.parametrize(("accuracy", "images", "whole"), [(66.67, 150, True), (66.66, 150, False), (100.0, 203, True),
                                                           (89.10, 203, False), (89.10, 624, True)])  # fmt: skip
def test_whole_numbers_of_images_are_told_from_others(accuracy, images, whole):
    assert fits(accuracy, images) is whole
