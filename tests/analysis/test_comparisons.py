"""Claims of section 4.3: by hand, on the paper's own tables as other code has computed them; and their verdicts."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlprobe_utils.analysis import claims, comparisons
from mlprobe_utils.analysis.claims import CONFIRMED, OPEN, REFUTED
from mlprobe_utils.book.book_pages import script_of
from mlprobe_utils.evaluation.health import HEALTH, SCORES
from mlprobe_utils.pipeline.cards import (
    PUBLISHED,
    ModelCard,
    bases,
    load_model_card,
    original,
    paper_sizes,
    sizes,
    slugs,
)
from mlprobe_utils.pipeline.published import paper_profiles

PAPER = paper_profiles()


def profiles_of(values: dict[str, dict[str, tuple]]) -> pd.DataFrame:  # dataset -> model -> four scores
    rows = [(model, dataset, *scores) for dataset, of_models in values.items() for model, scores in of_models.items()]
    return pd.DataFrame(rows, columns=["model", "dataset", *SCORES])


def test_paper_rank_correlations():
    found = comparisons.correlations(PAPER)  # as another program has computed them
    assert found["score"].tolist() == HEALTH * 3
    assert found["Spearman"].round(2).tolist() == [0.25, 0.06, 0.17, 0.55, 0.39, 0.26, 0.86, 0.88, 0.79]
    assert found.loc[found["p (Holm)"] < 0.05, "dataset"].tolist() == ["Chest-Xray"] * 3
    busi = np.tanh(np.arctanh(found["Spearman"][0]) + np.array([-1, 1]) * 1.96 * np.sqrt((1 + 0.25**2 / 2) / 11))
    assert found.loc[0, ["low", "high"]].tolist() == pytest.approx(busi, abs=0.01)  # of 14 models
    assert ((found["low"] > 0) == (found["dataset"] == "Chest-Xray")).sum() >= 8


def test_a_perfect_order_of_four_models_is_not_significant():
    table = profiles_of({"d": {f"m{n}": (n, -n, (n - 1) ** 2, n) for n in range(4)}})
    found = comparisons.correlations(table)
    assert found["p"].tolist() == pytest.approx([2 / 24, 2 / 24, found["p"][2]])
    assert found["p"][2] > 0.2
    assert found["Spearman"][0] == found["high"][0] == 1
    assert 0 < found["low"][0] < 0.5


def test_intervals_hold_the_truth_of_planted_models():
    """Of 300 draws of 14 models with a true rank correlation of 0.6 and a true ratio of deviations of 0.5."""
    numbers, tables = np.random.default_rng(0), []
    for draw in range(300):
        final, noise, other = numbers.standard_normal((3, 14))
        own = 0.618 * final + np.sqrt(1 - 0.618**2) * noise  # 2 sin(0.6 pi / 6)
        scores = {"FHS_V": 2 * other, "FHS_C": own, "FHS_L": 2 * other, "P_final": final}
        tables.append(pd.DataFrame(scores).assign(model=[f"m{n}" for n in range(14)], dataset=f"d{draw}"))
    table = pd.concat(tables)
    ranks, ratios = comparisons.correlations(table), comparisons.steadier(table)
    ranks, ratios = ranks[ranks["score"] == "FHS_C"], ratios[ratios["against"] == "FHS_V"]
    for found, truth in ((ranks, 0.6), (ratios, 0.5)):
        assert 0.92 < ((found["low"] < truth) & (truth < found["high"])).mean() < 0.99


def test_paper_steps_up_in_size():
    steps = comparisons.size_steps(PAPER, paper_sizes())
    own = steps[steps["to"].str.startswith("Hulu")].drop_duplicates(["from", "to"])[["from", "to"]]
    hulu = [f"Hulu-Med-{size}B" for size in (4, 7, 14, 32)]  # each step is one up, in the order of the sizes
    assert [*own.itertuples(index=False, name=None)] == [*itertools.pairwise(hulu)]
    lingshu = steps[(steps["to"] == "Lingshu-32B") & (steps["dataset"] == "BUSI")]
    assert lingshu[list(SCORES)].round(2).to_numpy().tolist() == [[-2.66, 7.59, -1.39, 0.0]]
    signs = comparisons.size_signs(steps).set_index("score")
    assert signs["steps"].eq(21).all()
    assert signs["up"].tolist() == [10, 14, 6, 15, 3, 3]  # SCORES, all health scores, all scores
    assert signs.at["P_final", "p"] == pytest.approx(stats.binomtest(15, 20).pvalue)


def test_paper_summary_has_every_comparison():
    both = comparisons.beside({"ours": PAPER, "theirs": PAPER}, comparisons.correlations)
    assert both.groupby("results").size().to_dict() == {"ours": 9, "theirs": 9}
    assert list(comparisons.summary(PAPER, paper_sizes()).values()) == [
        "on 3 of 3 data sets; significant in 3 of 6 comparisons at p < 0.05",
        "Spearman 0.06 to 0.88; significantly positive in 3 of 9 comparisons at p < 0.05",
        "7 of 11; by chance 4.3",
        "1 of 10; by chance 3.9",
        "3 of 21 steps",
        "BUSI > COVID19-CT > Chest-Xray by 4 of 4 scores",
    ]


def test_extremes_by_hand():
    """Of eight models two are in each quarter; m0 (V), m7 (V, C), m1 (C), m2 and m3 (L) have a degraded module."""
    health = [(1, 8, 8), (8, 1, 7), (7, 7, 1), (6, 6, 2), (5, 5, 5), (4, 4, 4), (3, 3, 6), (2, 2, 3)]
    table = profiles_of({"d": {f"m{n}": (*scores, n) for n, scores in enumerate(health)}})
    found = comparisons.extremes(table).set_index("P_final")
    assert found["degraded"].to_dict() == {"lowest": 2, "highest": 1}
    assert found["by chance"].tolist() == [2 * 5 / 8] * 2
    assert found["p"].tolist() == pytest.approx([(5 * 4) / (8 * 7), 1 - (5 * 4) / (8 * 7)])


@pytest.mark.parametrize("few", [1, 3])
def test_few_models_have_comparisons_and_no_p(few):
    table = profiles_of(
        {f"d{d}": {f"m{m}": (70 + m, 60 + d + m, 50 - m, 40 + m * d) for m in range(few)} for d in range(few)}
    )
    for name in ("steadier", "correlations", "extremes", "dataset_order"):
        found = getattr(comparisons, name)(table)
        assert len(found) >= few
        assert found.get("p", pd.Series(np.nan)).isna().all()
    none = pd.DataFrame({"series": [], "parameters": []})
    assert comparisons.size_signs(comparisons.size_steps(table, none))["steps"].eq(0).all()
    words = ["fewer than 4 models"] * 4 + ["no steps"]
    assert [*comparisons.summary(table, none).values()][:5] == words


def test_models_without_a_value_or_a_size_take_no_part():
    table = profiles_of({"a": {"s": (1, 2, 3, 4), "l": (2, 3, 4, 5), "x": (9, 9, 9, 9)}, "b": {"s": (1, 1, 1, 1)}})
    sizes_known = pd.DataFrame({"series": ["S", "S"], "parameters": [4, 7]}, index=["s", "l"])
    (step,) = comparisons.size_steps(table, sizes_known).to_dict("records")
    assert step == {"series": "S", "from": "s", "to": "l", "dataset": "a", **dict.fromkeys(SCORES, 1)}
    assert comparisons.dataset_order(table)["models"].eq(1).all()


def test_a_miniature_has_series_and_size_of_its_original():
    cards = {slug: load_model_card(slug) for slug in slugs(ModelCard)}
    card, real = cards["lingshu-7b-miniature"], cards["lingshu-7b"]
    assert original(card) is original(real) is real
    mine = ModelCard(slug="mine", name="Mine", source="me/mine")
    of_run = {"mine": mine, card.slug: card}
    assert sizes(of_run).to_dict("index") == {card.slug: {"series": "Lingshu", "parameters": real.parameters}}
    base = "qwen2.5-vl-7b-miniature"  # of which another of the run was made
    assert bases(of_run | {base: cards[base]}) == [base]
    assert bases({base: cards[base]}) == []


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
