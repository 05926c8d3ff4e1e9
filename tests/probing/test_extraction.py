"""Extraction: right features in the right rows, errors for what was not captured, resumption; the logit lens."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_parts import WIDTHS, Killed, card_of, each_family, each_family_with, killed_after, make_tiny

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.rows import SCHEMA, predicted_option
from mlprobe_utils.models.encoding import Encoder, Questions
from mlprobe_utils.models.loading import load
from mlprobe_utils.pipeline.cards import load_protocol
from mlprobe_utils.probing import extraction
from mlprobe_utils.probing.extraction import FEATURES, POINTS, capturing, features_of, load_features, write_features
from mlprobe_utils.probing.logit_lens import LENS, first_tokens, lens_rows, through_the_lens
from mlprobe_utils.probing.probes import fit_probes
from mlprobe_utils.probing.settings import Extraction

LEFT = sorted([FEATURES, POINTS])
SETTINGS = Extraction(batch_size=2, shard_images=4)
POSITIONS = [7, 0, 3, 11, 5, 2, 1, 8, 9, 10]  # out of order: rows follow positions; the last shard is short


def own_hooks(model: torch.nn.Module) -> list:
    """Hooks of the project; transformers leaves some of its own on a LLaVA."""
    hooks = [hook for module in model.modules() for hook in module._forward_hooks.values()]
    return [hook for hook in hooks if hook.__module__.startswith("mlprobe_utils")]


@pytest.fixture
def write(tiny, encoder, image_set):
    return lambda folder, settings=SETTINGS: write_features(
        tiny, Questions(encoder, image_set.pixels), POSITIONS, settings, folder
    )


@each_family
def test_rows_follow_the_positions_and_points_are_described(tiny, encoder, image_set, family, write, tmp_path):
    write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == LEFT
    assert not own_hooks(tiny.model)
    features = load_features(tmp_path / FEATURES)
    all_of = ["image_mean", "image_places", "last_token"]
    poolings = {point: all_of[: 2 + (point[0] == "L")] for point in WIDTHS[family]}
    assert list(features) == [f"{point}/{pooling}" for point, own in poolings.items() for pooling in own]
    assert {point: features[f"{point}/image_mean"].shape[1] for point in poolings} == WIDTHS[family]
    points = [
        {"point": point.name, "path": point.path, "module": type(tiny.model.get_submodule(point.path)).__name__}
        | {"width": WIDTHS[family][point.name], "poolings": ", ".join(poolings[point.name]), "family": family}
        for point in tiny.family.probe_points()
    ]
    assert pd.read_parquet(tmp_path / POINTS).to_dict("records") == points
    for row, position in enumerate(POSITIONS):
        alone = features_of(tiny, encoder.questions([image_set.pixels(position)]))
        for key, tensor in features.items():
            assert tensor.dtype == torch.float32
            width = alone[key].shape[1]  # places of an image of fewer tokens end with zeros
            torch.testing.assert_close(tensor[row, :width], alone[key][0], rtol=1e-3, atol=1e-4)
            assert not tensor[row, width:].any()


@pytest.mark.parametrize(("shard_images", "kept"), [(4, 4), (3, 0)])
def test_killed_run_goes_on_from_shards_of_its_own_size(write, tmp_path, monkeypatch, shard_images, kept):
    """The protocol's shard size is not part of what features are made from: it may change between kill and rerun."""
    for folder in (unbroken := tmp_path / "unbroken", broken := tmp_path / "broken"):
        folder.mkdir()
    write(unbroken)
    seen = killed_after(6, monkeypatch)  # in the middle of the second shard
    with pytest.raises(Killed):
        write(broken)
    write(broken, Extraction(batch_size=2, shard_images=shard_images))
    assert seen == POSITIONS[kept:]
    features, expected = (load_features(folder / FEATURES) for folder in (broken, unbroken))
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)
    assert sorted(path.name for path in broken.iterdir()) == LEFT


def test_half_written_shard_is_not_taken_for_a_whole_one(write, tmp_path, monkeypatch):
    save_file = extraction.save_file

    def torn(tensors, path):
        save_file(tensors, path)
        with open(path, "r+b") as file:
            file.truncate(100)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(extraction, "save_file", torn)
        with pytest.raises(Killed):
            write(tmp_path)
    write(tmp_path)
    assert len(load_features(tmp_path / FEATURES)["V.00/image_mean"]) == len(POSITIONS)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("connector_layers", ("model.visual.merger.mlp.0", "idle"), r"C\.01/image_mean captured nothing"),
        # a connector's layer taken for a vision block: a fourth of the tokens that the inputs imply
        ("vision_blocks", "model.visual.merger.mlp", r"V\.00/image_mean: expected \[132, width\], got \[33, 128\]"),
    ],
)
def test_point_without_output_or_of_the_wrong_shape_is_an_error(tiny, inputs, monkeypatch, name, value, message):
    tiny.model.idle = torch.nn.Linear(4, 4)
    monkeypatch.setattr(type(tiny.family), name, value)
    with pytest.raises(RuntimeError, match=message):
        features_of(tiny, inputs)
    assert not own_hooks(tiny.model)


@each_family_with("poison", float("nan"), float("inf"))
def test_feature_that_is_not_finite_is_an_error(tiny, inputs, poison):
    with torch.no_grad():
        tiny.model.model.language_model.layers[1].mlp.down_proj.weight[3, 3] = poison
    with pytest.raises(InputError, match=r"'tiny': probe point L\.01/image_mean holds values that are not .*: run"):
        features_of(tiny, inputs)


