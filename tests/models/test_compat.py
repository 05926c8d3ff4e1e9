"""Canaries for the private names of other libraries in `models/compat`: each says what to do when it fails."""

import pytest
import torch
from tiny_parts import each_family
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from mlprobe_utils.datasets.decoding import MOST_TIMES
from mlprobe_utils.models import compat


def advice(name: str, function: str) -> str:
    return f"{name} has changed with its library: adapt `{function}` in mlprobe_utils/models/compat.py, and this test"


def test_a_class_initialises_a_model_of_a_precision_and_attention(tiny):
    options = {"dtype": torch.bfloat16, "attn_implementation": "eager"}
    model = compat.initialised(type(tiny.model), tiny.model.config, **options)
    said = advice("_from_config", "initialised")
    assert (model.dtype, model.config._attn_implementation) == (torch.bfloat16, "eager"), said


@each_family
def test_layers_that_stay_whole_are_layers_of_the_model(tiny):
    said = advice("_no_split_modules", "whole_layers")
    layer = type(tiny.model.get_submodule(tiny.family.decoder_layers)[0]).__name__
    assert isinstance(tiny.model._no_split_modules, set), said
    tiny.model._no_split_modules |= {"NotThere"}
    assert {layer} <= {*compat.whole_layers(tiny.model)} == tiny.model._no_split_modules, said
    assert "NotThere" not in tiny.model._no_split_modules, said


def test_a_model_remembers_the_names_that_its_weights_were_read_under(tiny):
    assert hasattr(tiny.model, "_weight_conversions"), advice("_weight_conversions", "save_under_own_names")
    compat.save_under_own_names(tiny.model)
    assert tiny.model._weight_conversions == []


def test_a_fused_step_is_that_of_the_optimizer():
    own = torch.randn(7, generator=torch.Generator().manual_seed(0))
    theirs, (mean, square, steps) = torch.nn.Parameter(own.clone()), (torch.zeros(7), torch.zeros(7), torch.zeros(()))
    optimizer = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.3)
    for number in range(3):
        theirs.grad = torch.full((7,), number - 0.5)
        optimizer.step()
        steps += 1
        compat.fused_adamw(own, theirs.grad, mean, square, steps, torch.tensor(0.1), 0.3)
    assert torch.allclose(own, theirs.detach()), advice("torch._fused_adamw_", "fused_adamw")


@each_family
@torch.inference_mode()
def test_attention_is_that_of_a_registered_function_with_a_mask_of_every_pair(tiny, encoder, image_set, monkeypatch):
    said = advice("AttentionInterface, eager_mask or sdpa_attention_forward", "attention_with")
    inputs, attend, given = encoder.questions([image_set.pixels(i) for i in range(2)]), compat._attend, []
    monkeypatch.setattr(compat, "_attend", lambda *called, **named: given.append(called) or attend(*called, **named))
    intact, present = tiny.model(**inputs).logits, inputs["attention_mask"].bool()
    undo = compat.attention_with(tiny.model, {})
    torch.testing.assert_close(tiny.model(**inputs).logits[present], intact[present], msg=said)
    modules = [tiny.family.attention(point.module) for point in tiny.family.probe_points() if point.name[0] in "VL"]
    assert {*modules} <= {module for module, *_ in given}, said
    *_, query, key, _, mask = given[-1]  # of the LLM's last block
    assert (mask.shape[2:], mask.dtype) == ((query.shape[2], key.shape[2]), query.dtype), said
    assert {*mask.unique().tolist()} == {0.0, torch.finfo(mask.dtype).min}, said
    undo()
    assert tiny.model.config._attn_implementation == "sdpa", said


def test_processors_refuse_the_images_that_are_refused_when_they_are_read():
    smart_resize(1, MOST_TIMES)
    with pytest.raises(ValueError, match="aspect ratio"):
        smart_resize(1, MOST_TIMES + 1)
