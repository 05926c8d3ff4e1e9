"""Parsing of answers: whole words, case-folded, after any thinking; several or none named is unparsed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlprobe_utils.evaluation.question import parse_answer

BUSI = ["Normal", "Benign", "Malignant"]
YES_NO = ["Yes", "No"]
SEVERAL_WORDS = ["COVID-19", "Finding", "No finding"]
NAMED = {
    "The lesion is **malignant**!": "Malignant",
    "benign, clearly benign": "Benign",
    "<think>Normal? No, the margin is malignant.</think>Benign": "Benign",
    "<THINK>\nmalignant\n</THINK>\nBenign": "Benign",
    "<think>normal</think><think>malignant</think> benign": "Benign",
    "malignant at first sight</think>Benign": "Benign",  # the chat template itself opened the thought
}
UNPARSED = """<think>it is benign|Abnormal|subnormal tissue|normality|Normal or benign|not malignant
It is NOT malignant.|non-malignant|not a malignant lesion|It isn't malignant.|It isn’t malignant.
no malignant findings||良性|I cannot tell.""".replace("\n", "|").split("|")
YES = ["Yes", "Yes, there is COVID present."]
NO = ["no", "No, there is no pneumonia."]
NEITHER = ["Yes and no", "Yes. No.", "not yes", "None", "know nothing", "yesterday", "是"]


@pytest.mark.parametrize(
    ("options", "text", "answer"),
    [(BUSI, text, answer) for text, answer in (NAMED | dict.fromkeys(UNPARSED)).items()]
    + [(YES_NO, text, answer) for answer, own in (("Yes", YES), ("No", NO), (None, NEITHER)) for text in own]
    + [
        (SEVERAL_WORDS, "It is COVID-19.", "COVID-19"),
        (SEVERAL_WORDS, "no finding", "No finding"),
        (SEVERAL_WORDS, "COVID 20", None),
        (SEVERAL_WORDS, "no finding, or covid-19", None),
        (SEVERAL_WORDS, "Finding: finding", "Finding"),
        (SEVERAL_WORDS, "not a finding", None),
    ],
)
def test_an_answer_is_the_one_option_that_it_names(options, text, answer):
    assert parse_answer(text, options) == answer


@given(
    st.sampled_from(BUSI), st.text(alphabet=" .,:;!?\n*'\"()-", max_size=8), st.text(alphabet=" .,!\n*'\"", max_size=8)
)
def test_case_and_punctuation_around_an_option_do_not_matter(option, before, after):
    for written in (option, option.upper(), option.lower()):
        assert parse_answer(before + written + after, BUSI) == option


@given(st.permutations(BUSI), st.text(max_size=40))
def test_order_of_options_does_not_matter(options, text):
    text += " benign"
    assert parse_answer(text, options) == parse_answer(text, BUSI)
