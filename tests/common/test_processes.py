"""Several processes: what two of them make together is what one process makes, image by image."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import in_processes
import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tiny_parts import FAMILY_NAMES

from mlprobe_utils.common import processes
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.variants import TRAINABLE, classifier_name
from mlprobe_utils.probing.extraction import FEATURES, load_features

SCRIPT = Path(in_processes.__file__)
FSDP = ("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP")
LAUNCH = "--num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"
STATES = ("pretrained", "finetuned-0")


def launched(folder: Path, checkpoint: Path, *options: str, kill_at: int | None = None):
    """Runs the script in two processes, started as a user starts them; returns what became of it."""
    folder.mkdir(exist_ok=True)
    launch = [str(Path(sys.executable).with_name("accelerate-launch")), *LAUNCH.split()]
    script = [str(SCRIPT), str(folder), str(checkpoint), *([str(kill_at)] if kill_at else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[2])}
    return subprocess.run([*launch, *options, *script], capture_output=True, text=True, env=environment)


def forked(folder: Path, checkpoint: Path, count: int) -> None:
    """Runs it in forks of this process, which have everything imported."""
    folder.mkdir(exist_ok=True)

    def run(rank: int) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        if count > 1:
            store = torch.distributed.FileStore(str(folder / "store"), count)
            torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=count)
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1"}
            os.environ |= {name: str(value) for name, value in place.items()}
        in_processes.main(folder, str(checkpoint))

    started = [multiprocessing.get_context("fork").Process(target=run, args=(rank,)) for rank in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * count


@pytest.fixture(scope="module")
def one(tmp_path_factory, tiny_folder):
    forked(folder := tmp_path_factory.mktemp("one"), tiny_folder, 1)
    return folder


KILLED = [pytest.param("FSDP, killed", marks=pytest.mark.slow), pytest.param("DDP, killed", marks=pytest.mark.nightly)]


@pytest.fixture(scope="module", params=["DDP", *KILLED])
def two(request, tmp_path_factory, tiny_folder):
    """Two processes; started as a user starts them where they are killed while they train, and started again."""
    kind, _, killed = request.param.partition(", ")
    folder = tmp_path_factory.mktemp("two")
    if not killed:
        forked(folder, tiny_folder, 2)
        return kind, folder
    options = FSDP if kind == "FSDP" else ("--multi_gpu",)
    # in epoch 2: of each epoch it reads 6 images to train, and 8 that accelerate fills an evaluation up to; not before
    # the last batch, of which it reads as soon as both have taken a step: the other has written epoch 1 by then
    done = launched(folder, tiny_folder, *options, kill_at=19)
    assert done.returncode != 0
    assert list(results(folder).glob(".adapter-0.partial/checkpoints/checkpoint-*/trainer_state.json"))
    assert not (results(folder) / "adapter-0").exists()
    done = launched(folder, tiny_folder, *options)
    assert done.returncode == 0, done.stderr
    return kind, folder


def results(folder: Path) -> Path:
    return folder / "outputs" / "miniature" / "busi" / "paper" / "tiny"


def tables(one: Path, two: tuple[str, Path], file: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """As made by two processes, and by one."""
    return tuple(pd.read_parquet(results(folder) / file) for folder in (two[1], one))


def test_weights_are_whole_or_sharded_as_launched(two):
    kind, folder = two
    for process in (0, 1):
        seen = json.loads((folder / f"training-{process}.json").read_text())
        assert seen["processes"] == 2
        assert seen["weights"] == (["DTensor"] if kind == "FSDP" else ["Tensor"])


def test_evaluation_and_training_equal_those_of_one_process(one, two):
    """Three validation images on two processes: the sampler repeats one, which must not be counted twice."""
    curves = tables(one, two, "adapter-0/learning_curve.parquet")
    assert curves[0]["epoch"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(*curves, rtol=2e-4)
    weights, expected = (load_file(results(f) / "adapter-0" / "adapter_model.safetensors") for f in (two[1], one))
    assert weights.keys() == expected.keys()
    for key in weights:
        assert weights[key].shape == expected[key].shape
        np.testing.assert_allclose(weights[key], expected[key], atol=5e-3, err_msg=key)


@pytest.mark.parametrize("name", [*(f"predictions-{state}/predictions" for state in STATES), "prompts/prompts"])
def test_every_image_is_predicted_once(one, two, name):
    rows, expected = tables(one, two, f"{name}.parquet")
    assert len(rows) == len({*zip(rows["image"], rows["control"], strict=True)}) == (24 if "prompts" in name else 9)
    assert list(rows["image"]) == list(expected["image"])
    options = [column for column in rows if column.startswith("p_")]
    np.testing.assert_allclose(rows[options], expected[options], atol=5e-3)
    if "pretrained" in name:
        assert list(rows["text"]) == list(expected["text"])


@pytest.mark.parametrize("state", STATES)
def test_features_are_those_of_one_process_in_the_same_rows(one, two, state):
    features, expected = (load_features(results(f) / f"features-{state}" / FEATURES) for f in (two[1], one))
    assert list(features) == list(expected)
    for key, tensor in features.items():
        assert len(tensor) == 18
        tolerance = 1e-4 if state == "pretrained" else 0.05
        difference = (tensor - expected[key]).abs().max() / expected[key].std()
        assert difference < tolerance, key


def test_no_temporary_files_are_left(one, two):
    names = [sorted(str(p.relative_to(results(f))) for p in results(f).rglob("*")) for f in (one, two[1])]
    alone = [name for name in names[0] if name.startswith(("classifier-", ".classifier-"))]  # which FSDP does not train
    assert alone
    assert names[1] == [name for name in names[0] if two[0] != "FSDP" or name not in alone]
    assert not any("shard" in name or "partial" in name or "checkpoint" in name for name in names[0])


OTHERS = [*((family, "FSDP") for family in FAMILY_NAMES if family != "qwen2_5_vl"), ("llava", "DDP"), ("gemma3", "DDP")]


@pytest.mark.nightly
@pytest.mark.parametrize(("family", "kind"), OTHERS)
def test_every_family_trains_in_two_processes(tiny_folders, tmp_path, family, kind):
    """FSDP has to find the layers to spread; DDP waits for a gradient of all that is trained, and LLaVA reads no
    last CLIP layer."""
    done = launched(tmp_path, tiny_folders(family), *(FSDP if kind == "FSDP" else ("--multi_gpu",)))
    assert done.returncode == 0, done.stderr
    seen = json.loads((tmp_path / "training-1.json").read_text())
    assert seen["weights"] == (["DTensor"] if kind == "FSDP" else ["Tensor"])
    curve = pd.read_parquet(results(tmp_path) / "adapter-0" / "learning_curve.parquet")
    assert curve["epoch"].tolist() == [1, 2, 3]
    assert curve["training_loss"].iloc[-1] < curve["training_loss"].iloc[0]
    assert load_features(results(tmp_path) / "features-finetuned-0" / FEATURES)


def test_batch_that_cannot_be_shared_is_an_error(monkeypatch):
    monkeypatch.setattr(processes, "processes", lambda: SimpleNamespace(num_processes=3))
    assert processes.share_of(6) == 2
    with pytest.raises(InputError, match=r"3 processes cannot share batches of 4 images .*fine_tuning\.batch_size"):
        processes.share_of(4)


def test_a_tower_alone_equals_that_of_one_process(one, two):
    """Three validation images and nine to train with, which two processes share no more evenly than answers."""
    for name in (classifier_name(trained, 0) for trained in TRAINABLE) if two[0] == "DDP" else ():
        found, expected = tables(one, two, f"{name}/predictions.parquet")
        pd.testing.assert_frame_equal(found, expected, rtol=0, atol=5e-3)
        np.testing.assert_allclose(*tables(one, two, f"{name}/learning_curve.parquet"), rtol=2e-3)
    assert (two[0] == "DDP") == bool(list(results(two[1]).glob("classifier-*")))
