"""The graph: image sets and checkpoints -> one process a model -> chapters -> pages.

Outputs of the rules are stamps. The artefacts themselves are written whole or not at all by the commands, which skip
what is current: so nothing that was made before is lost when a step fails, and a killed run goes on where it was.
Started by `make book`, which checks the configuration first.
"""

import json
import sys

from mlprobe_utils import artefacts, pages, run_chapter
from mlprobe_utils.artefacts import code_files, imported_files
from mlprobe_utils.cards import DataCard, ModelCard, Protocol, card_path, load_data_card, load_model_card
from mlprobe_utils.configuration import configure, miniatures
from mlprobe_utils.datasets.file_tree import FileTree

RUN = configure(**{"models": [], "datasets": [], "protocol": "miniature", "split": "paper", "data": ""} | config)
FINGERPRINT = FileTree(RUN.data).fingerprint() if RUN.data else ""
STAMPS = f"{artefacts.OUTPUTS}/.stamps"
CHAPTERS = run_chapter.chapters()
BOOK = [str(path) for path in pages.front_matter()]
PYTHON = sys.executable


wildcard_constraints:
    dataset="|".join(RUN.datasets),
    model="|".join({*RUN.models, *miniatures(RUN.models)}),
    chapter="|".join(CHAPTERS),


def code(module):
    return [str(path) for path in code_files(module)]


def stamp(kind, *names):
    return f"{STAMPS}/{'/'.join((kind, *names))}"


def chapter_code(name):
    own = imported_files(run_chapter.NOTEBOOKS / f"{name}.py")
    return sorted({*code("mlprobe_utils.run_chapter"), *map(str, own)})


def data_of(wildcards):
    return [] if load_data_card(wildcards.dataset).synthetic else ["--data", RUN.data]


def source_of_images(wildcards):
    return stamp("images", wildcards.dataset) if load_data_card(wildcards.dataset).synthetic else []


def source_of_model(wildcards):
    return stamp("miniatures", wildcards.model) if load_model_card(wildcards.model).made_by else []


def base_of_model(wildcards):
    base = load_model_card(wildcards.model).base
    return stamp("miniatures", base) if base else []


rule pages:
    input:
        [stamp("chapters", name) for name in CHAPTERS],
        BOOK,
        code=code("mlprobe_utils.pages"),
    params:
        run=json.dumps(RUN.parameters()),
    output:
        stamp("pages"),
    shell:
        "{PYTHON} -m mlprobe_utils.pages {params.run:q} && touch {output}"


rule chapter:
    input:
        f"{artefacts.ROOT}/notebooks/{{chapter}}.py",
        [stamp("models", RUN.protocol, RUN.split, model) for model in RUN.models],
        code=lambda wildcards: chapter_code(wildcards.chapter),
    params:
        run=json.dumps(RUN.parameters()),
    output:
        stamp("chapters", "{chapter}"),
    shell:
        "MLPROBE_PREPARED=1 {PYTHON} -m mlprobe_utils.run_chapter {wildcards.chapter}"
        " {artefacts.OUTPUTS}/chapters/{wildcards.chapter}.ipynb --parameters {params.run:q} && touch {output}"


rule model:
    input:
        source_of_model,
        [stamp("manifests", RUN.protocol, dataset) for dataset in RUN.datasets],
        card=lambda wildcards: str(card_path(ModelCard, wildcards.model)),
        protocol=str(card_path(Protocol, RUN.protocol)),
        code=code("mlprobe_utils.pipeline"),
    params:
        datasets=" ".join(RUN.datasets),
    output:
        stamp("models", RUN.protocol, RUN.split, "{model}"),
    shell:
        "{PYTHON} -m mlprobe_utils.pipeline {wildcards.model} --datasets {params.datasets}"
        " --protocol {RUN.protocol} --split {RUN.split} && touch {output}"


rule miniature:
    input:
        base_of_model,
        card=lambda wildcards: str(card_path(ModelCard, wildcards.model)),
        code=code("mlprobe_utils.miniatures.making"),
    output:
        stamp("miniatures", "{model}"),
    shell:
        "{PYTHON} -m mlprobe_utils.miniatures {wildcards.model} && touch {output}"


rule manifest:
    input:
        source_of_images,
        card=lambda wildcards: str(card_path(DataCard, wildcards.dataset)),
        protocol=str(card_path(Protocol, RUN.protocol)),
        code=code("mlprobe_utils.datasets.manifest"),
    params:
        data=data_of,
        fingerprint=lambda wildcards: FINGERPRINT if data_of(wildcards) else "",
    output:
        stamp("manifests", RUN.protocol, "{dataset}"),
    shell:
        "{PYTHON} -m mlprobe_utils.datasets.manifest {wildcards.dataset} --protocol {RUN.protocol} {params.data:q}"
        " && touch {output}"


rule images:
    input:
        card=lambda wildcards: str(card_path(DataCard, wildcards.dataset)),
        code=code("mlprobe_utils.phantoms.__main__"),
    output:
        stamp("images", "{dataset}"),
    shell:
        "{PYTHON} -m mlprobe_utils.phantoms {wildcards.dataset} && touch {output}"
