"""Names in rows and tables: controls, measurement points and failure modes of a diagnosis, classifiers of figure 1."""

from collections.abc import Iterable

from mlprobe_utils.evaluation.points import MODULES, PLACES, flow_order

MAJORITY, FILE_FORMAT, FILE, PIXELS = "majority class", "file format", "file format and size", "pixel statistics"
WITHOUT_MODEL = (MAJORITY, FILE_FORMAT, FILE, PIXELS)
CLASSICAL = "classical classifier"  # trained on the same images alone: the reference of a diagnosis
CONTROL_TASK, RANDOM_WEIGHTS, TEXT_ONLY = "control task", "random weights", "text only"
MEMORISATION = "memorisation"  # scored on train images, the other controls on test images
CONTROL_RUN = 0  # seed of the controls' probes, and the fine-tuned state that they are of

REFERENCE, OUTPUT = "reference", "final output"
VISION_TOWER, CONNECTOR = "vision tower's end", "connector's end"
IMAGE_TOKENS, LAST_TOKEN = "LLM's end, image tokens", "LLM's end, last token"


def placed(site: str) -> str:
    """The same measurement point, pooled by position instead of by the mean."""
    return f"{site}, by position"


TOWER_START = placed("vision tower's start")
ENDS_OF = {"V": VISION_TOWER, "C": CONNECTOR, "L": IMAGE_TOKENS}
PROBED_SITES = {  # measurement point -> module and pooling of the probe, and the module's first (0) or last (-1) point
    TOWER_START: ("V", PLACES, 0),
    **{site: (module, "image_mean", -1) for module, site in ENDS_OF.items()},
    **{placed(site): (module, PLACES, -1) for module, site in ENDS_OF.items()},
    LAST_TOKEN: ("L", "last_token", -1),
}


def places_of_sites(points: Iterable[str]) -> list[tuple[str, str]]:
    """(point, pooling) of each of PROBED_SITES, of a model's points; without those of a module that has none."""
    ordered = sorted(points, key=flow_order)
    of_module = {module: [point for point in ordered if point[0] == module] for module in MODULES}
    return [(of_module[m][place], pooling) for m, pooling, place in PROBED_SITES.values() if of_module[m]]


QUALITY, FIDELITY = "quality limitation", "fidelity loss"
COMPREHENSION, READ_OUT_GAP = "comprehension deficit", "read-out gap"
MODES = (QUALITY, FIDELITY, COMPREHENSION, READ_OUT_GAP)  # failure modes (paper, section 4.2), in forward order

CATEGORIES = ("CNN", "MLP", "ViT", "hybrid")  # of traditional classifiers, in the order of figure 1
MLLM, TRADITIONAL = "MLLM", "all traditional"
FROZEN_TOWER = "frozen tower, linear head"
