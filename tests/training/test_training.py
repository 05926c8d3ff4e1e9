"""Training and fine-tuning: the loss is the answers' alone, a killed run ends as an unbroken one, adapters come off."""

import numpy as np
import pandas as pd
import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from slow_reference import answer_ids, answer_log_probabilities
from tiny_parts import RECIPE, Killed, each_family, each_family_in_time, killed_after, logits_of, make_image_set
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.adapters import adapter
from mlprobe_utils.models.encoding import Encoder, Questions
from mlprobe_utils.models.loading import load
from mlprobe_utils.pipeline.variants import TRAINABLE
from mlprobe_utils.probing.extraction import features_of
from mlprobe_utils.training import trainer as training
from mlprobe_utils.training.fine_tuning import lora_config, train_adapter
from mlprobe_utils.training.trainer import AnswerTrainer, EpochSampler, Examples, TrainingSettings, train
from mlprobe_utils.training.vision_classifier import _trainable, classify, means_at_end, tower_end

losses_of = AnswerTrainer.losses_of
ADAPTER, CURVE = "adapter_model.safetensors", "learning_curve.parquet"
ANSWERS = ["Benign", "Malignant", "Yes", "Normal"]  # of one to several tokens


def reference_loss(model, encoder, family, images, answers) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens and end tokens, each image alone."""
    tokens = [answer_ids(encoder.tokenizer, family, answer) for answer in answers]
    given = zip(images, tokens, strict=True)
    return -torch.cat([answer_log_probabilities(model, encoder, image, own) for image, own in given]).mean()


def settings_of(**changed) -> TrainingSettings:
    base = {"learning_rate": 0.01, "epochs": 4, "batch_size": 4, "warmup_ratio": 0.0, "weight_decay": 0.0, "seed": 3}
    return TrainingSettings(**base | changed)


@pytest.fixture
def data(images):
    return Examples(images.__getitem__, [*range(4)], ANSWERS)


@each_family
def test_loss_and_gradients_are_the_mean_over_answer_tokens(tiny, encoder, family, images):
    """What Trainer is given equals a loop over images and tokens: padding weighs nothing, nor do the prompts."""
    inputs = encoder.answered(images, ANSWERS)
    losses, tokens = losses_of(tiny.model, **inputs)
    loss, expected = losses.sum() / tokens.sum(), reference_loss(tiny.model, encoder, family, images, ANSWERS)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    weights = [*tiny.model.parameters()]
    own, reference = (torch.autograd.grad(one, weights, allow_unused=True) for one in (loss, expected))
    assert sum(gradient is not None for gradient in own) > 50
    torch.testing.assert_close(own, reference, rtol=1e-3, atol=1e-5)


def test_logged_losses_and_steps_are_not_scaled(tiny, tiny_card, encoder, images, data, tmp_path):
    """Trainer may divide by accumulation steps or token counts, and clips: held against a plain loop of AdamW."""
    epochs, warmup = 4, 2
    settings = settings_of(epochs=epochs, learning_rate=1e-3, warmup_ratio=0.26)  # a step and a little
    curve, _ = train(tiny.model, encoder, data, data, settings, tmp_path / "c")
    plain = load(tiny_card).model.train()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.0)
    losses, validation = [], []
    for epoch in range(epochs):
        falling = 0.5 * (1 + np.cos(np.pi * (epoch - warmup) / (epochs - warmup)))
        optimizer.param_groups[0]["lr"] = 1e-3 * (epoch / warmup if epoch < warmup else falling)
        optimizer.zero_grad()
        loss = reference_loss(plain, encoder, "qwen2_5_vl", images, ANSWERS)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        with torch.no_grad():
            validation.append(reference_loss(plain, encoder, "qwen2_5_vl", images, ANSWERS).item())
    assert curve["epoch"].tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(curve["training_loss"], losses, rtol=1e-3)
    np.testing.assert_allclose(curve["validation_loss"], validation, rtol=1e-3)
    assert validation[0] > validation[-1]


def test_one_process_takes_one_of_several_devices(tmp_path, monkeypatch):
    """Trainer would spread its batch over all of them."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    assert training.training_arguments(settings_of(), tmp_path).train_batch_size == settings_of().batch_size


def test_every_module_trains_in_every_step_and_none_while_it_is_evaluated(tiny, encoder, data, tmp_path):
    model = get_peft_model(tiny.model, lora_config(tiny, RECIPE))
    next(model.modules()).train(False)  # what is loaded is not training, and its root need not say so
    modes = []
    tiny.model.register_forward_pre_hook(lambda *_: modes.append({module.training for module in model.modules()}))
    train(model, encoder, data, data, settings_of(epochs=3, batch_size=2), tmp_path / "c")
    assert modes == [{True}, {True}, {False}] * 3
    train(model, encoder, data, None, settings_of(epochs=1), tmp_path / "d")  # no evaluation ends it
    assert not any(module.training for module in model.modules())


