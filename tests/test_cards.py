"""Cards: what is wrong with one is said with file, field and mend; the shipped ones hold what the paper prints."""

import re
import shutil

import pytest
import yaml
from transformers.utils.chat_template_utils import render_jinja_template

from mlprobe_utils import cards
from mlprobe_utils.card_files import parse_card
from mlprobe_utils.cards import (
    DataCard,
    ModelCard,
    Protocol,
    load_data_card,
    load_model_card,
    load_protocol,
    slugs,
)
from mlprobe_utils.errors import InputError
from mlprobe_utils.miniatures.recipe import recipe_of

FOLDERS = {DataCard: "datasets", ModelCard: "models", Protocol: "protocols"}
SHIPPED = [(kind, slug) for kind in FOLDERS for slug in slugs(kind)]
PAPERS_MODELS = [slug for slug in slugs(ModelCard) if not load_model_card(slug).is_miniature]
# word for word from appendix A of the paper (arXiv 2604.08333v1), its typographic apostrophes made plain
TEMPLATES = {
    "busi": "<image> Carefully examine the image to determine the diagnostic result for breast cancer. "
    "Please answer 'Normal', 'Benign', or 'Malignant'.",
    "covid19-ct": "<image> Carefully examine the image to determine if there is COVID present. "
    "Please answer 'Yes' or 'No'.",
    "chest-xray": "<image> Carefully examine the image to determine if there is pneumonia present. "
    "Please answer 'Yes' or 'No'.",
}


def content_of(kind, slug) -> dict:
    return yaml.safe_load(cards.card_path(kind, slug).read_text())


def refusal(tmp_path, kind, content: dict | str | bytes) -> str:
    """What is said of a card with this content; it always names the file."""
    path = tmp_path / "mine.yml"
    text = yaml.safe_dump(content, sort_keys=False) if isinstance(content, dict) else content
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        parse_card(kind, path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("kind", "slug"), SHIPPED)
def test_shipped_card_loads(kind, slug):
    loader = {DataCard: load_data_card, ModelCard: load_model_card, Protocol: load_protocol}[kind]
    card = loader(slug)
    assert card.slug == slug
    assert loader(slug) is card
    if kind is ModelCard and card.is_miniature:
        assert recipe_of(card).stages or card.is_untrained
        assert card.base is None or load_model_card(card.base).recipe["architecture"]


def test_there_are_cards_of_every_kind():
    assert {"paper", "miniature"} <= set(slugs(Protocol))
    assert set(TEMPLATES) | {f"{slug}-phantom" for slug in TEMPLATES} <= set(slugs(DataCard))
    assert "lingshu-7b-miniature" in slugs(ModelCard)
    assert len(PAPERS_MODELS) == 16


@pytest.mark.parametrize("slug", TEMPLATES)
def test_templates_are_the_papers(slug):
    for card in (load_data_card(slug), load_data_card(f"{slug}-phantom")):
        assert card.template == TEMPLATES[slug]
        assert re.findall(r"'(\w+)'", card.template) == card.options


def test_phantoms_test_sets_keep_the_papers_size():
    for slug, size in {"busi": 150, "covid19-ct": 203, "chest-xray": 624}.items():
        for card in (load_data_card(slug), load_data_card(f"{slug}-phantom")):
            assert sum((card.test_counts or card.release_counts["test"]).values()) == size


def test_the_papers_protocol_is_the_papers():
    """Section 3.2."""
    protocol = load_protocol("paper")
    tuning, probe = protocol.fine_tuning, protocol.probe
    assert (tuning.rank, tuning.alpha, tuning.learning_rate, tuning.warmup_ratio) == (8, 32, 1e-4, 0.05)
    assert (tuning.epochs, tuning.batch_size, tuning.runs, tuning.vision_tower) == (20, 4, 2, "lora")
    assert (probe.dropout, protocol.health.penalty, protocol.order) == (0.1, 0.2, "image_first")


