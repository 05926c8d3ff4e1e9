"""The final output: generation and option probabilities against slow references that never pad."""

import numpy as np
import pytest
import torch
from slow_reference import answer_ids, answer_log_probabilities, longer, option_log_probabilities
from tiny_parts import Killed, card_of, each_family, each_family_with, killed_after, make_tiny

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.answers import parse_answer
from mlprobe_utils.evaluation.question import ORDERS, PASSAGE, irrelevant_text, tokens_of
from mlprobe_utils.models.encoding import Encoder, Questions, Reworded
from mlprobe_utils.models.loading import load
from mlprobe_utils.training.prediction import answer_batch, greedy, predict
from mlprobe_utils.training.settings import Answering

POSITIONS = list(range(6))  # four sizes of image: prompts of four lengths, so that a batch is padded
SETTINGS = Answering(max_new_tokens=6, batch_size=4, shard_images=5)

FIRST = "{% for part in message.content if part.type == 'image' %}<|image_pad|>{% endfor %}"
TEXTS = "{% for part in message.content if part.type == 'text' %}{{ part.text }}{% endfor %}"
TURN = "{% for message in messages %}{{ message.role | upper }}: " + FIRST + TEXTS + " {% endfor %}"
VICUNA = TURN + "{% if add_generation_prompt %}ASSISTANT:{% endif %}"  # images first, a space before the answer
OPTIONS = ["Benign", "Yes", "Malignant", "Malignant tumour"]  # of one token and of several; one begins another
THINKING = VICUNA.replace("ASSISTANT:", "ASSISTANT: <think>\n")
OF_STRINGS = "{% for message in messages %}{{ message.role + ': ' + message.content }}{% endfor %}"
FAILS = r"fails on a turn of image and text \(.*\): give the model another"
CLOSING = THINKING.replace(
    "{{ part.text }}", "{{ '<think>\n\n</think>\n\n' if message.role == 'assistant' }}{{ part.text }}"
)


def predicted(loaded, encoder, image_set, folder):
    return predict(loaded, Questions(encoder, image_set.pixels), image_set.card.options, POSITIONS, SETTINGS, folder)


@torch.no_grad()
def step_by_step(tiny, encoder, inputs, steps) -> str:
    tokens = []
    while len(tokens) < steps and not {*tokens} & {encoder.tokenizer.eos_token_id, encoder.end}:
        tokens.append(int(tiny.model(**(longer(inputs, tokens) if tokens else inputs)).logits[0, -1].argmax()))
    return encoder.tokenizer.decode(tokens, skip_special_tokens=True)


@each_family
def test_generation_is_greedy_and_options_are_as_probable_as_unpadded(tiny, encoder, image_set, family, tmp_path):
    options = image_set.card.options
    tokens = [answer_ids(encoder.tokenizer, family, option) for option in options]
    assert len({*map(len, tokens)}) > 1
    answers, probabilities = predicted(tiny, encoder, image_set, tmp_path)
    for row, position in enumerate(POSITIONS[:4]):
        given = tiny.model, encoder, image_set.pixels(position)
        expected = torch.stack([answer_log_probabilities(*given, own).sum() for own in tokens]).softmax(0)
        np.testing.assert_allclose(probabilities[row], expected.detach(), rtol=1e-3)
        text = step_by_step(tiny, encoder, encoder.questions([given[2]]), SETTINGS.max_new_tokens)
        assert (answers["text"][row], answers["parsed"][row]) == (text, parse_answer(text, options))
    assert answers["text"].any()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    assert (probabilities.max(axis=0) / probabilities.min(axis=0))[[0, 2]].min() > 1.2  # they depend on the image


def assert_whole_passes(loaded, encoder, image_set, positions, max_new_tokens):
    images = [image_set.pixels(i) for i in positions]
    found = answer_batch(loaded, encoder.questions(images), encoder, OPTIONS, max_new_tokens)[OPTIONS].to_numpy()
    np.testing.assert_allclose(found, option_log_probabilities(loaded, encoder, images, OPTIONS), rtol=1e-5)


@each_family_with("order", *ORDERS)
def test_log_probabilities_are_those_of_whole_passes(tiny, image_set, order):
    encoder = Encoder(tiny.processor, image_set.card.template, order)
    for positions in ([0, 1, 2, 3], [3, 2], [1]):  # the model holds nothing of the batch before
        assert_whole_passes(tiny, encoder, image_set, positions, 7)


@pytest.mark.parametrize("window", [4, 90])  # full within the prompts of 80 tokens; full after 10 written ones
def test_a_sliding_window_goes_back_to_the_prompt(image_set, tmp_path, window):
    def slide(config):
        config.text_config.sliding_window = window
        config.text_config.layer_types = ["sliding_attention", "full_attention", "sliding_attention"]

    loaded = load(card_of(make_tiny("gemma3", tmp_path, change=slide)))
    assert_whole_passes(loaded, Encoder(loaded.processor, image_set.card.template), image_set, range(4), 20)


