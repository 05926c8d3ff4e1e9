"""Where the results of a run lie, and reading them back: an InputError names the command that makes what is missing.

outputs/<protocol>/<data set>/data/, controls-<split>/, fresh-<split>/  manifest, what needs no model, fresh phantoms
              …/<split>/features-random-<shape>/  of random weights, for all models of a shape
              …/<split>/<model>/adapter-<run>/, features-<stage>[-<run>]/, predictions-<stage>[-<run>]/, probes/, …
                                classifier-<trainable>-<run>/  the vision tower trained alone
                                calibration/, faults/<fault>-<strength>/  how severe faults are; of a damaged model
                                vision_tower/<frozen>/, order/<order>/  the same of a variant (`variants`)
"""

import itertools
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pandas as pd
from safetensors import safe_open

from mlprobe_utils.common.errors import unknown
from mlprobe_utils.common.files import read_record
from mlprobe_utils.evaluation.names import CLASSICAL, CONTROL_RUN, places_of_sites
from mlprobe_utils.evaluation.points import PROBED, flow_order
from mlprobe_utils.evaluation.rows import MAIN_PROBE
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.cards import Protocol, load_protocol

FAULTS = "faults"  # the folder of damaged models beside the intact one's results
ORDER, VISION_TOWER = "order", "vision_tower"  # the folders of variants, which are settings of the protocol
CALIBRATION, DRAWN = "calibration", "calibration-drawn"  # of the book's faults in a model, and of the benchmark's
STRENGTHS, HITS, STATISTICS = "strengths.parquet", "hits.parquet", "statistics.safetensors"
DAMAGED_RUN = 0  # the fine-tuned state that faults are planted in
RANDOM_FEATURES = "features-random"
PROMPT = "prompt.txt"  # beside the features: the question exactly as the model read it
CONTROLS = "controls"
SIZES = "adapter_sizes.json"
LENS, TRANSFER, PROMPTS, FRESH, REPLICATION = "lens", "transfer", "prompts", "fresh", "replication"
INTERVENTIONS, INTERVENTION_ROWS = "interventions", "interventions.parquet"
INTERVENTIONS_DRAWN = f"{INTERVENTIONS}-drawn"  # of the benchmark's cases
SCORES = "scores-"  # how tables of `scoring` begin
PROBE_SCORES, OUTPUT_SCORES, CONTROL_SCORES = f"{SCORES}probes", f"{SCORES}outputs", f"{SCORES}controls"
CORRECTED_HEALTH = f"{SCORES}corrected-health"


@dataclass(frozen=True)
class Variant:
    """One setting of `variants.SETTINGS`, and its value."""

    setting: str
    value: str

    def changed(self, protocol: Protocol) -> Protocol:
        """The protocol with this setting. An order has one run, and the main probe alone, with all of its seeds."""
        if self.setting == VISION_TOWER:
            tuning, whole = {VISION_TOWER: self.value, "runs": protocol.vision_training.runs}, {}
        else:
            tuning, whole = {"runs": CONTROL_RUN + 1}, {ORDER: self.value, "probe_variants": {}}
        return protocol.model_copy(update={"fine_tuning": protocol.fine_tuning.model_copy(update=tuning)} | whole)


def states_of(protocol: Protocol, variant: Variant | None = None, damaged: bool = False) -> list[int | None]:
    """The fine-tuned runs, after None for the pretrained model where that is not the intact one's."""
    if damaged:
        return [DAMAGED_RUN]
    runs = (variant.changed(protocol) if variant else protocol).fine_tuning.runs
    return [*([] if variant and variant.setting == VISION_TOWER else [None]), *range(runs)]


@dataclass(frozen=True)
class Selection:
    """Models (`<healthy>+<fault>-<strength>`: a damaged one) and data sets under one protocol and split rule."""

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    protocol: str
    split_rule: str
    variant: Variant | None = field(default=None, kw_only=True)

    def command(self, model: str, dataset: str, discussed: bool = False, name: str = "model") -> str:
        """The command line that makes a model's results on a data set; `name`: of another command."""
        healthy, damaged, _ = model.partition("+")
        command = ["python -m mlprobe_utils", name, healthy, *replace(self, datasets=(dataset,)).options]
        command += ["--discussions"] if discussed or self.variant else []
        return " ".join([*command, "--planted", dataset] if damaged else command)

    @property
    def options(self) -> tuple[str, ...]:
        """Of commands that work on the data sets."""
        return ("--datasets", *self.datasets, "--protocol", self.protocol, "--split", self.split_rule)

    @property
    def states(self) -> list[int | None]:
        return states_of(load_protocol(self.protocol), self.variant, any("+" in model for model in self.models))

    def folder(self, model: str, dataset: str) -> Path:
        healthy, damaged, name = model.partition("+")
        place = artefacts.OUTPUTS / self.protocol / dataset / self.split_rule / healthy
        place = place / FAULTS / name if damaged else place
        return place / self.variant.setting / self.variant.value if self.variant else place

    def controls(self, dataset: str) -> Path:
        return artefacts.OUTPUTS / self.protocol / dataset / f"{CONTROLS}-{self.split_rule}"

    def folders(self) -> list[tuple[str, str, Path]]:
        return [(m, d, self.folder(m, d)) for d in self.datasets for m in self.models]


