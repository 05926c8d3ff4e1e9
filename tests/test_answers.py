"""Parsing of answers: whole words, case-folded, after any thinking; several or none named is unparsed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlprobe_utils.answers import parse_answer

BUSI = ["Normal", "Benign", "Malignant"]
YES_NO = ["Yes", "No"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Normal", "Normal"),
        ("benign.", "Benign"),
        ("MALIGNANT", "Malignant"),
        ("The lesion is **malignant**!", "Malignant"),
        ("'Benign'", "Benign"),
        ("Answer:\n\nBenign\n", "Benign"),
        ("benign, clearly benign", "Benign"),
        ("<think>Normal? No, the margin is malignant.</think>Benign", "Benign"),
        ("<THINK>\nmalignant\n</THINK>\nBenign", "Benign"),
        ("<think>normal</think><think>malignant</think> benign", "Benign"),
        ("malignant at first sight</think>Benign", "Benign"),  # the chat template itself opened the thought
        ("<think>it is benign", None),  # cut off before an answer
        ("Abnormal", None),
        ("subnormal tissue", None),
        ("normality", None),
        ("Normal or benign", None),
        ("not malignant", None),
        ("It is NOT malignant.", None),
        ("non-malignant", None),
        ("not a malignant lesion", None),
        ("It isn't malignant.", None),
        ("It isn’t malignant.", None),
        ("no malignant findings", None),
        ("", None),
        ("   \n", None),
        ("...", None),
        ("良性", None),
        ("Bösartig", None),
        ("I cannot tell.", None),
    ],
)
def test_three_classes(text, answer):
    assert parse_answer(text, BUSI) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes", "Yes"),
        ("no", "No"),
        ("No, there is no pneumonia.", "No"),
        ("Yes, there is COVID present.", "Yes"),
        ("Yes and no", None),
        ("Yes. No.", None),
        ("not yes", None),
        ("None", None),
        ("know nothing", None),
        ("yesterday", None),
        ("是", None),
    ],
)
def test_yes_or_no(text, answer):
    assert parse_answer(text, YES_NO) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is COVID-19.", "COVID-19"),
        ("no finding", "No finding"),
        ("COVID 20", None),
        ("no finding, or covid-19", None),
        ("Finding: finding", "Finding"),
        ("not a finding", None),
    ],
)
def test_option_of_several_words(text, answer):
    assert parse_answer(text, ["COVID-19", "Finding", "No finding"]) == answer


@given(
    st.sampled_from(BUSI), st.text(alphabet=" .,:;!?\n*'\"()-", max_size=8), st.text(alphabet=" .,!\n*'\"", max_size=8)
)
def test_case_and_punctuation_around_an_option_do_not_matter(option, before, after):
    for written in (option, option.upper(), option.lower()):
        assert parse_answer(before + written + after, BUSI) == option


@given(st.text(max_size=60))
def test_text_without_a_letter_of_an_option_is_unparsed(text):
    assert parse_answer("".join(c for c in text if c.casefold() not in "normalbenigntyos"), BUSI) is None


@given(st.permutations(BUSI), st.text(max_size=40))
def test_order_of_options_does_not_matter(options, text):
    text += " benign"
    assert parse_answer(text, options) == parse_answer(text, BUSI)
