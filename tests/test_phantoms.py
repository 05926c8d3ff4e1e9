"""Phantoms: deterministic, in the public layouts, with a planted signal and nothing else that tells the class."""

import csv
import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.ensemble import ExtraTreesClassifier

from mlprobe_utils import artefacts
from mlprobe_utils.cards import load_data_card
from mlprobe_utils.errors import InputError
from mlprobe_utils.phantoms import __main__ as command
from mlprobe_utils.phantoms import captions, ct, general, ultrasound, xray
from mlprobe_utils.phantoms.captions import captioned_phantoms
from mlprobe_utils.phantoms.general import captioned_shapes
from mlprobe_utils.phantoms.seeds import generator

SLUGS = ("busi-phantom", "covid19-ct-phantom", "chest-xray-phantom")
ANSWERS = {"normal", "benign", "malignant", "yes", "no", "covid", "noncovid", "pneumonia"}
NUISANCE = {
    "busi-phantom": ["gain", "contrast", "attenuation", "speckle", "tilt", "fat_depth", "muscle_depth"],
    "covid19-ct-phantom": ["gain", "contrast", "noise", "shift_x", "shift_y", "rotation", "scale", "heart"],
    "chest-xray-phantom": ["gain", "contrast", "noise", "shift_x", "shift_y", "rotation", "scale", "heart"],
}


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


@pytest.mark.parametrize("slug", SLUGS)
def test_byte_for_byte_again(slug, sets, tmp_path, monkeypatch):
    monkeypatch.setattr(artefacts, "OUTPUTS", tmp_path)
    again = command.make(slug)
    first, second = (
        {p.relative_to(f): p.read_bytes() for f in [folder] for p in sorted(f.rglob("*")) if p.is_file()}
        for folder in (sets[slug], again)
    )
    assert first.keys() == second.keys()
    differing = [str(p) for p in first if first[p] != second[p] and p.name != "provenance.json"]
    assert differing == []


def test_current_set_is_left_alone(sets, monkeypatch):
    folder = sets["busi-phantom"]
    monkeypatch.setattr(artefacts, "OUTPUTS", folder.parents[1])
    monkeypatch.setattr(command.writing, "write", lambda *_: pytest.fail("written again"))
    assert command.make("busi-phantom") == folder


@pytest.mark.parametrize("slug", SLUGS)
def test_counts_are_those_of_the_card(slug, sets):
    table, card = read_table(sets[slug]), load_data_card(slug)
    found = {s: dict(part["label"].value_counts()) for s, part in table.groupby("split")}
    assert found == card.release_counts
    test = card.test_counts or card.release_counts["test"]
    assert sum(test.values()) == {"busi": 150, "covid-ct": 203, "chest-xray": 624}[card.layout]
    images = [p for p in sets[slug].rglob("*.*g") if "_mask" not in p.name]
    assert {str(p.relative_to(sets[slug])) for p in images} == set(table["path"])
    assert len({(sets[slug] / p).read_bytes() for p in table["path"]}) == len(table)


def test_an_image_does_not_depend_on_the_counts(sets, tmp_path):
    card = load_data_card("covid19-ct-phantom")
    fewer = card.model_copy(update={"release_counts": {"val": {"COVID": 1, "NonCOVID": 2}, "test": {"NonCOVID": 3}}})
    recipe = command.read_recipe(card)
    small = command.writing.write(fewer, recipe.seed, recipe.side, tmp_path)
    whole = read_table(sets["covid19-ct-phantom"])
    for split, label in (("val", "NonCOVID"), ("test", "NonCOVID")):
        few, all_ = (t[(t["split"] == split) & (t["label"] == label)]["path"] for t in (small, whole))
        there = read_images(sets["covid19-ct-phantom"], all_[: len(few)])
        np.testing.assert_array_equal(read_images(tmp_path, few), there)


def test_busi_layout_and_masks(sets):
    folder = sets["busi-phantom"]
    table = read_table(folder)
    for row in table.itertuples():
        assert re.fullmatch(rf"Dataset_BUSI_with_GT/{row.label}/{row.label} \([1-9]\d*\)\.png", row.path)
        mask = np.asarray(Image.open(folder / row.path.replace(".png", "_mask.png")))
        image = np.asarray(Image.open(folder / row.path)).astype(float)
        assert mask.shape == image.shape
        assert mask.any() == (row.label != "normal")
    darker = [
        image[mask].mean() < image[~mask].mean()
        for image, mask in (
            (
                np.asarray(Image.open(folder / p)).astype(float),
                np.asarray(Image.open(folder / p.replace(".png", "_mask.png"))),
            )
            for p in table[table["label"] != "normal"]["path"]
        )
    ]
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


