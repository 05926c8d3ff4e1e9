"""Plants every fault in a fine-tuned model and runs the pipeline's steps on the damaged one.

`python -m mlprobe_utils.faults MODEL --datasets D ... --protocol P`; what is current is skipped, of the intact model
too, which is made first where it is not there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mlprobe_utils import artefacts
from mlprobe_utils.cards import load_data_card
from mlprobe_utils.command import command
from mlprobe_utils.errors import run_command
from mlprobe_utils.faults.calibration import Drawn, calibrate, counts_of, load_damage, save
from mlprobe_utils.faults.card import Fault, all_faults
from mlprobe_utils.faults.damage import damaged
from mlprobe_utils.faults.laboratory import check_drawable
from mlprobe_utils.faults.mapping import branches
from mlprobe_utils.pipeline import make_features, make_predictions, run_model
from mlprobe_utils.probe_steps import make_probes
from mlprobe_utils.processes import processes
from mlprobe_utils.results import DAMAGED_RUN, FAULTS
from mlprobe_utils.work import Work, works


@dataclass
class DamagedWork(Work):
    """The same model on the same data set, with a fault planted in one of its fine-tuned states."""

    fault: Fault = field(kw_only=True)

    @property
    def calibration(self) -> Path:
        return self.folder / "calibration"

    def states(self) -> list[int | None]:
        return [DAMAGED_RUN]

    def adapter_folder(self, run: int | None) -> Path | None:
        return self.folder.parents[1] / f"adapter-{run}"

    @contextmanager
    def state(self, run: int | None) -> Iterator[None]:
        options = self.encoder.answer_tokens(self.image_set.card.options)
        with super().state(run), damaged(self.loaded, self.damage, branches(options)):
            yield

    @cached_property
    def damage(self):
        return load_damage(self.fault, self.calibration)

    def made_from(self, stage: str, run: int | None = None, upstream: Path | None = None, **recipe) -> dict:
        fault = {
            "card": self.fault.model_dump(),
            "severity": self.damage.severity,
            "calibration": artefacts.record_hash(self.calibration),
        }
        return super().made_from(stage, run, upstream, **recipe) | {"fault": fault}

    def constants(self, run: int | None) -> dict:
        return super().constants(run) | {"fault": self.fault.slug}


def run_faults(model: str, datasets: list[str], protocol: str, split: str) -> None:
    """Makes every artefact of a model's faults on some phantom sets that is not there and current.

    Raises:
        InputError: a set of real images; a fault without a place in the model; and as `pipeline.run_model`.
    """
    for slug in datasets:
        check_drawable(load_data_card(slug))
    faults = all_faults()
    run_model(model, datasets, protocol, split)
    for work in works(model, datasets, protocol, split):
        with work.step("faults calibrated"):
            make_calibrations(work, faults)
        for fault in faults:
            with work.step(fault.slug):
                own = _damaged_work(work, fault)
                for action in (make_predictions, make_features, make_probes):
                    action(own)


def make_calibrations(work: Work, faults: list[Fault]) -> None:
    """The calibrations that are not current, all at once: the intact model reads each fresh phantom once."""
    code = [artefacts.code_hash("mlprobe_utils.faults.calibration"), artefacts.source_hash(make_calibrations)]
    adapter = work.adapter_folder(DAMAGED_RUN)
    counts = counts_of(faults)
    recipe = {"counts": counts, "phantom": work.image_set.card.recipe, "code": code}
    stale = {}
    for fault in faults:
        made_from = work.made_from("calibration", DAMAGED_RUN, adapter, fault=fault.model_dump(), **recipe)
        folder = _damaged_work(work, fault).calibration
        if not artefacts.is_current(folder, made_from):
            stale[folder] = fault, made_from
    if stale and processes().is_main_process:
        batch_size = work.protocol.extraction.batch_size
        image_set, settings = work.image_set, work.protocol.images
        drawn = {p: Drawn(image_set, work.split, settings, p, count, batch_size) for p, count in counts.items()}
        with work.state(DAMAGED_RUN):
            found = calibrate(work.loaded, work.encoder, [fault for fault, _ in stale.values()], drawn)
        for folder, (fault, made_from) in stale.items():
            with artefacts.artefact(folder, made_from) as temporary:
                save(found[fault.slug], fault, temporary)
    processes().wait_for_everyone()


def _damaged_work(work: Work, fault: Fault) -> DamagedWork:
    folder = work.folder / FAULTS / fault.slug
    return DamagedWork(
        work.card, work.protocol, work.split, work.image_set, folder, work.identity, work._models, fault=fault
    )


if __name__ == "__main__":
    run_command(lambda: command("mlprobe_utils.faults", __doc__, run_faults))