@pytest.mark.parametrize(
    ("kind", "slug", "where", "typo", "mend"),
    [
        (Protocol, "paper", (), "extractoin", "unknown key 'extractoin', did you mean 'extraction'?"),
        (Protocol, "paper", ("fine_tuning",), "epoch", "unknown key 'fine_tuning.epoch', did you mean 'epochs'?"),
        (Protocol, "paper", ("probe",), "learning_rat", "'probe.learning_rat', did you mean 'learning_rate'?"),
        (DataCard, "busi", (), "templates", "unknown key 'templates', did you mean 'template'?"),
        (DataCard, "busi", ("classes", 1), "optoin", "unknown key 'classes.1.optoin', did you mean 'option'?"),
        (ModelCard, "lingshu-7b-miniature", (), "famly", "unknown key 'famly', did you mean 'family'?"),
    ],
)
def test_typo_in_a_key_names_the_key_and_the_near_one(tmp_path, kind, slug, where, typo, mend):
    content = content_of(kind, slug)
    place = content
    for step in where:
        place = place[step]
    place[typo] = 1
    message = refusal(tmp_path, kind, content)
    assert mend in message
    assert message.count("unknown key") == 1


def test_probe_variant_is_the_probe_but_for_the_fields_that_it_names(tmp_path):
    content = content_of(Protocol, "paper")
    content["probe_variants"] = {"linear": {"kind": "linear"}, "long": {"epochs": 99, "standardised": False}}
    path = tmp_path / "mine.yml"
    path.write_text(yaml.safe_dump(content))
    protocol = parse_card(Protocol, path)
    assert list(protocol.probes) == ["main", "linear", "long"]
    assert protocol.probes["linear"] == protocol.probe.model_copy(update={"kind": "linear"})
    assert protocol.probes["long"] == protocol.probe.model_copy(update={"epochs": 99, "standardised": False})


@pytest.mark.parametrize(
    ("variants", "mend"),
    [
        ({"linear": {"knid": "linear"}}, "unknown key 'probe_variants.linear.knid', did you mean 'kind'?"),
        ({"linear": {"kind": "quadratic"}}, "probe_variants.linear.kind"),
        ({"linear": 3}, "probe_variants.linear"),
        ({"main": {}}, "'main' is the name of `probe` itself"),
    ],
)
def test_probe_variant_that_is_wrong_is_named(tmp_path, variants, mend):
    assert mend in refusal(tmp_path, Protocol, content_of(Protocol, "paper") | {"probe_variants": variants})


def test_a_tower_is_not_trained_with_more_seeds_than_the_model_that_it_is_compared_with(tmp_path):
    content = content_of(Protocol, "paper")
    content["fine_tuning"]["runs"] = 1
    assert "vision_training.runs 2 is more than fine_tuning.runs 1" in refusal(tmp_path, Protocol, content)


def test_key_like_no_other_lists_the_known_ones(tmp_path):
    message = refusal(tmp_path, Protocol, content_of(Protocol, "paper") | {"zzz": 1})
    assert "unknown key 'zzz'; known: title, order, images" in message


def test_missing_key_is_named(tmp_path):
    content = content_of(Protocol, "paper")
    del content["probe"]["hidden"], content["health"]
    message = refusal(tmp_path, Protocol, content)
    assert "the key 'probe.hidden' is missing" in message
    assert "the key 'health' is missing" in message


def spoiled(kind, slug, path: str, value) -> dict:
    content = content_of(kind, slug)
    *parents, last = path.split(".")
    place = content
    for part in parents:
        place = place[int(part) if part.isdigit() else part]
    place[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("fine_tuning.epochs", "20"),
        ("fine_tuning.epochs", 2.5),
        ("fine_tuning.epochs", True),
        ("fine_tuning.epochs", 0),
        ("fine_tuning.learning_rate", "1e-4"),
        ("fine_tuning.learning_rate", 0),
        ("fine_tuning.learning_rate", 1.5),
        ("fine_tuning.learning_rate", float("nan")),
        ("fine_tuning.dropout", 1.0),
        ("fine_tuning.weight_decay", -0.1),
        ("fine_tuning.precision", "float16"),
        ("fine_tuning.gradient_checkpointing", "yes"),
        ("splits.seed", None),
        ("splits.validation_fraction", 0),
        ("health.penalty", 0),
        ("order", "image-first"),
        ("images.square_side", 0),
    ],
)
def test_wrong_type_or_range_names_field_and_value(tmp_path, path, value):
    message = refusal(tmp_path, Protocol, spoiled(Protocol, "paper", path, value))
    assert f"{path}: " in message
    shown = "NaN" if value != value else repr(value)
    assert f"(found {shown.replace('NaN', 'nan')})" in message


