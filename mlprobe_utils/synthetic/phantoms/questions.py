"""Questioned phantoms: one question an image, in turn about a sign and about the diagnosis, and its answer.

The questions about the diagnosis offer the options of the data cards, in other words than the cards' templates, so that
answering a card is a transfer and not a repetition.
"""

from collections.abc import Callable

import numpy as np

from mlprobe_utils.synthetic.phantoms import captions
from mlprobe_utils.synthetic.phantoms.captions import check_modality, check_numbers
from mlprobe_utils.synthetic.phantoms.difficulty import DIFFICULTY
from mlprobe_utils.synthetic.phantoms.seeds import generator

YES_OR_NO = " Please answer 'Yes' or 'No'."
THREE_FINDINGS = " Please answer 'Normal', 'Benign', or 'Malignant'."
DIAGNOSIS = {
    "ultrasound": [
        "What is the finding in this breast ultrasound?" + THREE_FINDINGS,
        "What does this breast ultrasound show?" + THREE_FINDINGS,
    ],
    "ct": ["Does this CT show COVID?" + YES_OR_NO, "Is COVID the finding in this CT?" + YES_OR_NO],
    "xray": ["Does this X-ray show pneumonia?" + YES_OR_NO, "Is pneumonia the finding in this X-ray?" + YES_OR_NO],
}
OPTIONS = {
    "ultrasound": {"normal": "Normal", "benign": "Benign", "malignant": "Malignant"},
    "ct": {"COVID": "Yes", "NonCOVID": "No"},
    "xray": {"PNEUMONIA": "Yes", "NORMAL": "No"},
}


def _of_lesion(answer: Callable[[dict], bool]) -> Callable[[dict], bool | None]:
    return lambda parameters: None if parameters["darkness"] is None else answer(parameters)


def _of_opacities(answer: Callable[[dict], bool]) -> Callable[[dict], bool | None]:
    return lambda parameters: answer(parameters) if parameters["opacities"] else None


# Question -> whether the answer is yes, from the parameters; None where the question makes no sense.
SIGNS: dict[str, dict[str, Callable[[dict], bool | None]]] = {
    "ultrasound": {
        "Is there a lesion?": lambda p: p["darkness"] is not None,
        "Is the margin of the lesion irregular?": _of_lesion(lambda p: p["irregularity"] > captions.IRREGULAR),
        "Is the margin of the lesion smooth?": _of_lesion(lambda p: p["irregularity"] <= captions.IRREGULAR),
        "Is the lesion taller?": _of_lesion(lambda p: p["log_aspect"] > 0),
        "Is there a posterior shadow?": _of_lesion(lambda p: p["posterior"] < -captions.POSTERIOR),
        "Is there a posterior enhancement?": _of_lesion(lambda p: p["posterior"] > captions.POSTERIOR),
    },
    "ct": {
        "Are the lungs clear?": lambda p: not p["opacities"],
        "Is there a ground-glass opacity?": lambda p: bool(p["opacities"]) and p["density"] <= captions.GROUND_GLASS,
        "Is there a dense opacity?": lambda p: bool(p["opacities"]) and p["density"] > captions.GROUND_GLASS,
        "Are the opacities soft?": _of_opacities(lambda p: p["softness"] > captions.SOFT),
        "Are there several opacities?": lambda p: len(p["opacities"]) > 2,
        "Are there opacities in both lungs?": lambda p: len({o["lung"] for o in p["opacities"]}) == 2,
    },
    "xray": {
        "Are the lungs clear?": lambda p: p["haze"] < captions.HAZE and not captions.seen_opacities(p),
        "Is there diffuse haze?": lambda p: p["haze"] >= captions.HAZE,
        "Is there an opacity?": lambda p: bool(captions.seen_opacities(p)),
        "Is there a dense opacity?": lambda p: any(o["strength"] >= captions.DENSE for o in p["opacities"]),
        "Is there an opacity in the right lung?": lambda p: _in_lung(p, "right"),
        "Is there an opacity in the left lung?": lambda p: _in_lung(p, "left"),
    },
}


def _in_lung(parameters: dict, lung: str) -> bool:
    return any(opacity["lung"] == lung for opacity in captions.seen_opacities(parameters))


def questioned_phantoms(
    modality: str, n: int, seed: int, side: int = 64, difficulty: float = DIFFICULTY
) -> tuple[np.ndarray, list[str], list[str]]:
    """Images, a question about each, and its answer; image i is the same whatever `n`.

    Questions about signs and about the diagnosis take turns. Each kind goes through its questions in turn, and through
    the answers of each question, so that no answer can be guessed from its question.

    Args:
        modality: "ultrasound", "ct" or "xray".
        n: images.
        seed: not negative; no image of a phantom set is ever among these, whatever the seeds.
        side: pixels.
        difficulty: 0 to 1.

    Returns:
        Images uint8 [n, side, side, 3] (grey), questions, answers.

    Raises:
        InputError: unknown modality, or n, seed or side too small.
    """
    module, index = check_modality(modality)
    check_numbers(n, seed, side)
    images, asked, answers = np.empty((n, side, side, 3), np.uint8), [], []
    for i in range(n):
        rng = generator("questions", seed, index, i)
        turn = i // 2
        if i % 2 == 0:
            question, answer, parameters = _about_a_sign(modality, turn, rng, difficulty)
        else:
            label = module.LABELS[turn % len(module.LABELS)]
            questions = DIAGNOSIS[modality]
            question = questions[turn // len(module.LABELS) % len(questions)]
            answer, parameters = OPTIONS[modality][label], module.random_parameters(label, rng, difficulty)
        images[i] = module.picture(parameters, rng, side)[..., None]
        asked.append(question)
        answers.append(answer)
    return images, asked, answers


def _about_a_sign(modality: str, turn: int, rng: np.random.Generator, difficulty: float) -> tuple[str, str, dict]:
    """The question and answer whose turn it is, and the parameters of an image that they are right for."""
    labels, signs = captions.MODALITIES[modality].LABELS, list(SIGNS[modality].items())
    question, is_yes = signs[turn // 2 % len(signs)]
    wanted = turn % 2 == 0
    while True:
        label = labels[rng.integers(len(labels))]
        parameters = captions.MODALITIES[modality].random_parameters(label, rng, difficulty)
        if is_yes(parameters) is wanted:
            return question + YES_OR_NO, "Yes" if wanted else "No", parameters
