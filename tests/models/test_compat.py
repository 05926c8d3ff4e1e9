"""Canaries: private names of other libraries that `models/compat` touches. What to do is said where one fails."""

import inspect

import pytest
import torch
from transformers import PreTrainedModel

from mlprobe_utils.models import compat
from mlprobe_utils.models.families.registry import FAMILIES

ADVICE = "{} has changed: read the release notes of {}, adapt `{}` in mlprobe_utils/models/compat.py and this test"


def test_a_class_initialises_a_model_of_a_precision_and_attention():
    advice = ADVICE.format("PreTrainedModel._from_config", "transformers", "initialised")
    assert callable(getattr(PreTrainedModel, "_from_config", None)), advice
    for name in ("dtype", "attn_implementation"):
        assert f'"{name}"' in inspect.getsource(PreTrainedModel._from_config), advice


def test_layers_that_stay_whole_are_layers_of_the_model(tiny):
    """FSDP looks for each of them, and CLIP and SigLIP name some that their vision towers do not hold."""
    advice = ADVICE.format("PreTrainedModel._no_split_modules", "transformers", "whole_layers")
    assert isinstance(tiny.model._no_split_modules, set), advice
    whole = compat.whole_layers(tiny.model)
    assert type(tiny.model.get_submodule(tiny.family.decoder_layers)[0]).__name__ in whole, advice


def test_weights_read_under_other_names_are_remembered_by_the_model(tiny):
    """`test_hulu_med_saved_by_transformers_comes_back` shows what comes of it."""
    advice = ADVICE.format("PreTrainedModel._weight_conversions", "transformers", "save_under_own_names")
    assert "_weight_conversions" in inspect.getsource(inspect.getmodule(PreTrainedModel)), advice
    compat.save_under_own_names(tiny.model)
    assert tiny.model._weight_conversions == []


def test_a_fused_step_is_that_of_the_optimizer():
    advice = ADVICE.format("torch._fused_adamw_", "torch", "fused_adamw")
    own = torch.randn(7, generator=torch.Generator().manual_seed(0))
    theirs = torch.nn.Parameter(own.clone())
    optimizer = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.3)
    mean, square, steps = torch.zeros(7), torch.zeros(7), torch.zeros(())
    for step in range(3):
        gradient = torch.full((7,), step - 0.5)
        steps += 1
        compat.fused_adamw(own, gradient, mean, square, steps, torch.tensor(0.1), 0.3)
        theirs.grad = gradient
        optimizer.step()
    assert torch.allclose(own, theirs.detach()), advice


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_class)
def test_classes_of_transformers_are_where_they_were(family):
    assert issubclass(family.transformers_class(), PreTrainedModel), ADVICE.format(
        family.model_class, "transformers", "transformers_class"
    )


def test_torchvision_imports_beside_this_torch():
    import torchvision

    advice = ADVICE.format("torchvision's operators", "torchvision", "declare_missing_operators")
    assert hasattr(torch.ops.torchvision, "nms"), advice
    assert torchvision.transforms.v2, advice
