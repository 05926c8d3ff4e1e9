"""Models of the hub: what a card with a hub id loads, at which commit, and what is said where it cannot be had."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from browser import serve
from safetensors.torch import load_file, save_file
from small_hub import Handler, SmallHub
from tiny_parts import card_of, edit, logits_of, refusal

from mlprobe_utils.models import identity
from mlprobe_utils.models.loading import load, load_processor, look_at
from mlprobe_utils.pipeline.cards import ModelCard, load_model_card, slugs

NAME = "some/model"
new_process = identity._resolved.cache_clear


@pytest.fixture(scope="module")
def server():
    hub = SmallHub()
    with serve(handler=type("Handler", (Handler,), {"hub": hub})) as hub.address:
        yield hub


@pytest.fixture
def hub(server, monkeypatch, tmp_path):
    """A hub without repositories, and an empty cache."""
    server.repositories.clear()
    server.asked.clear()
    server.redirect(monkeypatch, tmp_path / "cache")
    return server


@pytest.fixture
def repository(hub, copied):
    """A repository whose only commit is a checkpoint that a test may spoil."""
    return hub.repository(NAME, copied)


@pytest.fixture(params=["refused", "HF_HUB_OFFLINE"])
def disconnect(request, hub, monkeypatch, tmp_path):
    """Cuts the connection, and lets what comes then be another process."""

    def cut():
        if request.param == "refused":
            hub.redirect(monkeypatch, tmp_path / "cache", "http://127.0.0.1:9")  # nobody listens
        else:
            monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        new_process()

    return cut


def next_commit(repository, copied):
    """The folder of a commit with other weights, tokens and configuration than the first."""
    folder = shutil.copytree(copied, copied.with_name("next"))
    weights = {key: tensor * 0.5 for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    template = folder / "chat_template.jinja"
    template.write_text("{#- of the next commit #}" + template.read_text())
    return folder


def test_identity_is_the_commit_that_a_revision_stands_for_if_there_is_one(repository, copied):
    first = repository.push(next_commit(repository, copied), "v1.0")
    main = repository.names["main"]
    repository.push(copied, "odd/branch")
    assert identity.identity_of(card_of(NAME)) == main
    wanted = {"main": main, "v1.0": first, "odd/branch": repository.names["odd/branch"], first[:8]: first, first: first}
    for revision, commit in wanted.items():
        assert identity.identity_of(card_of(NAME, revision=revision)) == commit
    assert len(set(wanted.values())) == 3
    for revision in ("v2", "0" * 40):
        assert f"cannot read '{NAME}': it has no revision '{revision}'" in refusal(card_of(NAME, revision=revision))


def test_a_process_stays_on_the_commit_that_it_began_with(hub, repository, copied, tiny, image_set):
    before = identity.identity_of(card_of(NAME))
    after = repository.push(next_commit(repository, copied))
    expected = logits_of(tiny, image_set)
    assert torch.equal(logits_of(load(card_of(NAME)), image_set), expected)
    assert identity.identity_of(card_of(NAME)) == before
    assert {revision for revision, _ in hub.files_asked()} == {before}
    new_process()
    assert load(card_of(NAME)).processor.chat_template.startswith("{#- of the next commit")
    assert identity.identity_of(card_of(NAME)) == after
    new_process()
    assert torch.equal(logits_of(load(card_of(NAME, revision=before[:10])), image_set), expected)


@pytest.mark.parametrize(
    ("disconnect", "named"), [("refused", False), ("HF_HUB_OFFLINE", True)], indirect=["disconnect"]
)
def test_a_loaded_model_needs_no_connection_afterwards(repository, disconnect, tiny, image_set, named):
    card = card_of(NAME, revision=repository.names["main"][:10] if named else None)
    load(card)
    disconnect()
    assert torch.equal(logits_of(load(card), image_set), logits_of(tiny, image_set))
    assert identity.identity_of(card) == repository.names["main"]


@pytest.mark.parametrize("slug", [slug for slug in slugs(ModelCard) if not load_model_card(slug).made_by])
def test_every_card_of_the_hub_can_be_asked_for(hub, slug):
    """A card of many fields, some of them lists, is no other than one of three lines: what it misses is the model."""
    card = load_model_card(slug)
    for function in (identity.identity_of, load):
        missing = f"cannot read '{card.source}': there is no https://huggingface.co/{card.source}: correct the source"
        # of a gated one the hub denies to have it
        assert ("it is gated: accept its terms" if card.gated else missing) in refusal(card, function)


def test_without_a_connection_or_a_copy(repository, disconnect):
    disconnect()
    for function in (identity.identity_of, load_processor, load):
        message = refusal(card_of(NAME), function)
        assert f"model card 'mine': cannot read '{NAME}': the hub cannot be reached" in message
        assert "give a folder as source" in message


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model_says_what_to_do(repository, status):
    repository.gate = status
    assert identity.identity_of(card_of(NAME)) == repository.names["main"]  # the hub hides files, not commits
    for function in (load_processor, load):
        message = refusal(card_of(NAME), function)
        assert f"accept its terms at https://huggingface.co/{NAME}, then `hf auth login`" in message


def test_pickled_weights_are_not_fetched(hub, repository, copied):
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    message = refusal(card_of(NAME))
    assert f"cannot read '{NAME}': weights are read from safetensors only" in message
    assert not [path for _, path in hub.files_asked() if path.endswith(".bin")]


@pytest.mark.parametrize("family", ["hulu_med"], indirect=True)
def test_remote_code_is_neither_fetched_nor_run(hub, repository, copied, tiny, image_set):
    own = json.loads((copied / "config.json").read_text())["auto_map"]
    edit(copied / "config.json", auto_map=own | {"AutoConfig": "configuration_hulumed.Config"})
    edit(copied / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_hulumed.Tokenizer", None]})
    names = {name.partition(".")[0] for name in own.values()}
    for name in names | {"configuration_hulumed", "tokenization_hulumed", "image_processing_hulumed"}:
        (copied / f"{name}.py").write_text("raise SystemExit('remote code was run')")
    for source in (NAME, copied):
        assert torch.equal(logits_of(load(card_of(source)), image_set), logits_of(tiny, image_set))
    assert not [path for _, path in hub.files_asked() if path.endswith(".py")]


def test_weights_in_several_files(hub, repository, copied, tiny, image_set):
    weights = load_file(copied / "model.safetensors")
    (copied / "model.safetensors").unlink()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    places = {key: names[number % 2] for number, key in enumerate(weights)}
    for name in names:
        part = {key: tensor for key, tensor in weights.items() if places[key] == name}
        save_file(part, copied / name, metadata={"format": "pt"})
    index = json.dumps({"metadata": {"total_size": 1}, "weight_map": places})
    (copied / "model.safetensors.index.json").write_text(index)
    for source in (NAME, copied):
        assert torch.equal(logits_of(load(card_of(source)), image_set), logits_of(tiny, image_set))
    assert {path for _, path in hub.files_asked()} >= {*names}
    (copied / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors" in refusal(card_of(copied))


def test_a_model_is_checked_without_its_weights(hub, repository, copied):
    for source in (NAME, copied):
        look_at(card_of(source))
    (copied / "model.safetensors").unlink()
    for source in (NAME, copied):
        assert "has no model.safetensors: weights are read from safetensors only" in refusal(card_of(source), look_at)
    edit(copied / "config.json", image_token_id=9999)
    for function in (load, look_at):  # before weights are read
        assert "the image token's id in config.json is 9999" in refusal(card_of(copied), function)
    (copied / "tokenizer.json").write_text("{")
    assert "cannot read" in refusal(card_of(copied), look_at)
    assert not [path for _, path in hub.files_asked() if path.endswith(".safetensors")]


def test_an_adapter_does_not_bring_another_repository_in(hub, repository, copied):
    (copied / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "another/model"}))
    for source in (NAME, copied):
        assert "adapter_config.json): load its base" in refusal(card_of(source))
    assert not [path for path in hub.asked if "another" in path]
