"""The graph: image sets and checkpoints -> one process a model or baseline -> discussions of some models, faults planted in
one -> pages of notebooks -> book.

Outputs of the rules are stamps. The artefacts themselves are written whole or not at all by the commands, which skip
what is current: so nothing that was made before is lost when a step fails, and a killed run goes on where it was.
Started by `make book`, which checks the configuration first.
"""

import functools
import json
import re
import sys

from mlprobe_utils import artefacts, pages
from mlprobe_utils.artefacts import code_files, imported_files
from mlprobe_utils.baselines.card import BaselineCard, baselines_of
from mlprobe_utils.book_pages import book_pages, script_of
from mlprobe_utils.cards import (
    DataCard,
    ModelCard,
    Protocol,
    card_path,
    load_data_card,
    load_model_card,
    load_protocol,
)
from mlprobe_utils.citation import CITATION
from mlprobe_utils.configuration import configure, lineages
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.discussion_card import Discussion, discussions, taking_part
from mlprobe_utils.faults.card import Fault, all_faults
from mlprobe_utils.faults.laboratory import laboratory, phantom_twin
from mlprobe_utils.faults.trial_card import TRIAL, Trial

RUN = configure(**{"models": [], "datasets": [], "protocol": "miniature", "split": "paper", "data": ""} | config)
FINGERPRINT = FileTree(RUN.data).fingerprint() if RUN.data else ""
LINEAGES = lineages(RUN.models)
# what models and image sets depend on: scores are made of their rows, where pages read them
PROTOCOL = load_protocol(RUN.protocol)
MEASURED = PROTOCOL.model_dump_json(exclude={"title", "baselines", "health", "vision_training"})
TRAINED = PROTOCOL.model_dump_json(include={"images", "splits", "baselines"})
BASELINES = [card.slug for card in baselines_of(PROTOCOL)]
DISCUSSED = {  # discussion -> the models that take part
    card.slug: [*taking_part(card, {slug: load_model_card(slug) for slug in RUN.models})] for card in discussions()
}
STAMPS = f"{artefacts.OUTPUTS}/.stamps"
PAGES = {page.name: page for page in book_pages(RUN)}
BOOK = [str(path) for path in [*pages.front_matter(), CITATION]]
LABORATORY = laboratory(RUN)
TRIAL_DATASETS = list(dict.fromkeys(phantom_twin(load_data_card(slug)).slug for slug in RUN.datasets))
TRIAL_MODELS = list(dict.fromkeys([*RUN.models, *(slug for own in LINEAGES.values() for slug in own)]))  # and bases
FAULTS = [str(card_path(Fault, fault.slug)) for fault in all_faults()]
PYTHON = sys.executable


onstart:
    # to keep a limit of jobs a second, Snakemake looks around every second, and once more often with every job it ends
    workflow.scheduler.job_rate_limiter = None


def one_of(names):
    return "|".join(map(re.escape, names))


wildcard_constraints:
    dataset=one_of({*RUN.datasets, *LABORATORY.datasets, *TRIAL_DATASETS}),
    model=one_of(TRIAL_MODELS),
    baseline=one_of(BASELINES),
    lineage=one_of(LINEAGES),
    page=one_of(PAGES),
    discussion=one_of(DISCUSSED),


def code(module):
    return [str(path) for path in code_files(module)]


def stamp(kind, *names):
    return f"{STAMPS}/{'/'.join((kind, *names))}"


def executed(name):
    return stamp("chapters", f"{name}.done")  # the page `models` and the folder of models' pages are two


@functools.cache
def source_of_page(notebook):
    """Its script and the code that this imports: the same of all models' pages."""
    script = script_of(notebook)
    return [str(path) for path in (script, *imported_files(script))]


def page_inputs(wildcards):
    """A notebook, the code that it imports, and what it reads: results of its models, the protocol, and files."""
    page = PAGES[wildcards.page]
    results = [stamp("models", RUN.protocol, RUN.split, model) for model in page.models]
    results += [stamp("faults", RUN.protocol, RUN.split)] if page.faults else []
    results += [stamp("baselines", RUN.protocol, RUN.split, slug) for slug in BASELINES] if page.baselines else []
    results += [
        stamp("discussions", RUN.protocol, RUN.split, discussion, model)
        for discussion in page.discussions
        for model in DISCUSSED[discussion]
    ]
    return [*source_of_page(page.notebook), *results, *map(str, (card_path(Protocol, RUN.protocol), *page.files))]


def data_of(wildcards):
    return [] if load_data_card(wildcards.dataset).synthetic else ["--data", RUN.data]


def source_of_images(wildcards):
    return stamp("images", wildcards.dataset) if load_data_card(wildcards.dataset).synthetic else []


def source_of_model(wildcards):
    return [stamp("miniatures", root) for root, members in LINEAGES.items() if wildcards.model in members]


rule pages:
    input:
        [executed(name) for name in PAGES],
        BOOK,
        code=sorted({*code("mlprobe_utils.pages"), *code("mlprobe_utils.sphinx_extension")}),
    params:
        run=json.dumps(RUN.parameters()),
    output:
        stamp("pages"),
    shell:
        "{PYTHON} -m mlprobe_utils.pages {params.run:q} && touch {output}"


