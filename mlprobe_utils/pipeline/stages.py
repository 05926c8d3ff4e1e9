"""The stages that make artefacts, each with the version of its results and the modules that compute them.

Whether results change cannot be seen in code: who changes a module that a stage runs decides. Results change: raise
the stage's version, and what it made before is made anew. They do not: `python tests/helpers/stage_lock.py`. A test
fails until one of the two was done. Pages, and scores that follow from rows, are made anew whenever their code changes.
"""

from typing import NamedTuple

# the steps of the work for one model on one data set, in order; of faults; of pages: as lines of progress call them
STEPS = ("random weights", "fine-tuning", "answers", "features", "logit lens", "probes", "layer transfer", "controls")
CALIBRATED, PLANTED = "faults calibrated", "planted faults"
NOTEBOOK = "notebook"


class Stage(NamedTuple):
    """A stage: raise `version` where its results change; `code` names the modules that it starts from."""

    version: int
    code: tuple[str, ...]


STAGES = {
    "phantom": Stage(1, ("synthetic.phantoms.making",)),
    "manifest": Stage(2, ("pipeline.manifest",)),
    "conversations": Stage(1, ("synthetic.miniatures.conversations",)),
    "miniature": Stage(1, ("synthetic.miniatures.making",)),
    "baseline": Stage(2, ("baselines.training",)),
    "random features": Stage(2, ("probing.extraction", "pipeline.model_steps")),
    "adapter": Stage(2, ("training.fine_tuning", "pipeline.model_steps")),
    "predictions": Stage(2, ("training.prediction", "pipeline.model_steps")),
    "features": Stage(2, ("probing.extraction", "pipeline.model_steps")),
    "logit lens": Stage(2, ("probing.logit_lens", "pipeline.model_steps")),
    "probes": Stage(2, ("probing.probes", "pipeline.probe_steps")),
    "layer transfer": Stage(2, ("probing.probes", "pipeline.probe_steps")),
    "controls": Stage(2, ("pipeline.probe_controls", "pipeline.probe_steps")),
    "image controls": Stage(2, ("datasets.controls",)),
    "vision tower alone": Stage(2, ("training.vision_classifier", "pipeline.discussions")),
    "calibration": Stage(2, ("synthetic.faults.calibration",)),
    "trial": Stage(2, ("synthetic.faults.cases",)),
}
