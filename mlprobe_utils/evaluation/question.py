"""The question put to a model about every image, its order, and the answers that it offers. With causal attention,
image tokens see a question only where it comes before them. There it also moves the image to later positions, whatever
it says: the third order has irrelevant text there, as long as the question."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.evaluation.answers import LETTER, option_patterns

QUESTION, IMAGE, IRRELEVANT = "question", "image", "irrelevant text"
ORDERS = {
    "image_first": (IMAGE, QUESTION),
    "question_first": (QUESTION, IMAGE),
    "irrelevant_first": (IRRELEVANT, IMAGE, QUESTION),
}
ORDER_NAMES = {order: order.replace("_", " ") for order in ORDERS}
OWN_PROMPT, REVERSED = "the card's own", "options reversed"  # wordings; the others are paraphrases
PASSAGE = (
    "The last train to the coast leaves at ten past seven and stops in every village along the river. In winter the "
    "carriages are half empty, and the guard has time to read his newspaper between two stations. Behind the bridge "
    "the line climbs through a forest of old beeches, and on clear evenings the lights of the harbour come into "
    "view long before the train slows down. The baker of the first village sends his rolls this way every morning, "
    "in baskets with a blue ribbon. Children wave from the gardens, a dog runs along the fence, and the signal by "
    "the mill is red more often than green. Nobody minds the wait. At the terminus there is a kiosk with tea and "
    "postcards, a bench under a lime tree, and a clock that has been four minutes fast for as long as anyone can "
    "remember."
)


@dataclass(frozen=True)
class Question:
    """A question about an image, and the answer for each label.

    >>> import mlprobe_utils as mp
    >>> question = mp.Question("<image> Is there pneumonia? Answer 'Yes' or 'No'.", {"normal": "No", "ill": "Yes"})

    Attributes:
        template: the text, with one `<image>`.
        options: label -> answer, two or more that differ in more than case and punctuation.
        order: one of `image_first`, `question_first` and `irrelevant_first`.
        synonyms: answer -> other words that count as this answer, such as `{"No": ["阴性"]}`.

    InputError if any of this is violated, or two answers cannot be distinguished."""

    template: str
    options: Mapping[str, str]
    order: str = "image_first"
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self):
        if (count := self.template.count("<image>")) != 1:
            raise InputError(f"the question has <image> {count} times: write it once, {'<image> ' + self.template!r}")
        if self.order not in ORDERS:
            raise unknown("order", self.order, ORDERS)
        if len(self.options) < 2:
            raise InputError(f"the question has {len(self.options)} options: give answers for two or more labels")
        answers = [*self.options.values()]
        if twice := [answer for answer in answers if answers.count(answer) > 1]:
            raise InputError(f"two labels have the answer {twice[0]!r}: give each label an answer of its own")
        if foreign := sorted({*self.synonyms} - {*answers}):
            raise unknown("option in synonyms", foreign[0], answers)
        option_patterns(answers, self.synonyms)

    def check_labels(self, labels: Iterable[str]) -> None:
        """Raises InputError for a label without an answer and, where there are labels, an option that no image has."""
        labels = {*labels}
        if missing := sorted(labels - {*self.options}):
            raise InputError(f"the question has no answer for the label {missing[0]!r}: add it to its options")
        if labels and (missing := sorted({*self.options} - labels)):
            raise InputError(f"no image has the label {missing[0]!r} of the question's options: remove it, or add some")


def with_options_reversed(template: str, options: Sequence[str]) -> str | None:
    """The question with its options in reverse order: where each is named last, as a word of its own, they change
    places end to end. None where one is not."""
    words = "|".join(map(re.escape, sorted(options, key=len, reverse=True)))
    named = re.compile(rf"(?<!{LETTER})(?:{words})(?!{LETTER})", re.IGNORECASE)
    last = sorted({own[0].casefold(): own for own in named.finditer(template)}.values(), key=re.Match.start)
    swapped = {own.span(): other[0] for own, other in zip(last, reversed(last), strict=True)}
    whole = len(last) == len(options)
    return named.sub(lambda own: swapped.get(own.span(), own[0]), template) if whole else None


def irrelevant_text(tokenizer, tokens: int) -> str:
    """A stretch of PASSAGE of exactly so many tokens, from the start of a word on; InputError where there is none."""
    for start in (0, *(place + 1 for place, letter in enumerate(PASSAGE) if letter == " ")):
        text = tokenizer.decode(tokens_of(tokenizer, PASSAGE[start:])[:tokens], clean_up_tokenization_spaces=False)
        whole = text and text == text.strip() and PASSAGE.startswith(text, start)  # a chat template may strip a text
        if whole and len(tokens_of(tokenizer, text)) == tokens:
            return text
    found = f"the question has {tokens} tokens, and the irrelevant passage of {len(tokens_of(tokenizer, PASSAGE))}"
    raise InputError(f"{found} no stretch that is as long: shorten the question (template of the data card)")


def tokens_of(tokenizer, text: str) -> list[int]:
    """Token ids of a text at the beginning of a line, as in a chat: alone, a tokenizer may put a space before it."""
    line, whole = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in ("\n", "\n" + text))
    return whole[len(line) :]
