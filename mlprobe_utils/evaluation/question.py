"""The question that is put to a model about every image, and the answer that stands for each label."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.evaluation.orders import ORDERS


@dataclass(frozen=True)
class Question:
    """A question about an image, and the answer to it of each label.

    >>> import mlprobe_utils as mp
    >>> question = mp.Question("<image> Is there pneumonia? Answer 'Yes' or 'No'.", {"normal": "No", "ill": "Yes"})

    Attributes:
        template: the text, with `<image>` once.
        options: label of an image -> answer, two or more. Answers are read without regard to case.
        order: one of `image_first`, `question_first` and `irrelevant_first`.

    Raises:
        InputError: a template without `<image>` or with several, an unknown order, fewer than two options, two labels
            with one answer.
    """

    template: str
    options: Mapping[str, str]
    order: str = "image_first"

    def __post_init__(self):
        if (count := self.template.count("<image>")) != 1:
            raise InputError(f"the question has <image> {count} times: write it once, {'<image> ' + self.template!r}")
        if self.order not in ORDERS:
            raise unknown("order", self.order, ORDERS)
        if len(self.options) < 2:
            raise InputError(f"the question has {len(self.options)} options: give an answer for each of two labels")
        counted = Counter(answer.casefold() for answer in self.options.values())
        if twice := [answer for answer in self.options.values() if counted[answer.casefold()] > 1]:
            raise InputError(f"two labels have the answer {twice[0]!r}: give each label an answer of its own")

    def check_labels(self, labels: Iterable[str]) -> None:
        """Raises InputError for a label without an answer, and where there are labels, an option that no image has."""
        labels = {*labels}
        if missing := sorted(labels - {*self.options}):
            raise InputError(f"the question has no answer for the label {missing[0]!r}: add it to its options")
        if labels and (missing := sorted({*self.options} - labels)):
            raise InputError(f"no image has the label {missing[0]!r} of the question's options: remove it, or add some")
