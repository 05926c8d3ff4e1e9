"""The steps of the work for one model on one data set, in order, and of its pages."""

STEPS = ("random weights", "fine-tuning", "answers", "features", "logit lens", "probes", "layer transfer", "controls")
CALIBRATED, PLANTED = "faults calibrated", "planted faults"
NOTEBOOK = "notebook"
