"""The graph: image sets and checkpoints -> one process a model, one for all baselines -> book.

Outputs of the rules are stamps. The artefacts themselves are written whole or not at all by the commands, which skip
what is current: so nothing that was made before is lost when a step fails, and a killed run goes on where it was.
Started by `make book`, which checks the configuration first.
"""

import functools
import json
import re
import sys

from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.book import pages
from mlprobe_utils.pipeline.artefacts import code_files, imported_files
from mlprobe_utils.pipeline.baseline_card import BaselineCard, baselines_of
from mlprobe_utils.pipeline.book_card import BOOK as BOOK_CARD
from mlprobe_utils.pipeline.book_card import Book
from mlprobe_utils.book.book_pages import book_pages, script_of
from mlprobe_utils.pipeline.cards import DataCard, ModelCard, Protocol, card_path, load_data_card, load_protocol
from mlprobe_utils.book.citation import CITATION
from mlprobe_utils.pipeline.configuration import configure, lineages
from mlprobe_utils.pipeline.damaged_models import damaged_models, damaged_selection, phantom_twin
from mlprobe_utils.datasets.file_tree import FileTree
from mlprobe_utils.pipeline.discussion_card import Discussion, discussions, taking_part
from mlprobe_utils.pipeline.fault_card import Fault, all_faults
from mlprobe_utils.pipeline.trial_card import TRIAL, Trial, laboratory_files

RUN = configure(**{"models": [], "datasets": [], "protocol": "miniature", "split": "paper", "data": ""} | config)
FINGERPRINT = FileTree(RUN.data).fingerprint() if RUN.data else ""
LINEAGES = lineages(RUN.models)
# what models and image sets depend on: scores are made of their rows, where pages read them
PROTOCOL = load_protocol(RUN.protocol)
MEASURED = PROTOCOL.model_dump_json(exclude={"title", "baselines", "health", "vision_training"})
TRAINED = PROTOCOL.model_dump_json(include={"images", "splits", "baselines"})
BASELINES = [card.slug for card in baselines_of(PROTOCOL)]
DISCUSSED = {model: [card.slug for card in discussions() if taking_part(card, [model])] for model in RUN.models}
STAMPS = f"{artefacts.OUTPUTS}/.stamps"
PAGES = book_pages(RUN)
BOOK = [str(path) for path in [*pages.front_matter(), CITATION]]
PLANTED = {one.model: damaged_selection(RUN).datasets for one in damaged_models(RUN.models)}  # at most one model: its data sets
TRIAL_DATASETS = list(dict.fromkeys(phantom_twin(load_data_card(slug)).slug for slug in RUN.datasets))
TRIAL_MODELS = list(dict.fromkeys([*RUN.models, *(slug for own in LINEAGES.values() for slug in own)]))  # and bases
FAULTS = [str(card_path(Fault, fault.slug)) for fault in all_faults()]
FAULTS += [str(card_path(Trial, TRIAL)), str(card_path(Book, BOOK_CARD))]
PYTHON = sys.executable


def one_of(names):
    return "|".join(map(re.escape, names))


wildcard_constraints:
    dataset=one_of({*RUN.datasets, *TRIAL_DATASETS}),
    model=one_of(TRIAL_MODELS),
    lineage=one_of(LINEAGES),


def code(module):
    return [str(path) for path in code_files(module)]


def stamp(kind, *names):
    return f"{STAMPS}/{'/'.join((kind, *names))}"


@functools.cache
def source_of_page(notebook):
    """Its script and the code that this imports: the same of all models' pages."""
    script = script_of(notebook)
    return [str(path) for path in (script, *imported_files(script))]


def data_of(wildcards):
    return [] if load_data_card(wildcards.dataset).synthetic else ["--data", RUN.data]


def source_of_images(wildcards):
    return stamp("images", wildcards.dataset) if load_data_card(wildcards.dataset).synthetic else []


def source_of_model(wildcards):
    return [stamp("miniatures", root) for root, members in LINEAGES.items() if wildcards.model in members]


rule pages:
    input:
        [stamp("models", RUN.protocol, RUN.split, model) for model in RUN.models],
        stamp("baselines", RUN.protocol, RUN.split),
        BOOK,
        sorted({str(path) for page in PAGES for path in page.files}),
        code=sorted({*code("mlprobe_utils.book.pages"), *code("mlprobe_utils.book.sphinx_extension")}),
        notebooks=sorted({path for page in PAGES for path in source_of_page(page.notebook)}),
    params:
        run=json.dumps(RUN.parameters()),
    threads: workflow.cores
    output:
        stamp("pages"),
    shell:
        "{PYTHON} -m mlprobe_utils pages {params.run:q} --jobs {threads} && touch {output}"


