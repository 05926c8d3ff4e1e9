"""Damaged models: how severe each fault has to be in a model, and the pipeline's steps on the model with the fault."""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.processes import processes
from mlprobe_utils.evaluation.points import ANSWER
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.book_card import load_book
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.damaged_models import DamagedModel, check_drawable, damaged_models
from mlprobe_utils.pipeline.fault_card import Fault, all_faults
from mlprobe_utils.pipeline.model_steps import make_features, make_predictions
from mlprobe_utils.pipeline.probe_steps import make_probes
from mlprobe_utils.pipeline.results import CALIBRATION, DAMAGED_RUN, FAULTS, state_name
from mlprobe_utils.pipeline.step_names import CALIBRATED, PLANTED
from mlprobe_utils.pipeline.trial_card import load_trial
from mlprobe_utils.pipeline.work import Work
from mlprobe_utils.synthetic.faults.calibration import PARTS, Drawn, calibrate, counts_of, load_damages, save
from mlprobe_utils.synthetic.faults.damage import Damage, damaged
from mlprobe_utils.synthetic.faults.mapping import branches


@dataclass
class DamagedWork(Work):
    """The same model on the same data set, with a fault planted in one of its fine-tuned states."""

    planted: DamagedModel = field(kw_only=True)
    healthy: Path = field(kw_only=True)  # the folder of the intact model
    fine_tuned: Callable[[], None] = field(kw_only=True)  # puts the loaded model into the state that is damaged

    def states(self) -> list[int | None]:
        return [DAMAGED_RUN]

    def adapter_folder(self, run: int | None) -> Path | None:
        return self.healthy / f"adapter-{run}"

    @contextmanager
    def state(self, run: int | None) -> Iterator[None]:
        options = self.encoder.answer_tokens(self.image_set.card.options)
        self.fine_tuned()
        with damaged(self.loaded, self.damage, branches(options)):
            yield

    @cached_property
    def damage(self) -> Damage:
        found = load_damages([self.planted.fault], self.healthy / CALIBRATION)
        return found[self.planted.fault.slug, self.planted.points_lost]

    def made_from(self, stage: str, run: int | None = None, upstream: Path | None = None, **recipe) -> dict:
        fault = {
            "card": self.planted.fault.model_dump(),
            "severity": self.damage.severity,
            "calibration": artefacts.record_hash(self.healthy / CALIBRATION),
        }
        return super().made_from(stage, run, upstream, **recipe) | {"fault": fault}

    def constants(self, run: int | None) -> dict:
        return super().constants(run) | {"model": self.planted.slug, "fault": self.planted.fault.slug}


def make_damaged(work: Work, planted: Iterable[DamagedModel]) -> None:
    """Every artefact of some damaged models on a data set whose calibration is made; the adapter is loaded once."""
    same = {own.name: getattr(work, own.name) for own in fields(Work)}
    with ExitStack() as stack:
        fine_tuned = functools.cache(lambda: stack.enter_context(work.state(DAMAGED_RUN)))
        for one in planted:
            place = {"folder": work.folder / FAULTS / one.folder}
            own = DamagedWork(**same | place, planted=one, healthy=work.folder, fine_tuned=fine_tuned)
            make_predictions(own)
            make_unchanged_features(own) if one.fault.module == ANSWER else make_features(own)
            make_probes(own)


def make_unchanged_features(own: DamagedWork) -> None:
    """The intact model's features as those of a fault that changes no state: no pass over the images is needed."""
    name = state_name("features", DAMAGED_RUN)
    intact = own.healthy / name
    made_from = own.made_from("features", DAMAGED_RUN, intact)
    if processes().is_main_process and not artefacts.is_current(own.folder / name, made_from):
        artefacts.link(intact, own.folder / name, made_from)


def make_calibration(work: Work) -> list[Fault]:
    """Finds how severe each fault has to be at every strength of trial and book, where that is not current.

    Returns:
        The faults.

    Raises:
        InputError: a fault that has no place in the model.
    """
    faults, trial = all_faults(), load_trial()
    strengths = sorted({*trial.points_lost, *load_book().planted_faults.strengths.values()})
    code = [artefacts.code_hash("mlprobe_utils.synthetic.faults.calibration"), artefacts.source_hash(make_calibration)]
    recipe = {"faults": [fault.model_dump() for fault in faults], "points_lost": strengths, "images": trial.images}
    recipe |= {"phantom": work.image_set.card.recipe, "code": code}
    made_from = work.made_from("calibration", DAMAGED_RUN, work.adapter_folder(DAMAGED_RUN), **recipe)
    folder = work.folder / CALIBRATION
    if processes().is_main_process and not artefacts.is_current(folder, made_from):
        settings, batch_size = work.protocol.images, work.protocol.extraction.batch_size
        counts = counts_of(trial.images)
        drawn = {p: Drawn(work.image_set, work.split, settings, p, counts[p], batch_size) for p in PARTS}
        with artefacts.artefact(folder, made_from) as temporary, work.state(DAMAGED_RUN):
            save(calibrate(work.loaded, work.encoder, faults, drawn, strengths), temporary)
    processes().wait_for_everyone()
    return faults


def planted_in(model: str, datasets: Iterable[str]) -> list[DamagedModel]:
    """The damaged models of a healthy one.

    Raises:
        InputError: another model than data/book.yml plants faults in; a set of real images.
    """
    for slug in datasets:
        check_drawable(load_data_card(slug))
    if planted := damaged_models([model]):
        return planted
    raise InputError(f"faults are not planted in '{model}': name it as planted_faults.model in data/book.yml")


def plant(everything: list[Work], planted: list[DamagedModel]) -> None:
    """Makes every artefact of damaged models of one healthy model, whose works have gone through the pipeline.

    Raises:
        InputError: a fault without a place in the model.
    """
    for work in everything:
        with work.step(CALIBRATED):
            make_calibration(work)
        with work.step(PLANTED):
            make_damaged(work, planted)
