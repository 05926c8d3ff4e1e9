"""What makes a result stale: code is followed through imports, stages are locked, and only what matters is due."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import stage_lock
from small_book import ROOT

from mlprobe_utils.pipeline import artefacts, code, jobs
from mlprobe_utils.pipeline.cards import load_card, load_model_card, miniature
from mlprobe_utils.pipeline.code import code_files, code_hash
from mlprobe_utils.pipeline.configuration import configure, lineages
from mlprobe_utils.pipeline.images import build_manifest
from mlprobe_utils.pipeline.stages import STAGES
from mlprobe_utils.synthetic.phantoms.making import make

PACKAGE = {
    "__init__": '"""Package."""\n',
    "used": '"""Docstring."""\n\ndef double(x):\n    """Twice."""\n    return 2 * x  # a comment\n',
    "deep": "from mlprobe_utils.used import double\n",
    "top": "import math\nimport mlprobe_utils.deep as d\nfrom mlprobe_utils import late\n",
    "late": "def f():\n    from mlprobe_utils.lazy import g\n    return g\n",
    "lazy": "import mlprobe_utils.top\ng = 1\n",
    "unused": "value = 1\n",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small package in place of this project; yields a function that rewrites a module and hashes `top` again."""
    monkeypatch.setattr(artefacts, "ROOT", tmp_path)
    (tmp_path / "mlprobe_utils").mkdir()

    def forget() -> None:
        for cached in (code_files, code_hash, code._imports, code._source_file):
            cached.cache_clear()

    def rewritten(**modules) -> str:
        for name, text in (PACKAGE | modules).items():
            (tmp_path / "mlprobe_utils" / f"{name}.py").write_text(text)
        forget()
        return code_hash("mlprobe_utils.top")

    yield rewritten
    forget()


def test_code_is_followed_through_imports(package, tmp_path):
    before = package()
    names = [path.stem for path in code_files("mlprobe_utils.top")]
    assert names == ["__init__", "deep", "late", "lazy", "top", "used"]
    assert [path.stem for path in code_files("mlprobe_utils.unused")] == ["unused"]
    assert package(unused="value = 2\n") == package()
    (tmp_path / "mlprobe_utils" / "used.py").write_text("def double(x):\n    return 3 * x\n")
    assert code_hash("mlprobe_utils.top") == before  # of the code that the process runs
    assert package(used="def double(x):\n    return 3 * x\n") != before
    before, _ = package(), (tmp_path / "mlprobe_utils" / "used.css").write_text("p{}")
    assert package() != before  # the style sheet of a module
    with pytest.raises(ValueError, match=r"there is no module mlprobe_utils\.nowhere"):
        code_files("mlprobe_utils.nowhere")


def essence(source: str) -> str:
    return stage_lock.essence(ast.parse(source))


def test_the_lock_is_of_what_can_change_a_result():
    """Not docstrings, comments, white space and imports, nor messages and descriptions."""
    for text, same in (
        ('"""Another docstring."""\n\ndef double(x):\n    """Two times."""\n    return 2 * x\n', True),
        ("import math\ndef double(x):\n\n    # words\n    return 2 * x  # ü\n", True),
        ("def double(x):\n    return 3 * x\n", False),
        ('def double(x):\n    y = """Twice."""\n    return 2 * x\n', False),
    ):
        assert (essence(text) == essence(PACKAGE["used"])) is same
    source = 'class A:\n    b: int = Field({}, description="{}")\n    def c(self):\n        raise Error(f"{{x}}: {}")\n'
    texts = ((1, "of x", "wrong"), (1, "ü", "bad"), (2, "of x", "wrong"))
    first, reworded, other = (essence(source.format(*own)) for own in texts)
    assert first == reworded != other


def test_somebody_decided_whether_the_results_of_changed_code_change():
    moved = [name for name, now in stage_lock.found().items() if stage_lock.locked().get(name) != now]
    assert not moved, (
        f"the code of the stages {', '.join(moved)} has changed: where their results change, raise their versions in "
        "mlprobe_utils/pipeline/stages.py; then `python tests/helpers/stage_lock.py`"
    )
    assert stage_lock.locked().keys() == stage_lock.found().keys()