def test_every_epoch_has_an_order_of_its_own_that_seed_and_epoch_decide():
    def epochs(seed) -> list[tuple[int, ...]]:
        sampler = EpochSampler(4, [1] * 40, seed)
        return [sampler.set_epoch(epoch) or tuple(sampler) for epoch in range(3)]

    assert all(sorted(order) == list(range(40)) for order in epochs(0))
    assert epochs(0) == epochs(0)
    assert len({*epochs(0), *epochs(1)}) == 6


def test_grouping_by_length_and_weight_decay_are_the_recipes(tiny, image_set, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "EpochSampler", lambda *given: seen.append(given[1]) or EpochSampler(*given))
    plain, decayed = (
        tuned(tiny, image_set, tmp_path / str(decay), length_grouped=grouped, weight_decay=decay)
        for grouped, decay in ((True, 0.0), (False, 20.0))
    )
    assert sum(map(torch.norm, decayed.values())) < 0.9 * sum(map(torch.norm, plain.values()))
    pixels = [image_set.pixels(i)[..., 0].size for i in image_set.rows_of("paper", "train").index]
    assert len(set(pixels)) == 4
    assert seen == [pixels, [1] * len(pixels)]


def test_bfloat16_model_learns(tiny, image_set, tmp_path):
    """Adapters stay in float32 over a bfloat16 model: steps of this size would be rounded away."""
    tiny.model.to(torch.bfloat16)
    weights = tuned(tiny, image_set, tmp_path, precision="bfloat16", epochs=4)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    curve = pd.read_parquet(tmp_path / CURVE)
    assert curve["training_loss"].iloc[-1] < curve["training_loss"].iloc[0]


def test_killed_fine_tuning_ends_as_an_unbroken_one(tiny_card, image_set, tmp_path, monkeypatch):
    def run(folder):
        return tuned(load(tiny_card), image_set, folder, 1, epochs=4, dropout=0.1)

    weights = run(tmp_path / "unbroken")
    read = killed_after(21, monkeypatch, Examples, "__getitem__")  # an epoch reads 8 + 2
    with pytest.raises(Killed):
        run(tmp_path / "broken")
    assert not (tmp_path / "broken" / ADAPTER).exists()
    torn = tmp_path / "broken" / "checkpoints" / "checkpoint-99"  # a kill while it is written leaves it incomplete
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    torch.manual_seed(99)  # what another process would have
    resumed = run(tmp_path / "broken")
    assert len(read) == 20  # two epochs
    files, others = ({path.name for path in (tmp_path / name).iterdir()} for name in ("unbroken", "broken"))
    assert files == others >= {ADAPTER, "adapter_config.json", CURVE}
    assert "checkpoints" not in files
    torch.testing.assert_close(resumed, weights, rtol=0, atol=0)
    curve, other = (pd.read_parquet(tmp_path / name / CURVE) for name in ("unbroken", "broken"))
    pd.testing.assert_frame_equal(curve, other)
    assert curve["epoch"].tolist() == [1, 2, 3, 4]
    assert curve["validation_loss"].notna().all()


