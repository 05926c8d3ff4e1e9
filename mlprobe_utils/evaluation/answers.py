"""Reading the answer out of generated text."""

import re

_NEGATION = r"(?:not|non|no|without)[\s-]+(?:(?:a|an|any|the)\s+)?"


def parse_answer(text: str, options: list[str]) -> str | None:
    """The one option that the text names, or None (unparsed: counted wrong and reported).

    Whole words, case-folded, after any `<think>…</think>`; none or several options named is unparsed. "Not malignant"
    and "abnormal" name no class: an option that is negated does not count as named, and leaves the text unparsed.

    >>> parse_answer("The finding is benign.", ["Normal", "Benign", "Malignant"])
    'Benign'
    >>> parse_answer("Abnormal.", ["Normal", "Benign", "Malignant"]) is None
    True
    """
    # a chat template may open the thought itself, and a thought may be cut off before it ends
    text = re.sub(r"^.*</think>|<think>.*$", " ", text, flags=re.DOTALL | re.IGNORECASE).casefold()
    text = re.sub(r"n['’]t\b", " not", text)
    patterns = {r"\W+".join(re.findall(r"\w+", option.casefold())): option for option in options}
    longest_first = "|".join(sorted(patterns, key=len, reverse=True))  # "no finding" before "finding"
    # the negation is tried second (??), so that an option "No" is an answer and no negation
    found = re.findall(rf"(?<!\w)({_NEGATION})??({longest_first})(?!\w)", text)
    named = {option for pattern, option in patterns.items() for _, words in found if re.fullmatch(pattern, words)}
    return named.pop() if len(named) == 1 and not any(negation for negation, _ in found) else None
