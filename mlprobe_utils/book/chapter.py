"""What every page starts and ends with: its parameters checked, its results made or found, and boxes that say what is
real on the page, what it was run with, and how it was made."""

import ast
import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd
from IPython.display import HTML, Markdown
from pydantic import BaseModel, ConfigDict, ValidationError

from mlprobe_utils.book.book_pages import without_faults, without_models
from mlprobe_utils.book.provenance_box import provenance_box
from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.evaluation.metrics import METRICS
from mlprobe_utils.pipeline import artefacts, cards
from mlprobe_utils.pipeline.baseline_card import BaselineCard, baselines_of
from mlprobe_utils.pipeline.cards import DataCard, ModelCard, Protocol
from mlprobe_utils.pipeline.configuration import Run, configure
from mlprobe_utils.pipeline.fault_card import DamagedModel, book_faults, damaged_models, damaged_selection
from mlprobe_utils.pipeline.images import ImageSet, load_image_set, main_metric
from mlprobe_utils.pipeline.jobs import prepare
from mlprobe_utils.pipeline.results import FAULTS, INTERVENTIONS, Selection
from mlprobe_utils.pipeline.variants import discussed_on, load_discussion, taking_part
from mlprobe_utils.plots import drawing
from mlprobe_utils.plots.figures import in_words, table_html
from mlprobe_utils.plots.tables import note, recipe

INJECTED = b"# Parameters"  # how papermill begins the cell that it adds
MOST_NAMES = 4  # more are counted: the page's parameters list them


