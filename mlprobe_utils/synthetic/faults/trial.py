"""A model's trial: all its cases (`cases`) on some data sets.

`python -m mlprobe_utils trial MODEL --datasets D ... --protocol P`; what is current is skipped, of the intact
model too, which is made first where it is not there. A model that is not among those of the book, but that one of them
was trained on from, is given `--undamaged`: it has undamaged cases alone.
"""

from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.damaged_models import check_drawable
from mlprobe_utils.pipeline.model_steps import make_adapters, make_features, make_predictions
from mlprobe_utils.pipeline.probe_steps import make_image_controls
from mlprobe_utils.pipeline.trial_card import STEPS, load_trial
from mlprobe_utils.pipeline.work import works
from mlprobe_utils.synthetic.faults.cases import make_cases
from mlprobe_utils.synthetic.faults.planting import make_calibration


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
