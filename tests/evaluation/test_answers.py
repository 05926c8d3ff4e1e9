"""Parsing of answers: whole words, case-folded, after any thinking; several or none named is unparsed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.answers import Thought, answer_in, parse_answer
from mlprobe_utils.evaluation.question import with_options_reversed

BUSI = ["Normal", "Benign", "Malignant"]
WORDS = ["COVID-19", "Finding", "No finding"]
NAMED = {
    "The lesion is **malignant**!": "Malignant",
    "benign, clearly benign": "Benign",
    "<think>Normal? No, the margin is malignant.</think>Benign": "Benign",
    "<THINK>\nmalignant\n</THINK>\nBenign": "Benign",
    "<think>normal</think><think>malignant</think> benign": "Benign",
    "malignant at first sight</think>Benign": "Benign",  # the chat template itself opened the thought
    "<unused94>thought\nmalignant or benign.<unused95>Benign": "Benign",  # as MedGemma 1.5 answers unasked
    "<think>malignant?</think>\n<answer>Benign</answer>": "Benign",  # as MedVLM-R1 was trained to
    "<answer> Benign": "Benign",
    "诊断为Malignant。": "Malignant",  # no space around a word beside Han letters
    "_Malignant_": "Malignant",
    "Ｍａｌｉｇｎａｎｔ": "Malignant",
}
UNPARSED = """<unused94>thought It could be malignant|不是Malignant|non_malignant
无明显Malignant|malignant_or_benign|<think>it is benign|Abnormal|subnormal tissue|normality|Normal or benign
not malignant|It is NOT malignant.|non-malignant|not a malignant lesion|It isn't malignant.|It isn’t malignant.
no malignant findings||良性|I cannot tell.""".replace("\n", "|").split("|")
SIGNED = ["COVID+", "COVID-"]
YES = ["Yes", "Yes, there is COVID present."]
NO = ["no", "No, there is no pneumonia.", "答案是No", "No</answer>"]
NEITHER = ["Yes and no", "Yes. No.", "not yes", "None", "know nothing", "yesterday", "是"]
LEFT = st.text(alphabet=" .,:;!?\n*'\"()-", max_size=8) | st.sampled_from(["诊断为", "“", "＿", "_", "答：", "（"])
RIGHT = st.text(alphabet=" .,!\n*'\"", max_size=8) | st.sampled_from(["。", "_", "，是"])
NAMED_IN_CHINESE = {"考虑良性病变": "Benign", "Benign（良性）": "Benign", "恶性": "Malignant"}
NAMED_IN_CHINESE |= dict.fromkeys(["不是恶性", "未见明显恶性征象", "非恶性", "良性或恶性"])


@pytest.mark.parametrize(
    ("options", "text", "answer"),
    [(BUSI, text, answer) for text, answer in (NAMED | dict.fromkeys(UNPARSED)).items()]
    + [(["Yes", "No"], text, answer) for answer, own in (("Yes", YES), ("No", NO), (None, NEITHER)) for text in own]
    + [
        (WORDS, "It is COVID-19.", "COVID-19"),
        (WORDS, "no finding", "No finding"),
        (WORDS, "Finding: finding", "Finding"),
        *((WORDS, text, None) for text in ("COVID 20", "no finding, or covid-19", "not a finding")),
        (SIGNED, "COVID+", "COVID+"),
        (SIGNED, "It is COVID−.", "COVID-"),
        (SIGNED, "COVID-19", None),
        (["<50%", ">50%"], "<50%", "<50%"),
        (["<50%", ">50%"], "it is > 50 %", ">50%"),
        (["CIN2", "CIN2+"], "CIN2", "CIN2"),
        (["CIN2", "CIN2+"], "CIN2+.", "CIN2+"),
        (["CIN2", "CIN2+"], "CIN2-", None),
        (["grade 1", "grade 2"], "grade 1.5", None),
        (["be\u0301nin", "malin"], "c'est bénin", "be\u0301nin"),
    ],
)
def test_an_answer_is_the_one_option_that_it_names(options, text, answer):
    assert parse_answer(text, options) == answer


@given(st.sampled_from(BUSI), LEFT, RIGHT, st.permutations(BUSI))
def test_case_and_what_is_no_spaced_letter_around_an_option_do_not_matter(option, before, after, options):
    for written in (option, option.upper(), option.lower()):
        assert parse_answer(before + written + after, options) == option


@pytest.mark.parametrize("text", NAMED_IN_CHINESE)
def test_synonyms_count_as_the_option_and_are_negated_as_it(text):
    assert parse_answer(text, BUSI, {"Benign": ["良性"], "Malignant": ["恶性"]}) == NAMED_IN_CHINESE[text]


@pytest.mark.parametrize("options", [["A b", "a-B"], ["a<b", "a>b"], ["...", "x"]])
def test_options_that_no_answer_could_tell_apart_are_refused(options):
    with pytest.raises(InputError, match=r"reword one of the two|give it words"):
        parse_answer("", options)


def test_options_change_places_where_they_are_named_last_as_words():
    back = with_options_reversed("Normal? Say normal, 'Benign' or 'Malignant'.", BUSI)
    assert back == "Normal? Say Malignant, 'Benign' or 'normal'."
    assert with_options_reversed("Is it CIN2 or CIN2+?", ["CIN2+", "CIN2"]) == "Is it CIN2+ or CIN2?"
    assert with_options_reversed("回答Normal、Benign或Malignant", BUSI) == "回答Malignant、Benign或Normal"
    assert with_options_reversed("Normal or abnormal? Yes or", ["Yes", "No"]) is None


def test_a_thought_that_was_cut_is_no_answer():
    text = "So, the margin is irregular, which may be malignant, because"
    assert (answer_in(text, opened=True), answer_in(text)) == (("", True), (text, False))
    assert answer_in("Benign <think>or malignant") == ("Benign ", True)
    assert answer_in("malignant</think> Benign", opened=True) == (" Benign", False)
    assert answer_in("[[malignant]] Benign", [Thought("[[", "]]")]) == (" Benign", False)
