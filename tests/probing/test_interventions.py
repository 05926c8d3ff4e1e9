"""Interventions, held against planted truths: what an edit must do, and what it must leave, in every family."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import get_peft_model
from sklearn.linear_model import LogisticRegression
from slow_reference import option_log_probabilities
from tiny_parts import RECIPE, WIDTHS, each_family, each_family_in_time, each_family_with
from transformers import GenerationConfig

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.points import ANSWER, flow_order
from mlprobe_utils.models import compat
from mlprobe_utils.models.adapters import adapter
from mlprobe_utils.models.encoding import Encoder, append_answers
from mlprobe_utils.probing.edits import Erase, Keep, KnockOut, Patch, Skip, Steer, head
from mlprobe_utils.probing.extraction import features_of
from mlprobe_utils.probing.interventions import intervene, module_at, recorded, replayed
from mlprobe_utils.training.fine_tuning import lora_config
from mlprobe_utils.training.prediction import answer_batch

SITES = ("V.01", "V.01/heads", "C.00", "L.01", "L.01/heads")


@pytest.fixture
def about(tiny, image_set):
    """The inputs of images at some positions, of four sizes in turn; their prompts are of four lengths."""
    encoder = Encoder(tiny.processor, "<image> Benign or Normal?")  # so short that all of Gemma's windows hold it
    prompts = [encoder.prompt + " Yes" * more for more in (2, 0, 3, 1)]
    return lambda *images: encoder.questions([image_set.pixels(i) for i in images], [prompts[i % 4] for i in images])


@pytest.fixture
def pair(about):  # of the same sizes and prompts
    return about(0, 1, 2, 3), about(4, 5, 6, 7)


@torch.inference_mode()
def logits(tiny, inputs, *edits):
    """Of all tokens but padding under edits, those of one image behind those of the other."""
    with intervene(tiny, edits) if edits else contextlib.nullcontext():
        return tiny.model(**inputs, use_cache=False).logits[inputs["attention_mask"].bool()]


def seen(tiny, inputs, point, tokens="all", edits=()):
    """Each image's states at a point under edits, [tokens, width]."""
    logits(tiny, inputs, *edits, keep := Keep(point, tokens))
    return keep.kept


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Turn:  # an edit of one's own
    def __init__(self, point):
        self.point = point

    def __call__(self, states, now):
        return states.flip(-1)


@each_family
def test_a_patch_of_the_whole_state_gives_the_other_images_logits(tiny, pair, family):
    """Deepstack leaves behind V.01 and comes back behind L.00: between the two, D.00 is the other half of the state."""
    (one, other), (intact, wanted) = pair, [logits(tiny, inputs) for inputs in pair]
    points = [point for point in WIDTHS[family] if point[0] != "D"]
    beside = points[points.index("V.02") : points.index("L.01")] if family == "qwen3_vl" else []
    for point in points:
        halves = [Patch(half, seen(tiny, other, half), "all") for half in (point, "D.00")[: 1 + (point in beside)]]
        torch.testing.assert_close(logits(tiny, one, *halves), wanted)
        assert point not in beside or not torch.allclose(logits(tiny, one, halves[0]), wanted, atol=1e-3)
        assert torch.equal(logits(tiny, one, Patch(point, seen(tiny, one, point), "all")), intact)
    last = one["attention_mask"].sum(dim=1).cumsum(0) - 1
    patched = logits(tiny, one, Patch("L.02", seen(tiny, other, "L.02", "last_token"), "last_token"))
    torch.testing.assert_close(patched[last], wanted[last])
    assert not torch.allclose(intact[last], wanted[last], atol=0.01)


@each_family
def test_text_that_no_longer_sees_the_image_is_the_same_about_every_image(tiny, pair):
    text = ~tiny.family.image_mask(pair[0])[pair[0]["attention_mask"].bool()]
    for first, same in (("L.00", True), ("L.01", False)):
        one, other = (logits(tiny, inputs, KnockOut(first, "L.02", "text"))[text] for inputs in pair)
        assert torch.allclose(one, other, atol=1e-5) == same
    unseen = logits(tiny, pair[0], KnockOut("L.00", "L.02", "image_tokens", [-1]))
    torch.testing.assert_close(unseen, logits(tiny, pair[0]))


