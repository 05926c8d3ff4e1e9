"""The vision tower trained alone: it learns what images show, and the model stays as it was."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny_parts import RECIPE, Killed, each_family, each_family_in_time, killed_after, make_image_set
from torch.nn.functional import cross_entropy

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.encoding import Encoder, Questions
from mlprobe_utils.models.loading import load
from mlprobe_utils.pipeline.variants import TRAINABLE
from mlprobe_utils.probing.extraction import features_of
from mlprobe_utils.training.trainer import Examples
from mlprobe_utils.training.vision_classifier import _trainable, classify, means_at_end, tower_end

SHORT = RECIPE.model_copy(update={"learning_rate": 0.005, "epochs": 1})
LEARNING = SHORT.model_copy(update={"epochs": 6})


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    return make_image_set(tmp_path_factory.mktemp("bright"), 36, validation=6, test=9)


def run(loaded, image_set, folder, trained="all", recipe=SHORT, seed=0, positions=None) -> np.ndarray:
    questions = Questions(Encoder(loaded.processor, image_set.card.template), image_set.pixels)
    positions = list(image_set.rows_of("paper", "test").index) if positions is None else positions
    images, options = image_set.manifest.rename(columns={"split_paper": "split"}), image_set.card.options
    return classify(loaded, questions, images, options, positions, trained, recipe, seed, 4, folder)


def bytes_of(loaded) -> dict[str, tuple]:
    weights = loaded.model.state_dict().items()
    return {name: (own.dtype, own.reshape(-1).view(torch.uint8).numpy().tobytes()) for name, own in weights}


def state(loaded) -> tuple[dict, ...]:
    """Everything that a training could leave changed."""
    flags = {name: parameter.requires_grad for name, parameter in loaded.model.named_parameters()}
    modules = {name: (type(m), m.training, len(m._forward_hooks)) for name, m in loaded.model.named_modules()}
    return bytes_of(loaded), flags, modules


@each_family
def test_means_at_the_end_are_the_features_there(tiny, encoder, image_set):
    inputs = encoder.questions([image_set.pixels(i) for i in range(4)])
    expected = features_of(tiny, inputs)[f"{tower_end(tiny).name}/image_mean"]
    torch.testing.assert_close(means_at_end(tiny, inputs).detach(), expected)


@each_family_in_time
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("trained", TRAINABLE)
def test_the_model_is_bit_for_bit_as_before(tiny_card, image_set, tmp_path, trained, precision):
    loaded = load(tiny_card, precision)
    fresh = bytes_of(loaded)
    run(loaded, image_set, tmp_path / "first", trained)  # after which transformers has hooks of its own on a LLaVA
    before = state(loaded)
    assert before[0] == fresh
    probabilities = run(loaded, image_set, tmp_path / "second", trained)
    assert state(loaded) == before
    assert probabilities.shape == (2, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_a_step_that_leaves_weights_that_are_not_finite_leaves_the_model_as_it_was(tiny, image_set, tmp_path):
    before, far = state(tiny), SHORT.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(InputError, match=r"vision tower of model card 'tiny', run 0: step 2 of .* not finite"):
        run(tiny, image_set, tmp_path, "all", far)
    assert state(tiny) == before


@pytest.mark.parametrize("trained", ["all", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_planted_pattern_is_learned_and_noise_is_not(tiny, bright, tmp_path, trained):
    positions = list(bright.rows_of("paper", "test").index)
    truth = bright.manifest.loc[positions, "option"].map(bright.card.options.index).to_numpy()
    probabilities = run(tiny, bright, tmp_path / "learned", trained, LEARNING)
    assert (probabilities.argmax(axis=1) == truth).mean() > 0.8
    curve = pd.read_parquet(tmp_path / "learned" / "learning_curve.parquet")
    assert curve["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert curve["training_loss"].iloc[-1] < 0.5 * curve["training_loss"].iloc[0]
    assert curve["validation_loss"].iloc[-1] < 0.5 * np.log(3)
    dealt = bright.manifest.assign(option=np.random.default_rng(0).permutation(bright.manifest["option"]))
    shuffled = type(bright)(bright.card, dealt, bright.data_hash, {}, bright.folder)
    probabilities = run(tiny, shuffled, tmp_path / "dealt", trained, LEARNING)
    assert cross_entropy(torch.tensor(probabilities).log(), torch.tensor(truth)) > 0.5 * np.log(3)


def test_results_are_those_of_weights_seed_and_image(tiny, image_set, tmp_path):
    first, other = (run(tiny, image_set, tmp_path / str(seed), seed=seed, positions=[7, 0, 3]) for seed in (0, 1))
    np.testing.assert_allclose(run(tiny, image_set, tmp_path / "2", positions=[0])[0], first[1], rtol=1e-4)
    assert not np.allclose(other, first)


@each_family
@pytest.mark.parametrize("trained", TRAINABLE)
def test_only_what_the_tower_depends_on_is_trained(tiny, family, encoder, image_set, trained):
    with _trainable(tiny, encoder.questions([image_set.pixels(0)]), trained, SHORT) as (parameters, _):
        names = {parameter: name for name, parameter in tiny.model.named_parameters()}
        seen, requiring = [names[own] for own in parameters], [names[own] for own in names if own.requires_grad]
    assert sorted(requiring) == sorted(seen)
    assert all(name.startswith(tuple(f"{path}." for path in tiny.family.vision_tower)) for name in seen)
    assert all((".lora_" in name) == (trained == "lora") for name in seen)
    blocks = [f"{path}." for path in tiny.family._children(tiny.family.vision_blocks)]
    reached = [any(name.startswith(path) for name in seen) for path in blocks]
    assert reached == [True, True, True, family != "llava"]  # whose connector reads an inner layer


@pytest.mark.parametrize("trained", ["lora", pytest.param("all", marks=pytest.mark.slow)])
def test_a_killed_training_leaves_the_model_and_goes_on(tiny, tiny_card, bright, tmp_path, monkeypatch, trained):
    unbroken = run(load(tiny_card), bright, tmp_path / "unbroken", trained, LEARNING)
    before = state(tiny)
    read = killed_after(74, monkeypatch, Examples, "__getitem__")  # in the second epoch or later
    with pytest.raises(Killed):
        run(tiny, bright, tmp_path / "broken", trained, LEARNING)
    assert state(tiny) == before
    checkpoint, *_ = (tmp_path / "broken" / "checkpoints").glob("checkpoint-*")
    kept = load_file(checkpoint / "model.safetensors")
    assert {name.split(".")[0] for name in kept} == {"trained", "head"}  # no LLM
    again = run(tiny, bright, tmp_path / "broken", trained, LEARNING)
    np.testing.assert_allclose(again, unbroken, rtol=1e-5, atol=1e-8)
    assert len(read) < 6 * (21 + 6) + 9 + 1  # fewer than a whole training reads
    assert not (tmp_path / "broken" / "checkpoints").exists()


def test_fsdp_is_refused_with_the_mend(tiny, image_set, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(InputError, match=r"not trained under FSDP.*without --use_fsdp"):
        run(tiny, image_set, tmp_path)
