"""Generated text taken apart: what is thought and what is answer, and the option that the answer names."""

import collections
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mlprobe_utils.common.errors import InputError


class Thought(NamedTuple):
    """The marks around what a model writes before it answers; to some tokenizers they are ordinary text."""

    opens: str
    closes: str


THOUGHTS = (Thought("<think>", "</think>"), Thought("<unused94>", "<unused95>"))  # the second is MedGemma 1.5's
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL | re.IGNORECASE)  # MedVLM-R1 was trained to answer so
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af"  # kana, Han, Hangul: no spaces around words
LETTER = rf"[^\W_{_UNSPACED}]"
_SIGN = "[-+<>≤≥=±%]"
_SAME = {"\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2212": "-", "’": "'"}
_ENGLISH = rf"(?<!{LETTER})(?:not|non|no|without)[\s_-]+(?:(?:a|an|any|the)\s+)?"
_CHINESE = r"(?:不是|并非|没有|未见|排除|是否为?|[不非无未])(?:明显|任何|典型)?\s*"
_NEGATION = f"{_ENGLISH}|{_CHINESE}"


def answer_in(text: str, thoughts: Sequence[Thought] = THOUGHTS, opened: bool = False) -> tuple[str, bool]:
    """What of a generated text is outside of any thought, and whether the last thought was cut off before its end;
    `opened`: the prompt has opened a thought already.

    >>> answer_in("<think>The margin is irregular.</think>Malignant")
    ('Malignant', False)
    """
    opens, closes = ("|".join(map(re.escape, marks)) for marks in zip(*thoughts, strict=True))
    outside, closed = re.subn(rf"^.*(?:{closes})", "", text, flags=re.DOTALL | re.IGNORECASE)
    if opened and not closed:
        return "", True
    outside, cut = re.subn(rf"(?:{opens}).*$", "", outside, flags=re.DOTALL | re.IGNORECASE)
    tagged = _TAGGED.findall(outside)
    return " ".join(tagged) if tagged else outside, bool(cut)


def parse_answer(
    text: str,
    options: Iterable[str],
    synonyms: Mapping[str, Sequence[str]] | None = None,
    thoughts: Sequence[Thought] = THOUGHTS,
    opened: bool = False,
) -> str | None:
    """The one option that a generated text names outside of its thoughts, or None (unparsed: counted wrong, reported).

    Whole words, without regard to case, width and composition of letters (NFKC); signs at the ends of an option count.
    None for several options, or a negated one. `synonyms` are option -> other words for it, in any language.

    >>> parse_answer("The finding is benign.", ["Normal", "Benign", "Malignant"])
    'Benign'
    """
    patterns = option_patterns(options, synonyms or {})
    longest_first = "|".join(sorted(patterns, key=len, reverse=True))  # "no finding" before "finding"
    answer = re.sub(r"n't\b", " not", _normal(answer_in(text, thoughts, opened)[0]))
    # the negation is tried second (??), so that an option "No" is an answer and no negation
    found = re.findall(f"({_NEGATION})??({longest_first})", answer)
    named = {option for pattern, option in patterns.items() for _, words in found if re.fullmatch(pattern, words)}
    return named.pop() if len(named) == 1 and not any(negation for negation, _ in found) else None


def option_patterns(options: Iterable[str], synonyms: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Regular expression -> the option that it finds in an answer. InputError for two options that an answer could not
    distinguish, or for one without a letter, digit or sign."""
    spelled = [(spelling, option) for option in options for spelling in (option, *synonyms.get(option, ()))]
    parts = [_parts(spelling) for spelling, _ in spelled]
    same_words, found = collections.Counter(words for _, words, _ in parts), {}
    for (spelling, option), (before, words, after) in zip(spelled, parts, strict=True):
        if not (before or words or after):
            raise InputError(f"the option {spelling!r} has no letter, digit or sign: give it words")
        pattern = _pattern(before, words, after, strict=same_words[words] > 1)
        if found.setdefault(pattern, option) != option:
            both = f"the options {found[pattern]!r} and {spelling!r} cannot be distinguished in an answer"
            raise InputError(f"{both}: case, spaces and inner punctuation are ignored, so reword one of the two")
    return found


def _normal(text: str) -> str:
    composed = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return composed.translate(str.maketrans(_SAME)).replace("<=", "≤").replace(">=", "≥")


def _parts(spelling: str) -> tuple[str, tuple[str, ...], str]:
    """Signs before the words, the words, and signs after them."""
    normal = _normal(spelling)
    words = re.findall(r"[^\W_]+", normal)
    before, after = (normal.partition(words[0])[0], normal.rpartition(words[-1])[2]) if words else (normal, "")
    return "".join(re.findall(_SIGN, before)), tuple(words), "".join(re.findall(_SIGN, after))


def _pattern(before: str, words: tuple[str, ...], after: str, strict: bool) -> str:
    """`strict`: another option has the same words, so that a sign beside them is not punctuation."""
    if not words:
        return rf"(?<!\w){re.escape(before)}(?!\w)"
    left = "".join(rf"{re.escape(sign)}\s*" for sign in before)
    right = "".join(rf"\s*{sign}" if sign == "%" else re.escape(sign) for sign in after)
    if not before:
        left = (rf"(?<!{LETTER})(?<!\d[.,])" if re.match(LETTER, words[0]) else "") + f"(?<!{_SIGN})" * strict
    if after or re.match(LETTER, words[-1][-1]):
        right += f"(?!{LETTER})"
    right += ("" if after else r"(?![.,]\d)") + f"(?!{_SIGN})" * strict
    return left + r"[\W_]+".join(words) + right
