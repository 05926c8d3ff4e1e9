"""Where the results of a run lie, and reading them back. Does not import torch.

outputs/<protocol>/<data set>/data/                          manifest and working copies
outputs/<protocol>/<data set>/<split>/<model>/adapter-<run>/  LoRA adapter and learning curve
                                             /features-<stage>[-<run>]/, predictions-<stage>[-<run>]/, probes/
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mlprobe_utils import artefacts
from mlprobe_utils.errors import InputError

STAGES = ("pretrained", "finetuned")


@dataclass(frozen=True)
class Selection:
    """Which results: models and data sets by slug, under one protocol and one split."""

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    protocol: str
    split: str

    def folder(self, model: str, dataset: str) -> Path:
        return artefacts.OUTPUTS / self.protocol / dataset / self.split / model

    def folders(self) -> list[tuple[str, str, Path]]:
        """(model, data set, folder) of every pair."""
        return [(m, d, self.folder(m, d)) for d in self.datasets for m in self.models]


def state_name(kind: str, run: int | None) -> str:
    """The folder of features or predictions: of the pretrained model (run None) or of a fine-tuned one."""
    return f"{kind}-pretrained" if run is None else f"{kind}-finetuned-{run}"


def probe_rows(selection: Selection) -> pd.DataFrame:
    """The probes' rows of all selected models and data sets. Raises InputError for one that was not run."""
    return _gather(selection, "probes", "probes")


def prediction_rows(selection: Selection) -> pd.DataFrame:
    """The final outputs' rows, of both stages and all runs. Raises InputError for one that was not run."""
    return _gather(selection, "predictions-*", "predictions")


def learning_curves(selection: Selection) -> pd.DataFrame:
    """model, dataset, run, epoch, training_loss, validation_loss. Raises InputError for one that was not run."""
    frames = []
    for model, dataset, folder in selection.folders():
        for adapter in _artefacts(selection, model, dataset, folder, "adapter-*"):
            curve = pd.read_parquet(adapter / "learning_curve.parquet")
            frames.append(curve.assign(model=model, dataset=dataset, run=int(adapter.name.rsplit("-", 1)[1])))
    return pd.concat(frames, ignore_index=True)


def prompts(selection: Selection) -> pd.DataFrame:
    """model, dataset, prompt: the question exactly as each model read it."""
    rows = []
    for model, dataset, folder in selection.folders():
        for made in _artefacts(selection, model, dataset, folder, "features-pretrained"):
            prompt = json.loads((made / "made_from.json").read_text())["prompt"]
            rows.append({"model": model, "dataset": dataset, "prompt": prompt})
    return pd.DataFrame(rows)


def _gather(selection: Selection, pattern: str, name: str) -> pd.DataFrame:
    frames = [
        pd.read_parquet(made / f"{name}.parquet")
        for model, dataset, folder in selection.folders()
        for made in _artefacts(selection, model, dataset, folder, pattern)
    ]
    return pd.concat(frames, ignore_index=True)


def _artefacts(selection: Selection, model: str, dataset: str, folder: Path, pattern: str) -> list[Path]:
    found = sorted(path for path in folder.glob(pattern) if (path / "made_from.json").is_file())
    if not found:
        raise InputError(
            f"no results of {model} on {dataset} in {artefacts.relative(folder)}: make them with `python -m "
            f"mlprobe_utils.pipeline {model} --datasets {dataset} --protocol {selection.protocol}`"
        )
    return found
