"""What phantoms show, in words: captions, questions with their answers, and sentences without images.

A caption names what is seen, never the answer. Questions about the diagnosis offer the options of the data cards in
other words than the cards' templates, so that answering a card is a transfer and not a repetition.
"""

from collections.abc import Callable

import numpy as np

from mlprobe_utils.synthetic.phantoms.modalities import MODALITIES, draw, picture, random_parameters
from mlprobe_utils.synthetic.phantoms.randomness import generator

IRREGULAR = 0.12  # irregularity of the contour from which a lesion is called so
POSTERIOR = 5.0  # dB from which a shadow or an enhancement is mentioned
GROUND_GLASS = -290  # Hounsfield units up to which an opacity is called so, above dense
SOFT = 0.55  # width of an opacity's edge from which it is called soft, below sharp
VISIBLE, DENSE = 1.6, 3.5  # cm of fluid from which an opacity is mentioned, and called dense, below faint
HAZE = 1.2  # cm of fluid from which diffuse haze is mentioned

YES_OR_NO = " Please answer 'Yes' or 'No'."
THREE_FINDINGS = " Please answer 'Normal', 'Benign', or 'Malignant'."
DIAGNOSIS = {  # modality -> questions, and the answer of each class
    "ultrasound": (
        [
            "What is the finding in this breast ultrasound?" + THREE_FINDINGS,
            "What does this breast ultrasound show?" + THREE_FINDINGS,
        ],
        {"normal": "Normal", "benign": "Benign", "malignant": "Malignant"},
    ),
    "ct": (
        ["Does this CT show COVID?" + YES_OR_NO, "Is COVID the finding in this CT?" + YES_OR_NO],
        {"COVID": "Yes", "NonCOVID": "No"},
    ),
    "xray": (
        ["Does this X-ray show pneumonia?" + YES_OR_NO, "Is pneumonia the finding in this X-ray?" + YES_OR_NO],
        {"PNEUMONIA": "Yes", "NORMAL": "No"},
    ),
}


def seen_opacities(parameters: dict, *lungs: str) -> list[dict]:
    """The opacities of an X-ray phantom that are strong enough to be mentioned, of all lungs or some."""
    seen = [opacity for opacity in parameters["opacities"] if opacity["strength"] >= VISIBLE]
    return [opacity for opacity in seen if opacity["lung"] in lungs or not lungs]


# Question -> whether the answer is yes, from the parameters; neither True nor False where the question makes no sense.
SIGNS: dict[str, dict[str, Callable[[dict], object]]] = {
    "ultrasound": {
        "Is there a lesion?": lambda p: p["darkness"] is not None,
        "Is the margin of the lesion irregular?": lambda p: p["darkness"] and p["irregularity"] > IRREGULAR,
        "Is the margin of the lesion smooth?": lambda p: p["darkness"] and p["irregularity"] <= IRREGULAR,
        "Is the lesion taller?": lambda p: p["darkness"] and p["log_aspect"] > 0,
        "Is there a posterior shadow?": lambda p: p["darkness"] and p["posterior"] < -POSTERIOR,
        "Is there a posterior enhancement?": lambda p: p["darkness"] and p["posterior"] > POSTERIOR,
    },
    "ct": {
        "Are the lungs clear?": lambda p: not p["opacities"],
        "Is there a ground-glass opacity?": lambda p: bool(p["opacities"]) and p["density"] <= GROUND_GLASS,
        "Is there a dense opacity?": lambda p: bool(p["opacities"]) and p["density"] > GROUND_GLASS,
        "Are the opacities soft?": lambda p: p["opacities"] and p["softness"] > SOFT,
        "Are there several opacities?": lambda p: len(p["opacities"]) > 2,
        "Are there opacities in both lungs?": lambda p: len({o["lung"] for o in p["opacities"]}) == 2,
    },
    "xray": {
        "Are the lungs clear?": lambda p: p["haze"] < HAZE and not seen_opacities(p),
        "Is there diffuse haze?": lambda p: p["haze"] >= HAZE,
        "Is there an opacity?": lambda p: bool(seen_opacities(p)),
        "Is there a dense opacity?": lambda p: any(o["strength"] >= DENSE for o in p["opacities"]),
        "Is there an opacity in the right lung?": lambda p: bool(seen_opacities(p, "right")),
        "Is there an opacity in the left lung?": lambda p: bool(seen_opacities(p, "left")),
    },
}


def series(n: int, one: Callable[[int], tuple]) -> tuple[np.ndarray, list[str], ...]:
    """Images uint8 [n, side, side, 3] (grey) and their texts, from what `one` gives of each running number."""
    pictures, *texts = zip(*map(one, range(n)), strict=True)
    return np.repeat(np.stack(pictures)[..., None], 3, axis=-1), *map(list, texts)


