"""All that a book wants of one model, in one process: the pipeline, its discussions, models with a planted fault."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.processes import processes
from mlprobe_utils.evaluation.points import ANSWER
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.fault_card import check_drawable, damaged_models
from mlprobe_utils.pipeline.model_steps import (
    make_discussions,
    make_features,
    make_model,
    make_predictions,
    make_probes,
)
from mlprobe_utils.pipeline.results import CALIBRATION, DAMAGED_RUN
from mlprobe_utils.pipeline.stages import CALIBRATED, PLANTED
from mlprobe_utils.pipeline.variants import load_discussion
from mlprobe_utils.pipeline.work import Work, works
from mlprobe_utils.synthetic.faults.calibration import load_damages, make_calibration
from mlprobe_utils.synthetic.faults.damage import branches, damaged


@dataclass
class DamagedWork(Work):
    """The work of a model with a fault planted in one of its fine-tuned states."""

    fine_tuned: Callable[[], None] = field(kw_only=True)  # puts the loaded model into the state that is damaged

    @contextmanager
    def state(self, run: int | None) -> Iterator[None]:
        options = self.encoder.answer_tokens(self.image_set.card.options)
        damages = load_damages(self.healthy.folder / CALIBRATION)
        self.fine_tuned()
        with damaged(self.loaded, damages[self.planted.fault.slug, self.planted.points_lost], branches(options)):
            yield


def make_damaged(work: Work) -> None:
    """Every artefact of the book's damaged models on a data set whose calibration is made; it loads one adapter."""
    with ExitStack() as stack:
        fine_tuned = functools.cache(lambda: stack.enter_context(work.state(DAMAGED_RUN)))
        for one in work.damaged():
            own = DamagedWork(**{same.name: getattr(one, same.name) for same in fields(Work)}, fine_tuned=fine_tuned)
            make_predictions(own)
            if one.planted.fault.module != ANSWER:
                make_features(own)
            elif processes().is_main_process and not (features := own.features(DAMAGED_RUN)).is_current():
                artefacts.link(features.upstream[0].folder, features)  # no state is changed: the intact model's
            make_probes(own)


def run_whole_model(
    model: str,
    datasets: list[str],
    protocol: str,
    split_rule: str,
    discussions: list[str] | None = None,
    planted: list[str] | None = None,
) -> None:
    """Makes every artefact of a model that is not there and current: its own, its discussions', and those with faults
    planted in it on some phantom sets.

    Raises InputError for faults in another model than data/book.yml names, or on real images, and as what it calls.
    """
    planted = planted or []
    for slug in planted:
        check_drawable(load_data_card(slug))
    if planted and not damaged_models([model]):
        raise InputError(f"faults are not planted in '{model}': name it as planted_faults.model in data/book.yml")
    cards = [load_discussion(name) for name in discussions or []]
    everything = works(model, list(dict.fromkeys([*datasets, *planted])), protocol, split_rule)
    make_model(everything)
    make_discussions([work for work in everything if work.image_set.card.slug in datasets], cards)
    for work in everything:
        if work.image_set.card.slug in planted:
            with work.step(CALIBRATED):
                make_calibration(work)
            with work.step(PLANTED):
                make_damaged(work)
