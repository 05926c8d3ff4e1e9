"""In which order a model reads image and question, and text that has to do with neither.

In an LLM with causal attention a token sees what stands before it and nothing behind it: image tokens see a question
only where the question comes first. Text that comes first also moves the image to later positions, whatever it says: so
a third order has text there that is as long as the question, and says nothing of it.
"""

from mlprobe_utils.common.errors import InputError

QUESTION, IMAGE, IRRELEVANT = "question", "image", "irrelevant text"
ORDERS = {
    "image_first": (IMAGE, QUESTION),
    "question_first": (QUESTION, IMAGE),
    "irrelevant_first": (IRRELEVANT, IMAGE, QUESTION),
}
ORDER_NAMES = {"image_first": "image first", "question_first": "question first", "irrelevant_first": "irrelevant first"}
PASSAGE = (
    "The last train to the coast leaves at ten past seven and stops in every village along the river. In winter the "
    "carriages are half empty, and the guard has time to read his newspaper between two sites. Behind the bridge "
    "the line climbs through a forest of old beeches, and on clear evenings the lights of the harbour come into "
    "view long before the train slows down. The baker of the first village sends his rolls this way every morning, "
    "in baskets with a blue ribbon. Children wave from the gardens, a dog runs along the fence, and the signal by "
    "the mill is red more often than green. Nobody minds the wait. At the terminus there is a kiosk with tea and "
    "postcards, a bench under a lime tree, and a clock that has been four minutes fast for as long as anyone can "
    "remember."
)


def irrelevant_text(tokenizer, tokens: int) -> str:
    """A stretch of PASSAGE that a tokenizer makes exactly so many tokens of; it begins at a word.

    Args:
        tokenizer: the model's own, of transformers.
        tokens: how many, at least one, as `tokens_of` counts them.

    Raises:
        InputError: no stretch of the passage has so many tokens.
    """
    starts = [0, *(place + 1 for place, letter in enumerate(PASSAGE) if letter == " ")]
    for start in starts:
        text = tokenizer.decode(tokens_of(tokenizer, PASSAGE[start:])[:tokens], clean_up_tokenization_spaces=False)
        whole = text and text == text.strip() and PASSAGE.startswith(text, start)  # a chat template may strip a text
        if whole and len(tokens_of(tokenizer, text)) == tokens:
            return text
    most = len(tokens_of(tokenizer, PASSAGE))
    raise InputError(
        f"the question has {tokens} tokens, and the irrelevant passage of {most} tokens no stretch that is as long: "
        "shorten the question (template of the data card)"
    )


def tokens_of(tokenizer, text: str) -> list[int]:
    """Token ids of a text at the beginning of a line, as in a chat: alone, a tokenizer may put a space before it."""
    line, whole = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in ("\n", "\n" + text))
    return whole[len(line) :]
