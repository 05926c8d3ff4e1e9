"""How far a label can be told from the file's format alone: what a model could learn without looking at the picture."""

from dataclasses import dataclass

import pandas as pd

COLUMNS = ["mode", "format", "extension"]


@dataclass(frozen=True)
class FormatShortcut:
    """Accuracy on `total` test images of a rule on (mode, format, extension), and the rule with its train counts."""

    correct: int
    total: int
    rule: pd.DataFrame  # one row a combination: mode, format, extension, images per class, predicted

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


def format_shortcut(train: pd.DataFrame, test: pd.DataFrame) -> FormatShortcut:
    """Predicts the label from (mode, format, extension): the majority label of the combination in `train`.

    A combination unseen in `train` gets the majority label of all of it; ties go to the first label by name.
    Both tables are (parts of) a manifest and not empty.
    """
    counts = train.groupby([*COLUMNS, "label"]).size().unstack(fill_value=0).sort_index(axis=1)
    rule = counts.idxmax(axis=1).rename("predicted")
    predicted = (
        test[COLUMNS].merge(rule.reset_index(), how="left", on=COLUMNS)["predicted"].fillna(counts.sum().idxmax())
    )
    correct = int((predicted.to_numpy() == test["label"].to_numpy()).sum())
    return FormatShortcut(correct, len(test), counts.assign(predicted=rule).rename_axis(columns=None).reset_index())
