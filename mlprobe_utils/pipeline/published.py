"""The paper's own tables, as printed."""

import pandas as pd

from mlprobe_utils.evaluation.health import SCORES
from mlprobe_utils.pipeline.cards import PUBLISHED

PAPER_COLUMNS = {"params": "parameters", "base_mllm": "base model", "vision_tower": "vision tower", "llm": "LLM"}


def paper_profiles() -> pd.DataFrame:
    """Table 1 as the paper prints it: model and dataset (both by their printed names) and the four scores, percent.

    Its rows of averages are left out, and it has no stage: the paper does not say in which the scores were taken.
    """
    columns = {score.lower(): score for score in SCORES}
    printed = pd.read_csv(PUBLISHED / "table1.csv").rename(columns=columns)
    return printed[printed["model"] != "Average"].reset_index(drop=True)


def published() -> pd.DataFrame:
    """Table S1 as the paper prints it, without its columns of prose; a dash is the paper's."""
    return pd.read_csv(PUBLISHED / "table_s1.csv", keep_default_na=False).rename(columns=PAPER_COLUMNS)


def short(count: int) -> str:
    """A number of parameters as the paper prints it: 8.29B are 8.29 billion; M stands for million."""
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"