@dataclass(frozen=True)
class Chapter:
    """What a chapter runs over, and the cards it names."""

    run: Run
    selection: Selection  # of the run's results, those that the chapter or its part reads
    parameters: dict  # all that the chapter declares, with the values that count
    meanings: dict[str, str]  # parameter -> what it means
    started: float  # seconds since the epoch
    planted: tuple[DamagedModel, ...] = ()  # the damaged models of its selection
    baselines: tuple[BaselineCard, ...] = ()  # trained beside its models

    @cached_property
    def protocol(self) -> Protocol:
        return cards.load_protocol(self.run.protocol)

    @cached_property
    def models(self) -> dict[str, ModelCard]:
        return {slug: cards.load_model_card(slug) for slug in self.run.models}

    @cached_property
    def datasets(self) -> dict[str, DataCard]:
        return {slug: cards.load_data_card(slug) for slug in self.selection.datasets}

    @property
    def names(self) -> dict[str, str]:
        """slug -> name, of models (healthy, then damaged), baselines and data sets."""
        found = (*self.models.values(), *self.planted, *self.baselines, *self.datasets.values())
        return {card.slug: card.name for card in found}

    @property
    def positives(self) -> dict[str, str | None]:
        return {slug: card.positive for slug, card in self.datasets.items()}

    @cached_property
    def image_sets(self) -> dict[str, ImageSet]:
        return {slug: load_image_set(slug, self.protocol.slug) for slug in self.datasets}

    @cached_property
    def metric(self) -> str:
        """The page's main metric: its parameter, or that of its images (`main_metric`)."""
        return self.parameters.get("metric") or main_metric(self.image_sets.values(), self.run.split_rule)[0]

    def named(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table for the page: models and data sets by name, stages in words, rows in the selection's order."""
        return in_words(table, self.names, ("dataset", "model", "stage", "module"))

    @property
    def model(self) -> ModelCard:
        """The model of a page that is about one. Raises InputError where the parameters name several."""
        first, *others = self.models.values()
        if others:
            raise InputError(f"parameter 'models': this page shows one model, give only one (found {[*self.models]})")
        return first

    @property
    def loadable(self) -> ModelCard:
        """The first model whose weights are here. Raises InputError where all results were imported."""
        if not (own := [card for slug, card in self.models.items() if not cards.imported(slug)]):
            raise InputError("this page loads a model, but all of its models are imported results: add one of your own")
        return own[0]

    def recipe(self, block: str) -> pd.DataFrame:
        return recipe(getattr(self.protocol, block), getattr(cards.load_protocol("paper"), block))

    def opening(self) -> HTML:
        """A box: what is real on this page, which protocol and split it follows; its parameters, folded."""
        split = f"Protocol: {self.protocol.title}. Split: {self.selection.split_rule}."
        if self.parameters.get("metric") == "":
            metric, why = main_metric(self.image_sets.values(), self.run.split_rule)
            split += f" Scores are {metric.replace('_', ' ')}, because {why}." if why else ""
        values = [json.dumps(value, ensure_ascii=False) for value in self.parameters.values()]
        words = [self.meanings.get(name, "") for name in self.parameters]
        table = table_html(pd.DataFrame({"parameter": self.parameters.keys(), "value": values, "meaning": words}))
        folded = f'<details class="parameters"><summary>Parameters of this page</summary>{table}</details>'
        return HTML(note(f"{scope(self.models, self.datasets)} {split}").data + folded)

    def damaged(self) -> "Chapter":
        """The chapter narrowed to the damaged models of its run, on phantom sets; makes what is missing. InputError
        where the run lacks the model in which faults are planted, or something cannot be made."""
        if not (planted := tuple(damaged_models(self.models))):
            raise InputError(without_faults())
        run = replace(self.run, models=(planted[0].model,))
        prepare(run, faults=True)
        return replace(self, run=run, selection=damaged_selection(self.selection), planted=planted)

    @property
    def healthy(self) -> Selection:
        """The results of the model in which this chapter's faults are planted."""
        return replace(self.selection, models=tuple(self.models))

    def with_baselines(self) -> "Chapter":
        """The chapter with the traditional classifiers that its protocol names; trains those that are missing."""
        named = tuple(baselines_of(self.protocol))
        prepare(replace(self.run, models=()), baselines=named)
        return replace(self, baselines=named)

    def discussion(self, slug: str) -> "Chapter":
        """The chapter narrowed to the models that take part in a discussion; makes what is missing. InputError for an
        unknown discussion, one without any of its models, or what cannot be made."""
        card = load_discussion(slug)
        if not (models := tuple(taking_part(card, self.models))):
            raise InputError(without_models(card))
        run = replace(self.run, models=models)
        prepare(run, [card])
        datasets = tuple(discussed_on(card, self.datasets))
        return replace(self, run=run, selection=replace(self.selection, models=models, datasets=datasets))

    def edited(self) -> "Chapter":
        """The chapter narrowed to the models whose states are edited: those of the discussion INTERVENTIONS, and the
        damaged copies of them that data/book.yml names, if these are of the same data set; as `discussion`."""
        own = self.discussion(INTERVENTIONS)
        planted = tuple(one for one in damaged_models(own.models) if one.is_edited)
        if not planted or damaged_selection(own.selection).datasets != own.selection.datasets:
            return own
        prepare(replace(own.run, models=(planted[0].model,)), faults=True)
        models = (*own.selection.models, *(one.slug for one in planted))
        return replace(own, selection=replace(own.selection, models=models), planted=planted)

    def provenance(self, name: str) -> HTML:
        """A folded box that says how the page `name` was made, from what, and how to make it again."""
        faults = book_faults() if any(FAULTS in folder.parts for folder in artefacts.READ) else ()
        named = [self.protocol, *self.models.values(), *self.image_sets.values(), *faults, *self.baselines]
        return HTML(provenance_box(name, self.parameters, self.protocol, named, self.started))


def start(namespace: dict) -> Chapter:
    """Checks a chapter's parameters, makes what is missing, and turns the charts on; `namespace` is its `globals()`.
    Raises InputError for a bad parameter, before anything runs, or for what cannot be made, with the mend."""
    started = time.time()
    artefacts.READ.clear()  # what the kernel read before belongs to another page
    cards.load_card.cache_clear()  # a card may have been edited while the kernel was open
    run, parameters = check_parameters(namespace)
    prepare(run)
    drawing.enable()
    meanings, _ = declarations(namespace.get("In", []))
    return Chapter(run, run, parameters, meanings, started)


def say(*sentences: str) -> Markdown:
    """Sentences that hold numbers, computed where they are said, as one paragraph of CommonMark."""
    return Markdown(" ".join(sentences))


def answer(*sentences: str) -> Markdown:
    """The chapter's answer in a box, for its cell tagged `answer`: the page shows it below the question."""
    return Markdown(f"> **Answer.** {' '.join(sentences)}")


def scope(models: dict[str, ModelCard], datasets: dict[str, DataCard], most: int = MOST_NAMES) -> str:
    """A few sentences: which images are real and which synthetic, which models are miniatures; more than `most` of a
    kind are counted, not named."""

    def named(of: dict, kind: str, chosen: Callable) -> str:
        names = [card.name for card in of.values() if chosen(card)]
        if len(names) > most:
            return f"{len(names)} {kind}"
        return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

    real = named(datasets, "data sets", lambda card: not card.synthetic)
    synthetic = named(datasets, "data sets", lambda card: card.synthetic)
    small = named(models, "models", lambda card: card.is_miniature and not card.is_untrained)
    random = named(models, "models", lambda card: card.is_untrained)
    full = named(models, "models", lambda card: not card.is_miniature)
    others = named(models, "models", lambda card: cards.imported(card.slug) is not None)
    kinds = [f"trained from scratch here ({small})"] if small else []
    kinds += [f"with random weights, not trained at all ({random})"] if random else []
    sentences = {
        f"The images of {real} are real.": real,
        f"The images of {synthetic} are synthetic phantoms and show no patient.": synthetic,
        f"The models are miniatures, {', or '.join(kinds)}: their results say nothing about the originals.": kinds,
        f"Full-size, with the weights that the card names: {full}.": full,
        f"Imported results, computed elsewhere: {others}.": others,
    }
    return " ".join(sentence for sentence, applies in sentences.items() if applies)


class Parameters(BaseModel):
    """All that chapters can be run with; a chapter declares those that its parameters cell annotates."""

    model_config = ConfigDict(strict=True)
    models: list[str]
    datasets: list[str]
    protocol: str
    split_rule: str
    data: str
    metric: str = ""


def check_parameters(namespace: dict) -> tuple[Run, dict]:
    """What the chapter runs over, and all its parameters with their values; `namespace` is the notebook's `globals()`.
    papermill only logs a parameter that a notebook does not declare, and injects values of any type; what else a reader
    defines in the notebook is ignored. Raises InputError for a parameter that the chapter does not have, a value of the
    wrong type, an unknown slug or choice, and real images without their folder."""
    declared = [name for name in Parameters.model_fields if name in namespace.get("__annotations__", {})]
    _, injected = declarations(namespace.get("In", []))
    if foreign := [name for name in injected if name not in declared]:
        raise unknown("parameter", foreign[0], declared)
    given = {name: namespace[name] for name in declared}
    try:
        metric = Parameters.model_validate(given).metric
    except ValidationError as error:
        problem = error.errors()[0]
        name = problem["loc"][0]
        raise InputError(f"parameter '{name}': {problem['msg']} (found {given[name]!r:.80})") from error
    if metric not in ("", *METRICS):
        raise unknown("metric", metric, METRICS)
    run = configure(**{name: value for name, value in given.items() if name != "metric"})
    return run, given | run.parameters()


def declarations(cells: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Parameter -> the comment behind its declaration `name: type = value  # meaning`, as the kernel read it last; and
    the names that papermill's last cell assigns. `cells` are the sources in the order they ran (IPython's `In`)."""
    meanings, injected = {}, []
    for source in cells:
        lines, nodes = source.encode().splitlines(), []  # ast counts bytes
        with contextlib.suppress(SyntaxError):  # in an open notebook cells may have failed
            nodes = ast.parse(source).body
        for node in nodes:
            if isinstance(node, ast.AnnAssign):
                behind = lines[node.end_lineno - 1][node.end_col_offset :].decode()
                meanings[ast.unparse(node.target)] = behind.partition("#")[2].strip()
        if nodes and lines[0] == INJECTED:
            injected = [target.id for node in nodes if isinstance(node, ast.Assign) for target in node.targets]
    return meanings, injected