@pytest.mark.parametrize("slug", SLUGS)
def test_file_format_does_not_give_the_class_away(slug, sets):
    forms = set()
    for path in read_table(sets[slug])["path"]:
        with Image.open(sets[slug] / path) as image:
            forms.add((image.format, image.mode, image.size, path.rsplit(".")[-1]))
    assert len(forms) == 1


@pytest.mark.parametrize("slug", SLUGS)
def test_planted_signal_is_there_and_not_trivial(slug, sets):
    table = read_table(sets[slug]).sample(frac=1, random_state=0)
    pixels = (
        read_images(sets[slug], table["path"]).reshape(len(table), 16, 4, 16, 4).mean((2, 4)).reshape(len(table), -1)
    )
    pixels = (pixels - pixels.mean(1, keepdims=True)) / pixels.std(1, keepdims=True)
    labels = table["label"].to_numpy()
    train = np.arange(len(table)) < 300 if slug == "busi-phantom" else (table["split"] == "train").to_numpy()
    test = ~train if slug == "busi-phantom" else (table["split"] == "test").to_numpy()
    forest = ExtraTreesClassifier(200, random_state=0, n_jobs=1).fit(pixels[train], labels[train])
    majority = pd.Series(labels[test]).value_counts(normalize=True).max()
    assert majority + 0.12 < forest.score(pixels[test], labels[test]) < 0.97


@pytest.mark.parametrize("slug", SLUGS)
def test_nuisance_is_independent_of_the_class(slug, sets):
    table = read_table(sets[slug])
    for name in NUISANCE[slug]:
        groups = [part.to_numpy() for _, part in table.groupby("label")[name]]
        for group in groups[1:]:
            error = np.hypot(*(g.std() / np.sqrt(len(g)) for g in (groups[0], group)))
            assert abs(groups[0].mean() - group.mean()) < 4 * error, name


@pytest.mark.parametrize("module", [ultrasound, ct, xray])
def test_nuisance_is_drawn_before_the_class_counts(module):
    drawn = [module.draw(label, generator("dataset", 0, 7), 32)[1] for label in module.LABELS]
    names = module._nuisance(generator("dataset", 0, 7))
    assert all({name: d[name] for name in names} == names for d in drawn)


