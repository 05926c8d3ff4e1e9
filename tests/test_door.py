"""The door: what a notebook of one's own needs, from a folder of images to a chart, and what it says of bad input."""

import doctest
import shutil
import subprocess
import sys
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_parts import make_tiny
from transformers.utils import logging

import mlprobe_utils as mp
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.settings import SHIPPED, paper
from mlprobe_utils.evaluation.points import POOLING_NAMES
from mlprobe_utils.pipeline.artefacts import ROOT
from mlprobe_utils.probing.extraction import features_of
from mlprobe_utils.probing.probes import fit_probes
from mlprobe_utils.probing.settings import Probe

QUESTION = mp.Question("<image> Is it ill? Answer 'Yes' or 'No'.", {"normal": "No", "ill": "Yes"})
OF_EDITS = {name: getattr(own, "__module__", "") for name, own in vars(mp.edits).items() if name[0] != "_"}
EDITS = [f"edits.{name}" for name, module in OF_EDITS.items() if module == mp.edits.__name__]
FAST = {"epochs": 10, "learning_rate": 0.003}


def draw_scans(folder: Path) -> Path:
    """12 dark and 12 bright images of noise, in a folder for each class."""
    rng = np.random.default_rng(0)
    for place in range(24):
        label = ("normal", "ill")[place % 2]
        pixels = rng.integers(80 * (place % 2), 80 * (place % 2) + 100, (64, 64, 3), dtype=np.uint8)
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / label / f"{place:02d}.png")
    return folder


@pytest.fixture(scope="module")
def door(tiny_folders, tmp_path_factory) -> dict:
    """A model, images, and what each function makes of them."""
    checkpoint, folder = str(tiny_folders("qwen2_5_vl")), draw_scans(tmp_path_factory.mktemp("door") / "scans")
    model, images = mp.load(checkpoint), mp.image_folder(folder, test_fraction=0.25)
    features = mp.extract(model, images, QUESTION)
    rows = mp.probe(features, images, **FAST)
    answers = mp.answer(model, images, QUESTION, max_new_tokens=4)
    made = {"checkpoint": checkpoint, "folder": folder, "model": model, "images": images, "question": QUESTION}
    return made | {"features": features, "rows": rows, "answers": answers, "mp": mp, "np": np}


@pytest.mark.parametrize("name", [*(name for name in mp.__all__ if name != "edits"), *EDITS])
def test_examples_do_what_they_show(name, door, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(attrgetter(name)(mp), name, globs=dict(door))
    assert example.examples
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example).failed == 0


def test_a_signal_in_the_images_is_found_and_noise_is_not(door):
    noise = {"vllm/layer 3": np.random.default_rng(0).normal(size=(24, 8))}
    curve = mp.accuracy(mp.probe(door["features"] | noise, door["images"], **FAST))
    own = curve.set_index("point")["accuracy"]
    assert own["V.00"].tolist() == [100, 100]  # mean and places
    assert own["vllm/layer 3"] < 90
    assert ((curve["low"] <= curve["accuracy"]) & (curve["accuracy"] <= curve["high"])).all()
    assert curve["images"].unique() == (door["images"].table["split"] == "test").sum()
    assert curve.loc[curve["point"] == "L.00", "pooling"].tolist() == [*POOLING_NAMES]
    assert mp.accuracy(door["rows"], "mcc")["low"].isna().all()
    assert mp.accuracy(door["rows"], "auc", positive="ill")["auc"].between(0, 100).all()


def test_probes_are_those_of_the_pipeline(door):
    key, table = "L.01/last_token", door["images"].table
    labels, training = table["label"].eq("normal").to_numpy(int), np.flatnonzero(table["split"] == "train")
    given = {key: torch.from_numpy(door["features"][key])}, {key: labels}, training, 2, paper(Probe, "probe", **FAST)
    expected = fit_probes(*given, {key: 3})[key]
    own = door["rows"].query("point == 'L.01' and pooling == 'last_token' and seed == 3")
    place = table.reset_index().set_index("image").loc[own["image"], "index"]
    np.testing.assert_allclose(own[["p_ill", "p_normal"]], expected[place], rtol=1e-5, atol=1e-6)


def test_features_in_a_folder_are_those_in_memory_and_are_read_back(door, tmp_path, monkeypatch):
    model, images = door["model"], door["images"]
    kept = mp.extract(model, images, QUESTION, tmp_path / "features", batch_size=5)
    for key, expected in door["features"].items():
        np.testing.assert_allclose(kept[key], expected, rtol=1e-3, atol=1e-4)
    assert list(kept) == list(door["features"])
    smaller = mp.load(door["checkpoint"], max_pixels=32 * 32)
    for given, other in (
        ((model, images, mp.Question("<image> Is it well?", QUESTION.options)), "question: give another folder"),
        ((smaller, images, QUESTION), "preprocessing"),
        ((model, images[:3], QUESTION), "images"),
    ):
        with pytest.raises(InputError, match=f"other {other}"):
            mp.extract(*given, tmp_path / "features")
    monkeypatch.setattr(model.model, "forward", None)
    assert mp.extract(model, images, QUESTION, tmp_path / "features").images == images.names


