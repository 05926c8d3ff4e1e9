"""Captioned phantoms, to train models on before they are asked: a caption names what is seen, never the answer."""

import numpy as np

from mlprobe_utils.errors import InputError, unknown
from mlprobe_utils.phantoms import ct, ultrasound, xray
from mlprobe_utils.phantoms.seeds import generator

MODALITIES = {"ultrasound": ultrasound, "ct": ct, "xray": xray}
IRREGULAR = 0.12  # irregularity of the contour from which a lesion is called so
POSTERIOR = 0.1  # strength from which a shadow or an enhancement is mentioned
DENSE = 0.28  # strength from which an opacity is called dense, below faint


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
    if modality not in MODALITIES:
        raise unknown("modality", modality, MODALITIES)
    check_numbers(n, seed, side)
    module, index = MODALITIES[modality], list(MODALITIES).index(modality)
    images, captions, labels = np.empty((n, side, side, 3), np.uint8), [], []
    for i in range(n):
        labels.append(module.LABELS[i % len(module.LABELS)])
        grey, parameters = module.draw(labels[i], generator("captions", seed, index, i), side)
        images[i] = grey[..., None]
        captions.append(caption(modality, parameters))
    return images, captions, labels


def check_numbers(n: int, seed: int, side: int) -> None:
    """Raises InputError unless n >= 0, seed >= 0 and side >= 32 pixels."""
    for name, value, least in (("n", n, 0), ("seed", seed, 0), ("side", side, 32)):
        if value < least:
            raise InputError(f"{name} is {value}: give {least} or more")


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
    lungs = {opacity["lung"] for opacity in parameters["opacities"]}
    if not lungs:
        return "a chest ct with clear lungs"
    place = "both lungs" if len(lungs) == 2 else f"the {lungs.pop()} lung"
    what = {"hazy patches": "hazy patches", "nodule": "a round nodule", "focal": "a focal opacity"}
    return f"a chest ct with {what[parameters['finding']]} in {place}"


def _xray(parameters: dict) -> str:
    if parameters["pattern"] == "clear":
        return "a chest x-ray with clear lungs"
    if parameters["pattern"] == "diffuse":
        return "a chest x-ray with diffuse haze in both lungs"
    seen = []
    for opacity in parameters["opacities"]:
        strength = "dense" if opacity["strength"] >= DENSE else "faint"
        seen.append(f"a {strength} opacity in the {opacity['lung']} {opacity['zone']} lung")
    return "a chest x-ray with " + " and ".join(seen)