def state_name(kind: str, run: int | None) -> str:
    """The folder of features or predictions: of the pretrained model (run None) or of a fine-tuned one."""
    return f"{kind}-pretrained" if run is None else f"{kind}-finetuned-{run}"


def results_below(folders: Iterable[Path]) -> dict[str, str]:
    """Path below `outputs/` -> hash of the files, of every artefact in these folders but those of `scoring`."""
    made = sorted(path for folder in folders for path in folder.rglob(artefacts.FILES))
    named = {str(path.parent.relative_to(artefacts.OUTPUTS)): path for path in made}
    results = {name: path for name, path in named.items() if not re.search(rf"(^|/)(\.|{SCORES})", name)}
    return {name: artefacts.contents_hash(read_record(path) or {}) for name, path in results.items()}


def gather(
    selection: Selection, names: Iterable[str], file: str, discussed: bool = False, **chosen: str | int
) -> pd.DataFrame:
    """The rows of a file of some artefacts of every selected model and data set, with `chosen` values; as `require`."""
    filters = [(column, "==", value) for column, value in chosen.items()] or None
    folders = folders_of(selection, *names, discussed=discussed)
    return pd.concat([artefacts.read_rows(folder / file, filters=filters) for folder in folders], ignore_index=True)


def probe_rows(selection: Selection, probe: str = MAIN_PROBE, **chosen: str | int) -> pd.DataFrame:
    """The rows of one of the protocol's probe settings; `chosen` as of `gather`."""
    if probe not in (recipes := load_protocol(selection.protocol).probes):
        raise unknown("probe settings", probe, recipes)
    return gather(selection, ["probes"], "probes.parquet", probe=probe, **chosen)


control_rows = partial(gather, names=[CONTROLS], file="controls.parquet")  # of the controls that need a model
prompt_rows = partial(gather, names=[PROMPTS], file="prompts.parquet")  # of CONTROL_RUN; `control`: the wording's name
lens_rows = partial(gather, names=[LENS], file="lens.parquet")  # at every LLM point, validation and test images
# of probes fitted at one LLM point (`probe`) and applied at another, test images
transfer_rows = partial(gather, names=[TRANSFER], file="transfer.parquet")
# answers to pairs of images while states are edited (`synthetic.editing`), of the states whose interventions were made
intervention_rows = partial(gather, names=[INTERVENTIONS], file=INTERVENTION_ROWS, discussed=True)
# of the main probes with every seed, test images, before fine-tuning and after CONTROL_RUN
seed_rows = partial(gather, names=["probes"], file="seeds.parquet")


def end_rows(selection: Selection) -> pd.DataFrame:
    """Of `seed_rows` those of the sites of a diagnosis; others are not read."""
    frames = []
    for folder in folders_of(selection, "probes"):
        file = folder / "seeds.parquet"
        sites = places_of_sites(artefacts.read_rows(file, columns=["point"])["point"].unique())
        rows = artefacts.read_rows(file, filters=[("point", "in", {point for point, _ in sites})])
        frames.append(rows[pd.MultiIndex.from_frame(rows[["point", "pooling"]]).isin(sites)])
    return pd.concat(frames, ignore_index=True)


def frozen_tower_rows(selection: Selection) -> pd.DataFrame:
    """Rows of the linear probe at the vision tower's end before fine-tuning, test images: a classifier with nothing but
    the head trained, as MedSigLIP's authors recommend. None where no probe is linear."""
    recipes = load_protocol(selection.protocol).probes
    linear = next((name for name, own in recipes.items() if own.kind == "linear"), "")
    chosen = {"probe": linear, "stage": "pretrained", "split": "test", "pooling": "image_mean"}
    rows = gather(selection, ["probes"], "probes.parquet", **chosen)
    towers = rows[rows["point"].str.startswith("V")]
    last = towers.groupby("model")["point"].transform(lambda points: max(points, key=flow_order))
    return towers[towers["point"] == last]


