"""The models with a planted fault that a book shows beside the healthy ones; data/book.yml says which.

Each is a model of its own, with a slug, a folder and rows: one fault at one strength, planted in one fine-tuned state
of a healthy model of the run.
"""

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.book_card import load_book
from mlprobe_utils.pipeline.cards import DataCard, load_data_card, slugs
from mlprobe_utils.pipeline.fault_card import MODE_OF, Fault, all_faults
from mlprobe_utils.pipeline.results import DAMAGED_RUN, FAULTS, Selection


@dataclass(frozen=True)
class DamagedModel:
    """A healthy model, by slug, with a fault planted at a strength: in a word, and in points to be lost."""

    model: str
    fault: Fault
    strength: str
    points_lost: float

    @property
    def slug(self) -> str:
        return f"{self.model}+{self.folder}"

    @property
    def folder(self) -> str:
        """Its name below the folder of faults of the healthy model."""
        return f"{self.fault.slug}-{self.strength}"

    @property
    def name(self) -> str:
        """As pages call it."""
        return f"{self.fault.name} ({self.strength})"

    @property
    def mode(self) -> str:
        """The failure mode that the diagnosis should find."""
        return MODE_OF[self.fault.module]


@dataclass(frozen=True)
class DamagedSelection(Selection):
    """The results of damaged models: `models` are their slugs."""

    @property
    def states(self) -> list[int | None]:
        return [DAMAGED_RUN]

    @property
    def runs(self) -> range:
        return range(DAMAGED_RUN + 1)

    def folder(self, model: str, dataset: str) -> Path:
        healthy, _, name = model.partition("+")
        return super().folder(healthy, dataset) / FAULTS / name

    def command(self, model: str, dataset: str, module: str = "") -> str:
        return f"{super().command(model.partition('+')[0], dataset, 'model')} --planted {dataset}"


def damaged_models(models: Container[str]) -> list[DamagedModel]:
    """The damaged models of a run, in the order the data flows, the weakest first; none if it lacks the healthy one.

    Raises:
        InputError: a card is not valid.
    """
    planted = load_book().planted_faults
    strengths = sorted(planted.strengths.items(), key=lambda item: item[1])
    faults = all_faults() if planted.model in models else []
    return [DamagedModel(planted.model, fault, word, points) for fault in faults for word, points in strengths]


def damaged_selection(selection: Selection) -> DamagedSelection:
    """Where the results of a run's damaged models are.

    On the phantom set of data/book.yml, or the first of the run. How much a fault costs is measured on images drawn
    afresh: a run of real images alone has its model fine-tuned on the phantom set of the first one's layout, too.

    Raises:
        InputError: no phantom set has the layout of the first real one.
    """
    dataset = load_book().planted_faults.dataset
    if dataset not in selection.datasets:
        cards = sorted(map(load_data_card, selection.datasets), key=lambda card: not card.synthetic)
        dataset = phantom_twin(cards[0]).slug
    models = tuple(damaged.slug for damaged in damaged_models(selection.models))
    return DamagedSelection(models, (dataset,), selection.protocol, selection.split_rule)


def phantom_twin(card: DataCard) -> DataCard:
    """The phantom set of a data set's layout, which stands in for it; a phantom set is its own.

    Raises:
        InputError: no phantom set has this layout.
    """
    for twin in [card, *map(load_data_card, slugs(DataCard))]:
        if twin.synthetic and twin.layout == card.layout:
            return twin
    raise InputError(
        f"data set '{card.slug}': no phantom set has its layout ({card.layout}), and faults are measured on fresh "
        "phantoms: give data/datasets/ a card that is made by mlprobe_utils.synthetic.phantoms"
    )


def check_drawable(card: DataCard) -> None:
    """Raises InputError for a set of real images, which names its phantom twin."""
    if not card.synthetic:
        raise InputError(
            f"data set '{card.slug}' holds real images, of which no fresh ones can be drawn to measure a fault on: "
            f"give '{phantom_twin(card).slug}', on which the model is then fine-tuned"
        )
