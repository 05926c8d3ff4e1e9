"""Where the results of a run lie, and reading them back.

outputs/<protocol>/<data set>/data/                          manifest and working copies
outputs/<protocol>/<data set>/controls-<split>/              what needs no model, and the control task's labels
outputs/<protocol>/<data set>/<split>/<model>/adapter-<run>/  LoRA adapter and learning curve
                                             /features-<stage>[-<run>]/, predictions-<stage>[-<run>]/, probes/
                                             /features-random/, controls/, lens/, transfer/, and tables of `scoring`
                                             /calibration/  how severe each fault has to be
                                             /faults/<fault>-<strength>/: the same of the damaged model, run 0
                                             /vision_tower/<frozen>/, order/<order>/: the same of a variant (`variants`)
                                             /classifier-<way>-<run>/: the vision tower trained alone
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from safetensors import safe_open

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.evaluation.control_names import CONTROL_RUN, REFERENCE
from mlprobe_utils.evaluation.points import MODULES, PROBED, flow_order
from mlprobe_utils.evaluation.rows import MAIN_PROBE
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import load_protocol

FAULTS = "faults"  # the folder of damaged models beside the intact one's results
ORDER, VISION_TOWER = "order", "vision_tower"  # the folders of variants, which are settings of the protocol
VARIANT_RUNS = range(CONTROL_RUN + 1)  # of the variants of ORDER: the run whose probes are fitted with many seeds
CLASSIFIER = "classifier"
CALIBRATION = "calibration"  # of the faults planted in a model
STRENGTHS, HITS, STATISTICS = "strengths.parquet", "hits.parquet", "statistics.safetensors"
DAMAGED_RUN = 0  # the fine-tuned state that faults are planted in
RANDOM_FEATURES = "features-random"
PROMPT = "prompt.txt"  # beside the features: the question exactly as the model read it
CONTROLS = "controls"
LENS, TRANSFER = "lens", "transfer"
SCORES = "scores-"  # how tables of `scoring` begin
PROBE_SCORES, OUTPUT_SCORES, CONTROL_SCORES = f"{SCORES}probes", f"{SCORES}outputs", f"{SCORES}controls"
CORRECTED_HEALTH = f"{SCORES}corrected-health"


@dataclass(frozen=True)
class Selection:
    """Which results: models and data sets by slug, under one protocol and one split."""

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    protocol: str
    split_rule: str

    @property
    def made_by(self) -> str:
        """The command that makes these results."""
        return "probe"

    def command(self, model: str, dataset: str, name: str = "") -> str:
        """The command line that makes a model's results on a data set; `name`: of another command than `made_by`."""
        command = f"python -m mlprobe_utils {name or self.made_by} {model} --datasets {dataset}"
        return f"{command} --protocol {self.protocol} --split {self.split_rule}"

    @property
    def runs(self) -> range:
        """The runs of the fine-tuning: what an earlier protocol left beside them is not read."""
        return range(load_protocol(self.protocol).fine_tuning.runs)

    @property
    def states(self) -> list[int | None]:
        """None for the pretrained model, then the runs."""
        return [None, *self.runs]

    def folder(self, model: str, dataset: str) -> Path:
        return artefacts.OUTPUTS / self.protocol / dataset / self.split_rule / model

    def controls(self, dataset: str) -> Path:
        """Where the controls are that need no model."""
        return image_controls(artefacts.OUTPUTS / self.protocol / dataset, self.split_rule)

    def folders(self) -> list[tuple[str, str, Path]]:
        """(model, data set, folder) of every pair."""
        return [(m, d, self.folder(m, d)) for d in self.datasets for m in self.models]


def state_name(kind: str, run: int | None) -> str:
    """The folder of features or predictions: of the pretrained model (run None) or of a fine-tuned one."""
    return f"{kind}-pretrained" if run is None else f"{kind}-finetuned-{run}"


def image_controls(folder: Path, split_rule: str) -> Path:
    """The folder of the controls that need no model, from the data set's folder."""
    return folder / f"{CONTROLS}-{split_rule}"


