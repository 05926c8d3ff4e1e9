"""The names of the controls: what is scored beside the probes, and where."""

MAJORITY = "majority class"  # what is right without looking
FILE_FORMAT, FILE, PIXELS = "file format", "file format and size", "pixel statistics"
WITHOUT_MODEL = (MAJORITY, FILE_FORMAT, FILE, PIXELS)
REFERENCE = "classical classifier"  # trained on the same images alone: what the images tell without a pretrained model
CONTROL_TASK, RANDOM_WEIGHTS, TEXT_ONLY = "control task", "random weights", "text only"
MEMORISATION = "memorisation"  # of train images, where the others are scored on test images
CONTROL_RUN = 0  # the seed of the controls' probes, and the fine-tuned state that they are of
