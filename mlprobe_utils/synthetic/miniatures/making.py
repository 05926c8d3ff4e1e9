"""Makes a miniature: its own architecture or its base's weights, then the recipe's stages, then `save_pretrained`."""

import functools
import json
import re
import shutil
from pathlib import Path
from typing import get_args

import mlprobe_utils.models.compat

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin, set_seed

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.models.families import FAMILIES, family_of
from mlprobe_utils.models.families.base import below
from mlprobe_utils.models.families.hulu_med import IMAGE_TOKEN, NAMING_IT, HuluMed
from mlprobe_utils.models.loading import load
from mlprobe_utils.pipeline.cards import DataCard, load_data_card, load_model_card, miniature, slugs
from mlprobe_utils.synthetic.miniatures import conversations
from mlprobe_utils.synthetic.miniatures.blueprints import INITIAL_DEVIATION, blueprint
from mlprobe_utils.synthetic.miniatures.conversations import Conversation, ConversationEncoder
from mlprobe_utils.synthetic.miniatures.recipe import Architecture, Stage, Text, architecture_of, recipe_of
from mlprobe_utils.synthetic.phantoms.modalities import MODALITIES
from mlprobe_utils.training.trainer import Examples, TrainingSettings, train

WARMUP_RATIO, WEIGHT_DECAY = 0.05, 0.01
SAMPLED_BATCH, MAX_NEW_TOKENS = 64, 8
HUB_NAMES = {  # of Hulu-Med's weights
    r"^model\.vision_model\.": "model.vision_encoder.",
    r"^model\.projector\.": "model.mm_projector.",
    r"^model\.language_model\.": "model.",
}


def make_miniature(slug: str) -> Path:
    """Makes the checkpoint of a miniature below outputs/, and first its base, unless they are there and current. Raises
    InputError where the card is not of a miniature, or its recipe is not valid."""
    card = load_model_card(slug)
    recipe = recipe_of(card)
    if card.base:
        make_miniature(card.base)

    def fill(folder: Path) -> None:
        set_seed(recipe.seed)
        if card.base:
            loaded = load(load_model_card(card.base))
            model, processor = loaded.model, loaded.processor
        else:
            model, processor = from_scratch(card.family, recipe.architecture)
        for number, stage in enumerate(recipe.stages):
            taught = conversations.of_stage(stage, number, architecture_of(card).side)  # the same for all miniatures
            run_stage(model, processor, stage, taught, recipe.seed + number, folder / "checkpoints" / str(number))
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # random weights have none
        save(model, processor, folder)

    own = miniature(card)
    own.make(fill)
    return own.folder


def from_scratch(family: str, architecture: Architecture) -> tuple[PreTrainedModel, ProcessorMixin]:
    """A model of a family, by name, with random weights, and its processor."""
    config, processor = blueprint(family, architecture, corpus(architecture.side))
    model = FAMILIES[family].transformers_class()(config)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():  # Gemma 3's projection: nothing of the image would get through
            torch.nn.init.normal_(parameter, std=INITIAL_DEVIATION)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model, processor


@functools.cache
def corpus(side: int) -> list[str]:
    """What the tokenizer should know in few tokens: the data cards' questions and answers, and all that is taught."""
    releases = [card for card in map(load_data_card, slugs(DataCard)) if card.layout != "folder"]  # no user's own
    cards = [text for card in releases for text in (card.template, *card.options)]
    taught = [one for text in get_args(Text) for one in conversations.of_text(text, MODALITIES, 200, seed=0, side=side)]
    return [*(cards * 20), *(["user", "assistant"] * 20), *(text for _, turn in taught for text in turn)]


