"""Medical text without images: what each condition looks like, asked and answered in the captions' words."""

from mlprobe_utils.synthetic.phantoms.captions import check_numbers
from mlprobe_utils.synthetic.phantoms.questions import THREE_FINDINGS, YES_OR_NO
from mlprobe_utils.synthetic.phantoms.seeds import generator

LOOKS = {
    "a normal breast": ["even layered tissue"],
    "a benign lesion": ["a smooth wider lesion with a posterior enhancement", "a smooth wider lesion"],
    "a malignant lesion": ["an irregular taller lesion with a posterior shadow", "an irregular taller lesion"],
    "COVID": ["several soft ground-glass opacities in both lungs", "soft ground-glass opacities"],
    "pneumonia": ["a dense opacity or diffuse haze", "a faint opacity or diffuse haze"],
    "a clear lung": ["a lung with no opacity and no haze"],
}
DESCRIBE = ("What does {} look like?", "How does {} look?", "Describe {}.")

# What is said of a condition: (a question to answer with yes of the first, with no of the second).
TELLING = [
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
MEANING = [  # findings in a lung: (finding, disease, whether the first shows the second)
    ("soft ground-glass opacities in both lungs", "COVID", True),
    ("a sharp dense opacity", "COVID", False),
    ("a dense opacity in the lung", "pneumonia", True),
    ("diffuse haze in both lungs", "pneumonia", True),
    ("a clear lung", "COVID", False),
    ("a clear lung", "pneumonia", False),
]


def medical_sentences(n: int, seed: int) -> tuple[list[str], list[str]]:
    """Questions about conditions, and their answers; text i is the same whatever `n`.

    Args:
        n: questions; four kinds take turns (how a condition looks; whether it has a sign; which of three findings a
            description means; whether a finding means a disease).
        seed: not negative.

    Returns:
        Questions, answers.

    Raises:
        InputError: n or seed negative.
    """
    check_numbers(n, seed)
    kinds = (_look, _telling, _finding, _meaning)
    pairs = [kinds[i % len(kinds)](generator("sentences", seed, i)) for i in range(n)]
    return [question for question, _ in pairs], [answer for _, answer in pairs]


def _look(rng) -> tuple[str, str]:
    condition = _one_of(list(LOOKS), rng)
    return _one_of(DESCRIBE, rng).format(condition), _one_of(LOOKS[condition], rng)


def _telling(rng) -> tuple[str, str]:
    question, *conditions = _one_of(TELLING, rng)
    no = rng.integers(2)
    return question.format(conditions[no]) + YES_OR_NO, ("Yes", "No")[no]


def _finding(rng) -> tuple[str, str]:
    question, answer = _one_of(FINDINGS, rng)
    return question + THREE_FINDINGS, answer


def _meaning(rng) -> tuple[str, str]:
    finding, disease, shows = _one_of(MEANING, rng)
    verb = "Do" if finding.startswith("soft") else "Does"
    return f"{verb} {finding} show {disease}?{YES_OR_NO}", "Yes" if shows else "No"


def _one_of(choices, rng):
    return choices[rng.integers(len(choices))]
