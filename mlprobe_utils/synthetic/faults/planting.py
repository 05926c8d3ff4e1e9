"""Damaged models: how severe each fault has to be in a model, and the pipeline's steps on the model with the fault."""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.processes import processes
from mlprobe_utils.evaluation.points import ANSWER
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.damaged_models import check_drawable, damaged_models
from mlprobe_utils.pipeline.fault_card import Fault, all_faults
from mlprobe_utils.pipeline.model_steps import make_features, make_predictions
from mlprobe_utils.pipeline.probe_steps import make_probes
from mlprobe_utils.pipeline.results import CALIBRATION, DAMAGED_RUN
from mlprobe_utils.pipeline.stages import CALIBRATED, PLANTED
from mlprobe_utils.pipeline.work import Work
from mlprobe_utils.synthetic.faults.calibration import PARTS, Drawn, calibrate, counts_of, load_damages, save
from mlprobe_utils.synthetic.faults.damage import Damage, damaged
from mlprobe_utils.synthetic.faults.mapping import branches


@dataclass
class DamagedWork(Work):
    """The work of a model with a fault planted in one of its fine-tuned states."""

    fine_tuned: Callable[[], None] = field(kw_only=True)  # puts the loaded model into the state that is damaged

    @contextmanager
    def state(self, run: int | None) -> Iterator[None]:
        options = self.encoder.answer_tokens(self.image_set.card.options)
        self.fine_tuned()
        with damaged(self.loaded, self.damage, branches(options)):
            yield

    @cached_property
    def damage(self) -> Damage:
        found = load_damages([self.planted.fault], self.healthy.folder / CALIBRATION)
        return found[self.planted.fault.slug, self.planted.points_lost]


def make_damaged(work: Work) -> None:
    """Every artefact of the book's damaged models on a data set whose calibration is made; it loads one adapter."""
    with ExitStack() as stack:
        fine_tuned = functools.cache(lambda: stack.enter_context(work.state(DAMAGED_RUN)))
        for one in work.damaged():
            own = DamagedWork(**{same.name: getattr(one, same.name) for same in fields(Work)}, fine_tuned=fine_tuned)
            make_predictions(own)
            make_unchanged_features(own) if one.planted.fault.module == ANSWER else make_features(own)
            make_probes(own)


def make_unchanged_features(work: Work) -> None:
    """The intact model's features as those of a fault that changes no state: no pass over the images is needed."""
    own = work.features(DAMAGED_RUN)
    if processes().is_main_process and not own.is_current():
        artefacts.link(own.upstream[0].folder, own)


def make_calibration(work: Work) -> list[Fault]:
    """Finds how severe each fault has to be at every strength of trial and book, where that is not current.

    Returns:
        The faults.

    Raises:
        InputError: a fault that has no place in the model.
    """
    faults, own = all_faults(), work.calibration()
    if processes().is_main_process and not own.is_current():
        settings, batch_size = work.protocol.images, work.protocol.extraction.batch_size
        counts = counts_of(own.inputs["recipe"]["images"])
        drawn = {p: Drawn(work.image_set, work.split, settings, p, counts[p], batch_size) for p in PARTS}
        with own.making() as temporary, work.state(DAMAGED_RUN):
            save(calibrate(work.loaded, work.encoder, faults, drawn, own.inputs["recipe"]["points_lost"]), temporary)
    processes().wait_for_everyone()
    return faults


def check_plantable(model: str, datasets: Iterable[str]) -> None:
    """That the book plants faults in a model, on these data sets.

    Raises:
        InputError: another model than data/book.yml plants faults in; a set of real images.
    """
    for slug in datasets:
        check_drawable(load_data_card(slug))
    if not damaged_models([model]):
        raise InputError(f"faults are not planted in '{model}': name it as planted_faults.model in data/book.yml")


def plant(everything: list[Work]) -> None:
    """Makes every artefact of the damaged models of a healthy one, whose works have gone through the pipeline.

    Raises:
        InputError: a fault without a place in the model.
    """
    for work in everything:
        with work.step(CALIBRATED):
            make_calibration(work)
        with work.step(PLANTED):
            make_damaged(work)
