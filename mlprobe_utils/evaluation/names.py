"""Names in rows and tables: the controls, the sites and failure modes of a diagnosis, the classifiers of figure 1."""

MAJORITY, FILE_FORMAT, FILE, PIXELS = "majority class", "file format", "file format and size", "pixel statistics"
WITHOUT_MODEL = (MAJORITY, FILE_FORMAT, FILE, PIXELS)
CLASSICAL = "classical classifier"  # trained on the same images alone: the reference of a diagnosis
CONTROL_TASK, RANDOM_WEIGHTS, TEXT_ONLY = "control task", "random weights", "text only"
MEMORISATION = "memorisation"  # scored on train images, the other controls on test images
CONTROL_RUN = 0  # seed of the controls' probes, and the fine-tuned state that they are of

REFERENCE, OUTPUT = "reference", "final output"
VISION_TOWER, CONNECTOR = "vision tower's end", "connector's end"
IMAGE_TOKENS, LAST_TOKEN = "LLM's end, image tokens", "LLM's end, last token"
PROBED_SITES = {  # site -> module and pooling of the probe, at the module's last point
    VISION_TOWER: ("V", "image_mean"),
    CONNECTOR: ("C", "image_mean"),
    IMAGE_TOKENS: ("L", "image_mean"),
    LAST_TOKEN: ("L", "last_token"),
}
SITES = (REFERENCE, *PROBED_SITES, OUTPUT)
QUALITY, FIDELITY = "quality limitation", "fidelity loss"
COMPREHENSION, MISALIGNMENT = "comprehension deficit", "misalignment"
MODES = (QUALITY, FIDELITY, COMPREHENSION, MISALIGNMENT)  # failure modes (paper, section 4.2), as the information flows

CATEGORIES = ("CNN", "MLP", "ViT", "hybrid")  # of traditional classifiers, in the order of figure 1
MLLM, TRADITIONAL = "MLLM", "all traditional"
FROZEN_TOWER = "frozen tower, linear head"
