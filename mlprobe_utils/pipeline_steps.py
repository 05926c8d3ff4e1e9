"""The steps of the heavy work for one model on one data set, in order. Apart from the work, which imports torch."""

STEPS = ("random weights", "fine-tuning", "answers", "features", "logit lens", "probes", "layer transfer", "controls")