def captioned_phantoms(modality: str, n: int, seed: int, side: int = 64) -> tuple[np.ndarray, list[str]]:
    """Images with captions, classes in turn; image i is the same whatever `n`, and in no phantom set."""
    place, labels = list(MODALITIES).index(modality), MODALITIES[modality].LABELS

    def one(i: int) -> tuple[np.ndarray, str]:
        grey, parameters = draw(modality, labels[i % len(labels)], generator("captions", seed, place, i), side)
        return grey, caption(modality, parameters)

    return series(n, one)


def _ultrasound(parameters: dict) -> str:
    if parameters["darkness"] is None:
        return "a breast ultrasound with even layered tissue"
    margin = "irregular" if parameters["irregularity"] > IRREGULAR else "smooth"
    form = "taller" if parameters["log_aspect"] > 0 else "wider"
    text = f"a breast ultrasound with a dark {margin} {form} lesion"
    if abs(parameters["posterior"]) <= POSTERIOR:
        return text
    return f"{text} and a posterior {'enhancement' if parameters['posterior'] > 0 else 'shadow'}"


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


def caption(modality: str, parameters: dict) -> str:
    """The caption of an image from the parameters that `draw` returned, lower-case words."""
    return {"ultrasound": _ultrasound, "ct": _ct, "xray": _xray}[modality](parameters)


def questioned_phantoms(modality: str, n: int, seed: int, side: int = 64) -> tuple[np.ndarray, list[str], list[str]]:
    """Images, a question about each, and its answer; image i is the same whatever `n`, and in no phantom set.

    Questions about signs and about the diagnosis take turns. Each kind goes through its questions in turn, and through
    the answers of each question, so that no answer can be guessed from its question.
    """
    place, (questions, options) = list(MODALITIES).index(modality), DIAGNOSIS[modality]

    def one(i: int) -> tuple[np.ndarray, str, str]:
        rng, turn = generator("questions", seed, place, i), i // 2
        if i % 2 == 0:
            question, answer, parameters = _about_a_sign(modality, turn, rng)
        else:
            label = MODALITIES[modality].LABELS[turn % len(options)]
            question, answer = questions[turn // len(options) % len(questions)], options[label]
            parameters = random_parameters(modality, label, rng)
        return picture(modality, parameters, rng, side), question, answer

    return series(n, one)


def _about_a_sign(modality: str, turn: int, rng: np.random.Generator) -> tuple[str, str, dict]:
    """The question and answer whose turn it is, and the parameters of an image that they are right for."""
    labels, signs = MODALITIES[modality].LABELS, list(SIGNS[modality].items())
    question, is_yes = signs[turn // 2 % len(signs)]
    wanted = turn % 2 == 0
    while True:
        parameters = random_parameters(modality, labels[rng.integers(len(labels))], rng)
        if is_yes(parameters) is wanted:
            return question + YES_OR_NO, "Yes" if wanted else "No", parameters


LOOKS = {
    "a normal breast": ["even layered tissue"],
    "a benign lesion": ["a smooth wider lesion with a posterior enhancement", "a smooth wider lesion"],
    "a malignant lesion": ["an irregular taller lesion with a posterior shadow", "an irregular taller lesion"],
    "COVID": ["several soft ground-glass opacities in both lungs", "soft ground-glass opacities"],
    "pneumonia": ["a dense opacity or diffuse haze", "a faint opacity or diffuse haze"],
    "a clear lung": ["a lung with no opacity and no haze"],
}
DESCRIBE = ("What does {} look like?", "How does {} look?", "Describe {}.")
TELLING = [  # what is said of a condition: a question to answer with yes of the first, with no of the second
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
MEANING = [  # whether a finding in a lung shows a disease
    ("Do soft ground-glass opacities in both lungs show COVID?", "Yes"),
    ("Does a sharp dense opacity show COVID?", "No"),
    ("Does a dense opacity in the lung show pneumonia?", "Yes"),
    ("Does diffuse haze in both lungs show pneumonia?", "Yes"),
    ("Does a clear lung show COVID?", "No"),
    ("Does a clear lung show pneumonia?", "No"),
]


def medical_sentences(n: int, seed: int) -> tuple[list[str], list[str]]:
    """Questions about conditions, and their answers; text i is the same whatever `n`.

    Four kinds take turns: how a condition looks; whether it has a sign; which of three findings a description means;
    whether a finding means a disease.
    """
    pairs = [_sentence(i % 4, generator("sentences", seed, i)) for i in range(n)]
    return [question for question, _ in pairs], [answer for _, answer in pairs]


def _sentence(kind: int, rng: np.random.Generator) -> tuple[str, str]:
    def one_of(choices):
        return choices[rng.integers(len(choices))]

    if kind == 0:
        condition = one_of(list(LOOKS))
        return one_of(DESCRIBE).format(condition), one_of(LOOKS[condition])
    if kind == 1:
        question, *conditions = one_of(TELLING)
        no = rng.integers(2)
        return question.format(conditions[no]) + YES_OR_NO, ("Yes", "No")[no]
    question, answer = one_of(FINDINGS if kind == 2 else MEANING)
    return question + (THREE_FINDINGS if kind == 2 else YES_OR_NO), answer