LINGSHU, MEDGEMMA = MODELS = ["lingshu-7b-miniature", "medgemma-4b-miniature"]  # faults are planted in the first
DATASET = "busi-phantom"


def pretend(artefact: artefacts.Artefact, files: tuple[str, ...] = ("result",)) -> None:
    """Makes an artefact without doing its work."""

    def fill(folder: Path) -> None:
        for name in files:
            (folder / name).write_text("{}" if name == "config.json" else artefact.folder.name)

    artefact.make(fill)


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Path:
    """The outputs of a run that is current, of which the images alone are real."""
    place = tmp_path_factory.mktemp("current")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artefacts, "OUTPUTS", place)
        make(DATASET)
        build_manifest(DATASET, "miniature", None)
        for slug in (slug for members in lineages(MODELS).values() for slug in members):
            pretend(miniature(load_model_card(slug)), ("config.json", "model.safetensors"))
        run = configure(MODELS, [DATASET], "miniature", "paper", "")
        patch.setattr(jobs, "stale", lambda found: list(map(pretend, found)) and [])
        for job in jobs.book_jobs(run):
            if job.kind in ("model", "baselines"):
                job.due()
    return place


@pytest.fixture
def checkout(everything, own_cards, tmp_path, monkeypatch) -> Path:
    """A copy of it, elsewhere, which a test may change."""
    monkeypatch.setattr(artefacts, "OUTPUTS", shutil.copytree(everything, tmp_path / "outputs"))
    return tmp_path


def due() -> set[str]:
    """What is due: `<model> <artefact>` without its state, strength and run; of image sets and baselines their kind."""
    load_card.cache_clear()
    found = set()
    for job, names in jobs.due(jobs.book_jobs(configure(MODELS, [DATASET], "miniature", "paper", ""))).items():
        for name in names or ["whatever follows"]:
            _, _, own = name.partition(f"/{job.name}/")
            own = re.sub(r"-(pretrained|finetuned-\d|\d|\w{12})$|(?<=faults/)[^/]*/|(?<=order/)[^/]*/", "", own or name)
            kind = "images" if name.startswith("phantoms/") else job.kind
            found.add(f"{job.name.partition('-')[0]} {own}" if job.kind == "model" else kind)
    return found


def of(model: str, *names: str) -> set[str]:
    return {f"{model} {name}" for name in names}


def both(*names: str) -> set[str]:
    return of("lingshu", *names) | of("medgemma", *names)


