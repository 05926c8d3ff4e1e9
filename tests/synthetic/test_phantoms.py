"""Phantom sets: deterministic, in the public layouts, made from a card's recipe."""

import csv
import itertools
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.synthetic.phantoms import making as command
from mlprobe_utils.synthetic.phantoms.modalities import MODALITIES, draw
from mlprobe_utils.synthetic.phantoms.randomness import STREAMS, generator

SLUGS = ("busi-phantom", "covid19-ct-phantom", "chest-xray-phantom")
GOOD = {"seed": 1, "side": 64, "difficulty": 0.5}  # a recipe


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The three phantom sets, made once: slug -> folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "OUTPUTS", tmp_path_factory.mktemp("outputs"))
        yield {slug: command.make(slug) for slug in SLUGS}


def read_table(folder) -> pd.DataFrame:
    return pd.read_parquet(folder / "phantom_parameters.parquet")


def read_images(folder, paths) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / path)) for path in paths])


def test_current_set_is_left_alone(sets, monkeypatch):
    folder = sets["busi-phantom"]
    monkeypatch.setattr(artefacts, "OUTPUTS", folder.parents[1])
    monkeypatch.setattr(command, "write", lambda *_: pytest.fail("written again"))
    assert command.make("busi-phantom") == folder


@pytest.mark.parametrize("slug", SLUGS)
def test_counts_are_those_of_the_card_and_no_format_gives_the_class_away(slug, sets):
    table, card = read_table(sets[slug]), load_data_card(slug)
    found = {s: dict(part["label"].value_counts()) for s, part in table.groupby("split")}
    assert found == card.release_counts
    test = card.test_counts or card.release_counts["test"]
    assert sum(test.values()) == {"busi": 150, "covid-ct": 203, "chest-xray": 624}[card.layout]
    images = [p for p in sets[slug].rglob("*.*g") if "_mask" not in p.name]
    assert {str(p.relative_to(sets[slug])) for p in images} == set(table["path"])
    assert len({(sets[slug] / p).read_bytes() for p in table["path"]}) == len(table)
    forms = set()
    for path in table["path"]:
        with Image.open(sets[slug] / path) as image:
            forms.add((image.format, image.mode, image.size, path.rsplit(".")[-1]))
    assert len(forms) == 1


def test_an_image_does_not_depend_on_the_counts(sets, tmp_path):
    card = load_data_card("covid19-ct-phantom")
    fewer = card.model_copy(update={"release_counts": {"val": {"COVID": 1, "NonCOVID": 2}, "test": {"NonCOVID": 3}}})
    small = command.write(fewer, command.read_recipe(card), tmp_path)
    whole = read_table(sets["covid19-ct-phantom"])
    for split, label in (("val", "NonCOVID"), ("test", "NonCOVID")):
        few, all_ = (t[(t["split"] == split) & (t["label"] == label)]["path"] for t in (small, whole))
        there = read_images(sets["covid19-ct-phantom"], all_[: len(few)])
        np.testing.assert_array_equal(read_images(tmp_path, few), there)


def test_busi_layout_and_masks(sets):
    folder, darker = sets["busi-phantom"], []
    for row in read_table(folder).itertuples():
        assert re.fullmatch(rf"Dataset_BUSI_with_GT/{row.label}/{row.label} \([1-9]\d*\)\.png", row.path)
        mask = np.asarray(Image.open(folder / row.path.replace(".png", "_mask.png")))
        image = np.asarray(Image.open(folder / row.path)).astype(float)
        assert mask.shape == image.shape
        assert mask.any() == (row.label != "normal")
        if row.label != "normal":
            darker.append(image[mask].mean() < image[~mask].mean())
    assert np.mean(darker) > 0.97


