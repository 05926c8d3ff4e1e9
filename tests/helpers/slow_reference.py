"""What the package computes fast, done slowly: features without hooks, log-probabilities of options without a cache."""

import torch
from torch.nn.functional import avg_pool2d

from mlprobe_utils.models.encoding import append_answers
from mlprobe_utils.models.families.base import NUMBERS, projection
from mlprobe_utils.training.trainer import AnswerTrainer


class Keep(torch.nn.Module):
    """Stands before a module and keeps what it is given."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module

    def forward(self, states):
        self.kept = states
        return self.module(states)


@torch.no_grad()
def slow_reference(tiny, inputs) -> dict[str, torch.Tensor]:
    """`point/pooling` -> [width] of a single image of few tokens."""
    blocks = vision_states(tiny.model, inputs)
    tokens = {f"V.{i:02d}": states for i, states in enumerate(blocks)}
    tokens |= {f"D.{i:02d}": states for i, states in enumerate(side_states(tiny.model, blocks))}
    tokens |= {f"C.{i:02d}": states for i, states in enumerate(connector_states(tiny.model, blocks[-1]))}
    written, last = inputs["input_ids"][0].tolist(), {}
    image = [t for t, token in enumerate(written) if token == tiny.model.config.image_token_id]
    for i, states in enumerate(decoder_states(tiny.model, inputs)):
        # a tower cut after a layer ends on what the side path has added, which is no more the layer's own
        tokens[f"L.{i:02d}"] = states[image] - tokens.get(f"D.{i:02d}", 0)
        last[f"L.{i:02d}/last_token"] = states[-1]
    out = {f"{point}/image_mean": sum(states) / len(states) for point, states in tokens.items()} | last
    return out | {f"{point}/image_places": torch.cat(list(map(sketched, states))) for point, states in tokens.items()}


def sketched(state: torch.Tensor) -> torch.Tensor:
    """A token's channels added to few sums."""
    few = len(state) <= NUMBERS
    return state if few else sum(own * to for own, to in zip(state, projection(len(state)), strict=True))


def vision_states(model, inputs) -> list[torch.Tensor]:
    """The image's tokens after every block that is read, each [tokens, width]."""
    match model.config.model_type:
        case "llava" | "gemma3" as family:
            tower, after = model.model.vision_tower, []
            states, class_tokens, unread = tower.embeddings(inputs["pixel_values"]), 0, 0
            if family == "llava":
                states, class_tokens, unread = tower.pre_layrnorm(states), 1, 1
            for block in tower.encoder.layers[: len(tower.encoder.layers) - unread]:
                states = block(states, attention_mask=None)
                after.append(states[0, class_tokens:])
            return after
        case "video_llama_3":
            tower = model.model.vision_model
            given = {"merge_sizes": inputs["image_merge_sizes"]}
            return cut(tower, tower.encoder, "layers", "post_layernorm", inputs, given)
        case _:
            tower = model.model.visual
            return cut(tower, tower, "blocks", "merger", inputs, {})


