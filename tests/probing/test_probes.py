"""Probes: the stack equals a plain loop over probes, finds what was planted, and measures information, not scale."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mlprobe_utils.pipeline.cards import load_protocol
from mlprobe_utils.probing import probes
from mlprobe_utils.probing.settings import Probe

SMALL = {"hidden": 16, "dropout": 0.1, "learning_rate": 0.01, "epochs": 5, "batch_size": 8}
SETTINGS = load_protocol("paper").probe.model_copy(update=SMALL)
LINEAR = SETTINGS.model_copy(update={"kind": "linear"})
RAW = SETTINGS.model_copy(update={"standardised": False})
SMALL_BATCHES = SETTINGS.model_copy(update={"batch_size": 4, "dropout": 0.5})
ONE_BATCH = SETTINGS.model_copy(update={"batch_size": 200, "dropout": 0.0})
TRAINING = np.arange(0, 61)  # the last batch of an epoch is short


def planted(widths: dict[str, int], informed: set[str], images: int = 100):
    """Noise of the given widths; in the informed features one direction separates three classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, images)
    features = {}
    for name, width in widths.items():
        noise = rng.normal(size=(images, width))
        if name in informed:
            noise[:, 0] = labels * 3.0 + rng.normal(size=images) * 0.3
        features[name] = torch.tensor(noise, dtype=torch.float32)
    return features, labels


def fit_probes(features, labels, recipe, seed=0, training=TRAINING, **given):
    """All probes with the same labels and one seed."""
    seeds = dict.fromkeys(features, seed)
    return probes.fit_probes(features, dict.fromkeys(features, labels), training, 3, recipe, seeds, **given)


def reference(inputs: torch.Tensor, labels, recipe: Probe, seed: int) -> np.ndarray:
    """One probe, trained alone by torch's own layers, optimizer and schedule, with the seed's own draws."""
    if recipe.standardised:
        inputs = (inputs - inputs[TRAINING].mean(0)) / inputs[TRAINING].std(0, correction=0)
    generator = torch.Generator().manual_seed(seed)
    hidden = [recipe.hidden] if recipe.kind == "mlp" else []
    shapes = list(itertools.pairwise([inputs.shape[1], *hidden, 3]))
    layers = [nn.Linear(*shape) for shape in shapes]
    for layer, shape in zip(layers, shapes, strict=True):
        bound = 1 / math.sqrt(shape[0])  # what nn.Linear's own initialisation draws from
        with torch.no_grad():
            layer.weight.copy_(torch.empty(shape).uniform_(-bound, bound, generator=generator).T)
            layer.bias.copy_(torch.empty(1, shape[1]).uniform_(-bound, bound, generator=generator)[0])
    masks = []

    class Dropout(nn.Module):
        def forward(self, hidden):
            return hidden * masks[-1] / (1 - recipe.dropout) if self.training else hidden

    probe = nn.Sequential(layers[0], nn.ReLU(), Dropout(), layers[1]) if hidden else layers[0]
    optimizer = torch.optim.AdamW(probe.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * math.ceil(len(TRAINING) / recipe.batch_size)
    factors = [*probes.cosine(steps, recipe.warmup_ratio), 0.0]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factors.__getitem__)
    target = torch.tensor(labels)
    for _ in range(recipe.epochs):
        order = torch.tensor(TRAINING)[torch.randperm(len(TRAINING), generator=generator)]
        for batch in order.split(recipe.batch_size):
            masks.append(torch.rand(len(batch), sum(hidden), generator=generator) >= recipe.dropout)
            optimizer.zero_grad()
            nn.CrossEntropyLoss()(probe(inputs[batch]), target[batch]).backward()
            optimizer.step()
            schedule.step()
    assert schedule.last_epoch == steps
    return probe.eval()(inputs).softmax(-1).detach().numpy()