def image_control_rows(selection: Selection) -> pd.DataFrame:
    """The rows of the controls that need no model, and of the reference, test images of every data set."""
    folders = [require(selection, selection.models[0], d, selection.controls(d)) for d in selection.datasets]
    return pd.concat([artefacts.read_rows(folder / "controls.parquet") for folder in folders], ignore_index=True)


def prediction_rows(selection: Selection) -> pd.DataFrame:
    """The final outputs' rows, of both stages and all runs."""
    return gather(selection, [state_name("predictions", state) for state in selection.states], "predictions.parquet")


def reference_rows(selection: Selection) -> pd.DataFrame:
    rows = image_control_rows(selection)
    return rows[rows["control"] == CLASSICAL].reset_index(drop=True)


def learning_curves(selection: Selection) -> pd.DataFrame:
    """model, dataset, run, epoch, training_loss, validation_loss."""
    runs, frames = [run for run in selection.states if run is not None], []
    for (model, dataset, folder), run in itertools.product(selection.folders(), runs):
        adapter = require(selection, model, dataset, folder / f"adapter-{run}")
        curve = artefacts.read_rows(adapter / "learning_curve.parquet")
        frames.append(curve.assign(model=model, dataset=dataset, run=run))
    return pd.concat(frames, ignore_index=True)


def prompts(selection: Selection) -> pd.DataFrame:
    """model, dataset, prompt: the question exactly as each model read it."""
    texts = [(folder / PROMPT).read_text() for folder in folders_of(selection, state_name("features", None))]
    return pd.DataFrame(selection.folders(), columns=["model", "dataset", "prompt"]).assign(prompt=texts)


def probe_points(selection: Selection, model: str) -> pd.DataFrame:
    """A model's probe points in the order the data flows: point, path, module (class), width, poolings, family."""
    dataset = selection.datasets[0]  # the points are the same on every data set
    features = selection.folder(model, dataset) / state_name("features", selection.states[0])
    return artefacts.read_rows(require(selection, model, dataset, features) / "points.parquet")


def families(selection: Selection) -> dict[str, str]:
    return {model: probe_points(selection, model)["family"].iloc[0] for model in selection.models}


def adapted_layers(selection: Selection) -> pd.DataFrame:
    """What LoRA adapts, by each model's first adapter: model, module (letter of its probe points, or "elsewhere"; a
    side path counts as one), layers, parameters (trained)."""
    records = []
    for model in selection.models:
        points = probe_points(selection, model)
        folder = selection.folder(model, selection.datasets[0]) / "adapter-0"
        for name, size in adapter_sizes(require(selection, model, selection.datasets[0], folder)).items():
            layer, _, matrix = name.partition(".lora_")
            owner = points.loc[[f".{path}." in f"{layer}." for path in points["path"]], "point"]
            module = owner.iloc[0][0] if len(owner) else "elsewhere"
            records.append({"model": model, "module": module, "layers": matrix.startswith("A"), "parameters": size})
    counted = pd.DataFrame(records).groupby(["model", "module"], sort=False).sum().reset_index()
    return counted.sort_values("module", key=lambda letters: letters.map([*PROBED, "elsewhere"].index), kind="stable")


def folders_of(selection: Selection, *names: str, discussed: bool = False) -> list[Path]:
    """The folders of some artefacts of every selected model and data set, as `require`."""
    places = [(*place, name) for place in selection.folders() for name in names]
    return [require(selection, model, dataset, folder / name, discussed) for model, dataset, folder, name in places]


def adapter_sizes(folder: Path) -> dict[str, int]:
    """The number of elements of each tensor of an adapter; of an imported one, which is without, as they were noted."""
    if (noted := folder / SIZES).is_file():
        return json.loads(noted.read_text())
    return tensor_sizes(folder / "adapter_model.safetensors")


def tensor_sizes(file: Path) -> dict[str, int]:
    """The number of elements of each tensor, from the header of a safetensors file."""
    with safe_open(file, "numpy") as opened:
        return {name: math.prod(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118  (no dict)


def require(selection: Selection, model: str, dataset: str, artefact: Path, discussed: bool = False) -> Path:
    """The artefact's folder, if it is there and whole; `discussed`: one of a discussion's."""
    artefacts.read_made_from(artefact, selection.command(model, dataset, discussed))
    return artefact
