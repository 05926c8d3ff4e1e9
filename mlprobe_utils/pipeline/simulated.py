"""Tables of simulations whose truth is known, as benchmarks/known_truth.py left them in data/simulations."""

import pandas as pd

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.pipeline.cards import CARDS

SIMULATIONS = CARDS / "simulations"


def simulated(name: str) -> pd.DataFrame:
    """A table by the name of its file, without suffix.

    Raises:
        InputError: there is no such table.
    """
    known = [path.stem for path in SIMULATIONS.glob("*.csv")]
    if name not in known:
        raise unknown("simulation", name, known, "`python benchmarks/known_truth.py` makes them.")
    return pd.read_csv(SIMULATIONS / f"{name}.csv", comment="#")


def origin(name: str) -> str:
    """When a table was simulated, of which commit and by which command, for a sentence."""
    with open(SIMULATIONS / f"{name}.csv") as table:
        return table.readline().strip("# \n").replace("`", "")