@each_family
def test_knocked_out_attention_equals_the_familys_own_with_another_mask(tiny, pair):
    tiny.model.set_attn_implementation("eager")
    inputs, layers = pair[0], tiny.model.get_submodule(tiny.family.decoder_layers)
    image, present = tiny.family.image_mask(inputs), inputs["attention_mask"].bool()
    last, first = torch.arange(image.shape[1]) == image.shape[1] - 1, present & (present.cumsum(dim=1) == 1)
    for edit, cut, queries, keys in (
        (KnockOut("L.01", "L.02"), layers[1:], last[None], image),
        (KnockOut("L.00", queries="text"), layers[:1], ~image, image),
        (KnockOut("L.01", None, "image_tokens", [0]), layers[1:2], image, first),
    ):

        def hide(_, given, named, hidden=queries[:, None, :, None] & keys[:, None, None]):
            mask = named["attention_mask"]
            return given, named | {"attention_mask": mask.masked_fill(hidden, torch.finfo(mask.dtype).min)}

        handles = [tiny.family.attention(one).register_forward_pre_hook(hide, with_kwargs=True) for one in cut]
        slow = logits(tiny, inputs)
        [handle.remove() for handle in handles]
        torch.testing.assert_close(logits(tiny, inputs, edit), slow)
        assert not torch.allclose(slow, logits(tiny, inputs), atol=1e-4)
    tiny.model.set_attn_implementation("sdpa")
    torch.testing.assert_close(logits(tiny, inputs, edit), slow)


@each_family
def test_patches_that_are_not_seen_do_not_move_others(tiny, about):
    """In a tower that attends in windows, they are in the first and in the last one."""
    inputs, keys, others = about(1), [2, 3, -3], [0, 1, 4, -2, -1]
    moved, cut = Steer("V.00", noise(32), by=5.0, tokens=keys), KnockOut("V.01", "V.02", "image_tokens", keys)
    still, blind, free = (seen(tiny, inputs, "V.02", others, edits)[0] for edits in ([cut], [moved, cut], [moved]))
    torch.testing.assert_close(blind, still)
    assert not torch.allclose(free, still, atol=0.01)


