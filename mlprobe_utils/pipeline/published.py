"""What comes with the project: the paper's tables as printed, published architectures, tables of simulations."""

import json

import pandas as pd

from mlprobe_utils.common.errors import InputError, unknown
from mlprobe_utils.evaluation.health import SCORES
from mlprobe_utils.pipeline.cards import CARDS, PUBLISHED

ARCHITECTURES = CARDS / "architectures"
SIMULATIONS = CARDS / "simulations"
IMAGES = {"BUSI": 150, "COVID19-CT": 203, "Chest-Xray": 624}  # of the paper's test sets
PAPER_COLUMNS = {"params": "parameters", "base_mllm": "base model", "vision_tower": "vision tower", "llm": "LLM"}


def paper_profiles() -> pd.DataFrame:
    """Table 1 without its averages: model, dataset (by their printed names), four scores (percent) of unknown stage."""
    columns = {score.lower(): score for score in SCORES}
    printed = pd.read_csv(PUBLISHED / "table1.csv").rename(columns=columns)
    return printed[printed["model"] != "Average"].reset_index(drop=True)


def published() -> pd.DataFrame:
    """Table S1, without its columns of prose; a dash is the paper's."""
    return pd.read_csv(PUBLISHED / "table_s1.csv", keep_default_na=False).rename(columns=PAPER_COLUMNS)


def published_config(architecture: str) -> dict:
    """The hub's config.json of an architecture. Raises InputError for one that is not there or not JSON."""
    known = [path.stem for path in ARCHITECTURES.glob("*.json")]
    if architecture not in known:
        raise unknown("architecture", architecture, known, "A shape of your own goes to data/architectures/.")
    try:
        return json.loads((ARCHITECTURES / f"{architecture}.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"data/architectures/{architecture}.json is not valid JSON: {error}") from error


def short(count: int) -> str:
    """A number of parameters as the paper prints it: 8.29B are 8.29 billion; M stands for million."""
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"


def simulated(name: str) -> pd.DataFrame:
    """The table of a simulation, by the name of its file without suffix (`benchmarks/known_truth.py` makes them)."""
    return pd.read_csv(SIMULATIONS / f"{name}.csv", comment="#")


def origin(name: str) -> str:
    """Date, commit and command of a simulation, for a sentence."""
    with open(SIMULATIONS / f"{name}.csv") as table:
        return table.readline().strip("# \n").replace("`", "")