rule model:
    input:
        source_of_model,
        [stamp("manifests", RUN.protocol, dataset) for dataset in RUN.datasets],
        lambda wildcards: [stamp("manifests", RUN.protocol, slug) for slug in PLANTED.get(wildcards.model, [])],
        lambda wildcards: [str(card_path(Discussion, slug)) for slug in DISCUSSED[wildcards.model]],
        lambda wildcards: FAULTS if wildcards.model in PLANTED else [],
        card=lambda wildcards: str(card_path(ModelCard, wildcards.model)),
        code=code("mlprobe_utils.synthetic.whole_model"),
    params:
        protocol=MEASURED + PROTOCOL.vision_training.model_dump_json(),
        datasets=" ".join(RUN.datasets),
        discussions=lambda wildcards: " ".join(["--discussions", *own] if (own := DISCUSSED[wildcards.model]) else []),
        planted=lambda wildcards: " ".join(["--planted", *PLANTED[wildcards.model]] if wildcards.model in PLANTED else []),
    output:
        stamp("models", RUN.protocol, RUN.split, "{model}"),
    shell:
        "{PYTHON} -m mlprobe_utils model {wildcards.model} --datasets {params.datasets} --protocol {RUN.protocol}"
        " --split {RUN.split} {params.discussions} {params.planted} && touch {output}"


rule baselines:
    input:
        [stamp("manifests", RUN.protocol, dataset) for dataset in RUN.datasets],
        [str(card_path(BaselineCard, slug)) for slug in BASELINES],
        code=code("mlprobe_utils.baselines.running"),
    params:
        protocol=TRAINED,
        datasets=" ".join(RUN.datasets),
        baselines=" ".join(BASELINES),
    output:
        stamp("baselines", RUN.protocol, RUN.split),
    shell:
        "{PYTHON} -m mlprobe_utils baselines {params.baselines} --datasets {params.datasets}"
        " --protocol {RUN.protocol} --split {RUN.split} && touch {output}"


rule trial:
    input:
        source_of_model,
        [stamp("manifests", RUN.protocol, dataset) for dataset in TRIAL_DATASETS],
        FAULTS,
        card=lambda wildcards: str(card_path(ModelCard, wildcards.model)),
        code=code("mlprobe_utils.synthetic.faults.trial"),
    params:
        protocol=MEASURED,
        datasets=" ".join(TRIAL_DATASETS),
        undamaged=lambda wildcards: "" if wildcards.model in RUN.models else "--undamaged",
    output:
        stamp("trials", RUN.protocol, RUN.split, "{model}"),
    shell:
        "{PYTHON} -m mlprobe_utils trial {wildcards.model} --datasets {params.datasets}"
        " --protocol {RUN.protocol} --split {RUN.split} {params.undamaged} && touch {output}"


rule laboratory:
    input:
        [stamp("trials", RUN.protocol, RUN.split, model) for model in TRIAL_MODELS],
        code=code("mlprobe_utils.synthetic.faults.confusion"),
    params:
        models=" ".join(TRIAL_MODELS),
        datasets=" ".join(TRIAL_DATASETS),
    output:
        stamp("laboratory", RUN.protocol, RUN.split),
    shell:
        "{PYTHON} -m mlprobe_utils laboratory {params.models} --datasets {params.datasets}"
        " --protocol {RUN.protocol} --split {RUN.split} && touch {output}"


rule miniatures:
    input:
        cards=lambda wildcards: [str(card_path(ModelCard, slug)) for slug in LINEAGES[wildcards.lineage]],
        code=code("mlprobe_utils.synthetic.miniatures.making"),
    params:
        slugs=lambda wildcards: " ".join(LINEAGES[wildcards.lineage]),
    output:
        stamp("miniatures", "{lineage}"),
    shell:
        "{PYTHON} -m mlprobe_utils miniatures {params.slugs} && touch {output}"


rule manifest:
    input:
        source_of_images,
        card=lambda wildcards: str(card_path(DataCard, wildcards.dataset)),
        code=code("mlprobe_utils.pipeline.manifest"),
    params:
        protocol=MEASURED,
        data=data_of,
        fingerprint=lambda wildcards: FINGERPRINT if data_of(wildcards) else "",
    output:
        stamp("manifests", RUN.protocol, "{dataset}"),
    shell:
        "{PYTHON} -m mlprobe_utils manifest {wildcards.dataset} --protocol {RUN.protocol} {params.data:q}"
        " && touch {output}"


rule images:
    input:
        card=lambda wildcards: str(card_path(DataCard, wildcards.dataset)),
        code=code("mlprobe_utils.synthetic.phantoms.making"),
    output:
        stamp("images", "{dataset}"),
    shell:
        "{PYTHON} -m mlprobe_utils phantoms {wildcards.dataset} && touch {output}"