def test_covid_ct_layout(sets):
    folder = sets["covid19-ct-phantom"]
    table, listed = read_table(folder), {}
    for label in ("COVID", "NonCOVID"):
        for split in ("train", "val", "test"):
            for name in (folder / f"Data-split/{label}/{split}CT_{label}.txt").read_text().splitlines():
                assert name not in listed
                listed[name] = f"Images-processed/CT_{label}/{name}", label, split
    assert set(listed.values()) == set(zip(table["path"], table["label"], table["split"], strict=True))
    for name, columns in (
        ("COVID-CT-MetaInfo.csv", ["File name", "Patient ID"]),
        ("NonCOVID-CT-MetaInfo.csv", ["", "image name", "patient id"]),
    ):
        header, *rows = csv.reader((folder / name).read_text().splitlines())
        assert header == columns
        assert {row[-2] for row in rows} <= set(listed)


def test_chest_xray_layout(sets):
    table = read_table(sets["chest-xray-phantom"])
    patients = {}
    for row in table.itertuples():
        name = r"IM-(\d{4})-\d{4}" if row.label == "NORMAL" else r"person(\d+_(?:bacteria|virus))_\d+"
        found = re.fullmatch(rf"chest_xray/{row.split}/{row.label}/{name}\.jpeg", row.path)
        assert patients.setdefault((row.label, found.group(1)), row.split) == row.split
    assert table.groupby("patient")["split"].nunique().max() == 1


def test_streams_of_captions_and_data_sets_never_meet(sets):
    places = itertools.product(STREAMS, range(4), range(50))
    drawn = {place: generator(*place[:2], 0, place[2]).random() for place in places}
    assert len(set(drawn.values())) == len(drawn)
    for index, (slug, module) in enumerate(zip(SLUGS, MODALITIES.values(), strict=True)):
        gain = {round(g, 12) for g in read_table(sets[slug])["gain"]}
        for i in range(60):
            made = module.nuisance(generator("captions", load_data_card(slug).recipe["seed"], index, i))
            assert round(made["gain"], 12) not in gain


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"difficulty": 0.5, "seed": 1}, "recipe.side"),
        ({**GOOD, "side": 16}, "recipe.side"),
        ({**GOOD, "seed": "1"}, "recipe.seed"),
        ({**GOOD, "seed": -1}, "recipe.seed"),
        ({**GOOD, "difficulty": 1.1}, "recipe.difficulty"),
        ({**GOOD, "sides": 2}, "recipe.sides"),
        ({**GOOD, "shortcut": {"label": "malignant"}}, "recipe.shortcut.agreement"),
        ({**GOOD, "shortcut": {"label": "malignant", "agreement": 0.3}}, "recipe.shortcut.agreement"),
        ({**GOOD, "shortcut": {"label": "COVID", "agreement": 0.9}}, "recipe.shortcut.label"),
        (None, "recipe.seed"),
    ],
)
def test_bad_recipes(recipe, says):
    card = load_data_card("busi-phantom").model_copy(update={"recipe": recipe})
    with pytest.raises(InputError, match=re.escape(says)) as error:
        command.read_recipe(card)
    assert "data/datasets/busi-phantom.yml" in str(error.value)


def test_a_shortcut_of_a_recipe_is_planted(tmp_path):
    planted = GOOD | {"shortcut": {"label": "malignant", "agreement": 1.0}}
    counts = {"all": {"normal": 3, "malignant": 3}}
    card = load_data_card("busi-phantom").model_copy(update={"recipe": planted, "release_counts": counts})
    table = command.write(card, command.read_recipe(card), tmp_path)
    assert (table["shortcut"] == (table["label"] == "malignant")).all()


def test_bad_names():
    with pytest.raises(InputError, match=r"not a phantom.*busi-phantom"):
        command.make("busi")
    with pytest.raises(InputError, match="busi-phantom"):
        command.make("busi-fantom")
    for modality, module in MODALITIES.items():
        with pytest.raises(InputError, match=module.LABELS[0]):
            draw(modality, "tumour", np.random.default_rng(0), 64)
