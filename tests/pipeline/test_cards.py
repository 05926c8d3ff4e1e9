"""Cards, and what a book runs over: what is wrong is words with file, field and mend; shipped ones hold the paper's."""

import os
import re
import shutil

import pytest
import yaml
from filelock import FileLock
from transformers.utils.chat_template_utils import render_jinja_template

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline import artefacts, cards, jobs
from mlprobe_utils.pipeline.cards import DataCard, ModelCard, Protocol, load_data_card, load_model_card, load_protocol
from mlprobe_utils.pipeline.configuration import Run, configure, lineages, load_book
from mlprobe_utils.synthetic.miniatures.recipe import recipe_of

MISSING = object()
SHIPPED = [(kind, slug) for kind in (DataCard, ModelCard, Protocol) for slug in cards.slugs(kind)]
# word for word from appendix A of the paper (arXiv 2604.08333v1), its typographic apostrophes made plain
YES_NO = "<image> Carefully examine the image to determine if there is {} present. Please answer 'Yes' or 'No'."
TEMPLATES = {"covid19-ct": YES_NO.format("COVID"), "chest-xray": YES_NO.format("pneumonia")}
TEMPLATES["busi"] = (
    "<image> Carefully examine the image to determine the diagnostic result for breast cancer. "
    "Please answer 'Normal', 'Benign', or 'Malignant'."
)
WRONG_VALUES = {
    Protocol: {
        "fine_tuning.epochs": ["20", 2.5, True, 0],
        "fine_tuning.learning_rate": ["1e-4", 1.5, float("nan")],
        "splits.seed": [None],
        "order": ["image-first"],
        "probe_variants": [{"linear": {"kind": "quadratic"}}, {"linear": 3}],
    },
    ModelCard: {"parameters": ["8.29B"], "vision_tower": [""], "training_stages": [[]], "device_map": ["cuda"]},
    DataCard: {"release_counts": [{"all": {"benign": 0}}], "classes": [[{"name": "normal", "option": "Normal"}]]},
}
ANY = {Protocol: "paper", ModelCard: "lingshu-7b-miniature", DataCard: "busi"}


def changed(kind, slug, place: str, value) -> dict:
    """The content of a card with a value at a place (`classes.1.option`), or without it for MISSING."""
    at = content = yaml.safe_load(cards.card_path(kind, slug).read_text())
    *parents, last = (int(part) if part.isdigit() else part for part in place.split("."))
    for part in parents:
        at = at[part]
    at[last] = value
    if value is MISSING:
        del at[last]
    return content


def refusal(tmp_path, kind, content: dict | str | bytes) -> str:
    """The error of a card with this content; it always names the file."""
    path = tmp_path / "mine.yml"
    text = yaml.safe_dump(content, sort_keys=False) if isinstance(content, dict) else content
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        cards.parse_card(kind, path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("kind", "slug"), SHIPPED)
def test_shipped_card_loads(kind, slug):
    card = cards.load_card(kind, slug)
    assert card.slug == slug
    if kind is ModelCard and card.is_miniature:
        assert recipe_of(card).stages or card.is_untrained
        assert card.base is None or load_model_card(card.base).recipe["architecture"]


@pytest.mark.parametrize(("slug", "size"), [("busi", 150), ("covid19-ct", 203), ("chest-xray", 624)])
def test_templates_and_sizes_of_test_sets_are_the_papers(slug, size):
    for card in (load_data_card(slug), load_data_card(f"{slug}-phantom")):
        assert card.template == TEMPLATES[slug]
        assert re.findall(r"'(\w+)'", card.template) == card.options
        back, *others = card.other_prompts.values()
        assert re.findall(r"'(\w+)'", back) == card.options[::-1]
        assert [re.findall(r"'(\w+)'", other) for other in others] == [card.options] * 2
        assert sum((card.test_counts or card.release_counts["test"]).values()) == size


def test_the_papers_protocol_is_the_papers():
    """Section 3.2."""
    protocol = load_protocol("paper")
    tuning, probe = protocol.fine_tuning, protocol.probe
    assert (tuning.rank, tuning.alpha, tuning.learning_rate, tuning.warmup_ratio) == (8, 32, 1e-4, 0.05)
    assert (tuning.epochs, tuning.batch_size, tuning.runs, tuning.vision_tower) == (20, 4, 2, "lora")
    assert (probe.dropout, protocol.health.penalty, protocol.order) == (0.1, 0.2, "image_first")


def test_probe_variant_is_the_probe_but_for_the_fields_that_it_names(tmp_path):
    variants = {"linear": {"kind": "linear"}, "long": {"epochs": 99, "learning_rate": 1}}  # a whole number serves too
    path = tmp_path / "mine.yml"
    path.write_text(yaml.safe_dump(changed(Protocol, "paper", "probe_variants", variants)))
    protocol = cards.parse_card(Protocol, path)
    complete = {name: protocol.probe.model_copy(update=own) for name, own in variants.items()}
    assert protocol.probes == {"main": protocol.probe} | complete


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [(kind, place, value) for kind, own in WRONG_VALUES.items() for place, values in own.items() for value in values],
)
def test_wrong_type_or_range_names_field_and_value(tmp_path, kind, place, value):
    message = refusal(tmp_path, kind, changed(kind, ANY[kind], place, value))
    assert re.search(rf"{place}[\w.]*: ", message)
    if not isinstance(value, dict | list):
        assert f"(found {value!r})" in message


