"""The claims of section 4.3, recomputed from profiles of a run or of the paper's Table 1. Profiles have model, dataset
and SCORES (percent), a row a model and data set, all of one stage. p values are two-sided unless a docstring says
otherwise, and nan where there are fewer than LEAST models; p (Holm) allows for all of a table. Models are what varies:
a score that is the mean over few runs is one value of a model."""

from collections.abc import Callable, Mapping
from itertools import permutations, product

import numpy as np
import pandas as pd
from scipy import stats

from mlprobe_utils.evaluation.health import HEALTH, SCORES
from mlprobe_utils.stats.paired import ALPHA, judged

LEAST = 4  # models; of three any order is one of six
EXACT = 8  # of fewer models, p of a rank correlation is the share of all orders
QUARTER = 0.25  # of the models: what counts as lowest or highest
CLAIMS = (
    "FHS_C varies least of the health scores",
    "healthy modules go with a high P_final",
    "a low P_final comes with a degraded module",
    "a high P_final comes with one",
    "a larger model of a series improves every health score",
    "data sets have one order by every score",
)
ALL_HEALTH = "all three health scores"  # a row of `size_signs`


def beside(tables: Mapping[str, pd.DataFrame], analysis: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """An analysis of several tables, one beneath the other; the first column, results, names the table."""
    found = {name: analysis(table) for name, table in tables.items()}
    return pd.concat(found, names=["results", None]).reset_index(level="results")


def steadier(profiles: pd.DataFrame) -> pd.DataFrame:
    """Whether FHS_C varies less over models than the other health scores: dataset, against, models, ratio (of standard
    deviations, below 1 where it does), low, high (95 %), p, p (Holm). p and interval are those of Pitman and Morgan for
    variances of paired values: if they agree, sum and difference are uncorrelated."""
    records = []
    for (dataset, of_set), other in product(profiles.groupby("dataset", sort=False), ("FHS_V", "FHS_L")):
        own, against = of_set["FHS_C"], of_set[other]
        _, p = _tested(stats.pearsonr, own + against, own - against)
        ratio, freedom = own.std() / against.std(), len(own) - 2
        wide = 1 + 2 * stats.t.isf(0.025, freedom) ** 2 * (1 - own.corr(against) ** 2) / freedom if p == p else np.nan
        ends = (ratio * np.sqrt(wide + sign * np.sqrt(wide**2 - 1)) for sign in (-1, 1))
        records.append((dataset, other, len(own), ratio, *ends, p))
    return judged(pd.DataFrame(records, columns=["dataset", "against", "models", "ratio", "low", "high", "p"]))


def correlations(profiles: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of each health score with P_final: dataset, score, models, Spearman, low, high (95 %, Fisher's z
    with the variance of Bonett and Wright 2000; of a perfect one as if it were 0.99), p, p (Holm)."""
    records = []
    for (dataset, own), score in product(profiles.groupby("dataset", sort=False), HEALTH):
        found, p = _tested(stats.spearmanr, own[score], own["P_final"])
        if len(own) < EXACT:  # of t, p is too small: of four models one order in 24 is perfect
            one, other = (own[column].rank() - own[column].rank().mean() for column in (score, "P_final"))
            p = np.mean(np.abs(np.array([*permutations(one)]) @ other) >= abs(one @ other) - 1e-9) if p == p else p
        half = stats.norm.isf(0.025) * np.sqrt((1 + found**2 / 2) / max(len(own) - 3, 1))
        low, high = (np.tanh(np.arctanh(np.clip(found, -0.99, 0.99)) + sign * half) for sign in (-1, 1))
        records.append((dataset, score, len(own), found, min(low, found), max(high, found), p))
    return judged(pd.DataFrame(records, columns=["dataset", "score", "models", "Spearman", "low", "high", "p"]))


def extremes(profiles: pd.DataFrame) -> pd.DataFrame:
    """Whether the worst outputs come with a degraded module (in the lowest quarter of all models' on that data set),
    and the best without: dataset, P_final ("lowest" or "highest" quarter), models, degraded (of them, with a degraded
    module), by chance, p (hypergeometric, one-sided: as many degraded among the lowest, as few among the highest)."""
    records = []
    for dataset, own in profiles.groupby("dataset", sort=False):
        last = QUARTER * len(own)
        degraded = (own[HEALTH].rank(method="min") <= last).any(axis=1)
        for end, ascending in (("lowest", True), ("highest", False)):
            chosen = own["P_final"].rank(method="min", ascending=ascending) <= last
            drawn, hit, all_hit = chosen.sum(), degraded[chosen].sum(), degraded.sum()
            chance = stats.hypergeom(len(own), all_hit, drawn)
            p = (chance.sf(hit - 1) if ascending else chance.cdf(hit)) if len(own) >= LEAST else np.nan
            records.append((dataset, end, drawn, hit, drawn * all_hit / len(own), p))
    return judged(pd.DataFrame(records, columns=["dataset", "P_final", "models", "degraded", "by chance", "p"]))


def size_steps(profiles: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """What each step up in size within a series (of `cards.sizes`) changes: series, from, to, dataset, SCORES."""
    by_model = profiles.set_index(["dataset", "model"])[list(SCORES)]
    there = sizes[sizes.index.isin(profiles["model"])].sort_values("parameters")
    steps = []
    for name, of_series in there.groupby("series", sort=False):
        for small, large in zip(of_series.index, of_series.index[1:], strict=False):
            change = by_model.xs(large, level="model") - by_model.xs(small, level="model")
            place = {"series": name, "from": small, "to": large}
            steps += change.dropna().reset_index().assign(**place).to_dict("records")
    return pd.DataFrame(steps, columns=["series", "from", "to", "dataset", *SCORES])


def size_signs(steps: pd.DataFrame) -> pd.DataFrame:
    """How many of `size_steps` improve a score, all health scores, or all: score, steps, up, down, p (sign test; steps
    without change left out; too small, as the steps of a series on several data sets are of the same models)."""
    records = []
    every = {score: [score] for score in SCORES} | {ALL_HEALTH: HEALTH, "all four scores": list(SCORES)}
    for name, chosen in every.items():
        up, down = (int((steps[chosen] * sign > 0).all(axis=1).sum()) for sign in (1, -1))
        tested = len(chosen) == 1 and up + down >= LEAST
        records.append((name, len(steps), up, down, stats.binomtest(up, up + down).pvalue if tested else np.nan))
    return judged(pd.DataFrame(records, columns=["score", "steps", "up", "down", "p"]))


def dataset_order(profiles: pd.DataFrame) -> pd.DataFrame:
    """Which data set gets the highest scores: score, a column a data set (mean over models), order, models (that have
    all), in this order (how many whose own scores strictly are), p (Friedman's; of two data sets Wilcoxon's)."""
    records = []
    for score in SCORES:
        wide = profiles.pivot(index="model", columns="dataset", values=score)[[*profiles["dataset"].unique()]].dropna()
        means = wide.mean()
        ordered = wide[means.sort_values(ascending=False).index]
        follow = int((ordered.diff(axis=1).iloc[:, 1:] < 0).all(axis=1).sum())
        test = {1: None, 2: stats.wilcoxon}.get(wide.shape[1], stats.friedmanchisquare)
        p = _tested(test, *(wide[dataset] for dataset in wide))[1] if test else np.nan
        found = {"score": score} | means.to_dict() | {"order": " > ".join(ordered.columns)}
        records.append(found | {"models": len(wide), "in this order": follow, "p": p})
    return judged(pd.DataFrame(records))


def summary(profiles: pd.DataFrame, sizes: pd.DataFrame) -> dict[str, str]:
    """Every result in a few words, by one of CLAIMS; arguments as of `size_steps`."""
    least = profiles.groupby("dataset", sort=False)[HEALTH].std().dropna().idxmin(axis=1)
    ratios, ranks, ends = steadier(profiles), correlations(profiles), extremes(profiles).groupby("P_final")
    ends = ends[["degraded", "models", "by chance"]].sum()
    signs = size_signs(size_steps(profiles, sizes)).set_index("score").loc[ALL_HEALTH]
    orders = dataset_order(profiles)["order"]
    common = orders.mode()[0]
    steady, found = _significant(ratios, ratios["ratio"] < 1), ranks["Spearman"]
    words = [
        f"on {(least == 'FHS_C').sum()} of {len(least)} data sets; significant in {steady}",
        f"Spearman {found.min():.2f} to {found.max():.2f}; significantly positive in {_significant(ranks, found > 0)}",
    ]
    for end in ("lowest", "highest"):
        hit, models, chance = ends.loc[end]
        words.append(f"{hit:.0f} of {models:.0f}; by chance {chance:.1f}")
    if profiles["model"].nunique() < LEAST:
        words = [f"fewer than {LEAST} models"] * len(words)
    words.append(f"{signs['up']:.0f} of {signs['steps']:.0f} steps" if signs["steps"] else "no steps")
    words.append(f"{common} by {(orders == common).sum()} of {len(orders)} scores")
    return dict(zip(CLAIMS, words, strict=True))


def _tested(test: Callable, *samples: pd.Series) -> tuple[float, float]:
    """The test's statistic and p value; nan for few models, and for values that do not vary."""
    if len(samples[0]) < LEAST or any(sample.nunique() < 2 for sample in samples):
        return np.nan, np.nan
    found = test(*samples)
    return float(found.statistic), float(found.pvalue)


def _significant(table: pd.DataFrame, chosen: pd.Series) -> str:
    return f"{(chosen & (table['p (Holm)'] < ALPHA)).sum()} of {len(table)} comparisons at p < {ALPHA:g}"