def test_an_image_set_of_the_pipeline_goes_the_same_way(tiny, encoder, image_set):
    question = mp.Question(image_set.card.template, {c.name: c.option for c in image_set.card.classes})
    features = mp.extract(tiny, image_set, question)
    expected = features_of(tiny, encoder.questions([image_set.pixels(4)]))
    assert features.images[4] == "image-04.png"
    for key, own in expected.items():
        np.testing.assert_allclose(features[key][4, : own.shape[1]], own[0], rtol=1e-3, atol=1e-4)


def test_captured_states_have_gradients(door):
    model = door["model"]
    with mp.capture(model, door["images"][:2], QUESTION) as states:
        states["L.02/last_token"].sum().backward()
        assert model.model.get_submodule("model.visual.blocks.0").attn.qkv.weight.grad.abs().sum() > 0
    for key, own in states.items():
        np.testing.assert_allclose(own.detach(), door["features"][key][:2], rtol=1e-3, atol=1e-4)
    model.model.zero_grad()


def test_answers_are_labels_and_are_read_back(door, tmp_path):
    answers = door["answers"]
    assert answers["image"].tolist() == door["images"].rows("validation", "test")["image"].tolist()
    np.testing.assert_allclose(answers[["p_normal", "p_ill"]].sum(axis=1), 1)
    assert {*answers["parsed"].dropna()} <= {*QUESTION.options}
    given, place = (door["model"], door["images"], QUESTION), tmp_path / "answers"
    for _ in range(2):
        kept = mp.answer(*given, folder=place, max_new_tokens=4, batch_size=3)
        pd.testing.assert_frame_equal(kept, answers, check_dtype=False, rtol=1e-4)
    other = mp.image_folder(door["folder"], test_fraction=0.25, seed=1)
    with pytest.raises(InputError, match="other labels"):
        mp.answer(door["model"], other, QUESTION, folder=place, max_new_tokens=4)
    with pytest.raises(InputError, match="other max_new_tokens"):
        mp.answer(*given, folder=place)


def test_an_adapter_works_in_the_door_and_only_there(door, tmp_path):
    model, images = door["model"], door["images"]
    fields = {"epochs": 1, "learning_rate": 0.01}
    tuned = mp.fine_tune(model, images, QUESTION, tmp_path / "adapter", **fields)
    changed = mp.extract(tuned, images, QUESTION)["L.02/last_token"]
    assert np.abs(changed - door["features"]["L.02/last_token"]).max() > 0.01
    plain = mp.extract(model, images, QUESTION)
    np.testing.assert_array_equal(plain["L.02/last_token"], door["features"]["L.02/last_token"])
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    again = mp.load(door["checkpoint"], adapter=tmp_path / "adapter")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    np.testing.assert_allclose(mp.extract(again, images, QUESTION)["L.02/last_token"], changed, rtol=1e-4, atol=1e-5)
    curve = tmp_path / "adapter" / "learning_curve.parquet"
    written = curve.stat().st_mtime_ns
    mp.fine_tune(model, images, QUESTION, tmp_path / "adapter", **fields)
    assert curve.stat().st_mtime_ns == written
    with pytest.raises(InputError, match="other seed"):
        mp.fine_tune(model, images, QUESTION, tmp_path / "adapter", seed=1, **fields)
    with pytest.raises(InputError, match="the model has the adapter"):
        mp.fine_tune(tuned, images, QUESTION, tmp_path / "second", **fields)


def test_an_adapter_of_another_base(door, tmp_path):
    mp.fine_tune(door["model"], door["images"], QUESTION, tmp_path / "adapter", epochs=1)
    other = make_tiny("llava", tmp_path / "llava")
    twin = make_tiny("qwen2_5_vl", tmp_path / "twin")  # of the same shapes
    weights = mp.load(twin)
    torch.nn.init.normal_(weights.model.get_input_embeddings().weight)
    weights.model.save_pretrained(twin)
    for base in (other, twin):
        with pytest.raises(InputError, match=f"{tmp_path / 'adapter'} does not fit {base}: it was trained on"):
            mp.load(base, adapter=tmp_path / "adapter")
    for name in ("made_from.json", "files.json"):  # peft writes none
        (tmp_path / "adapter" / name).unlink()
    mp.load(twin, adapter=tmp_path / "adapter")
    with pytest.raises(InputError, match="does not fit"):
        mp.load(other, adapter=tmp_path / "adapter")
    with pytest.raises(InputError, match="has no adapter"):
        mp.load(twin, adapter=tmp_path)
    with pytest.raises(InputError, match="load its base with this folder as `adapter`"):
        mp.load(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match=r"adapter is damaged .*: train it again, or copy it again"):
        mp.load(twin, adapter=tmp_path / "adapter")