def results_below(folders: Iterable[Path]) -> dict[str, str]:
    """Every artefact in these folders, from `outputs/`, but for what pages derive -> a hash of its files."""
    found = {}
    for record in sorted(path for folder in folders for path in folder.rglob("made_from.json")):
        folder = record.parent.relative_to(artefacts.OUTPUTS)
        if not any(part.startswith((".", SCORES)) for part in folder.parts):
            found[str(folder)] = artefacts.content_hash(record.parent)
    return found


def probe_rows(selection: Selection, probe: str = MAIN_PROBE, **chosen: str | int) -> pd.DataFrame:
    """The rows of one probe recipe of the protocol, of all selected models and data sets.

    Args:
        chosen: what further columns are to hold, such as stage="finetuned"; other rows are not read, which is faster.

    Raises:
        InputError: the protocol has no such recipe, or a model and data set was not run.
    """
    if probe not in (recipes := load_protocol(selection.protocol).probes):
        raise unknown("probe recipe", probe, recipes)
    return _gather(selection, ["probes"], "probes.parquet", _equal({"probe": probe} | chosen))


def seed_rows(selection: Selection) -> pd.DataFrame:
    """The rows of the main recipe's probes, test images, with every seed, before fine-tuning and after CONTROL_RUN.

    Raises InputError as `probe_rows` does.
    """
    return _gather(selection, ["probes"], "seeds.parquet")


def end_rows(selection: Selection) -> pd.DataFrame:
    """Of `seed_rows` those of the last point of each module, and no others are read: the diagnosis needs no more."""
    frames = []
    for model, dataset, folder in selection.folders():
        file = made(selection, model, dataset, folder / "probes") / "seeds.parquet"
        points = pd.read_parquet(file, columns=["point"])["point"].unique()
        ends = [max((p for p in points if p[0] == module), key=flow_order, default="") for module in MODULES]
        frames.append(pd.read_parquet(file, filters=[("point", "in", ends)]))
    return pd.concat(frames, ignore_index=True)


def control_rows(selection: Selection) -> pd.DataFrame:
    """The rows of the controls that need a model. Raises InputError for a model and data set that was not run."""
    return _gather(selection, [CONTROLS], "controls.parquet")


def image_control_rows(selection: Selection) -> pd.DataFrame:
    """The rows of the controls that need no model, and of the reference, of every data set; test images.

    Raises InputError as the others do.
    """
    model = selection.models[0]
    places = [made(selection, model, dataset, selection.controls(dataset)) for dataset in selection.datasets]
    return pd.concat([pd.read_parquet(place / "controls.parquet") for place in places], ignore_index=True)


def prediction_rows(selection: Selection) -> pd.DataFrame:
    """The final outputs' rows, of both stages and all runs. Raises InputError for one that was not run."""
    names = [state_name("predictions", state) for state in selection.states]
    return _gather(selection, names, "predictions.parquet")


def lens_rows(selection: Selection) -> pd.DataFrame:
    """The rows of the logit lens at every LLM point, validation and test images, of both stages and all runs.

    Raises InputError for a model and data set that was not run.
    """
    return _gather(selection, [LENS], "lens.parquet")


def transfer_rows(selection: Selection, **chosen: str | int) -> pd.DataFrame:
    """The rows of probes fitted at one LLM point and read at another, test images: `probe` is where it was fitted.

    Args:
        chosen: as of `probe_rows`.

    Raises InputError for a model and data set that was not run.
    """
    return _gather(selection, [TRANSFER], "transfer.parquet", filters=_equal(chosen))


def reference_rows(selection: Selection) -> pd.DataFrame:
    """The rows of the reference on the test images of all selected data sets, which no model has a part in.

    Raises InputError as the others do.
    """
    rows = image_control_rows(selection)
    return rows[rows["control"] == REFERENCE].reset_index(drop=True)


def learning_curves(selection: Selection) -> pd.DataFrame:
    """model, dataset, run, epoch, training_loss, validation_loss. Raises InputError for one that was not run."""
    frames = []
    for model, dataset, folder in selection.folders():
        for run in selection.runs:
            adapter = made(selection, model, dataset, folder / f"adapter-{run}")
            curve = pd.read_parquet(adapter / "learning_curve.parquet")
            frames.append(curve.assign(model=model, dataset=dataset, run=run))
    return pd.concat(frames, ignore_index=True)


