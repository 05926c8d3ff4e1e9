"""What phantoms show, in words: captions, which never name the answer, questions with answers, and sentences without
images. Questions about the diagnosis offer the options of the data cards in other words than the cards' templates, so
that answering a card is a transfer and not a repetition."""

import numpy as np

from mlprobe_utils.synthetic.phantoms.canvas import generator
from mlprobe_utils.synthetic.phantoms.modalities import MODALITIES, draw, picture, random_parameters

CAPTION_REQUEST = "Describe the image."
YES_OR_NO = " Please answer 'Yes' or 'No'."
THREE_FINDINGS = " Please answer 'Normal', 'Benign', or 'Malignant'."
DIAGNOSIS = {
    "ultrasound": ("What is the finding in this breast ultrasound?", "What does this breast ultrasound show?"),
    "ct": ("Does this CT show COVID?", "Is COVID the finding in this CT?"),
    "xray": ("Does this X-ray show pneumonia?", "Is pneumonia the finding in this X-ray?"),
}
ANSWERS = {"normal": "Normal", "benign": "Benign", "malignant": "Malignant"}
ANSWERS |= {"COVID": "Yes", "NonCOVID": "No", "PNEUMONIA": "Yes", "NORMAL": "No"}
# modality -> question -> what a caption says where the answer is yes, and without which the question makes no sense
SIGNS = {
    "ultrasound": {
        "Is there a lesion?": ("lesion", ""),
        "Is the margin of the lesion irregular?": ("irregular", "lesion"),
        "Is the margin of the lesion smooth?": ("smooth", "lesion"),
        "Is the lesion taller?": ("taller", "lesion"),
        "Is there a posterior shadow?": ("shadow", "lesion"),
        "Is there a posterior enhancement?": ("enhancement", "lesion"),
    },
    "ct": {
        "Are the lungs clear?": ("clear lungs", ""),
        "Is there a ground-glass opacity?": ("ground-glass", ""),
        "Is there a dense opacity?": ("dense", ""),
        "Are the opacities soft?": ("soft", "opacit"),
        "Are there several opacities?": ("several", ""),
        "Are there opacities in both lungs?": ("both lungs", ""),
    },
    "xray": {
        "Are the lungs clear?": ("clear lungs", ""),
        "Is there diffuse haze?": ("diffuse haze", ""),
        "Is there an opacity?": ("opacity", ""),
        "Is there a dense opacity?": ("dense", ""),
        "Is there an opacity in the right lung?": ("right", ""),
        "Is there an opacity in the left lung?": ("left", ""),
    },
}


def _ultrasound(parameters: dict) -> str:
    if parameters["darkness"] is None:
        return "a breast ultrasound with even layered tissue"
    margin = "irregular" if parameters["irregularity"] > 0.12 else "smooth"
    form = "taller" if parameters["log_aspect"] > 0 else "wider"
    text = f"a breast ultrasound with a dark {margin} {form} lesion"
    if abs(parameters["posterior"]) <= 5:  # dB
        return text
    return f"{text} and a posterior {'enhancement' if parameters['posterior'] > 0 else 'shadow'}"


def _ct(parameters: dict) -> str:
    if not parameters["opacities"]:
        return "a chest ct with clear lungs"
    count = len(parameters["opacities"])
    number, noun = {1: "a", 2: "two"}.get(count, "several"), "opacity" if count == 1 else "opacities"
    edge = "soft" if parameters["softness"] > 0.55 else "sharp"
    kind = "ground-glass" if parameters["density"] <= -290 else "dense"  # Hounsfield units
    lungs = sorted({opacity["lung"] for opacity in parameters["opacities"]})
    place = "both lungs" if len(lungs) == 2 else f"the {lungs[0]} lung"
    return f"a chest ct with {number} {edge} {kind} {noun} in {place}"


def _xray(parameters: dict) -> str:
    seen = ["diffuse haze in both lungs"] if parameters["haze"] >= 1.2 else []  # cm of fluid, as below
    for opacity in parameters["opacities"]:
        if opacity["strength"] >= 1.6:
            strength = "dense" if opacity["strength"] >= 3.5 else "faint"
            seen.append(f"a {strength} opacity in the {opacity['lung']} {opacity['zone']} lung")
    return "a chest x-ray with " + (" and ".join(seen) or "clear lungs")


CAPTIONS = {"ultrasound": _ultrasound, "ct": _ct, "xray": _xray}  # of the parameters that `draw` returned