def test_health_and_diagnosis(door):
    health = mp.health(door["rows"]).set_index("module")
    assert health.loc["V", "points"] == 4
    assert (health["low"] <= health["high"]).all()
    found = mp.diagnose(door["rows"], door["answers"])
    assert len(found) == 5
    whole = mp.diagnose(door["rows"], door["answers"], reference=door["answers"].drop(columns=["text", "parsed"]))
    assert whole["statement"].tolist() == found["statement"].tolist()


def test_the_chart_shows_without_the_books_style_sheet(door, tmp_path):
    noise = {"a colleague's": np.random.default_rng(0).normal(size=(24, 8))}
    rows = pd.concat([door["rows"], mp.probe(noise, door["images"], seeds=5, **FAST)])
    mp.plot(rows, door["answers"], "f1").save(tmp_path / "curve.svg")
    drawn = (tmp_path / "curve.svg").read_text()
    assert "var(" not in drawn
    assert all(words in drawn for words in ("LLM, last token", "other features", "answers", "F1 (%)"))


def test_images_without_labels_are_answered_and_not_scored(door):
    answers = mp.answer(door["model"], mp.image_list(door["images"][:3]), QUESTION, max_new_tokens=2)
    assert answers["split"].tolist() == ["test"] * 3
    with pytest.raises(InputError, match="give image_list the labels"):
        mp.accuracy(answers)


def probed(change):
    return lambda d: mp.probe(change(d["features"]), d["images"])


def question_of(template: str, **options):
    return lambda d: mp.answer(d["model"], d["images"], mp.Question(template, options), folder="never")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (probed(lambda f: {"V.00": f["V.00/image_mean"][:5]}), r"\[5, 32\], expected \[24 images, width\]"),
        (probed(lambda f: {"V.00": np.full((24, 2), np.nan)}), "'V.00' hold values that are not finite"),
        (probed(lambda f: type(f)(f, [*f.images[:-1], "x.png"])), "features of 24 images do not fit these 24"),
        (probed(lambda f: type(f)(f, f.images[::-1])), "in another order"),
        (question_of("Is it ill?", normal="No", ill="Yes"), "<image> 0 times: write it once"),
        (question_of("<image> Is it ill?", ill="Yes"), "has 1 options"),
        (question_of("<image> Is it ill?", normal="No", sick="Yes"), "no answer for the label 'ill'"),
        (question_of("<image> Is it ill?", normal="No", ill="Yes", x="Maybe"), "no image has the label 'x'"),
        (lambda d: mp.probe(d["features"], d["images"], hiden=3), "argument of probe 'hiden': did you mean 'hidden'"),
        (lambda d: mp.accuracy(d["rows"], "acuracy"), "unknown metric 'acuracy': did you mean 'accuracy'"),
        (lambda d: mp.load(d["checkpoint"], attention="egaer"), r"load: attention: .*'eager'"),
        (lambda d: mp.answer(d["model"], d["images"], QUESTION, max_new_tokens=0), "max_new_tokens: .*greater"),
        (lambda d: mp.extract(d["model"], [], QUESTION), "there are no images"),
        (lambda d: mp.extract(d["model"], [np.zeros((8, 8, 3))], QUESTION), r"image 0 is float64 \[8, 8, 3\]"),
        (lambda d: mp.probe(d["features"], mp.image_list(d["images"][:24])), "have 0 labels"),
        (lambda d: mp.fine_tune(d["model"], mp.image_list(d["images"][:3]), QUESTION, "no"), "no image has a label"),
    ],
)
def test_what_does_not_fit_is_named(call, said, door):
    with pytest.raises(InputError, match=said):
        call(door)


@pytest.mark.slow
def test_it_works_from_a_wheel_in_an_empty_folder(door, tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    site, empty, source = tmp_path / "site", tmp_path / "empty", tmp_path / "source"  # building leaves folders there
    for name in ("mlprobe_utils", "data"):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source]
    subprocess.run(build, check=True)
    subprocess.run([*pip, "install", "--no-deps", "--target", site, *tmp_path.glob("*.whl")], check=True)
    folders = [shipped / "protocols" for shipped in (site / "mlprobe_utils" / "shipped", SHIPPED)]
    assert len({tuple(sorted(path.name for path in folder.iterdir())) for folder in folders}) == 1
    empty.mkdir()
    code = f"""
import mlprobe_utils as mp
model, images = mp.load({door["checkpoint"]!r}), mp.image_folder({str(door["folder"])!r})
question = mp.Question({QUESTION.template!r}, {QUESTION.options!r})
rows = mp.probe(mp.extract(model, images, question, "features"), images, **{FAST!r})
answers = mp.answer(model, images, question)
mp.plot(rows, answers).save("curve.svg")
print(mp.__file__, len(mp.accuracy(rows)), len(mp.health(rows)), len(mp.diagnose(rows, answers)))
"""
    environment = {"PYTHONPATH": str(site), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=empty, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(site / "mlprobe_utils" / "__init__.py"), "21", "3", "5"]
    assert (empty / "curve.svg").is_file()