rule page:
    input:
        page_inputs,
        code=code("mlprobe_utils.run_chapter"),
    params:
        notebook=lambda wildcards: PAGES[wildcards.page].notebook,
        parameters=lambda wildcards: json.dumps(PAGES[wildcards.page].parameters),
    output:
        executed("{page}"),
    shell:
        "MLPROBE_PREPARED=1 {PYTHON} -m mlprobe_utils.warm mlprobe_utils.run_chapter {params.notebook}"
        " {artefacts.OUTPUTS}/chapters/{wildcards.page}.ipynb --parameters {params.parameters:q} && touch {output}"


# Models before pages: a page is short, and fills the cores that the last models leave idle.
rule model:
    priority: 1
    input:
        source_of_model,
        [stamp("manifests", RUN.protocol, dataset) for dataset in RUN.datasets],
        card=lambda wildcards: str(card_path(ModelCard, wildcards.model)),
        code=code("mlprobe_utils.pipeline"),
    params:
        protocol=MEASURED,
        datasets=" ".join(RUN.datasets),
    output:
        stamp("models", RUN.protocol, RUN.split, "{model}"),
    shell:
        "{PYTHON} -m mlprobe_utils.warm mlprobe_utils.pipeline {wildcards.model} --datasets {params.datasets}"
        " --protocol {RUN.protocol} --split {RUN.split} && touch {output}"


rule baseline:
    priority: 1
    input:
        [stamp("manifests", RUN.protocol, dataset) for dataset in RUN.datasets],
        card=lambda wildcards: str(card_path(BaselineCard, wildcards.baseline)),
        code=code("mlprobe_utils.baselines.__main__"),
    params:
        protocol=TRAINED,
        datasets=" ".join(RUN.datasets),
    output:
        stamp("baselines", RUN.protocol, RUN.split, "{baseline}"),
    shell:
        "{PYTHON} -m mlprobe_utils.warm mlprobe_utils.baselines {wildcards.baseline} --datasets {params.datasets}"
        " --protocol {RUN.protocol} --split {RUN.split} && touch {output}"


rule discussion:
    priority: 1
    input:
        stamp("models", RUN.protocol, RUN.split, "{model}"),
        card=lambda wildcards: str(card_path(Discussion, wildcards.discussion)),
        code=code("mlprobe_utils.discussions"),
    params:
        protocol=MEASURED + PROTOCOL.vision_training.model_dump_json(),
        datasets=" ".join(RUN.datasets),
    output:
        stamp("discussions", RUN.protocol, RUN.split, "{discussion}", "{model}"),
    shell:
        "{PYTHON} -m mlprobe_utils.warm mlprobe_utils.discussions {wildcards.model} --discussions {wildcards.discussion}"
        " --datasets {params.datasets} --protocol {RUN.protocol} --split {RUN.split} && touch {output}"


rule faults:
    input:
        stamp("models", RUN.protocol, RUN.split, LABORATORY.models[0]),
        stamp("manifests", RUN.protocol, LABORATORY.datasets[0]),
        FAULTS,
        code=code("mlprobe_utils.faults.__main__"),
    params:
        model=LABORATORY.models[0],
        dataset=LABORATORY.datasets[0],
    output:
        stamp("faults", RUN.protocol, RUN.split),
    shell:
        "{PYTHON} -m mlprobe_utils.warm mlprobe_utils.faults {params.model} --datasets {params.dataset}"
        " --protocol {RUN.protocol} --split {RUN.split} && touch {output}"


rule trial:
    input:
        source_of_model,
        [stamp("manifests", RUN.protocol, dataset) for dataset in TRIAL_DATASETS],
        FAULTS,
        trial=str(card_path(Trial, TRIAL)),
        card=lambda wildcards: str(card_path(ModelCard, wildcards.model)),
        code=code("mlprobe_utils.faults.trial"),
    params:
        protocol=MEASURED,
        datasets=" ".join(TRIAL_DATASETS),
        undamaged=lambda wildcards: "" if wildcards.model in RUN.models else "--undamaged",
    output:
        stamp("trials", RUN.protocol, RUN.split, "{model}"),
    shell:
        "{PYTHON} -m mlprobe_utils.faults.trial {wildcards.model} --datasets {params.datasets}"
        " --protocol {RUN.protocol} --split {RUN.split} {params.undamaged} && touch {output}"


rule laboratory:
    input:
        [stamp("trials", RUN.protocol, RUN.split, model) for model in TRIAL_MODELS],
        code=code("mlprobe_utils.faults.confusion"),
    params:
        models=" ".join(TRIAL_MODELS),
        datasets=" ".join(TRIAL_DATASETS),
    output:
        stamp("laboratory", RUN.protocol, RUN.split),
    shell:
        "{PYTHON} -m mlprobe_utils.faults.confusion {params.models} --datasets {params.datasets}"
        " --protocol {RUN.protocol} --split {RUN.split} && touch {output}"


rule miniatures:
    priority: 1
    input:
        cards=lambda wildcards: [str(card_path(ModelCard, slug)) for slug in LINEAGES[wildcards.lineage]],
        code=code("mlprobe_utils.miniatures.making"),
    params:
        slugs=lambda wildcards: " ".join(LINEAGES[wildcards.lineage]),
    output:
        stamp("miniatures", "{lineage}"),
    shell:
        "{PYTHON} -m mlprobe_utils.warm mlprobe_utils.miniatures {params.slugs} && touch {output}"


rule manifest:
    input:
        source_of_images,
        card=lambda wildcards: str(card_path(DataCard, wildcards.dataset)),
        code=code("mlprobe_utils.datasets.manifest"),
    params:
        protocol=MEASURED,
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