READ = ("lens", "probes", "transfer", "controls", "replication", "prompts")  # of features; the last of predictions
REPLICATED = both("replication") | of("lingshu", "faults/replication")
OF_FAULTS = ("predictions", "features", "probes", "replication", "interventions")
FAULTS = of("lingshu", "calibration", *(f"faults/{name}" for name in OF_FAULTS))
ORDER = [f"order/{name}" for name in ("adapter", "predictions", "features", "probes")]
TOWER = ("vision_tower/frozen/adapter", "vision_tower/frozen/predictions")
LEARNED = both("adapter", "predictions", "features", *READ) | of("medgemma", *TOWER) | FAULTS
LEARNED |= of("lingshu", *ORDER, "interventions")
CLASSIFIERS = of("medgemma", "classifier-all", "classifier-lora")
OF_LINGSHU = of("lingshu", "adapter", "predictions", "features", "interventions", *READ, *ORDER) | FAULTS
PROBED = both("probes") | of("lingshu", "order/probes", "faults/probes") | REPLICATED
ANSWERED = both("predictions", "prompts") | of("lingshu", "order/predictions", "faults/predictions") | REPLICATED
ANSWERED |= of("medgemma", TOWER[1])
RANDOM = f"miniature/{DATASET}/paper/features-random"
FRESH = both(f"miniature/{DATASET}/fresh-paper")
WITHOUT_TRAINING = both(RANDOM, f"miniature/{DATASET}/controls-paper") | FRESH
FOLLOWS = both("whatever follows") | {"baselines"}
PROTOCOL, CARD, DATA = "protocols/miniature.yml", f"models/{LINGSHU}.yml", f"datasets/{DATASET}.yml"


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "expected"),
    [
        (PROTOCOL, r"learning_rate: 0\.003  # the best", "learning_rate: 0.004  # the best", LEARNED),
        (PROTOCOL, "hidden: 64", "hidden: 32", PROBED | both("transfer", "controls")),
        (PROTOCOL, "max_new_tokens: 8", "max_new_tokens: 9", ANSWERED | both("controls")),
        (PROTOCOL, "probe_seeds: 5", "probe_seeds: 6", PROBED),
        (PROTOCOL, r"penalty: 0\.2", "penalty: 0.3", set()),  # a score: pages alone are made anew
        (PROTOCOL, "8, batch_size: 128, shard_images: 512", "8, batch_size: 3, shard_images: 5", set()),  # of answering
        (PROTOCOL, "{batch_size: 128, shard_images: 512", "{batch_size: 3, shard_images: 5", set()),  # of extraction
        (PROTOCOL, r"learning_rate_lora: 0\.003", "learning_rate_lora: 0.01", of("medgemma", "classifier-lora")),
        (PROTOCOL, r"epochs: 10\n  batch_size: 16", "epochs: 9\n  batch_size: 16", {"baselines"}),
        (PROTOCOL, "max_pixels: 4096", "max_pixels: 1024", {"manifest"} | FOLLOWS),
        (DATA, "<image>", "Look: <image>", LEARNED | CLASSIFIERS | {"baselines"} | WITHOUT_TRAINING),
        (DATA, "Study this", "Look at this", both("prompts")),
        (DATA, "seed: 1", "seed: 9", {"images", "manifest"} | FOLLOWS),
        ("faults/connector.yml", "seed: 2", "seed: 9", FAULTS),
        ("book.yml", "replication: 1", "replication: 2", FRESH | REPLICATED),
        (CARD, "name: ", "attention: eager\nname: ", OF_LINGSHU | of("lingshu", RANDOM)),
        ("models/qwen2.5-vl-7b-miniature.yml", "seed: ", "seed: 1", {"miniatures"} | of("lingshu", "whatever follows")),
    ],
)
def test_what_matters_makes_exactly_that_due_which_follows(checkout, file, pattern, replacement, expected):
    path = checkout / "cards" / file
    changed, times = re.subn(pattern, replacement, path.read_text(), count=1)
    assert times, pattern
    path.write_text(changed)
    assert due() == expected


def test_a_moved_or_touched_checkout_is_current_but_for_other_weights_and_another_version(checkout, monkeypatch):
    """Whatever the record beside the weights says."""
    assert due() == set()
    for path in (checkout / "outputs").rglob("*"):
        path.touch()
    assert due() == set()
    with monkeypatch.context() as patch:
        patch.setitem(STAGES, "logit lens", STAGES["logit lens"]._replace(version=99))
        assert due() == both("lens")
    weights = checkout / "outputs" / "miniatures" / LINGSHU / "model.safetensors"
    weights.write_text(weights.read_text().upper())
    assert due() == {"miniatures"} | of("lingshu", "whatever follows")  # damaged
    artefacts.complete(weights.parent)
    assert due() == OF_LINGSHU


EDITS = [  # file, old, new
    ("training/settings.py", "images per step, over all processes", "images per step"),  # a field's description
    ("models/families/new.py", "", '"""A new family."""\n'),
    ("models/settings.py", "    gated: ", "    remark: str = ''\n    gated: "),  # a new optional key of cards
    ("probing/settings.py", "    kind: L", "    more: int = 0\n    kind: L"),  # a new field of protocols with a default
    ("training/fine_tuning.py", "settings_of", "settings_from"),  # a renamed function
]


@pytest.mark.slow
def test_harmless_changes_of_the_code_train_nothing(checkout, tmp_path):
    root = tmp_path / "code"
    shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".*", "outputs", "shared", "raw"))
    for name, old, new in EDITS:
        path = root / "mlprobe_utils" / name
        text = path.read_text() if old else ""
        assert old in text
        path.write_text(text.replace(old, new) if old else new)
    command = [sys.executable, "-m", "mlprobe_utils", "book", "--models", *MODELS, "--datasets", DATASET, "--dry-run"]
    places = {"MLPROBE_OUTPUTS": str(checkout / "outputs"), "MLPROBE_CARDS": str(checkout / "cards")}
    environment = os.environ | places | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"pages"}
