"""Captioned phantoms, to train models on before they are asked: a caption names what is seen, never the answer."""

import numpy as np

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.synthetic.phantoms import ct, ultrasound, xray
from mlprobe_utils.synthetic.phantoms.seeds import generator

MODALITIES = {"ultrasound": ultrasound, "ct": ct, "xray": xray}
IRREGULAR = 0.12  # irregularity of the contour from which a lesion is called so
POSTERIOR = 5.0  # dB from which a shadow or an enhancement is mentioned
GROUND_GLASS = -290  # Hounsfield units up to which an opacity is called so, above dense
SOFT = 0.55  # width of an opacity's edge from which it is called soft, below sharp
VISIBLE, DENSE = 1.6, 3.5  # cm of fluid from which an opacity is mentioned, and called dense, below faint
HAZE = 1.2  # cm of fluid from which diffuse haze is mentioned


def captioned_phantoms(modality: str, n: int, seed: int, side: int = 64) -> tuple[np.ndarray, list[str], list[str]]:
    """Images with captions, classes in turn; image i is the same whatever `n`.

    Args:
        modality: "ultrasound", "ct" or "xray".
        n: images.
        seed: not negative; no image of a phantom set is ever among these, whatever the seeds.
        side: pixels.

    Returns:
        Images uint8 [n, side, side, 3] (grey), captions, labels (class names of the data card).

    Raises:
        InputError: unknown modality, or n, seed or side too small.
    """
    module, index = check_modality(modality)
    check_numbers(n, seed, side)
    images, captions, labels = np.empty((n, side, side, 3), np.uint8), [], []
    for i in range(n):
        labels.append(module.LABELS[i % len(module.LABELS)])
        grey, parameters = module.draw(labels[i], generator("captions", seed, index, i), side)
        images[i] = grey[..., None]
        captions.append(caption(modality, parameters))
    return images, captions, labels


def check_modality(modality: str) -> tuple:
    """The module of a modality and its place among them; raises InputError if there is none."""
    if modality not in MODALITIES:
        raise unknown("modality", modality, MODALITIES)
    return MODALITIES[modality], list(MODALITIES).index(modality)


def check_numbers(n: int, seed: int, side: int = 64) -> None:
    """Raises InputError unless n >= 0, seed >= 0 and side >= 32 pixels."""
    for name, value, least in (("n", n, 0), ("seed", seed, 0), ("side", side, 32)):
        if value < least:
            raise InputError(f"{name} is {value}: give {least} or more")


def seen_opacities(parameters: dict) -> list[dict]:
    """The opacities of an X-ray phantom that are strong enough to be mentioned."""
    return [opacity for opacity in parameters["opacities"] if opacity["strength"] >= VISIBLE]


def caption(modality: str, parameters: dict) -> str:
    """The caption of an image from the parameters that `draw` returned, lower-case words."""
    return {"ultrasound": _ultrasound, "ct": _ct, "xray": _xray}[modality](parameters)


def _ultrasound(parameters: dict) -> str:
    if parameters["darkness"] is None:
        return "a breast ultrasound with even layered tissue"
    margin = "irregular" if parameters["irregularity"] > IRREGULAR else "smooth"
    form = "taller" if parameters["log_aspect"] > 0 else "wider"
    text = f"a breast ultrasound with a dark {margin} {form} lesion"
    if parameters["posterior"] < -POSTERIOR:
        return text + " and a posterior shadow"
    return text + (" and a posterior enhancement" if parameters["posterior"] > POSTERIOR else "")


def _ct(parameters: dict) -> str:
    if not parameters["opacities"]:
        return "a chest ct with clear lungs"
    number = {1: "a", 2: "two"}.get(len(parameters["opacities"]), "several")
    edge = "soft" if parameters["softness"] > SOFT else "sharp"
    kind = "ground-glass" if parameters["density"] <= GROUND_GLASS else "dense"
    noun = "opacity" if number == "a" else "opacities"
    lungs = sorted({opacity["lung"] for opacity in parameters["opacities"]})
    place = "both lungs" if len(lungs) == 2 else f"the {lungs[0]} lung"
    return f"a chest ct with {number} {edge} {kind} {noun} in {place}"


def _xray(parameters: dict) -> str:
    seen = ["diffuse haze in both lungs"] if parameters["haze"] >= HAZE else []
    for opacity in seen_opacities(parameters):
        strength = "dense" if opacity["strength"] >= DENSE else "faint"
        seen.append(f"a {strength} opacity in the {opacity['lung']} {opacity['zone']} lung")
    return "a chest x-ray with " + (" and ".join(seen) or "clear lungs")
