"""Points of a side path are carried everywhere, and change no result of the modules."""

import itertools
import json

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from mlprobe_utils.analysis.health import profile
from mlprobe_utils.evaluation.health import health_by_run
from mlprobe_utils.evaluation.metrics import METRICS
from mlprobe_utils.evaluation.points import PROBED, flow_order, is_point, on_side_path
from mlprobe_utils.pipeline.artefacts import complete
from mlprobe_utils.pipeline.results import Selection, adapted_layers
from mlprobe_utils.plots.figures import in_words
from mlprobe_utils.plots.tables import module_ends
from mlprobe_utils.probing.extraction import load_features, save_whole

FLOW = ["V.02", "V.10", "D.00", "D.01", "C.00", "L.00", "L.11"]
SELECTION = Selection(("tiny",), ("busi",), "miniature", "paper")
PATHS = {"V.00": "model.visual.blocks.0", "D.00": "model.visual.deepstack_merger_list.0"}
PATHS |= {"C.00": "model.visual.merger.linear_fc2", "L.00": "model.language_model.layers.0"}
LAYERS = {  # as in a Qwen3-VL's adapter -> inputs, outputs
    "model.language_model.layers.0.mlp.up_proj": (8, 16),
    "model.visual.merger.linear_fc2": (16, 8),
    "model.visual.deepstack_merger_list.0.linear_fc1": (16, 16),
    "model.visual.deepstack_merger_list.0.linear_fc2": (16, 8),
    "model.visual.blocks.0.mlp.linear_fc1": (4, 8),
    "model.visual.other": (3, 3),
}


def test_points_stand_in_the_order_the_data_flows(tmp_path):
    assert sorted(sorted(FLOW), key=flow_order) == FLOW
    shuffled = pd.DataFrame({"module": list("LDCV")})
    assert list(in_words(shuffled, {}, ("module",))["module"]) == [*PROBED] == ["V", "D", "C", "L"]
    keys = [f"{point}/{pooling}" for point in FLOW for pooling in ("image_mean", "last_token")]
    save_whole({key: torch.zeros(2, 3) for key in sorted(keys)}, tmp_path / "features.safetensors")
    assert list(load_features(tmp_path / "features.safetensors")) == keys
    for name in ("X.01", "V.7", "V.007", "answer", ""):
        assert not is_point(name) | on_side_path(name), name


def test_a_side_path_changes_no_health_score_and_no_end():
    """Its values are far from all others."""
    points = ["V.00", "V.01", "D.00", "D.01", "D.02", "C.00", "C.01", "L.00", "L.01"]
    places = itertools.product(("pretrained", "finetuned"), (0, 1), points)
    rows = pd.DataFrame(places, columns=["stage", "run", "point"])
    values = np.where(rows["point"].str[0] == "D", 0.0, 60.0 + 7 * rows["point"].map(points.index) + rows["run"])
    constants = {"model": "m", "dataset": "d", "pooling": "image_mean", "images": 150}
    scores = rows.assign(**constants, **dict.fromkeys(METRICS, values))
    outputs = scores[["model", "dataset", "stage", "run"]].drop_duplicates().assign(accuracy=80.0)
    modules = scores[~scores["point"].map(on_side_path)]
    assert len(modules) < len(scores)
    for table in (
        lambda own: profile(health_by_run(own, 0.2), outputs),
        lambda own: module_ends(own, outputs, "accuracy"),
    ):
        pd.testing.assert_frame_equal(table(scores), table(modules))


def test_what_lora_reached_in_a_side_path_is_counted_there(outputs):
    folder = SELECTION.folder("tiny", "busi")
    for name in ("adapter-0", "features-pretrained"):
        (folder / name).mkdir(parents=True)
        (folder / name / "made_from.json").write_text(json.dumps({}))
    points = pd.DataFrame({"point": PATHS.keys(), "path": PATHS.values()})
    points.to_parquet(folder / "features-pretrained" / "points.parquet")
    tensors = {}
    for name, (inputs, width) in LAYERS.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.zeros(2, inputs)
        tensors[f"base_model.model.{name}.lora_B.weight"] = torch.zeros(width, 2)
    save_file(tensors, folder / "adapter-0" / "adapter_model.safetensors")
    for name in ("adapter-0", "features-pretrained"):
        complete(folder / name)
    counted = adapted_layers(SELECTION).set_index("module")
    assert list(counted.index) == [*PROBED, "elsewhere"]
    assert counted["layers"].to_dict() == {"V": 1, "D": 2, "C": 1, "L": 1, "elsewhere": 1}
    assert counted["parameters"].sum() == sum(tensor.numel() for tensor in tensors.values())
    assert counted.at["D", "parameters"] == 2 * (16 + 16 + 16 + 8)
