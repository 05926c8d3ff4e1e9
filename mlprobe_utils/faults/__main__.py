"""Plants the faults that data/book.yml names in a fine-tuned model and runs the pipeline's steps on each damaged one.

`python -m mlprobe_utils.faults MODEL --datasets D ... --protocol P`; what is current is skipped, of the intact model
too, which is made first where it is not there.
"""

from mlprobe_utils.cards import load_data_card
from mlprobe_utils.command import command
from mlprobe_utils.damaged_models import DamagedModel, check_drawable, damaged_models
from mlprobe_utils.errors import InputError, run_command
from mlprobe_utils.faults.planting import make_calibration, make_damaged
from mlprobe_utils.pipeline import run_model
from mlprobe_utils.pipeline_steps import CALIBRATED, PLANTED
from mlprobe_utils.work import works


def run_faults(model: str, datasets: list[str], protocol: str, split: str) -> None:
    """Makes every artefact of a model and its faults on some phantom sets that is not there and current.

    Raises:
        InputError: as `plant` and `pipeline.run_model`.
    """
    planted = planted_in(model, datasets)
    run_model(model, datasets, protocol, split)
    plant(planted, datasets, protocol, split)


def planted_in(model: str, datasets: list[str]) -> list[DamagedModel]:
    """The damaged models of a healthy one.

    Raises:
        InputError: another model than data/book.yml plants faults in; a set of real images.
    """
    for slug in datasets:
        check_drawable(load_data_card(slug))
    if planted := damaged_models([model]):
        return planted
    raise InputError(f"faults are not planted in '{model}': name it as planted_faults.model in data/book.yml")


def plant(planted: list[DamagedModel], datasets: list[str], protocol: str, split: str) -> None:
    """Makes every artefact of damaged models of one healthy model, which has gone through the pipeline.

    Raises:
        InputError: a fault without a place in the model.
    """
    for work in works(planted[0].model, datasets, protocol, split):
        with work.step(CALIBRATED):
            make_calibration(work)
        with work.step(PLANTED):
            make_damaged(work, planted)


if __name__ == "__main__":
    run_command(lambda: command("mlprobe_utils.faults", __doc__, run_faults))