def run_stage(model, processor, stage: Stage, taught: list[Conversation], seed: int, checkpoints: Path) -> None:
    """One training stage: the named modules learn to write the answers, the others stay as they are."""
    parts = family_of(model).parts()
    learning = below([path for module in stage.train for path in parts[module]])
    for name, parameter in model.named_parameters():
        parameter.requires_grad = bool(re.fullmatch(learning, name))
    encoder = ConversationEncoder(processor)
    if stage.samples:
        taught = correct_answers(model, encoder, taught, stage.samples, seed)
    settings = TrainingSettings(stage.learning_rate, stage.epochs, stage.batch_size, WARMUP_RATIO, WEIGHT_DECAY, seed)
    examples = Examples(lambda i: taught[i][0], list(range(len(taught))), [turn for _, turn in taught])
    curve, _ = train(model, encoder, examples, None, settings, checkpoints, f"stage '{stage.title}'")
    file = checkpoints.parent.parent / f"learning_curve_{checkpoints.name}.csv"
    curve.assign(conversations=len(taught)).to_csv(file, index=False)


@torch.inference_mode()
def correct_answers(
    model: PreTrainedModel, encoder: ConversationEncoder, given: list[Conversation], samples: int, seed: int
) -> list[Conversation]:
    """The model's own answers that are correct, of so many `samples` a question, each as often as it was drawn. One
    round of learning from them (Yuan et al. 2023, "rejection sampling fine-tuning") stands in for policy gradients
    (GRPO, Table S1 of MedVLM-R1 and Lingshu), which reward such answers too. InputError where none is correct."""
    set_seed(seed)
    model.eval()
    own = model.generation_config
    ends = {"max_new_tokens": MAX_NEW_TOKENS, "eos_token_id": own.eos_token_id, "pad_token_id": own.pad_token_id}
    settings = GenerationConfig(do_sample=True, top_k=0, num_return_sequences=samples, **ends)
    kept = []
    for start in range(0, len(given), SAMPLED_BATCH):
        batch = given[start : start + SAMPLED_BATCH]
        inputs = encoder.questions([image for image, _ in batch], [question for _, (question, _) in batch])
        new = model.generate(**inputs, generation_config=settings)[:, inputs["input_ids"].shape[1] :]
        texts = encoder.processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        drawn = [one for one in batch for _ in range(samples)]
        kept += [one for one, text in zip(drawn, texts, strict=True) if text.strip() == one[1][1]]
    if not kept:
        mend = "give the recipe a stage with questions before its stage with samples"
        raise InputError(f"none of {len(given) * samples} sampled answers is correct: {mend}")
    return kept


def save(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Saves model and processor as the hub's are saved."""
    model.requires_grad_(True)
    if not isinstance(family_of(model), HuluMed):
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return
    # Hulu-Med: weights under the hub's names, its flat configuration, tokenizer, image processor and chat template
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue  # it is the embedding
        for pattern, replacement in HUB_NAMES.items():
            name = re.sub(pattern, replacement, name)
        weights[name] = tensor.contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.generation_config.save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    config, images = model.config, processor.image_processor
    kind, template = config.text_config.model_type, processor.chat_template.removeprefix(NAMING_IT)
    language_model, patch = f"Hulumed{kind.title()}ForCausalLM", images.patch_size**2
    whole = config.text_config.to_dict() | {"architectures": [language_model], "model_type": f"hulumed_{kind}"}
    whole["auto_map"] = {"AutoModelForCausalLM": f"modeling_hulumed_{kind}.{language_model}"}
    whole["vision_encoder_config"] = config.vision_config.to_dict() | {"model_type": "hulumed_vision_encoder"}
    whole |= {"mm_projector_type": "mlp2x_gelu", "use_token_compression": True}
    whole |= {"image_token_index": config.image_token_id, "tie_word_embeddings": config.tie_word_embeddings}
    pixels = {"image_processor_type": "HulumedImageProcessor"}
    pixels["auto_map"] = {"AutoImageProcessor": "image_processing_hulumed.HulumedImageProcessor"}
    pixels |= {"image_mean": list(images.image_mean), "image_std": list(images.image_std)}
    pixels |= {"patch_size": images.patch_size, "min_tokens": images.size["shortest_edge"] // patch}
    pixels["max_tokens"] = images.size["longest_edge"] // patch
    chat = {"chat_template": template.replace(IMAGE_TOKEN, "{{ image_token }}")}
    for name, content in {"config": whole, "preprocessor_config": pixels, "chat_template": chat}.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