@pytest.mark.parametrize("modality", captions.MODALITIES)
def test_captioned_phantoms(modality):
    images, texts, labels = captioned_phantoms(modality, 60, seed=3, side=32)
    assert images.shape == (60, 32, 32, 3)
    assert images.dtype == np.uint8
    known = captions.MODALITIES[modality].LABELS
    assert {labels.count(label) for label in known} == {60 // len(known)}
    for text in texts:
        assert text == text.lower()
        assert not set(re.findall(r"[a-z]+", text)) & ANSWERS
    fewer, fewer_texts, _ = captioned_phantoms(modality, 10, seed=3, side=32)
    np.testing.assert_array_equal(fewer, images[:10])
    assert fewer_texts == texts[:10]


def test_captions_agree_with_the_parameters():
    for i in range(200):
        for modality, module in captions.MODALITIES.items():
            label = module.LABELS[i % len(module.LABELS)]
            _, made = module.draw(label, generator("captions", 9, i), 32)
            text = captions.caption(modality, made)
            if modality == "ultrasound":
                assert ("lesion" in text) == (label != "normal")
                if label != "normal":
                    assert ("taller" in text) == (made["log_aspect"] > 0)
                    assert ("shadow" in text) == (made["posterior"] < -captions.POSTERIOR)
                    assert ("enhancement" in text) == (made["posterior"] > captions.POSTERIOR)
                    assert ("irregular" in text) == (made["irregularity"] > captions.IRREGULAR)
                continue
            assert ("clear" in text) == (not made["opacities"] and made.get("pattern") != "diffuse")
            lungs = {opacity["lung"] for opacity in made["opacities"]}
            if modality == "ct":
                assert ("hazy patches" in text) == (label == "COVID")
                assert ("both" in text) == (len(lungs) == 2)
            else:
                assert ("clear" in text) == (label == "NORMAL")
                assert all(f"{o['lung']} {o['zone']} lung" in text for o in made["opacities"])


def test_an_opacity_is_on_the_side_that_its_caption_says():
    _, clear = xray.draw("NORMAL", generator("dataset", 1, 4), 64)
    base = clear | {"noise": 0.0, "shift_x": 0.0, "shift_y": 0.0, "rotation": 0.0, "scale": 1.0}
    place = {"x": 0.42, "y": 0.0, "width": 0.25, "height": 0.25, "strength": 0.4}
    spot = [{"lung": "left", "zone": "middle", **place}]
    with_, without = (
        xray._render({**base, "opacities": o}, np.random.default_rng(0), 64).astype(float) for o in (spot, [])
    )
    rise = np.abs(with_ - without) * (np.abs(with_ - without) > 0.1)
    column = (rise.sum(0) * np.arange(64)).sum() / rise.sum()
    assert 40 < column < 50  # the patient's left is on the right of the image


def test_streams_of_captions_and_data_sets_never_meet(sets):
    places = itertools.product(("dataset", "captions", "shapes"), range(4), range(50))
    drawn = {place: generator(*place[:2], 0, place[2]).random() for place in places}
    assert len(set(drawn.values())) == len(drawn)
    for slug, modality in zip(SLUGS, captions.MODALITIES, strict=True):
        card = load_data_card(slug)
        gain = {round(g, 12) for g in read_table(sets[slug])["gain"]}
        module = captions.MODALITIES[modality]
        index = list(captions.MODALITIES).index(modality)
        for i in range(60):
            made = module._nuisance(generator("captions", card.recipe["seed"], index, i))
            assert round(made["gain"], 12) not in gain


def test_shapes_and_their_captions():
    images, texts = captioned_shapes(300, seed=1)
    assert images.shape == (300, 64, 64, 3)
    pattern = (
        rf"(a|two) ({'|'.join(general.SIZES)}) ({'|'.join(general.BRIGHTNESSES)}) ({'|'.join(general.SHAPES)})s?"
        rf" on a ({'|'.join(general.BACKGROUNDS)}) background"
    )
    assert all(re.fullmatch(pattern, text) for text in texts)
    assert not {word for text in texts for word in text.split()} & ANSWERS
    bright = np.array(["bright" in text for text in texts])
    filled = (images[..., 0] > 0.8 * 255).mean((1, 2)), (images[..., 0] < 0.2 * 255).mean((1, 2))
    assert np.array_equal(filled[0] > filled[1], bright)
    area = np.maximum(*filled)
    large = np.array(["large" in text for text in texts])
    for shape in general.SHAPES:
        these = np.array([shape in text for text in texts])
        assert area[these & large].min() > area[these & ~large & np.array([t.startswith("a ") for t in texts])].max()
    np.testing.assert_array_equal(captioned_shapes(20, seed=1)[0], images[:20])
    assert not np.array_equal(captioned_shapes(20, seed=2)[0], images[:20])


@pytest.mark.parametrize("side", [32, 200])
@pytest.mark.parametrize("module", [ultrasound, ct, xray])
def test_other_sides_show_the_same_picture(module, side):
    for label in module.LABELS:
        small, made = module.draw(label, generator("dataset", 5, 1), 64)
        other, again = module.draw(label, generator("dataset", 5, 1), side)
        assert other.shape == (side, side)
        assert made == again
        coarse = [np.asarray(Image.fromarray(a).resize((8, 8), Image.Resampling.BOX)).ravel() for a in (small, other)]
        assert np.corrcoef(*coarse)[0, 1] > 0.9


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"seed": 1}, "recipe.side"),
        ({"seed": 1, "side": 16}, "recipe.side"),
        ({"seed": 1, "side": 1024}, "recipe.side"),
        ({"seed": "1", "side": 64}, "recipe.seed"),
        ({"seed": -1, "side": 64}, "recipe.seed"),
        ({"seed": 1, "side": 64, "sides": 2}, "recipe.sides"),
        (None, "recipe.seed"),
    ],
)
def test_bad_recipes(recipe, says):
    card = load_data_card("busi-phantom").model_copy(update={"recipe": recipe})
    with pytest.raises(InputError, match=re.escape(says)):
        command.read_recipe(card)


def test_bad_names():
    with pytest.raises(InputError, match=r"not a phantom.*busi-phantom"):
        command.make("busi")
    with pytest.raises(InputError, match="busi-phantom"):
        command.make("busi-fantom")
    with pytest.raises(InputError, match="ultrasound"):
        captioned_phantoms("ultrasond", 1, 0)
    for arguments in ((-1, 0, 64), (1, -1, 64), (1, 0, 8)):
        with pytest.raises(InputError, match="or more"):
            captioned_shapes(*arguments)
    for module in (ultrasound, ct, xray):
        with pytest.raises(InputError, match=module.LABELS[0]):
            module.draw("tumour", np.random.default_rng(0), 64)


def test_parameters_are_readable(sets):
    table = read_table(sets["covid19-ct-phantom"])
    assert all(isinstance(json.loads(text), list) for text in table["opacities"])
    assert read_table(sets["busi-phantom"]).query("label == 'normal'")["darkness"].isna().all()