@pytest.mark.parametrize(
    ("recipe", "steps", "stack_bytes", "cache_bytes"),
    [
        (SETTINGS, 3, 2**30, 2**30),
        (SETTINGS, 32, 4 * 100 * 5 * 2, 2**30),
        (SETTINGS, 32, 2**30, 16 * (6 * 16 + 17 * 3) * 2),
        (RAW, 3, 2**30, 2**30),
        (LINEAR, 32, 1, 1),
        (SMALL_BATCHES, 3, 2**30, 2**30),
        (ONE_BATCH, 32, 2**30, 2**30),
    ],
)
def test_a_block_equals_one_probe_after_the_other(monkeypatch, recipe, steps, stack_bytes, cache_bytes):
    """Runs and control tasks share a tensor or have their own; what is too large for a block is cut, not changed. The
    reference knows only its seed and the images that are trained on."""
    for name, value in {"STEPS": steps, "STACK_BYTES": stack_bytes, "CACHE": cache_bytes}.items():
        monkeypatch.setattr(probes, name, value)
    own, labels = planted({"V": 5, "L": 5, "W": 9, "one": 1}, {"V", "W"})
    tasks = {"main": labels, "control": np.random.default_rng(1).permutation(labels)}
    features = {(name, run, task): own[name] for run in (0, 4) for task in tasks for name in own}
    seeds = {key: key[1] for key in features}
    before = torch.get_rng_state()
    fitted = probes.fit_probes(features, {key: tasks[key[2]] for key in features}, TRAINING, 3, recipe, seeds)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(fitted) == list(features)
    for (name, run, task), found in fitted.items():
        np.testing.assert_allclose(found, reference(own[name], tasks[task], recipe, run), rtol=1e-3, atol=1e-5)
    for other in (("V", 4, "main"), ("V", 0, "control")):
        assert not np.allclose(fitted["V", 0, "main"], fitted[other], rtol=1e-3)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(1, 2**14), st.integers(1, 2**14))
def test_blocks_have_one_width_and_fit(widths, stack_bytes, cache_bytes):
    features = {i: torch.zeros(20, width) for i, width in enumerate(widths)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "STACK_BYTES", stack_bytes)
        patch.setattr(probes, "CACHE", cache_bytes)
        found = probes.blocks(features, 3, SETTINGS)
    assert sorted(key for keys in found for key in keys) == list(features)
    for keys in found:
        (width,) = {features[key].shape[1] for key in keys}
        state = 4 * 4 * len(keys) * ((width + 1) * SETTINGS.hidden + (SETTINGS.hidden + 1) * 3)
        fits = 4 * 20 * width * len(keys) <= stack_bytes and state <= cache_bytes * torch.get_num_threads()
        assert len(keys) == 1 or fits


def test_units_that_no_image_reaches_leave_no_slow_numbers():
    """Their moments fade; a CPU computes many times more slowly with what lies between zero and 1e-38."""
    inputs = probes.with_ones(torch.randn(1, 50, 4, generator=torch.Generator().manual_seed(0)) + 9)
    targets = torch.eye(2)[torch.arange(50) % 2][None]
    recipe = RAW.model_copy(update={"epochs": 160, "learning_rate": 0.03})
    block = probes.train(inputs, targets, torch.arange(50), recipe, [0])
    faded = (block.mean == 0) & (block.square > 0)  # it was reached once
    assert faded.any()
    assert not ((block.mean != 0) & (block.mean.abs() < torch.finfo().tiny)).any()
    assert torch.tensor([1e-38]).mul(0.1).item() > 0  # only while it trains


@pytest.mark.parametrize(("own", "expected"), [("cuda:1", "cuda:1"), ("mps", "cpu")])
def test_probes_are_trained_on_cuda_where_there_is_one(monkeypatch, own, expected):
    seen = []
    monkeypatch.setattr(probes, "processes", lambda: SimpleNamespace(device=torch.device(own)))
    monkeypatch.setattr(probes, "blocks", lambda *arguments: seen.append(torch.device(arguments[-1])) or [])
    probes.fit_probes({}, {}, TRAINING, 3, SETTINGS, {})
    probes.fit_probes({}, {}, TRAINING, 3, SETTINGS, {}, "cpu")
    assert seen == [torch.device(expected), torch.device("cpu")]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("recipe", [SETTINGS, LINEAR, SMALL_BATCHES])