def cut(tower, owner, blocks, after, inputs, given) -> list[torch.Tensor]:
    """What the module behind the blocks is given by the tower, shortened to its first 1, 2, ... blocks."""
    whole, module, states = getattr(owner, blocks), getattr(tower, after), []
    for i in range(len(whole)):
        keep = Keep(module)
        setattr(owner, blocks, whole[: i + 1])
        setattr(tower, after, keep)
        tower(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"], **given)
        states.append(keep.kept)
    setattr(owner, blocks, whole)
    setattr(tower, after, module)
    return states


def linear(states, layer) -> torch.Tensor:
    return states @ layer.weight.T + layer.bias


def connector_states(model, states) -> list[torch.Tensor]:
    """The image's tokens after every probed layer of the connector, each [tokens, width]."""
    match model.config.model_type:
        case "llava":
            projector = model.model.multi_modal_projector
            layers = projector.linear_1, None, projector.linear_2
        case "gemma3":
            projector = model.model.multi_modal_projector
            states = model.model.vision_tower.post_layernorm(states)
            side = round(len(states) ** 0.5)
            squares = avg_pool2d(states.T.reshape(1, -1, side, side), 2).flatten(2)[0].T
            return [projector.mm_soft_emb_norm(squares) @ projector.mm_input_projection_weight]
        case "video_llama_3":
            states, layers = model.model.vision_model.post_layernorm(states), model.model.projector.readout
        case "qwen3_vl":
            merger = model.model.visual.merger
            states = merger.norm(states).reshape(len(states) // 4, -1)
            layers = merger.linear_fc1, None, merger.linear_fc2
        case _:
            merger = model.model.visual.merger
            states, layers = merger.ln_q(states).reshape(len(states) // 4, -1), merger.mlp
    first = linear(states, layers[0])
    return [first, linear(torch.nn.functional.gelu(first), layers[2])]


def side_states(model, blocks) -> list[torch.Tensor]:
    """Qwen3-VL's deepstack: what its mergers make of the blocks that they read."""
    if model.config.model_type != "qwen3_vl":
        return []
    visual, states = model.model.visual, []
    for block, merger in zip(visual.deepstack_visual_indexes, visual.deepstack_merger_list, strict=True):
        merged = merger.norm(blocks[block].reshape(len(blocks[block]) // 4, -1))
        states.append(linear(torch.nn.functional.gelu(linear(merged, merger.linear_fc1)), merger.linear_fc2))
    return states


def decoder_states(model, inputs) -> list[torch.Tensor]:
    """All tokens after the LLM's first 1, 2, ... layers, before the norm, each [tokens, width]."""
    llm = model.model.language_model
    layers, norm, after = llm.layers, llm.norm, []
    for i in range(len(layers)):
        llm.layers, llm.norm = layers[: i + 1], torch.nn.Identity()
        after.append(model.model(**inputs).last_hidden_state[0])
    llm.layers, llm.norm = layers, norm
    return after


@torch.inference_mode()
def option_log_probabilities(loaded, encoder, images, options) -> torch.Tensor:
    """float64 [images, options]: images and question are read anew before every option."""
    prompts, tokens, pad = encoder.questions(images), encoder.answer_tokens(options), encoder.tokenizer.pad_token_id
    inputs = [append_answers(prompts, [of_option] * len(images), pad) for of_option in tokens]
    return -torch.stack([AnswerTrainer.losses_of(loaded.model, **given)[0] for given in inputs], dim=1).double()


def longer(inputs, tokens: list[int]) -> dict[str, torch.Tensor]:
    """Unpadded inputs of one image with more text tokens."""
    nothing = {key: [0] * len(tokens) for key, value in inputs.items() if value.shape == inputs["input_ids"].shape}
    more = nothing | {"input_ids": tokens, "attention_mask": [1] * len(tokens)}
    assert more.keys() - {"mm_token_type_ids", "token_type_ids"} == {"input_ids", "attention_mask"}
    return inputs | {key: torch.cat([inputs[key], torch.tensor([added])], dim=1) for key, added in more.items()}


def answer_ids(tokenizer, family: str, answer: str) -> list[int]:
    """The tokens of an answer at the beginning of a line, and the one that ends it."""
    line, whole = (tokenizer.encode(text, add_special_tokens=False) for text in ("\n", "\n" + answer))
    assert whole[: len(line)] == line
    end = "<end_of_turn>" if family == "gemma3" else "<|im_end|>"
    return [*whole[len(line) :], tokenizer.convert_tokens_to_ids(end)]


def answer_log_probabilities(model, encoder, image, tokens: list[int]) -> torch.Tensor:
    """Those of an answer's tokens about one image: no padding, all logits computed."""
    logits = model(**longer(encoder.questions([image]), tokens)).logits[0, -len(tokens) - 1 : -1]
    return logits.log_softmax(-1)[range(len(tokens)), tokens]