@each_family
@pytest.mark.parametrize("vision_tower", ["lora", "frozen"])
def test_lora_reaches_every_linear_layer_that_it_should(tiny, encoder, images, family, vision_tower):
    """Each gets a gradient, which DDP waits for."""
    linear = {name for name, module in tiny.model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert "lm_head" in linear
    tower, connector, expected = tiny.family.vision_tower, tiny.family.connector, linear - {"lm_head"}
    if family == "llava":  # no later layer, and not the answer, depends on the last layer of CLIP
        expected = {name for name in expected if "vision_tower.encoder.layers.3." not in name}
    if vision_tower == "frozen":
        expected = {name for name in expected if not name.startswith(tower)}
    config = lora_config(tiny, RECIPE.model_copy(update={"vision_tower": vision_tower}))
    assert (config.r, config.lora_alpha, config.lora_dropout) == (RECIPE.rank, RECIPE.alpha, RECIPE.dropout)
    adapted = get_peft_model(tiny.model, config)
    names = [name for name, _ in adapted.named_parameters() if "lora_A" in name]
    reached = {name.removeprefix("base_model.model.").split(".lora_A")[0] for name in names}
    assert reached == expected
    assert any(name.startswith(tower) for name in reached) == (vision_tower == "lora")
    assert any(name.startswith(connector) for name in reached) == (family != "gemma3")  # whose matrix is no module
    losses_of(adapted.train(), **encoder.answered(images[:2], ["Benign", "Malignant"]))[0].sum().backward()
    trained = {name: parameter.grad for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert all(".lora_" in name and gradient is not None for name, gradient in trained.items())


def tuned(loaded, image_set, folder, run=0, **changed):
    folder.mkdir(exist_ok=True)
    questions = Questions(Encoder(loaded.processor, image_set.card.template), image_set.pixels)
    images = image_set.manifest.rename(columns={"split_paper": "split"})
    train_adapter(loaded, questions, images, RECIPE.model_copy(update=changed), run, folder)
    return load_file(folder / ADAPTER)


def test_a_step_that_leaves_weights_that_are_not_finite_ends_the_training(tiny, image_set, tmp_path):
    """Trainer would go on, log a loss of 0, and keep an adapter of nan that every later step dies of."""
    before, steps = logits_of(tiny, image_set), []

    def overflow(module, inputs, output):  # from the second training step on
        steps.extend([len(steps)] * module.training)
        return output * torch.inf if len(steps) >= 2 else output

    hook = tiny.model.get_submodule(tiny.family.decoder_layers)[0].register_forward_hook(overflow)
    wrong = r"'tiny', run 0: step 2 of 4 left weights that are not finite .*: lower the"
    with pytest.raises(InputError, match=wrong):
        tuned(tiny, image_set, tmp_path)
    hook.remove()
    assert not list(tmp_path.glob("*.*"))
    assert torch.equal(logits_of(tiny, image_set), before)


@each_family_in_time
def test_base_model_is_as_it_was_after_fine_tuning_and_after_an_adapter(tiny, tiny_card, image_set, tmp_path):
    before = logits_of(tiny, image_set)
    weights = tuned(tiny, image_set, tmp_path)
    assert torch.equal(logits_of(tiny, image_set), before)
    with adapter(tiny, tmp_path):
        within = logits_of(tiny, image_set)
        assert (within - before).abs().max() > 1e-2
    assert torch.equal(logits_of(tiny, image_set), before)
    with pytest.raises(Killed), adapter(tiny, tmp_path):
        raise Killed
    assert torch.equal(logits_of(tiny, image_set), before)
    with adapter(tiny, None):
        assert torch.equal(logits_of(tiny, image_set), before)
    fresh = load(tiny_card)
    with adapter(fresh, tmp_path):  # in another process
        torch.testing.assert_close(logits_of(fresh, image_set), within)
    assert any(tensor.abs().max() > 0 for key, tensor in weights.items() if "lora_B" in key)


def test_one_run_after_another_is_as_if_it_were_the_first(tiny, tiny_card, image_set, tmp_path):
    """A process trains all runs and data sets on one loaded model: nothing may be left of the ones before."""
    first = tuned(tiny, image_set, tmp_path / "0", run=0)
    second = tuned(tiny, image_set, tmp_path / "1", run=1)
    alone = tuned(load(tiny_card), image_set, tmp_path / "alone", run=1)
    torch.testing.assert_close(second, alone, rtol=0, atol=0)
    # after steps too small to be seen, runs still have the adapters that they began with: each its own
    begun = [tuned(tiny, image_set, tmp_path / f"begun-{run}", run, learning_rate=1e-12) for run in (0, 1)]
    assert all(not torch.allclose(own, begun[1][key]) for key, own in begun[0].items() if "lora_A" in key)
    assert first.keys() == begun[0].keys()


def test_the_validation_loss_is_that_of_all_tokens_of_the_validation_images(tiny, encoder, tmp_path):
    """In batches of four answers of unequal lengths: a mean over batches would weigh the last, short one too much."""
    image_set = make_image_set(tmp_path, validation=5)
    tuned(tiny, image_set, tmp_path, epochs=1, batch_size=1)
    rows = image_set.rows_of("paper", "validation")
    with adapter(tiny, tmp_path), torch.no_grad():
        images = [image_set.pixels(position) for position in rows.index]
        expected = reference_loss(tiny.model, encoder, "qwen2_5_vl", images, list(rows["option"]))
    curve = pd.read_parquet(tmp_path / CURVE)
    assert curve["validation_loss"].iloc[-1] == pytest.approx(expected.item(), rel=1e-4)


@each_family_in_time
def test_gradient_checkpointing_changes_memory_not_weights(tiny, tiny_card, image_set, tmp_path):
    """With frozen inputs, the reentrant kind would train nothing and say nothing."""
    plain = tuned(tiny, image_set, tmp_path / "plain")
    saving = tuned(load(tiny_card), image_set, tmp_path / "saving", gradient_checkpointing=True)
    moved = [key for key in plain if "lora_B" in key and plain[key].abs().max() > 0]
    assert any(key.removeprefix("base_model.model.").startswith(tiny.family.vision_tower) for key in moved)
    torch.testing.assert_close(saving, plain, rtol=1e-3, atol=1e-4)


@each_family
def test_questions_that_are_encoded_once_are_those_of_a_batch(encoder, image_set):
    """Of images of several sizes, whose prompts differ in length; again from memory; and nothing is kept beyond it."""
    positions = [0, 3, 1, 2]
    together = encoder.questions([image_set.pixels(i) for i in positions])
    read = []
    questions = Questions(encoder, lambda i: read.append(i) or image_set.pixels(i))
    for _ in range(2):
        torch.testing.assert_close(dict(questions.batch(positions)), dict(together), rtol=0, atol=0)
    assert read == positions
    with torch.inference_mode():
        assert not any(tensor.is_inference() for tensor in questions(4).values())
    forgetful = Questions(encoder, lambda i: read.append(i) or image_set.pixels(i), room=0)
    assert torch.equal(forgetful(0)["input_ids"], forgetful(0)["input_ids"])
    assert read[4:] == [4, 0, 0]


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
def test_means_at_the_end_are_the_features_there(tiny, inputs):
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
