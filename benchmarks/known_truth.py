"""How often intervals hold the truth, what noise does to health scores, and how often a loss is found that is none,
and what choosing the best epoch adds.

Simulates answers whose truth is known (`simulations`), and writes a table of each to data/simulations, which the pages
show, with date, commit and command in its first line. `--repetitions 100` takes some minutes.
"""

import argparse
import datetime
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from simulations import best_by_chance, bias_and_coverage, coverage, false_alarms, noise_bias, run_coverage, settings

from mlprobe_utils.common.files import atomic_write

FOLDER = Path(__file__).parents[1] / "data" / "simulations"
SHAPES = ("flat", "rising", "falling", "volatile", "restless")
DEPTHS, IMAGES, CORRELATIONS = (2, 4, 8, 16, 28, 48, 64), (150, 203, 624), (0.0, 0.9)
EPOCHS, ALIKE, SHARE = (10, 300), (0.8, 0.95, 0.99), 0.85  # of those to choose from; their true accuracy
ONE_POINT = 1.0  # the most a corrected score may be off on average, in points


def tables(repetitions: int, health: int, penalty: float) -> dict[str, Callable[[], pd.DataFrame]]:
    """Name of a table -> what computes it.

    Args:
        repetitions: test sets simulated for each row of intervals, fixed ends and epochs.
        health: the same of health scores.
        penalty: lambda of equation 2.
    """
    known = SHAPES, DEPTHS, IMAGES, CORRELATIONS, penalty
    return {
        "intervals": lambda: coverage(repetitions=repetitions),
        "runs": lambda: run_coverage(repetitions),
        "fixed_ends": lambda: false_alarms(points=28, images=IMAGES, repeats=repetitions),
        "best_epoch": lambda: best_by_chance(EPOCHS, IMAGES, ALIKE, SHARE, repetitions),
        "raw_health": lambda: noise_bias(settings(*known), health).assign(penalty=penalty),
        "corrected_health": lambda: bias_and_coverage(settings(*known), health).assign(penalty=penalty),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=400, help="test sets for each row of intervals")
    parser.add_argument("--health", type=int, default=60, help="test sets for each row of health scores")
    parser.add_argument("--penalty", type=float, default=0.2, help="lambda of equation 2")
    parser.add_argument("--only", nargs="+", help="names of the tables to write, as of their files; all by default")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for the tables")
    options = parser.parse_args(arguments)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=FOLDER.parent)
    command = " ".join(["benchmarks/known_truth.py", *(sys.argv[1:] if arguments is None else arguments)])
    origin = f"# {datetime.date.today()}, commit {commit.stdout.strip()}, `{command}`\n"
    options.folder.mkdir(parents=True, exist_ok=True)
    every = tables(options.repetitions, options.health, options.penalty)
    for name, compute in every.items() if not options.only else ((name, every[name]) for name in options.only):
        text = io.StringIO()
        table = compute()
        table.to_csv(text, index=False, float_format="%.4f")
        atomic_write(options.folder / f"{name}.csv", origin + text.getvalue())
        print(f"{name}: {len(table)} rows", flush=True)
    if "bias" not in table:
        return
    beyond = table[table["bias"].abs() >= ONE_POINT]
    print(f"{len(table) - len(beyond)} of {len(table)} corrected scores have a bias below {ONE_POINT:g} point; beyond:")
    print(beyond.to_string(index=False))


if __name__ == "__main__":
    main()