def test_second_pass_under_the_same_hooks_is_an_error(tiny, inputs):
    """The first pass's vectors would be replaced in silence by those of other images."""
    with capturing(tiny, inputs):
        tiny.model(**inputs)
        with pytest.raises(RuntimeError, match=r"V\.00/image_mean captured twice"):
            tiny.model(**inputs)
    assert not own_hooks(tiny.model)


@each_family
def test_signal_planted_in_a_layer_is_found_there_and_not_before(tiny, encoder):
    """Images of noise that say nothing of their labels; one decoder layer's output gets a direction for one class."""
    images = np.random.default_rng(0).integers(0, 255, (120, 64, 64, 3), dtype=np.uint8)
    labels = np.arange(120) % 2
    added = torch.tensor(labels)[:, None, None] * torch.randn(32, generator=torch.Generator().manual_seed(1))
    layer = tiny.model.model.language_model.layers[1]  # hooks run in order: the probe's own sees this one's output
    layer.register_forward_hook(lambda module, arguments, output: output + 4 * output.std() * added)
    features = features_of(tiny, encoder.questions(list(images)))
    recipe = load_protocol("miniature").probe.model_copy(update={"kind": "linear"})
    labels_of, seeds = dict.fromkeys(features, labels), dict.fromkeys(features, 0)
    fitted = fit_probes(features, labels_of, np.arange(60), 2, recipe, seeds)
    for key, probabilities in fitted.items():
        accuracy, found = (probabilities.argmax(1) == labels)[60:].mean(), key.startswith(("L.01", "L.02"))
        assert accuracy > 0.95 if found else abs(accuracy - 0.5) < 0.2, key  # 60 images: three standard deviations


OPTIONS = ["Normal", "Benign", "Malignant"]
CONSTANTS = {"model": "m", "dataset": "busi", "data_hash": "0" * 64, "split_rule": "paper", "order": "image_first"}
CONSTANTS |= {"stage": "pretrained", "run": None}


@each_family_with("tied", True, False)
def test_at_the_last_point_it_is_the_models_own_next_token(images, image_set, tmp_path, family, tied):
    """Whether the head is that of the embeddings or one of its own."""

    def change(config):
        config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied

    loaded = load(card_of(make_tiny(family, tmp_path, change=change)))
    head, embeddings = loaded.model.get_output_embeddings(), loaded.model.get_input_embeddings()
    assert (head.weight is embeddings.weight) == tied
    encoder = Encoder(loaded.processor, image_set.card.template)
    questions = encoder.questions(images)  # of four sizes: the batch is padded
    tokens = first_tokens(encoder, image_set.card.options)
    assert len(set(tokens)) == 3
    features = features_of(loaded, questions)
    last = [key for key in features if key.endswith("last_token")][-1]
    found, first = (through_the_lens(loaded, features[key], tokens, 4) for key in (last, "L.00/last_token"))
    with torch.no_grad():
        expected = loaded.model(**questions).logits[:, -1, tokens].double().softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert not np.allclose(first, expected, rtol=1e-2)


def test_a_planted_class_is_seen_where_it_is_spoken_and_nowhere_else(tiny, encoder):
    """At L.01 the states lie along the head's rows of the true options; at L.02 the same, turned out of its sight."""
    splits, names = np.repeat(["train", "validation", "test"], [3, 3, 60]), [f"{i}.png" for i in range(66)]
    images = pd.DataFrame({"image": names, "option": np.tile(OPTIONS, 22).astype(object), "split": splits})
    tokens = first_tokens(encoder, OPTIONS)
    head = tiny.model.get_output_embeddings().weight.detach()[tokens].float()
    truth = torch.tensor(images["option"].map(OPTIONS.index).to_list())
    noise = torch.randn(66, 32, generator=torch.Generator().manual_seed(0))
    weight = tiny.model.get_submodule("model.language_model.norm").weight.detach()
    basis = torch.linalg.pinv(head * weight)  # columns: seen by one option's token alone
    spoken = basis.T[truth] * 10 / basis.norm()
    unseen = torch.linalg.svd(head * weight).Vh[3:6]
    features = dict.fromkeys(("V.00/image_mean", "L.00/last_token", "L.01/image_mean"), noise)
    features |= {"L.02/last_token": 10 * unseen[truth], "L.01/last_token": 10 * spoken + noise / 100}
    rows = SCHEMA.validate(lens_rows(tiny, features, images, OPTIONS, tokens, 16, CONSTANTS))
    assert list(rows["point"].unique()) == ["L.00", "L.01", "L.02"]
    assert (set(rows["probe"]), set(rows["pooling"])) == ({LENS}, {"last_token"})
    assert set(rows["split"]) == {"validation", "test"}
    correct = (predicted_option(rows) == rows["label"]).groupby(rows["point"]).mean()
    assert correct["L.00"] < 0.6 < correct["L.01"] == 1
    blind = rows.loc[rows["point"] == "L.02", [f"p_{option}" for option in OPTIONS]]
    np.testing.assert_allclose(blind, 1 / 3, atol=1e-3)  # a probe would tell all of them


def test_options_that_begin_alike_share_what_their_token_has(tiny):
    states = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    alone = through_the_lens(tiny, states, [40, 41], 5)
    shared = through_the_lens(tiny, states, [40, 41, 40], 2)  # the size of batches changes nothing
    np.testing.assert_allclose(shared[:, 1], alone[:, 1], rtol=1e-5)
    np.testing.assert_allclose(shared[:, [0, 2]], alone[:, [0, 0]] / 2, rtol=1e-5)
    np.testing.assert_allclose(through_the_lens(tiny, states, [40, 40, 40], 5), 1 / 3)