@pytest.mark.parametrize(
    ("kind", "place", "value", "words"),
    [
        (Protocol, "zzz", 1, "unknown key 'zzz'; known: title, order, images"),
        (Protocol, "slug", "other", "remove the key 'slug'"),
        (Protocol, "fine_tuning.epoch", 1, "unknown key 'fine_tuning.epoch', did you mean 'epochs'?"),
        (Protocol, "probe.hidden", MISSING, "the key 'probe.hidden' is missing"),
        (Protocol, "probe_variants", {"a": {"knid": "linear"}}, "key 'probe_variants.a.knid', did you mean 'kind'?"),
        (Protocol, "probe_variants", {"main": {}}, "'main' is reserved for `probe` itself"),
        (Protocol, "fine_tuning.runs", 1, "vision_training.runs 2 is more than fine_tuning.runs 1"),
        (DataCard, "classes.1.name", "malignant", "two classes have the name 'malignant'"),
        (DataCard, "classes.1.option", "MALIGNANT", "'MALIGNANT' and 'Malignant' cannot be distinguished in an answer"),
        (DataCard, "template", "<image> <image> What is it?", "the question has <image> 2 times: write it once"),
        (DataCard, "template", "<image> Normal or benign?", "template does not name the option 'Malignant'"),
        (DataCard, "paraphrases", ["Normal?"], "paraphrase 'Normal?': the question has <image> 0 times"),
        (DataCard, "paraphrases", ["<image> Normal?"], "'<image> Normal?' does not name the option 'Benign'"),
        (DataCard, "layout", "folder", "test_counts are of the layouts of releases: a folder has test_fraction"),
        (DataCard, "positive", "malignant", "positive is 'malignant', which is not an option ['Normal', 'Benign',"),
        (DataCard, "test_counts", {"nomal": 1}, "test_counts names the class 'nomal'"),
        (ModelCard, "base", "Qwen/Qwen2-7B", "base is 'Qwen/Qwen2-7B', a hub id: miniatures are based on miniatures"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path, kind, place, value, words):
    message = refusal(tmp_path, kind, changed(kind, ANY[kind], place, value))
    assert words in message
    assert message.count("unknown key") <= 1


def test_file_that_is_no_card(tmp_path):
    for text, words in (
        ("title: [", "is not valid YAML"),
        (b"title: \xff\xfe\xff", "is not valid YAML"),
        ("", "must hold keys and values, found NoneType"),
        ("!!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("title: a\nprobe:\n  epochs: 20\n  epochs: 2\n", "the key 'epochs' is given twice"),
    ):
        assert words in refusal(tmp_path, Protocol, text)


def test_slug_is_the_files_name(tmp_path):
    path = shutil.copy(cards.card_path(ModelCard, "lingshu-7b-miniature"), tmp_path / "My_model-2.5.yml")
    assert cards.parse_card(ModelCard, path).slug == "My_model-2.5"
    with pytest.raises(InputError, match=r"my model#1\.yml: rename it"):
        cards.parse_card(ModelCard, path.rename(tmp_path / "my model#1.yml"))


def test_a_chat_template_for_a_checkpoint_without_one_is_the_authors():
    """HuatuoGPT-Vision-34B ships none; its authors' code writes turns as plain text."""
    question = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which is it?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]}
    template = load_model_card("huatuogpt-vision-34b").chat_template
    turn = "<|user|>\n<image>\nWhich is it?\n"
    for messages, prompt, expected in [([question], True, ""), ([question, answer], False, "Yes</s>")]:
        options = {"chat_template": template, "add_generation_prompt": prompt, "eos_token": "</s>"}
        assert render_jinja_template([messages], **options)[0] == [f"{turn}<|assistant|>\n{expected}"]


def test_unknown_slug_names_the_nearest():
    for loader, slug, words in (
        (load_data_card, "buzi", "data set 'buzi': did you mean 'busi'.* A card of your own goes to data/datasets"),
        (load_protocol, "xyz", "protocol 'xyz': Known: miniature, paper. A card of your own goes to data/protocols"),
        (load_protocol, "../protocols/paper", "unknown protocol '../protocols/paper'"),
    ):
        with pytest.raises(InputError, match=words):
            loader(slug)


@pytest.mark.parametrize(
    ("slug", "fields", "words"),
    [
        ("lingshu-7b-miniature", {"recipe": None}, "is no miniature: its card has no recipe"),
        ("lingshu-7b-miniature", {"base": None}, "give either a base or recipe.architecture"),
        ("lingshu-7b-miniature", {"recipe": {"seed": 1, "stage": []}}, "recipe 'stage': did you mean 'stages'"),
        ("qwen2.5-vl-7b-miniature", {"family": None}, "say of which family its class is"),
    ],
)
def test_recipe_of_a_miniature(slug, fields, words):
    with pytest.raises(InputError, match=rf"{slug}.*{words}"):
        recipe_of(load_model_card(slug).model_copy(update=fields))


def test_data_sets_follow_the_data_and_models_are_those_of_the_books_card_or_all(tmp_path):
    book, run = load_book(), configure([], [], "miniature", "paper", "")
    assert all(slug.endswith("-phantom") for slug in run.datasets)
    assert run.models == tuple(book.models)
    assert book.planted_faults.model in run.models
    assert configure(["all"], [], "miniature", "paper", "").models == tuple(book.all)
    real = configure([], [], "miniature", "paper", str(tmp_path))
    assert (real.datasets, real.data) == (("busi", "chest-xray", "covid19-ct"), str(tmp_path))


def test_a_relative_folder_starts_at_the_projects_root_wherever_it_is_read(tmp_path, monkeypatch):
    """As a chapter reads it, whose directory is notebooks/; and no page has to name a home directory."""
    monkeypatch.chdir(tmp_path)
    for data, folder in (("data", artefacts.ROOT / "data"), (str(tmp_path), tmp_path)):
        run = configure([], ["busi"], "miniature", "paper", data)
        assert (run.data, run.parameters()["data"]) == (str(folder), os.path.relpath(folder, artefacts.ROOT))
        assert configure(**run.parameters()) == run


def test_a_base_is_made_before_what_is_adapted_from_it():
    models = ("lingshu-7b-miniature", "medvlm-r1-miniature", "shizhengpt-7b-vl-miniature", "lingshu-7b")
    assert lineages(models) == {
        "qwen2.5-vl-7b-miniature": ["qwen2.5-vl-7b-miniature", "lingshu-7b-miniature", "shizhengpt-7b-vl-miniature"],
        "qwen2-vl-2b-miniature": ["qwen2-vl-2b-miniature", "medvlm-r1-miniature"],
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(models=["al"]), "unknown model 'al': did you mean 'all'"),
        (dict(models=["all", "lingshu-7b"]), "MODELS.* give it alone"),
        (dict(models=["lingshu-7b", "lingshu-7b"]), "MODELS names 'lingshu-7b' twice"),
        (dict(datasets=["busi-phantom"] * 2), "DATASETS names 'busi-phantom' twice"),
        (dict(datasets=["busi"]), "'busi'.*DATA=.*busi-phantom"),
        (dict(split_rule="offical"), "unknown split.*clean"),
        (dict(data="/no/such/folder"), "DATA.*/no/such/folder.*data/README.md"),
    ],
)
def test_a_wrong_request_names_itself_and_the_mend(arguments, words):
    request = dict(models=[], datasets=[], protocol="miniature", split_rule="paper", data="") | arguments
    with pytest.raises(InputError, match=words):
        configure(**request)