def test_cuda_and_cpu_agree(recipe, monkeypatch):
    monkeypatch.setattr(probes, "STEPS", 2)  # so that most steps are replayed
    features, labels = planted({"a": 5, "b": 12, "c": 5}, {"a"})
    arguments = dict.fromkeys(features, labels), TRAINING, 3, recipe, {"a": 0, "b": 1, "c": 1}
    there, here = (probes.fit_probes(features, *arguments, device) for device in ("cuda", "cpu"))
    for name in features:
        np.testing.assert_allclose(there[name], here[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("constant", [0.0, 1.0, -300.0, 1e30])
def test_constant_features_are_no_information_and_no_nan(constant):
    features, labels = planted({"a": 4, "dead": 4}, {"a"})
    features["a"][:, 2] = constant
    features["dead"][:] = constant
    features["dead"][61:] += 1.0  # constant where it is trained, not elsewhere
    fitted = fit_probes(features, labels, SETTINGS)
    assert all(np.isfinite(p).all() for p in fitted.values())
    np.testing.assert_allclose(fitted["dead"], np.tile(fitted["dead"][0], (100, 1)), rtol=1e-6)
    assert (fitted["a"].argmax(1) == labels)[61:].mean() > 0.7


@given(st.integers(1, 500), st.floats(0, 0.99))
def test_schedule_rises_to_one_and_falls_to_zero(steps, ratio):
    factors = probes.cosine(steps, ratio)
    warmup = math.ceil(steps * ratio)
    assert all(0 < factor <= 1 for factor in factors)
    assert factors == sorted(factors[:warmup]) + sorted(factors[warmup:], reverse=True)
    assert len(factors) == steps
    if falling := steps - warmup:  # a step further, the rate would be zero
        assert (factors[warmup], factors[-1]) == (1, pytest.approx(0.5 - 0.5 * math.cos(math.pi / falling)))


@pytest.mark.parametrize("recipe", [SETTINGS, RAW])
def test_at_its_own_point_a_probe_is_that_fitted_there_alone_in_blocks_of_any_size(recipe, monkeypatch):
    features, labels = planted({"a": 6, "b": 6, "c": 6}, {"a", "b"})
    found = fit_probes(features, labels, recipe, seed=2, at=features)
    assert set(found) == set(itertools.product("abc", "abc"))
    alone = fit_probes(features, labels, recipe, seed=2)
    for point in "abc":
        np.testing.assert_allclose(found[point, point], alone[point], atol=1e-6)
    monkeypatch.setattr(probes, "CACHE", 1)
    for pair, single in fit_probes(features, labels, recipe, seed=2, at=features).items():
        np.testing.assert_allclose(single, found[pair], atol=1e-6)


def test_a_probe_carries_over_to_a_point_with_the_same_code_and_to_no_other():
    features, labels = planted({"here": 6}, {"here"}, images=300)
    features["larger"] = 100 * features["here"] + 7  # the same code, in another scale
    features["turned"] = features["here"].roll(1, dims=1)  # the class lies in another direction
    features["nothing"] = torch.zeros_like(features["here"])
    recipe = SETTINGS.model_copy(update={"epochs": 20})
    found = fit_probes(features, labels, recipe, training=np.arange(200), at=features)
    correct = {pair: (own.argmax(axis=1) == labels)[200:].mean() for pair, own in found.items()}
    assert all(correct[point, point] > 0.95 for point in ("here", "larger", "turned"))
    assert correct["here", "larger"] > 0.95
    assert max(correct["here", "turned"], correct["turned", "here"]) < 0.55
    # of a pair the first is where the probe was fitted: where all images are the same, all get one answer
    assert np.ptp(found["here", "nothing"], axis=0).max() < 1e-6
    assert np.ptp(found["nothing", "here"], axis=0).max() > 1e-3


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array), st.floats(0.001, 1), st.floats(0.001, 1))
def test_shares_are_nested_and_of_every_class(labels, one, other):
    shares = sorted((one, other))
    drawn = [probes.share_of_each_class(labels, share) for share in shares]
    assert set(drawn[0]) <= set(drawn[1])
    assert (np.diff(drawn[0]) > 0).all()
    for share, own in zip(shares, drawn, strict=True):
        for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
            assert (labels[own] == label).sum() == max(1, round(share * count))
    assert probes.share_of_each_class(labels, 1.0).tolist() == list(range(len(labels)))