def one_of_each_kind(tiny, donors, images):
    """Edits that are made alone; what they hold of images is of these ones."""
    plane = noise(32, 2).double() / 6
    for point in SITES:
        own = [donors[point][i] for i in images]
        width = own[0].shape[-1]
        yield from (Patch(point, own), Steer(point, noise(2, width, seed=1)[images], by=3.0))
        yield Erase(point, noise(width), (plane @ plane.T).repeat(width // 32, width // 32))
    yield Patch("L.01", [donors["text"][i] for i in images], "text")
    yield Patch("L.01/heads", [donors["L.01/heads"][i] for i in images], channels=head(tiny, "L.01", 1))
    yield from (Steer("L.00", noise(32), tokens="text"), Steer("V.00", noise(2, 32)[images], tokens=[1, -2]))
    yield from (Skip("V.01"), Skip("L.01"), KnockOut("V.01", "V.02", [0, -1], [1, 3]), KnockOut("L.00", "L.01"))
    yield KnockOut("L.01", queries="text", keys=[1, -2])


@each_family_in_time
def test_every_edit_does_to_a_batch_what_it_does_to_each_image(tiny, about):
    """Of two sizes, the prompts of two lengths, padded on the left or on the right."""
    batch, other = about(2, 1), about(6, 5)
    donors = {"text": seen(tiny, other, "L.01", "text")}
    donors |= {point: seen(tiny, other, point, "image_tokens") for point in SITES}
    padding, shape = (batch["attention_mask"] == 0).sum(dim=1).tolist(), batch["input_ids"].shape
    assert padding.index(0) == (padding[0] > 0)
    of_tokens = {key: zip(own, padding, strict=True) for key, own in batch.items() if own.shape == shape}
    right = batch | {key: torch.stack([row.roll(-n) for row, n in rows]) for key, rows in of_tokens.items()}
    each = zip(*(one_of_each_kind(tiny, donors, [i]) for i in range(2)), strict=True)
    alone, intact = [about(2), about(1)], logits(tiny, batch)
    for together, own in zip(one_of_each_kind(tiny, donors, [0, 1]), each, strict=True):
        expected = torch.cat([logits(tiny, *given) for given in zip(alone, own, strict=True)])
        for inputs in (batch, right):
            torch.testing.assert_close(logits(tiny, inputs, together), expected, rtol=1e-4, atol=2e-5)
        assert not torch.allclose(expected, intact, atol=1e-3), together


@each_family
@torch.no_grad()
def test_what_is_left_out_has_no_effect_of_its_parameters(tiny, pair, monkeypatch):
    for point in ("V.01", "L.01"):
        block, own, intact = module_at(tiny, point), head(tiny, point, 1), logits(tiny, pair[0])
        skipped, zeros = logits(tiny, pair[0], Skip(point)), torch.zeros(32)
        headless, nothing = (logits(tiny, pair[0], Patch(f"{point}/heads", zeros, "all", of)) for of in (own, None))
        assert not any(torch.allclose(one, intact, atol=0.01) for one in (skipped, headless, nothing))
        with monkeypatch.context() as slowly:
            slowly.setattr(block, "forward", lambda states, *_, **__: states)
            torch.testing.assert_close(logits(tiny, pair[0]), skipped)
        unseen = logits(tiny, pair[0], KnockOut(point, queries="all", keys="all"))  # which gives every token nothing
        torch.testing.assert_close(unseen, nothing)
        tiny.family.heads(block)[0].weight[:, own] = 0
        torch.testing.assert_close(logits(tiny, pair[0]), headless)
        for parameter in block.parameters():
            parameter.copy_(noise(*parameter.shape))
        torch.testing.assert_close(logits(tiny, pair[0], Skip(point)), skipped)


@each_family
def test_a_direction_that_alone_decides_has_all_of_the_effect_and_an_orthogonal_one_none(tiny, pair):
    (direction, other), words = torch.linalg.qr(noise(32, 2)).Q.T, noise(len(tiny.model.lm_head.weight), seed=1)
    tiny.model.model.language_model.norm = torch.nn.Identity()
    tiny.model.lm_head.weight = torch.nn.Parameter(torch.outer(words, direction))
    intact, mean = logits(tiny, pair[0]), noise(32, seed=2)
    for axis, moved, erased in ((direction, intact + 2 * words, words * (mean @ direction)), (other, intact, intact)):
        found = logits(tiny, pair[0], Steer("L.02", axis, by=2.0, tokens="all"))
        torch.testing.assert_close(found, moved, rtol=1e-4, atol=1e-4)
        found = logits(tiny, pair[0], Erase("L.02", mean, torch.outer(axis, axis), tokens="all"))
        torch.testing.assert_close(found, erased.expand_as(found), rtol=1e-4, atol=1e-4)


def test_no_linear_classifier_finds_an_erased_class(tiny, about):
    """Of three classes, planted among channels of unlike spread."""
    inputs, point, labels = about(*[i % 12 for i in range(60)]), "L.01/image_mean", np.arange(60) % 3
    images = noise(60, 32) * torch.linspace(0.1, 3, 32) + 4 * noise(3, 32, seed=1)[labels]

    def features(*edits):
        with intervene(tiny, [Steer("L.01", images, by=3.0), *edits]):
            return features_of(tiny, inputs)[point].double().numpy()

    before = features()
    assert LogisticRegression().fit(before, labels).score(before, labels) > 0.95
    for make in (Erase.leace, Erase.mean_difference):
        after = features(erase := make("L.01", before, labels))
        np.testing.assert_allclose(LogisticRegression().fit(after, labels).predict_proba(after), 1 / 3, atol=1e-3)
        np.testing.assert_allclose(features(erase, erase), after, atol=1e-4)


def traces(tiny) -> list:
    """What edits could leave on modules."""
    of_modules = [(len(m._forward_hooks), len(m._forward_pre_hooks), {*vars(m)}) for m in tiny.model.modules()]
    attention = {m.config._attn_implementation for m in tiny.model.modules() if hasattr(m, "config")}
    return [of_modules, attention, sum(map(len, compat._hidden.values())), tiny.family.interventions is None]


@each_family_with("attention", "eager", "sdpa")
def test_an_edit_ends_with_its_block_however_that_ends(tiny, pair, attention):
    tiny.model.set_attn_implementation(attention)
    intact, before = logits(tiny, pair[0]), traces(tiny)
    edits = [Turn("C.00"), Turn("V.01/heads"), Skip("L.01"), KnockOut("V.01", None, [0], [1]), KnockOut("L.00", "L.02")]
    with pytest.raises(ZeroDivisionError), intervene(tiny, edits), recorded(tiny) as kept, replayed(tiny, kept, "L.01"):
        1 / 0  # noqa: B018
    assert traces(tiny) == before
    with intervene(tiny, edits):
        within, changed = traces(tiny), logits(tiny, pair[0])
        for wrong in (Skip("L.77"), Patch("L.00", torch.zeros(7))):  # one is refused before, one in a pass
            with pytest.raises(InputError), intervene(tiny, [*edits, wrong]):
                logits(tiny, pair[0])
        assert traces(tiny) == within != before
        assert torch.equal(logits(tiny, pair[0]), changed)
    assert traces(tiny) == before
    assert torch.equal(logits(tiny, pair[0]), intact)


@each_family_in_time
def test_edits_act_from_their_point_on_in_the_order_given_in_a_list_and_in_blocks(tiny, about, family):
    inputs, intact = about(1), features_of(tiny, about(1))
    for point in (*SITES, "L.02"):
        (own,) = seen(tiny, inputs, point, "image_tokens")
        move, turn = Steer(point, noise(own.shape[-1])), Turn(point)
        with intervene(tiny, move):
            found = features_of(tiny, inputs)
        changed = {key[:4] for key in found if not torch.equal(found[key], intact[key])}
        assert changed == {later for later in WIDTHS[family] if flow_order(later) >= flow_order(point[:4])}
        turned, moved = own.flip(-1) + move.direction, (own + move.direction).flip(-1)
        for first, then, expected in ((move, turn, moved), (turn, move, turned)):
            torch.testing.assert_close(seen(tiny, inputs, point, "image_tokens", [first, then])[0], expected)
            with intervene(tiny, first):
                torch.testing.assert_close(seen(tiny, inputs, point, "image_tokens", [then])[0], expected)
    assert torch.equal(logits(tiny, inputs, Turn(ANSWER)), logits(tiny, inputs).flip(-1))


@each_family_in_time
def test_an_adapter_that_is_put_on_in_the_block_is_edited_with_the_rest(tiny, pair, tmp_path):
    """Heads before LoRA's part of their projection, too; also where another LoadedModel shares the weights."""
    adapted = get_peft_model(tiny.model, lora_config(tiny, RECIPE))
    [torch.nn.init.normal_(own, std=0.5) for name, own in adapted.named_parameters() if ".lora_B" in name]
    adapted.save_pretrained(tmp_path)
    adapted.unload()
    edits = [Patch(f"{point}/heads", torch.zeros(32), "all") for point in ("V.01", "L.01")]
    plain, before = logits(tiny, pair[0], *edits), traces(tiny)
    with adapter(tiny, tmp_path):
        expected, unedited = logits(tiny, pair[0], *edits), logits(tiny, pair[0])
    for owner in (tiny, replace(tiny)):
        with intervene(tiny, edits):
            with adapter(owner, tmp_path):
                assert torch.equal(logits(tiny, pair[0]), expected)
            assert torch.equal(logits(tiny, pair[0]), plain)
        assert traces(tiny) == before
    assert not any(torch.allclose(expected, other, atol=0.01) for other in (unedited, plain))


@each_family_in_time
def test_replayed_passes_equal_whole_ones_whatever_is_computed_first(tiny, pair, family):
    with intervene(tiny, [Steer("V.00", noise(32)), Steer("L.00", noise(32), tokens="text"), KnockOut("L.01")]):
        with recorded(tiny) as kept:
            intact = logits(tiny, pair[0])
        for point in [*WIDTHS[family], "V.01/heads", "L.01/heads", ANSWER]:
            whole = logits(tiny, pair[0], Turn(point))
            with replayed(tiny, kept, point.removesuffix("/heads")):
                assert torch.equal(logits(tiny, pair[0], Turn(point)), whole)
            assert not torch.allclose(whole, intact, atol=0.01)
        with replayed(tiny, kept, "L.02"):  # nothing before is computed
            assert torch.equal(logits(tiny, pair[1]), intact)


@each_family_in_time
@torch.inference_mode()
def test_generation_with_a_cache_equals_whole_passes_under_the_same_edits(tiny, image_set):
    """Of prompts that are longer than Gemma's windows, the images behind the question and so within their reach."""
    images, options = [image_set.pixels(i) for i in range(8)], image_set.card.options
    encoder = Encoder(tiny.processor, image_set.card.template, "question_first")
    prompts, others = encoder.questions(images[:4]), encoder.questions(images[4:])
    wanted = {"max_new_tokens": 4, "pad_token_id": 0, "return_dict_in_generate": True, "output_logits": True}
    intact, length = answer_batch(tiny, prompts, encoder, options, 1)[options], prompts["input_ids"].shape[1]
    for made in (
        lambda last, onwards: Steer("V.01", noise(32)),
        lambda last, onwards: Steer("L.00", noise(32)),
        lambda last, onwards: Steer("L.01/heads", noise(32), tokens=last),
        lambda last, onwards: KnockOut("L.00", "L.02", onwards),
        lambda last, onwards: KnockOut("L.00", "L.02", "text"),
    ):
        with intervene(tiny, edit := made("last_token", "last_token")) as now:
            written = tiny.model.generate(**prompts, generation_config=GenerationConfig(**wanted))
            found, slow = answer_batch(tiny, prompts, encoder, options, 1)[options], []
            whole = append_answers(prompts, written.sequences[:, length:-1].tolist(), pad=0)
            now.appended = whole.pop("labels").shape[1]
            whole = tiny.model(**whole).logits[:, length - 1 :]
        for option, tokens in zip(options, encoder.answer_tokens(options), strict=True):
            last = -1 - len(tokens)  # of the prompt
            with intervene(tiny, made([last], [*range(last, 0)])):
                slow.append(option_log_probabilities(tiny, encoder, images[:4], [option])[:, 0])
        torch.testing.assert_close(torch.stack(written.logits, dim=1), whole, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found, torch.stack(slow, dim=1), rtol=1e-4)
        assert (found - intact).abs().to_numpy().max() > 1e-3, edit
    with intervene(tiny, edit):  # whose text sees no image
        one, other = (answer_batch(tiny, own, encoder, options, 4) for own in (prompts, others))
    assert one.equals(other)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda _: Skip("L.07"), r"unknown point 'L.07': did you mean 'L.0\d'"),
        (lambda _: Turn("L.01/heads of all"), "unknown point 'L.01/heads of all'"),
        (lambda _: Skip("C.00"), "Skip C.00: only blocks of vision tower and LLM"),
        (lambda _: KnockOut("L.00", "V.01"), "KnockOut L.00 to V.01: name a block"),
        (lambda _: KnockOut("L.02", "L.01"), "KnockOut L.02 to L.01: name a block"),
        (lambda _: Steer("V.01", noise(32), tokens="text"), "tokens 'text' at V.01: only the LLM has text"),
        (lambda _: Steer("L.01", noise(32), tokens="last"), "unknown tokens 'last': .* Or give a list"),
        (lambda _: Steer("L.01", noise(32), tokens=[0, 400]), r"token 400 is not there: the prompt has \d+ tokens"),
        (lambda _: Steer("V.01", noise(32), tokens=[8]), "token 8 is not there: V.01 has 8 tokens, 0 to 7"),
        (lambda _: Steer(ANSWER, noise(32)), "tokens at output: logits are of the last tokens alone"),
        (lambda _: Steer("L.01", noise(3, 32)), "Steer at L.01: 3 directions for a pass of 4 images"),
        (lambda _: Steer("L.01", noise(7)), "Steer at L.01: 7 channels for states of 32: take those of this point"),
        (lambda _: Patch("L.01", [noise(32)] * 2), "states of 2 images for a pass of 4: .*batch_size=2"),
        (lambda _: Patch("L.01", noise(4, 32)), "Patch at L.01: 4 tokens of states for 12 of image 1"),
        (lambda _: Erase.leace("L.01", noise(5, 32), ["ill"] * 5), "Erase at L.01: 5 images, 5 labels, 1 classes"),
        (lambda tiny: head(tiny, "L.01", 4), "head 4 is not there: L.01 has 4, 0 to 3"),
        (lambda tiny: head(tiny, "C.00", 0), "unknown point with attention heads 'C.00/heads'"),
    ],
)
def test_what_does_not_fit_is_named(tiny, pair, edit, said):
    with pytest.raises(InputError, match=said):
        logits(tiny, pair[0], edit(tiny))