@each_family
def test_images_and_question_are_read_once(tiny, encoder, images, inputs):
    vision, words = [], []
    vision_block = tiny.model.get_submodule(tiny.family.vision_blocks)[0]
    decoder_layer = tiny.model.get_submodule(tiny.family.decoder_layers)[0]
    vision_block.register_forward_hook(lambda module, arguments, output: vision.append(module))
    decoder_layer.register_forward_hook(lambda module, arguments, output: words.append(output.shape[1]))
    answer_batch(tiny, inputs, encoder, OPTIONS, 1)
    prompt = encoder.questions([images[3]])["input_ids"].shape[1]
    assert len(vision) == 1
    assert words == [prompt, *(len(tokens) for tokens in encoder.answer_tokens(OPTIONS))]


def test_what_a_checkpoint_ships_for_generation_does_not_matter(tiny, encoder, image_set, tmp_path):
    """Qwen2.5-VL ships a repetition penalty, and generate() fills in what a given configuration leaves open."""
    plain, probabilities = predicted(tiny, encoder, image_set, tmp_path)
    shipped = tiny.model.generation_config
    shipped.repetition_penalty, shipped.no_repeat_ngram_size, shipped.min_new_tokens = 5.0, 1, 6
    shipped.do_sample, shipped.temperature, shipped.num_beams = True, 9.0, 3
    shipped.suppress_tokens = list(range(200))
    answers, same = predicted(tiny, encoder, image_set, tmp_path)
    assert list(answers["text"]) == list(plain["text"])
    np.testing.assert_array_equal(same, probabilities)
    assert tiny.model.generation_config.repetition_penalty == 5.0  # the model is left as it was


@each_family
def test_generation_ends_on_special_tokens_of_the_models_own_tokenizer(tiny, encoder):
    """A checkpoint may ship ids of another tokenizer: an end that cuts answers at a word, padding that writes one."""
    tokenizer, word = encoder.tokenizer, encoder.tokenizer("Benign", add_special_tokens=False)["input_ids"][0]
    special = tokenizer.convert_tokens_to_ids(tiny.processor.image_token)
    shipped = tiny.model.generation_config
    shipped.eos_token_id, shipped.pad_token_id = [word, special], word
    with greedy(tiny, 6, encoder.end) as configuration:
        assert configuration.eos_token_id == sorted({special, encoder.end, tokenizer.eos_token_id})
        assert configuration.pad_token_id == tokenizer.pad_token_id


