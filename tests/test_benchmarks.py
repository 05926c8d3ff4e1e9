"""The benchmarks: their statistics on made-up timings, and each of them at a tiny size. Nothing here is timed."""

import importlib.util
import re

import extraction
import fine_tuning
import gpu
import gpu_door
import intervene
import known_truth
import numpy as np
import paired
import pandas as pd
import probes
import pytest
import torch
from made_releases import make_chest_xray
from random_model import full_size, random_model
from simulations import BEST, FIXED, false_alarms

from mlprobe_utils.pipeline import published
from mlprobe_utils.synthetic.miniatures import making

NNSIGHT = importlib.util.find_spec("nnsight") is not None
FEW = {"depth": 2, "num_hidden_layers": 2, "num_heads": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
FEW |= {"hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 64, "head_dim": 16, "mrope_section": [2, 3, 3]}
FEW |= {"vocab_size": 2000, "image_size": 112, "mm_tokens_per_image": 4}


@pytest.fixture(autouse=True)
def no_children(monkeypatch):
    """Memory measured in this process, and a tokenizer of few texts: children would take minutes to import torch."""
    monkeypatch.setattr(making, "corpus", lambda side: ["normal, benign or malignant?"] * 9)
    for module in (extraction, fine_tuning, intervene):
        monkeypatch.setattr(module, "in_child", lambda function, *arguments: function(*arguments))


def rows_of(markdown: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_ratio_is_the_median_of_the_paired_ratios_not_the_ratio_of_the_medians():
    base = 2.0 ** np.arange(7)
    ours = base * np.array([1.5, 1.5, 1.5, 1.1, 1.1, 1.2, 1.2])
    table = paired.compare(pd.DataFrame({"base": base, "ours": ours}), "base", {"base": 2**21, "ours": 2**20})
    found = table.set_index("contestant").loc["ours", ["ratio", "low", "high", "memory_mib", "memory_ratio"]].tolist()
    assert found == pytest.approx([1.2, 1.1, 1.5, 1, 0.5])  # the medians' own ratio is 1.1


def test_the_interval_covers_the_true_median_as_often_as_it_says_and_judges_the_target():
    random = np.random.default_rng(6)
    # a ratio of two times with now and then a pause in either, as on a shared machine; its median is 1.3
    noise = random.lognormal(0, 0.1, (2, 2000, 6)) * np.where(random.random((2, 2000, 6)) < 0.1, 8, 1)
    intervals = np.array([paired.median_interval(values)[1:] for values in 1.3 * noise[0] / noise[1]])
    covered = ((intervals[:, 0] <= 1.3) & (intervals[:, 1] >= 1.3)).mean()
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / 2000) < covered < 0.995
    verdicts = [paired.judge(low, high, 1.05).split(":")[0] for low, high in ((1.01, 1.05), (1.06, 1.1), (1.01, 1.06))]
    assert verdicts == ["met", "MISSED", "NOT DECIDED"]
    for too_few in (lambda: paired.median_interval(np.ones(5)), lambda: paired.enough_repetitions("5")):
        with pytest.raises(ValueError, match="at least 6"):
            too_few()


def test_every_repetition_runs_all_in_a_new_order():
    calls = []
    contestants = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "abcd"}
    seconds = paired.interleaved(contestants, 40)
    rounds = [tuple(calls[i : i + 4]) for i in range(0, 160, 4)]
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert len(set(rounds)) > 10
    for i, order in enumerate(rounds):  # each time is in the column of the one who took it
        assert [seconds.loc[i, name] for name in order] == [4 * i + k + 1 for k in range(4)]


def test_extraction_has_a_row_a_contestant_and_batch(capsys, tmp_path):
    arguments = "--model tiny --batches 1 3 --repetitions 6 --threads 1 --csv"
    extraction.main([*arguments.split(), f"{tmp_path}/table.csv"])
    printed = capsys.readouterr().out
    contestants = [name for name in extraction.CONTESTANTS if name != "nnsight" or NNSIGHT]
    rows = rows_of(printed)
    assert [row[:2] for row in rows] == [[batch, name] for batch in ("1", "3") for name in contestants]
    vectors = {row[1]: int(row[2]) for row in rows}
    assert vectors["mlprobe_utils"] == 2 * (4 + 2) + 3 * 3  # vision blocks, connector, LLM layers with three poolings
    assert vectors["output_hidden_states"] == 2 * 2  # it has neither vision nor the last layer
    assert ("nnsight is not installed" in printed) != NNSIGHT
    assert (pd.read_csv(tmp_path / "table.csv")["seconds"] > 0).all()


@torch.inference_mode()
def test_contestants_that_disagree_are_not_timed():
    loaded = random_model("tiny", "float32")
    inputs = extraction.encoded(loaded, "tiny", 3)
    features = {"mlprobe_utils": extraction.ours(loaded, inputs)()}
    features["other"] = dict(features["mlprobe_utils"])
    extraction.agree(features)
    own = features["other"]["V.02/image_mean"]
    for wrong in (own * 1.001, own * float("nan")):
        with pytest.raises(RuntimeError, match="other and mlprobe_utils differ"):
            extraction.agree(features | {"other": features["other"] | {"V.02/image_mean": wrong}})
    with pytest.raises(RuntimeError, match=r"V\.99"):
        extraction.agree({"mlprobe_utils": {}, "other": {"V.99/image_mean": torch.ones(1, 1)}})


def test_interventions_have_a_row_a_contestant_and_sweeps_the_share_of_their_layers(monkeypatch, tmp_path):
    monkeypatch.setattr(intervene, "start_of_peak", int)  # it takes half a second to collect garbage
    intervene.main(f"--model tiny --repetitions 6 --threads 1 --csv {tmp_path}/table.csv".split())
    table = pd.read_csv(tmp_path / "table.csv").groupby(["group", "contestant"])["expected"].apply(list)
    assert [len(table["edits", name]) for name in (intervene.OWN, "nnsight")[: 1 + NNSIGHT]] == [7] * (1 + NNSIGHT)
    shares = table["passes", intervene.OWN]
    assert shares[0] - shares[1] == pytest.approx(shares[1] - shares[2])  # a layer less each time
    assert table["sweeps", intervene.OWN] == pytest.approx([(1 + sum(shares)) / 4] * 2)


@torch.inference_mode()
def test_edits_that_do_nothing_or_another_thing_are_not_timed():
    case = intervene.case_of("tiny", random_model("tiny", "float32"), 2)
    none, (patch, steer, *_) = intervene.bare(case)["edits"][0], intervene.ours(case)["edits"]
    with pytest.raises(RuntimeError, match=r"patch moves the logits by 0\.0e\+00"):
        intervene.agree([none, none._replace(edit="patch", contestant=intervene.OWN)], torch.float32)
    with pytest.raises(RuntimeError, match="patch: nnsight and mlprobe_utils differ"):
        intervene.agree([none, patch, steer._replace(edit="patch", contestant="nnsight")], torch.float32)


@pytest.mark.slow
def test_fine_tuning_has_a_row_a_contestant_with_and_without_checkpointing(capsys, tmp_path):
    arguments = "--model tiny --vocabulary 20000 --repetitions 6 --threads 1 --csv"
    fine_tuning.main([*arguments.split(), f"{tmp_path}/table.csv"])
    rows = rows_of(capsys.readouterr().out)
    assert [row[:2] for row in rows] == [[k, name] for k in ("without", "with") for name in fine_tuning.CONTESTANTS]
    table = pd.read_csv(tmp_path / "table.csv").set_index(["checkpointing", "contestant"])
    assert (table["seconds"] > 0).all()
    # 20,000 logits for more than a hundred columns of two rows are 20 MiB and more
    for checkpointing in ("without", "with"):
        plain, own = (table.loc[(checkpointing, name), "memory_mib"] for name in fine_tuning.CONTESTANTS)
        assert own + 20 < plain


def test_probes_have_a_row_a_contestant_and_cell(capsys, tmp_path):
    arguments = "--widths 8 --points 2 3 --samples 24 --steps 12 --repetitions 6 --threads 1 --whole 8 2 24 --csv"
    probes.main([*arguments.split(), f"{tmp_path}/table.csv"])
    printed = capsys.readouterr().out
    assert [[row[1], row[3]] for row in rows_of(printed)] == [[n, name] for n in "23" for name in probes.CONTESTANTS]
    assert printed.count("The whole recipe") == 1
    table = pd.read_csv(tmp_path / "table.csv")
    np.testing.assert_allclose(table["microseconds"], 1e6 * table["seconds"] / table["points"] / (20 * 6))


@pytest.mark.parametrize("name", probes.CONTESTANTS)
def test_all_points_and_steps_are_extrapolated_from_some(name, monkeypatch):
    """With a contestant that takes 5 s for each point and 2 s for each step of it."""
    clock = []
    monkeypatch.setattr(probes, "seconds_of", lambda work: clock.clear() or work() or sum(clock))
    takes = lambda cell, points: clock.extend([5 + 2 * cell.steps] * len(points))  # noqa: E731
    monkeypatch.setitem(probes.CONTESTANTS, name, takes)
    assert probes.seconds_of_recipe(name, probes.Cell(4, 3, 24), 12, alone=2) == pytest.approx(3 * (5 + 2 * 120))


def test_probes_that_disagree_are_not_timed(monkeypatch):
    probes.agree(8, 24)
    fitted = probes.ours
    monkeypatch.setattr(probes, "ours", lambda *given: {point: own + 0.01 for point, own in fitted(*given).items()})
    with pytest.raises(RuntimeError, match="width 8: the probabilities differ"):
        probes.agree(8, 24)


def shrunk(architecture: str) -> dict:
    """The shape in data/architectures with few and narrow layers."""

    def few(config: dict) -> dict:
        return {name: few(own) if isinstance(own, dict) else FEW.get(name, own) for name, own in config.items()}

    return few(published.published_config(architecture))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", gpu.MODELS)
def test_a_full_size_model_gets_a_row_for_each_batch_and_one_for_its_training(architecture, monkeypatch):
    monkeypatch.setattr("random_model.published_config", shrunk)
    loaded = full_size(architecture, "bfloat16")
    table = gpu.measure(loaded, 56, [1, 2], steps=2, repetitions=6, rate=gpu.matrix_rate(64, repetitions=3))
    sweeps = ["patch sweep, 2 layers", "cut sweep, 2 layers"]
    assert list(table["what"]) == ["extraction", "extraction", *sweeps, "fine-tuning, 2 steps"]
    assert list(table["batch"]) == [1, 2, 2, 2, gpu.RECIPE.batch_size]
    assert (table[["tokens", "images/s", "share of the chip's rate"]] > 0).all(axis=None)
    assert rows_of(gpu.as_markdown(table))[0][0] == "extraction"


@pytest.mark.slow
def test_the_door_gets_a_row_for_each_step(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("random_model.published_config", shrunk)
    scans = make_chest_xray(tmp_path / "scans")
    gpu_door.main([str(scans), "--precision", "float32"])
    steps = rows_of(capsys.readouterr().out)
    assert [step for step, *_ in steps] == ["load", "image_folder", "extract", "probe", "answer"]
    assert all(float(rate) > 0 for step, _, rate, _ in steps if step in ("extract", "answer"))


def test_tables_of_known_truth_are_written_with_their_origin_and_read_by_pages(monkeypatch, tmp_path):
    monkeypatch.setattr(known_truth, "DEPTHS", (2, 4))
    monkeypatch.setattr(known_truth, "IMAGES", (150,))
    monkeypatch.setattr(known_truth, "SHAPES", ("flat", "rising"))
    known_truth.main(["--repetitions", "2", "--health", "3", "--folder", str(tmp_path)])
    monkeypatch.setattr(published, "SIMULATIONS", tmp_path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d, commit \w+, benchmarks/known_truth.py .*", published.origin("intervals"))
    covered, health = published.simulated("intervals"), published.simulated("corrected_health")
    assert len(covered) == 3 * 2 * 2 * (3 + 2)  # test sets, curves, what, constructions
    assert health.loc[health["shape"] == "flat", "true score"].tolist() == pytest.approx([85] * 4)


def test_a_picked_point_finds_losses_that_a_fixed_one_does_not():
    rates = false_alarms(28, (150,), 200).set_index("from")["false alarms (%)"]
    assert rates[FIXED] < 6 < 12 < rates[BEST]
    assert false_alarms(1, (150,), 50)["false alarms (%)"].nunique() == 1  # the best of one is the one