def prompts(selection: Selection) -> pd.DataFrame:
    """model, dataset, prompt: the question exactly as each model read it. Raises InputError as the others do."""
    rows = []
    for model, dataset, folder in selection.folders():
        file = made(selection, model, dataset, folder / state_name("features", None)) / PROMPT
        rows.append({"model": model, "dataset": dataset, "prompt": file.read_text()})
    return pd.DataFrame(rows)


def probe_points(selection: Selection, model: str) -> pd.DataFrame:
    """A model's probe points in the order the data flows: point, path, module (class), width, poolings, family.

    Raises InputError as the others do.
    """
    dataset = selection.datasets[0]  # the points are the model's, whatever it looks at
    features = selection.folder(model, dataset) / state_name("features", selection.states[0])
    return pd.read_parquet(made(selection, model, dataset, features) / "points.parquet")


def families(selection: Selection) -> dict[str, str]:
    """Model -> its family. Raises InputError as the others do."""
    return {model: probe_points(selection, model)["family"].iloc[0] for model in selection.models}


def adapted_layers(selection: Selection) -> pd.DataFrame:
    """What LoRA reached: model, module (letter of its probe points), layers, parameters (trained).

    Read off each model's first adapter: the others have the same shape. A side path counts as a module. A layer that
    belongs to no probe point's module has the module "elsewhere". Raises InputError as the others do.
    """
    records = []
    for model in selection.models:
        points = probe_points(selection, model)
        folder = selection.folder(model, selection.datasets[0]) / "adapter-0"
        adapter = made(selection, model, selection.datasets[0], folder) / "adapter_model.safetensors"
        with safe_open(adapter, "numpy") as opened:
            sizes = {name: math.prod(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118  (no dict)
        for name, size in sizes.items():
            layer, _, matrix = name.partition(".lora_")
            owner = points.loc[[f".{path}." in f"{layer}." for path in points["path"]], "point"]
            module = owner.iloc[0][0] if len(owner) else "elsewhere"
            records.append({"model": model, "module": module, "layers": matrix.startswith("A"), "parameters": size})
    counted = pd.DataFrame(records).groupby(["model", "module"], sort=False).sum().reset_index()
    return counted.sort_values("module", key=lambda letters: letters.map([*PROBED, "elsewhere"].index), kind="stable")


def fault_strengths(selection: Selection) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How severe every fault has to be in the selected models, and whether the oracle is right on the measuring images.

    Returns:
        A row a model, data set, fault and wanted (points): these, point, severity, reached; and of each a row a
        measuring image: intact and damaged (bool).

    Raises:
        InputError: as the others do.
    """
    tables = [], []
    for model, dataset, folder in selection.folders():
        command = f"{selection.command(model, dataset, 'model')} --planted {dataset}"
        artefacts.read_made_from(folder / CALIBRATION, command)
        for table, file in zip(tables, (STRENGTHS, HITS), strict=True):
            table.append(pd.read_parquet(folder / CALIBRATION / file).assign(model=model, dataset=dataset))
    return tuple(pd.concat(table, ignore_index=True) for table in tables)


def _equal(chosen: dict[str, str | int]) -> list[tuple[str, str, str | int]] | None:
    """Filters for what columns are to hold; None for all rows."""
    return [(column, "==", value) for column, value in chosen.items()] or None


def _gather(selection: Selection, names: list[str], file: str, filters: list | None = None) -> pd.DataFrame:
    frames = [
        pd.read_parquet(made(selection, model, dataset, folder / name) / file, filters=filters)
        for model, dataset, folder in selection.folders()
        for name in names
    ]
    return pd.concat(frames, ignore_index=True)


def made(selection: Selection, model: str, dataset: str, artefact: Path, command: str = "") -> Path:
    """The artefact's folder, if it is there and whole; `command` is the one that makes it, if not the selection's."""
    artefacts.read_made_from(artefact, selection.command(model, dataset, command))
    return artefact