def test_whole_number_serves_as_a_fraction(tmp_path):
    path = tmp_path / "mine.yml"
    path.write_text(yaml.safe_dump(spoiled(Protocol, "paper", "fine_tuning.learning_rate", 1)))
    assert parse_card(Protocol, path).fine_tuning.learning_rate == 1.0


def test_unquoted_yes_is_told_from_text(tmp_path):
    text = cards.card_path(DataCard, "covid19-ct").read_text().replace('option: "Yes"', "option: Yes")
    message = refusal(tmp_path, DataCard, text)
    assert "classes.0.option: " in message
    assert "found True" in message


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"template": "What is it?"}, "template must hold <image> exactly once"),
        ({"template": "<image> <image> What is it?"}, "template must hold <image> exactly once"),
        (
            {"positive": "malignant"},
            "positive is 'malignant', which is not an option ['Normal', 'Benign', 'Malignant']",
        ),
        ({"test_counts": {"nomal": 1}}, "test_counts names the class 'nomal'"),
        ({"release_counts": {"all": {"Benign": 1}}}, "release_counts names the class 'Benign'"),
        ({"release_counts": {"all": {"benign": 0}}}, "release_counts.all.benign: "),
        ({"classes": [{"name": "normal", "option": "Normal"}]}, "classes: "),
        ({"layout": "buzi"}, "layout: Input should be 'busi', 'covid-ct' or 'chest-xray'"),
    ],
)
def test_data_card_that_contradicts_itself(tmp_path, changed, said):
    assert said in refusal(tmp_path, DataCard, content_of(DataCard, "busi") | changed)


@pytest.mark.parametrize("field", ["name", "option"])
def test_classes_that_cannot_be_told_apart(tmp_path, field):
    content = content_of(DataCard, "busi")
    content["classes"][1][field] = content["classes"][2][field]
    message = refusal(tmp_path, DataCard, content)
    assert f"two classes have the {field} '{content['classes'][2][field]}'" in message


def test_options_that_differ_in_case_only_cannot_be_told_apart(tmp_path):
    content = content_of(DataCard, "busi")
    content["classes"][1]["option"] = "MALIGNANT"
    assert "two classes have the option" in refusal(tmp_path, DataCard, content)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: [", "is not valid YAML"),
        ("title: a\n\torder: b", "is not valid YAML"),
        (b"title: \xff\xfe\xff", "is not valid YAML"),
        ("", "must hold keys and values, found NoneType"),
        ("- title", "must hold keys and values, found list"),
        ("title", "must hold keys and values, found str"),
        ("!!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("title: a\ntitle: b\n", "the key 'title' is given twice"),
    ],
)
def test_file_that_is_no_card(tmp_path, text, said):
    assert said in refusal(tmp_path, Protocol, text)


def test_nested_key_given_twice(tmp_path):
    text = cards.card_path(Protocol, "paper").read_text().replace("  epochs: 20\n", "  epochs: 20\n  epochs: 2\n", 1)
    assert "the key 'epochs' is given twice" in refusal(tmp_path, Protocol, text)


def test_slug_is_the_files_name_and_nothing_else(tmp_path):
    message = refusal(tmp_path, Protocol, content_of(Protocol, "paper") | {"slug": "other"})
    assert "slug" in message
    path = shutil.copy(cards.card_path(Protocol, "paper"), tmp_path / "mine.yml")
    assert parse_card(Protocol, path).slug == "mine"


def test_file_whose_name_is_no_slug(tmp_path):
    path = shutil.copy(cards.card_path(ModelCard, "lingshu-7b-miniature"), tmp_path / "my model#1.yml")
    with pytest.raises(InputError, match=r"my model#1\.yml: rename it"):
        parse_card(ModelCard, path)
    path = shutil.copy(path, tmp_path / "My_model-2.5.yml")
    assert parse_card(ModelCard, path).slug == "My_model-2.5"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("parameters", "8.29B"),
        ("parameters", 0),
        ("vision_tower", ""),
        ("llm", 7),
        ("training_stages", "aligned"),
        ("training_stages", []),
        ("licence", True),
        ("gated", "yes"),
        ("precision", "float16"),
        ("max_pixels", 0),
        ("attention", "flash"),
        ("device_map", "cuda"),
        ("chat_template", ""),
        ("architecture", ""),
    ],
)
def test_what_a_model_is_is_checked(tmp_path, field, value):
    content = {"name": "Mine", "source": "me/mine", field: value}
    assert f"{field}: " in refusal(tmp_path, ModelCard, content)