def captioned_phantom(modality: str, i: int, seed: int, side: int = 64) -> tuple[np.ndarray, str, str]:
    """Image i, uint8 [side, side], the request, and the caption; classes take turns, no image is in a phantom set."""
    place, labels = list(MODALITIES).index(modality), MODALITIES[modality].LABELS
    grey, parameters = draw(modality, labels[i % len(labels)], generator("captions", seed, place, i), side)
    return grey, CAPTION_REQUEST, CAPTIONS[modality](parameters)


def questioned_phantom(modality: str, i: int, seed: int, side: int = 64) -> tuple[np.ndarray, str, str]:
    """Image i, uint8 [side, side], a question about it, and the answer; no image is in a phantom set. Questions about
    signs and about the diagnosis take turns, and so do those of a kind, and the answers of each."""
    rng, turn = generator("questions", seed, list(MODALITIES).index(modality), i), i // 2
    labels, signs = MODALITIES[modality].LABELS, list(SIGNS[modality].items())
    if i % 2:
        label, options = labels[turn % len(labels)], THREE_FINDINGS if modality == "ultrasound" else YES_OR_NO
        question, answer = DIAGNOSIS[modality][turn // len(labels) % 2] + options, ANSWERS[label]
        parameters = random_parameters(modality, label, rng)
    else:
        question, (sign, needed) = signs[turn // 2 % len(signs)]
        question, yes, text = question + YES_OR_NO, turn % 2 == 0, None
        while text is None or needed not in text or (sign in text) != yes:
            parameters = random_parameters(modality, labels[rng.integers(len(labels))], rng)
            text = CAPTIONS[modality](parameters)
        answer = "Yes" if yes else "No"
    return picture(modality, parameters, rng, side), question, answer


LOOKS = {
    "a normal breast": ["even layered tissue"],
    "a benign lesion": ["a smooth wider lesion with a posterior enhancement", "a smooth wider lesion"],
    "a malignant lesion": ["an irregular taller lesion with a posterior shadow", "an irregular taller lesion"],
    "COVID": ["several soft ground-glass opacities in both lungs", "soft ground-glass opacities"],
    "pneumonia": ["a dense opacity or diffuse haze", "a faint opacity or diffuse haze"],
    "a clear lung": ["a lung with no opacity and no haze"],
}
DESCRIBE = ("What does {} look like?", "How does {} look?", "Describe {}.")
CONDITIONS = [  # a question that is answered with yes of the first condition, with no of the second
    ("Is {} irregular?", "a malignant lesion", "a benign lesion"),
    ("Is {} smooth?", "a benign lesion", "a malignant lesion"),
    ("Is {} taller?", "a malignant lesion", "a benign lesion"),
    ("Is there a posterior shadow with {}?", "a malignant lesion", "a benign lesion"),
    ("Is there a posterior enhancement with {}?", "a benign lesion", "a malignant lesion"),
    ("Is there a lesion with {}?", "a benign lesion", "a normal breast"),
    ("Are there opacities with {}?", "COVID", "a clear lung"),
    ("Is there haze with {}?", "pneumonia", "a clear lung"),
]
FINDINGS = [
    ("What is even layered tissue?", "Normal"),
    ("What is a smooth wider lesion?", "Benign"),
    ("What is an irregular taller lesion?", "Malignant"),
    ("What is a lesion with a posterior enhancement?", "Benign"),
    ("What is a lesion with a posterior shadow?", "Malignant"),
    ("What is a breast with no lesion?", "Normal"),
]
DISEASES = [  # whether a finding in a lung shows a disease
    ("Do soft ground-glass opacities in both lungs show COVID?", "Yes"),
    ("Does a sharp dense opacity show COVID?", "No"),
    ("Does a dense opacity in the lung show pneumonia?", "Yes"),
    ("Does diffuse haze in both lungs show pneumonia?", "Yes"),
    ("Does a clear lung show COVID?", "No"),
    ("Does a clear lung show pneumonia?", "No"),
]


def medical_sentence(i: int, seed: int) -> tuple[str, str]:
    """Question i about a condition, and its answer. Four kinds take turns: how a condition looks; whether it has a
    sign; which of three findings a description means; whether a finding means a disease."""
    rng, kind = generator("sentences", seed, i), i % 4

    def one_of(choices):
        return choices[rng.integers(len(choices))]

    if kind == 0:
        condition = one_of(list(LOOKS))
        return one_of(DESCRIBE).format(condition), one_of(LOOKS[condition])
    if kind == 1:
        question, *conditions = one_of(CONDITIONS)
        no = rng.integers(2)
        return question.format(conditions[no]) + YES_OR_NO, ("Yes", "No")[no]
    question, answer = one_of(FINDINGS if kind == 2 else DISEASES)
    return question + (THREE_FINDINGS if kind == 2 else YES_OR_NO), answer
