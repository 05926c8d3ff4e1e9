"""The paper's claims: one rule for every verdict, on planted intervals and profiles."""

import re

import pandas as pd
import pytest

from mlprobe_utils.analysis import claims
from mlprobe_utils.analysis.claims import CONFIRMED, OPEN, REFUTED
from mlprobe_utils.book.book_pages import script_of
from mlprobe_utils.pipeline.cards import PUBLISHED
from mlprobe_utils.pipeline.published import paper_profiles


@pytest.mark.parametrize(
    ("low", "high", "above", "small"),
    [(3, 5, CONFIRMED, REFUTED), (-5, -3, REFUTED, REFUTED), (-1, 1, OPEN, CONFIRMED), (-1, 5, OPEN, OPEN)],
)
def test_a_verdict_follows_from_the_interval(low, high, above, small):
    assert claims.by_sign(low, high, 1) == above
    assert claims.by_sign(-high, -low, -1) == above
    assert claims.by_margin(low, high) == small


def test_comparisons_of_the_published_scores_and_of_few_models():
    sizes = pd.DataFrame(columns=["series", "parameters"])
    verdicts = claims.of_comparisons(paper_profiles(), sizes)
    assert verdicts == {"steadiest": CONFIRMED, "health": CONFIRMED, "poor": REFUTED, "size": OPEN, "order": OPEN}
    few = paper_profiles().query("model in ('Lingshu-7B', 'MedGemma-4B')")
    assert {*claims.of_comparisons(few, sizes).values()} == {OPEN}


def test_every_claim_has_a_finding_on_the_page():
    names = set(pd.read_csv(PUBLISHED / "claims.csv")["claim"])
    found = claims.table(dict.fromkeys(names, claims.Finding("a", "b", OPEN)))
    assert len(found) == len(names)
    written = script_of("claims").read_text()
    assert {name for name in names if re.search(rf'"{name}"', written)} == names