def test_an_answer_ends_at_its_end_token_and_keeps_marks_of_thoughts_that_are_special_tokens(tiny, image_set):
    tokenizer = tiny.processor.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>", "<other>"]})
    encoder = Encoder(tiny.processor, image_set.card.template)
    tokens = tokenizer("<think>Malignant</think><other>Benign", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(tokens, skip_special_tokens=True) == "MalignantBenign"
    assert encoder.text_of([*tokens, encoder.end, *tokens], [encoder.end]) == "<think>Malignant</think>Benign"


@pytest.mark.parametrize("template", [THINKING, CLOSING])
def test_what_a_template_has_opened_an_answer_closes(tiny, image_set, tmp_path, template):
    tiny.processor.chat_template = template
    encoder, options = Encoder(tiny.processor, image_set.card.template), ["Benign", "Malignant"]
    tokens = encoder.answer_tokens(options)
    assert encoder.tokenizer.decode(tokens[0][:-1]).strip() == "</think>\n\nBenign"
    written = encoder.text_of(tokens[0], [encoder.end])
    assert encoder.answer(written, options, {}) == {"text": written, "parsed": "Benign", "thought_cut": False}
    cut = encoder.answer("so it may be malignant, because", options, {})
    assert (cut["parsed"], cut["thought_cut"]) == (None, True)
    answers, _ = predicted(tiny, encoder, image_set, tmp_path)
    assert answers["thought_cut"].all()  # random weights close nothing
    assert answers["parsed"].isna().all()


def test_a_system_prompt_of_the_card_stands_in_place_of_the_templates(tiny, tiny_card, image_set):
    tiny.processor.chat_template = "{% if messages[0].role != 'system' %}SYSTEM: be brief {% endif %}" + VICUNA
    template = image_set.card.template
    assert Encoder(tiny.processor, template).prompt.startswith("SYSTEM: be brief USER:")
    for own in ("", "Look well."):
        card = tiny_card.model_copy(update={"system_prompt": own})
        assert Encoder(tiny.processor, template, card=card).prompt.startswith(f"SYSTEM: {own} USER:")


@each_family
def test_one_read_of_a_question_is_the_template(tiny, image_set, family):
    """Word for word the template, image first or last as the order says, inside the model's own chat template."""
    question = image_set.card.template.replace("<image>", "").strip()
    images = {"llava": "<image>\n", "hulu_med": "<image>\n", "gemma3": "<start_of_image>"}
    image = images.get(family, "<|vision_start|><|image_pad|><|vision_end|>")
    turns = {"gemma3": ("<bos><start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n")}
    begin, end = turns.get(family, ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"))
    tokenizer = tiny.processor.tokenizer
    irrelevant = irrelevant_text(tokenizer, len(tokens_of(tokenizer, question)))
    orders = {"image_first": image + question, "question_first": question + image}
    orders["irrelevant_first"] = irrelevant + image + question
    prompts = {order: Encoder(tiny.processor, image_set.card.template, order).prompt for order in ORDERS}
    assert prompts == {order: begin + content + end for order, content in orders.items()}
    ids = Encoder(tiny.processor, question).questions([None])["input_ids"][0].tolist()
    assert ids.count(tokenizer.bos_token_id) == (family == "gemma3")  # once, although its tokenizer would add another


@each_family
def test_a_question_in_other_words_is_as_encoded_anew(tiny, encoder, image_set):
    encoders = {text: Encoder(tiny.processor, text) for text in ("<image> Benign?", "Well, what is it? <image>")}
    other = Questions(encoder, image_set.pixels)
    reworded = Reworded(encoder, image_set.pixels, other=other, encoders=encoders)
    for text, own in encoders.items():
        found, anew = reworded.batch([(text, i) for i in POSITIONS]), own.questions([*map(image_set.pixels, POSITIONS)])
        assert [torch.equal(found[key], tensor) for key, tensor in anew.items()] == [True] * len(found)


@each_family
def test_the_order_with_irrelevant_text_moves_the_image_as_far_as_the_question_does(tiny, image_set):
    """By tokens: the image begins at the same place as with the question first."""
    begins = []
    for order in ("question_first", "irrelevant_first"):
        inputs = Encoder(tiny.processor, image_set.card.template, order).questions([image_set.pixels(0)])
        begins.append(int(tiny.family.image_mask(inputs)[0].int().argmax()))
    assert begins[0] == begins[1] > 10
    with pytest.raises(InputError, match=r"has \d+ tokens, and the irrelevant passage .* shorten the question"):
        Encoder(tiny.processor, "<image> " + PASSAGE * 2, "irrelevant_first")


def test_an_answer_is_written_as_the_template_writes_it(tiny, image_set):
    """With the space before it, and the tokenizer's end token where the template writes none."""
    tiny.processor.chat_template = VICUNA
    encoder = Encoder(tiny.processor, image_set.card.template)
    assert encoder.prompt.startswith("USER: <|image_pad|>")
    (tokens,) = encoder.answer_tokens(["Benign"])
    assert encoder.tokenizer.decode(tokens[:-1]) == " Benign"
    assert tokens[-1] == encoder.tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("template", "order", "said"),
    [  # where an answer begins right behind the image, the last token is read without it
        ("{% for message in messages %}" + TEXTS + FIRST + "{% endfor %}", "question_first", "nothing after the image"),
        (VICUNA.replace("part.text }}", "part.text | upper }}"), "image_first", "does not write the question as it is"),
        (VICUNA.replace(FIRST, ""), "image_first", r"writes '<\|image_pad\|>' 0 times for 1 image: give the model a"),
        ("{{ raise_exception('only text') }}", "image_first", FAILS),
        (OF_STRINGS, "image_first", FAILS),
        (VICUNA, "question_first", "an order of its own, not question_first"),
        (VICUNA, "irrelevant_first", "an order of its own, not irrelevant_first"),
    ],
)
def test_templates_of_no_use_are_errors(tiny, image_set, template, order, said):
    tiny.processor.chat_template = template
    with pytest.raises(InputError, match=said):
        Encoder(tiny.processor, image_set.card.template, order)


def test_killed_run_goes_on_from_its_shards(tiny, encoder, image_set, tmp_path, monkeypatch):
    unbroken, probabilities = predicted(tiny, encoder, image_set, tmp_path)
    seen = killed_after(5, monkeypatch)
    with pytest.raises(Killed):
        predicted(tiny, encoder, image_set, tmp_path)
    answers, again = predicted(tiny, encoder, image_set, tmp_path)
    assert seen == [5]  # the first shard of five was not done again
    assert answers.equals(unbroken)
    np.testing.assert_array_equal(again, probabilities)
    assert not list(tmp_path.iterdir())