def test_a_miniature_is_made_from_another_card(tmp_path):
    content = content_of(ModelCard, "lingshu-7b-miniature") | {"base": "Qwen/Qwen2.5-VL-7B-Instruct"}
    assert "base is 'Qwen/Qwen2.5-VL-7B-Instruct', a hub id" in refusal(tmp_path, ModelCard, content)


@pytest.mark.parametrize("slug", PAPERS_MODELS)
def test_the_papers_models_say_how_their_weights_are_read(slug):
    card = load_model_card(slug)
    assert card.precision == "bfloat16"
    assert card.gated == card.source.startswith("google/")
    # LLaVA and Gemma 3 read every image at one size
    assert card.max_pixels == (512 * 512 if card.family in ("qwen2_vl", "qwen2_5_vl", "hulu_med") else None)
    assert (card.device_map == "auto") == (card.parameters > 20e9)


def test_a_chat_template_for_a_checkpoint_without_one_is_the_authors():
    """HuatuoGPT-Vision-34B ships none; its authors' code writes turns as plain text."""
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which is it?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]}
    template = load_model_card("huatuogpt-vision-34b").chat_template
    asked = "<|user|>\n<image>\nWhich is it?\n"
    for messages, prompt, expected in [
        ([question], True, f"{asked}<|assistant|>\n"),
        ([question, answer], False, f"{asked}<|assistant|>\nYes</s>"),
    ]:
        (rendered,), _ = render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=prompt, eos_token="</s>"
        )
        assert rendered == expected


def test_every_field_of_a_model_card_says_what_it_is():
    fields = {name: field.description for name, field in ModelCard.model_fields.items() if name != "slug"}
    assert all(fields.values()), fields


@pytest.mark.parametrize(
    ("loader", "slug", "said"),
    [
        (load_data_card, "buzi", "unknown data set 'buzi': did you mean 'busi'?"),
        (load_data_card, "chest_xray", "did you mean 'chest-xray'?"),
        (
            load_model_card,
            "lingshu-7b-minature",
            "unknown model 'lingshu-7b-minature': did you mean 'lingshu-7b-miniature'?",
        ),
        (load_protocol, "papr", "unknown protocol 'papr': did you mean 'paper'?"),
        (load_protocol, "xyz", "unknown protocol 'xyz': Known: miniature, paper."),
        (load_protocol, "../protocols/paper", "unknown protocol '../protocols/paper'"),
    ],
)
def test_unknown_slug_names_the_nearest(loader, slug, said):
    with pytest.raises(InputError) as caught:
        loader(slug)
    assert said in str(caught.value)
    assert "A card of your own goes to data/" in str(caught.value)


def test_content_hash_is_of_every_value(tmp_path):
    path = tmp_path / "paper.yml"
    seen = {load_protocol("paper").content_hash}
    for place, value in (("title", "x"), ("probe.hidden", 3), ("splits.seed", 9), ("images.square_side", 64)):
        path.write_text(yaml.safe_dump(spoiled(Protocol, "paper", place, value)))
        seen.add(parse_card(Protocol, path).content_hash)
    assert len(seen) == 5
    path.write_text("# a comment\n" + yaml.safe_dump(content_of(Protocol, "paper"), sort_keys=True))
    assert parse_card(Protocol, path).content_hash in seen


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"recipe": None}, "is no miniature: its card has no recipe"),
        ({"base": None}, "give either a base or recipe.architecture"),
        ({"recipe": {"seed": 1}}, "recipe.stages: "),
        ({"recipe": {"seed": 1, "stage": []}}, "recipe.stage: "),
    ],
)
def test_recipe_of_a_miniature(changed, said):
    card = load_model_card("lingshu-7b-miniature").model_copy(update=changed)
    with pytest.raises(InputError) as caught:
        recipe_of(card)
    assert said in str(caught.value)
    assert "lingshu-7b-miniature" in str(caught.value)


def test_architecture_of_a_miniature_is_of_a_family():
    card = load_model_card("qwen2.5-vl-7b-miniature").model_copy(update={"family": None})
    with pytest.raises(InputError, match=r"qwen2\.5-vl-7b-miniature\.yml: say of which family its class is"):
        recipe_of(card)
