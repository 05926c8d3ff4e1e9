"""A model whose weights cannot fit is refused before they are read."""

import pytest
from tiny_parts import card_of, refusal

from mlprobe_utils.models import loading

GIB = 2**30


def let_there_be(monkeypatch, machine: float, *others: float) -> None:
    """Memory of the machine and its accelerators, in GiB."""
    monkeypatch.setattr(loading, "memory", lambda: (machine * GIB, [size * GIB for size in others]))


@pytest.mark.parametrize(
    ("sizes", "device_map", "precision", "fits", "words", "missing"),
    [
        ((16,), None, "float32", 4, ["this machine has 16.0 GiB", "bfloat16", "larger"], ["auto"]),
        ((16,), None, "bfloat16", 8, ["in bfloat16", "larger"], ["`precision", "auto"]),
        ((16,), "auto", "bfloat16", 8, [], []),
        ((64, 24, 80), None, "bfloat16", 12, ["the device has 24.0 GiB", "`device_map: auto`"], ["`precision"]),
        ((8, 10, 10), "auto", "float32", 7, ["all devices", "28.0 GiB", "`precision: bfloat16`"], ["device_map"]),
    ],
)
def test_weights_are_compared_with_what_there_is(monkeypatch, sizes, device_map, precision, fits, words, missing):
    let_there_be(monkeypatch, *sizes)
    card, given = card_of("some/model", device_map=device_map), (precision, bool(device_map))
    loading.check_memory(card, fits * GIB, *given)
    message = refusal(card, lambda card: loading.check_memory(card, fits * GIB + 1, *given))
    assert all(word in message for word in ("'mine'", *words))
    assert not any(word in message for word in missing)


def test_a_model_is_refused_before_its_weights_are_read(monkeypatch, tiny, copied):
    count = sum(parameter.numel() for parameter in tiny.model.parameters())
    let_there_be(monkeypatch, 4 * count / GIB)
    loading.load(card_of(copied))
    let_there_be(monkeypatch, (4 * count - 1) / GIB)
    loading.load(card_of(copied, precision="bfloat16"))
    (copied / "model.safetensors").unlink()
    assert "its weights alone need 0.0 GiB" in refusal(card_of(copied))
