"""The stages that make artefacts, each with the version of its results and the modules that compute them. Who changes
code that a stage runs decides whether its results change: raise the version, and they are made anew; or else
`python tests/helpers/stage_lock.py`. A test fails until either is done. Pages and scores follow their code."""

from typing import NamedTuple

# as lines of progress call them: the steps for one model on one data set, in order; those of faults; others
STEPS = ("random weights", "fine-tuning", "answers", "prompts")
STEPS += ("features", "logit lens", "probes", "layer transfer", "controls")
CALIBRATED, PLANTED = "faults calibrated", "planted faults"
REPLICATED, NOTEBOOK = "replication", "notebook"


class Stage(NamedTuple):
    version: int
    code: tuple[str, ...]  # the modules that it starts from


STAGES = {
    "phantom": Stage(1, ("synthetic.phantoms.making",)),
    "fresh phantoms": Stage(1, ("synthetic.faults.planting",)),
    "manifest": Stage(4, ("pipeline.images",)),
    "conversations": Stage(1, ("synthetic.miniatures.conversations",)),
    "miniature": Stage(1, ("synthetic.miniatures.making",)),
    "baseline": Stage(2, ("baselines.training",)),
    "random features": Stage(3, ("probing.extraction", "pipeline.model_steps")),
    "adapter": Stage(2, ("training.fine_tuning", "pipeline.model_steps")),
    "predictions": Stage(3, ("training.prediction", "pipeline.model_steps")),
    "prompts": Stage(1, ("training.prediction", "pipeline.model_steps")),
    "features": Stage(3, ("probing.extraction", "pipeline.model_steps")),
    "logit lens": Stage(3, ("probing.logit_lens", "pipeline.model_steps")),
    "probes": Stage(3, ("probing.probes", "pipeline.model_steps")),
    "layer transfer": Stage(2, ("probing.probes", "pipeline.model_steps")),
    "controls": Stage(3, ("pipeline.model_steps",)),
    "image controls": Stage(2, ("datasets.controls",)),
    "vision tower alone": Stage(2, ("training.vision_classifier", "pipeline.model_steps")),
    "calibration": Stage(3, ("synthetic.faults.calibration",)),
    "replication": Stage(1, ("synthetic.faults.planting",)),
    "trial": Stage(3, ("synthetic.faults.planting",)),
    "interventions": Stage(2, ("synthetic.editing",)),
}
