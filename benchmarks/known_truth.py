"""How often intervals hold the truth, and how far health scores are from it, on simulated answers whose truth is known.

Prints both tables. `benchmarks/known_truth.py --repetitions 100` takes a few minutes.
"""

import argparse
from pathlib import Path

import pandas as pd

from mlprobe_utils.evaluation.health_simulation import bias_and_coverage, noise_bias
from mlprobe_utils.stats.coverage import coverage

SHAPES = ("flat", "rising", "falling", "volatile", "restless")
DEPTHS, IMAGES, CORRELATIONS = (2, 4, 8, 16, 28, 48, 64), (150, 203, 624), (0.0, 0.9)
ONE_POINT = 1.0  # the most a corrected score may be off on average, in points
EACH = ["shape", "points", "images", "correlation"]


def coverage_table(repetitions: int) -> pd.DataFrame:
    """`coverage` with intervals in columns: percent that hold the truth, and the largest standard error in a row."""
    found = coverage(repetitions=repetitions)
    rows = ["dataset", "images", "curve", "question", "what"]
    wide = found.pivot_table("covered", rows, "interval", sort=False)[["pointwise", "band", "percentile"]]
    return wide.assign(error=found.groupby(rows, sort=False)["error"].max()).reset_index()


def bias_table(repetitions: int, penalty: float) -> pd.DataFrame:
    """`bias_and_coverage` over all depths, test sizes and shapes: bias and coverage, raw and corrected."""
    known = SHAPES, DEPTHS, IMAGES, CORRELATIONS
    found = bias_and_coverage(*known, repeats=repetitions, penalty=penalty)
    raw = noise_bias(*known, repeats=repetitions, penalty=penalty)
    columns = [*EACH, "true score", "raw bias", "raw coverage", "bias", "error", "coverage"]
    return found.merge(raw[[*EACH, "raw coverage"]], on=EACH)[columns]


def markdown(table: pd.DataFrame, decimals: int) -> str:
    """A table with its numbers aligned and rounded."""
    numbers = [pd.api.types.is_float_dtype(table[name]) for name in table]
    lines = ["| " + " | ".join(table) + " |", "|" + "".join(" ---: |" if n else " --- |" for n in numbers)]
    for row in table.itertuples(index=False):
        cells = [f"{cell:.{decimals}f}" if n else str(cell) for cell, n in zip(row, numbers, strict=True)]
        lines.append("| " + " | ".join(cells).replace("nan", "") + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1000, help="test sets simulated for each row of coverage")
    parser.add_argument("--health", type=int, default=100, help="test sets simulated for each row of bias")
    parser.add_argument("--penalty", type=float, default=0.2, help="lambda of equation 2")
    parser.add_argument("--csv", type=Path, help="folder for the numbers of both tables")
    options = parser.parse_args()
    covered = coverage_table(options.repetitions)
    print(markdown(covered, 1), flush=True)
    bias = bias_table(options.health, options.penalty)
    beyond = bias[(bias["bias"].abs() >= ONE_POINT)]
    print("\n" + markdown(bias, 2))
    print(f"\n{len(bias) - len(beyond)} of {len(bias)} rows have a bias below {ONE_POINT:g} point; beyond it:\n")
    print(markdown(beyond, 2))
    if options.csv:
        for name, table in (("coverage", covered), ("health", bias)):
            table.to_csv(options.csv / f"{name}.csv", index=False)


if __name__ == "__main__":
    main()
