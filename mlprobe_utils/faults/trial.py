"""A model's trial: all its cases (`cases`) on some data sets.

`python -m mlprobe_utils.faults.trial MODEL --datasets D ... --protocol P`; what is current is skipped, of the intact
model too, which is made first where it is not there. A model that is not among those of the book, but that one of them
was trained on from, is given `--undamaged`: it has undamaged cases alone.
"""

import argparse

import torch

from mlprobe_utils.cards import load_data_card
from mlprobe_utils.damaged_models import check_drawable
from mlprobe_utils.datasets.image_set import SPLITS
from mlprobe_utils.errors import run_command
from mlprobe_utils.faults.cases import make_cases
from mlprobe_utils.faults.planting import make_calibration
from mlprobe_utils.faults.trial_card import STEPS, load_trial
from mlprobe_utils.pipeline import make_adapters, make_features, make_predictions
from mlprobe_utils.probe_steps import make_image_controls
from mlprobe_utils.work import works


def run_trial(model: str, datasets: list[str], protocol: str, split: str, undamaged: bool = False) -> None:
    """Makes a model's cases on some phantom sets that are not there and current.

    Raises:
        InputError: a set of real images; a fault without a place in the model; and as `pipeline.run_model`.
    """
    for slug in datasets:
        check_drawable(load_data_card(slug))
    trial = load_trial()
    for work in works(model, datasets, protocol, split):
        actions = (make_adapters, make_predictions, make_features, make_image_controls)
        for name, action in zip(STEPS, actions, strict=False):
            with work.step(name):
                action(work)
        with work.step(STEPS[-1]):
            make_cases(work, trial, [] if undamaged else make_calibration(work))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mlprobe_utils.faults.trial", description=__doc__)
    parser.add_argument("model", help="slug of a model card in data/models")
    parser.add_argument("--datasets", nargs="+", required=True, help="slugs of data cards in data/datasets")
    parser.add_argument("--protocol", default="miniature", help="slug of a protocol in data/protocols")
    parser.add_argument("--split", default="paper", choices=SPLITS)
    parser.add_argument("--undamaged", action="store_true", help="plant no fault")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run_trial(arguments.model, arguments.datasets, arguments.protocol, arguments.split, arguments.undamaged)


if __name__ == "__main__":
    run_command(main)