@pytest.mark.parametrize("jobs", ["0", "many", "1.5", ""])
def test_a_wrong_number_of_processes_is_refused_before_anything_starts(outputs, error_of, jobs):
    assert f"JOBS={jobs}: give the number of processes" in error_of("book", f"--jobs={jobs}")
    assert not outputs.exists()


def test_two_runs_in_one_checkout_do_not_meet(outputs, error_of):
    outputs.mkdir()
    with FileLock(outputs / ".make_book.lock"):
        assert "another `make book` is working" in error_of("book")
    assert not (outputs / "run.json").exists()


@pytest.fixture
def alone(tmp_path, monkeypatch):
    monkeypatch.delenv("MLPROBE_PREPARED", raising=False)
    monkeypatch.setenv("MLPROBE_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(artefacts, "OUTPUTS", tmp_path)


PHANTOM = Run((), ("busi-phantom",), "miniature", "paper", "")


def test_a_phantom_is_drawn_and_its_manifest_made_once(alone, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("MLPROBE_PREPARED", "1")  # as `make book` has it
        jobs.prepare(PHANTOM)
    assert not (tmp_path / "phantoms").exists()
    jobs.prepare(PHANTOM)
    assert (tmp_path / "phantoms" / "busi-phantom" / "Dataset_BUSI_with_GT").is_dir()
    assert (tmp_path / "miniature" / "busi-phantom" / "data" / "manifest.parquet").is_file()
    monkeypatch.setattr(jobs.subprocess, "Popen", lambda *_, **__: pytest.fail("a process"))
    jobs.prepare(PHANTOM)


def test_models_are_looked_at_before_anything_runs_but_for_those_made_here(alone, own_cards, tmp_path, monkeypatch):
    """Through the command: the error of a card's source is the one message."""
    monkeypatch.setenv("MLPROBE_CARDS", str(own_cards))
    jobs.look_at(["lingshu-7b-miniature"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"architectures": ["Strange"]}')
    (own_cards / "models" / "mine.yml").write_text(f"name: Mine\nsource: {tmp_path / 'mine'}\n")
    with pytest.raises(InputError, match=r"^model card 'mine': it has no vision part"):
        jobs.look_at(["mine"])
