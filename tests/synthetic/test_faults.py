"""Planted faults: what they change and what they leave, in every family; the oracle; the artefacts."""

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from slow_reference import option_log_probabilities
from tiny_parts import RECIPE, changed, each_family, each_family_in_time, make_image_set, newly_made

from mlprobe_utils.analysis.fault_effects import WHERE, around, effects, first_drop, profile_changes, strengths_of
from mlprobe_utils.common.errors import InputError
from mlprobe_utils.evaluation.diagnosis import MODES
from mlprobe_utils.evaluation.health import SCORES
from mlprobe_utils.evaluation.points import ANSWER
from mlprobe_utils.models.encoding import Encoder, branches
from mlprobe_utils.pipeline import artefacts, fault_card, places, results, work
from mlprobe_utils.pipeline.cards import load_data_card, load_protocol
from mlprobe_utils.pipeline.configuration import PlantedFaults, Run, load_book
from mlprobe_utils.pipeline.fault_card import KINDS, DamagedModel, Fault, all_faults, damaged_models, damaged_selection
from mlprobe_utils.pipeline.laboratory_results import measured
from mlprobe_utils.probing.extraction import features_of
from mlprobe_utils.synthetic.faults import calibration, kinds, planting
from mlprobe_utils.synthetic.faults.damage import Damage, damaged, planted
from mlprobe_utils.training.prediction import answer_batch

MODULES = ("V", "C", "L", ANSWER)
OF_STATES = MODULES[:3]
OPTIONS = [[5, 9, 2], [5, 7, 2], [8, 2]]  # two begin alike
SELECTION = results.Selection(("tiny",), ("busi-phantom",), "miniature", "paper")
SLUGS = ["vision-tower", "connector", "llm", "semantic-mapping"]


USUAL = {"V": "noise", "C": "collapse", "L": "noise", ANSWER: "swap"}
EVERY = [(kind, module) for kind, own in KINDS.items() for module in own.modules]
ONCE = [(kind, own.modules[i % len(own.modules)]) for i, (kind, own) in enumerate(KINDS.items())]


def fault_in(module: str, **fields) -> Fault:
    named = {"slug": module, "name": module, "module": module, "kind": USUAL[module]}
    return Fault(**named | {"depth": 0.5 if module in "VL" else None, "seed": 1} | fields)


@pytest.fixture
def pixels(image_set):
    return [image_set.pixels(i) for i in range(8)]


@pytest.fixture
def damage_in(tiny, encoder, image_set, pixels):
    def make(module: str, severity: float = 0.9, seed: int = 1, kind: str = "") -> Damage:
        damage = planted(fault_in(module, seed=seed, kind=kind or USUAL[module]), tiny.family)
        given = image_set.card.options, [lambda: encoder.questions(pixels)], None, [damage.place]
        _, seen = calibration.observed(tiny, encoder, *given)
        return replace(damage, severity=severity, statistics=calibration.statistics_of(seen[damage.known_by]))

    return torch.inference_mode()(make)


@pytest.fixture
def observed(tiny, encoder, image_set):
    """Features, generated texts and options' log-probabilities of some images, under a damage or none."""
    options = image_set.card.options
    parting = branches(encoder.answer_tokens(options))

    def observe(images, damage=None) -> dict:
        with damaged(tiny, damage, parting):
            found = features_of(tiny, encoder.questions(images))
            answers = answer_batch(tiny, encoder.questions(images), encoder, options, 3)
        return found | {"options": torch.tensor(answers[options].to_numpy()), "text": list(answers["text"])}

    return observe


def same(one: dict, other: dict) -> bool:
    return one["text"] == other["text"] and all(torch.equal(one[key], other[key]) for key in one if key != "text")


@each_family
def test_an_image_is_damaged_alike_in_every_batch(observed, damage_in, pixels):
    """Alone, among images of other sizes and so with other padding, and elsewhere in the batch, but not by any seed."""
    intact = observed(pixels[:4])
    for kind, module in ONCE:
        damage, again, other = (damage_in(module, severity=0.6, seed=seed, kind=kind) for seed in (1, 1, 2))
        alone, together, turned = (observed(images, damage) for images in (pixels[:1], pixels[:4], pixels[3::-1]))
        assert same(observed(pixels[:4], again), together) != same(together, intact)
        assert same(observed(pixels[:4], other), together) == (kind in ("rotation", "fade"))
        for key in set(alone) - {"text"}:
            own = together[key][0, : alone[key].shape[1]]  # places of fewer tokens than others' end with zeros
            torch.testing.assert_close(own, alone[key][0], rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(turned[key].flip(0), together[key], rtol=1e-3, atol=1e-4)
    assert same(observed(pixels[:4], damage.at(0.0)), intact)


@each_family
def test_a_broken_mapping_changes_the_answer_and_no_state(observed, damage_in, pixels):
    intact = observed(pixels)
    for kind in (kind for kind, module in EVERY if module == ANSWER):
        damage = damage_in(ANSWER, severity=1.0, kind=kind)
        broken, share = observed(pixels, damage), observed(pixels, damage.at(0.5))["options"]
        assert all(torch.equal(intact[key], broken[key]) for key in intact if "/" in key)
        assert (broken["options"] != intact["options"]).any(dim=1).all()
        hit = (share != intact["options"]).any(dim=1)
        if kind in ("swap", "commonest"):  # at one severity, and at all above
            torch.testing.assert_close(share[hit], broken["options"][hit])
        assert 0 < hit.sum() < len(pixels) or kind not in ("swap", "commonest")


@each_family
def test_options_read_the_damaged_prompt(tiny, image_set, damage_in, pixels):
    """From the cache, which the generated text has left, as in whole passes."""
    encoder = Encoder(tiny.processor, image_set.card.template, "question_first")  # the image within a window's reach
    options = ["Benign", "Malignant", "Malignant tumour", "Malignant tissue"]
    parting = branches(encoder.answer_tokens(options))
    assert any(parting)  # somewhere after the first token, where the mapping depends on what was read
    images, intact = pixels[:4], None
    more = [("rotation", "L"), ("heads", "L"), ("rotation", ANSWER), ("noise", ANSWER), ("bias", ANSWER)]
    for damage in (None, *map(damage_in, MODULES), *(damage_in(module, kind=kind) for kind, module in more)):
        with damaged(tiny, damage, parting):
            found = answer_batch(tiny, encoder.questions(images), encoder, options, 5)[options].to_numpy()
            expected = option_log_probabilities(tiny, encoder, images, options).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert damage is None or np.abs(found - intact).max() > 1e-2
        intact = found if damage is None else intact


@pytest.mark.parametrize("family", ["qwen3_vl"], indirect=True)
def test_a_fault_that_a_side_path_would_undo_is_refused(tiny):
    with pytest.raises(InputError, match=r"data/faults/L\.yml: depth 0\.0 is L\.00.*greater depth"):
        planted(fault_in("L", depth=0.0), tiny.family)


def test_noise_keeps_mean_and_spread_and_no_mean_brings_the_image_back():
    width, tokens = 16, 2000
    spread = {"between": torch.full((width,), 2.0), "within": torch.full((width,), 3.0)}
    damage = Damage("noise", "V", 0, "V.00", 1.0, {"mean": torch.arange(width).float()} | spread)
    images = torch.stack([damage.of_states(torch.randn(tokens, width), [...], [number]) for number in range(400)])
    torch.testing.assert_close(images.mean(dim=(0, 1)), damage.statistics["mean"], atol=0.5, rtol=0)
    torch.testing.assert_close(images.mean(dim=1).std(dim=0), spread["between"], atol=0.4, rtol=0)
    torch.testing.assert_close(images.std(dim=1).mean(dim=0), spread["within"], atol=0.1, rtol=0)
    half = damage.at(0.5).of_states(torch.zeros(tokens, width) + 100.0, [...], [0])  # however many tokens there are
    assert half.mean(dim=0).sub(0.5**0.5 * 100).abs().max() > 1


def test_a_collapsed_connector_has_the_rank_that_is_left_and_a_rotated_one_its_spread():
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(300, 16, generator=generator) @ torch.randn(16, 16, generator=generator) + 5
    seen = calibration.Seen(states[:, None], [*range(300)], [], lambda states: states.mean(dim=1))
    damage = Damage("collapse", "C", 1, "C.01", 0.0, calibration.statistics_of([seen]))
    for severity, rank in ((0.0, 16), (0.5, 3), (0.7, 1), (1.0, 0)):
        out = damage.at(severity).of_states(states, [...], [0])
        assert torch.linalg.matrix_rank(out - damage.statistics["mean"], atol=1e-2) == rank
    torch.testing.assert_close(out, damage.statistics["mean"].expand(300, 16))
    turned = replace(damage, kind="rotation", severity=0.7).of_states(states, [...], [0])
    torch.testing.assert_close(torch.cov(turned.T), torch.cov(states.T), rtol=1e-2, atol=1e-2)
    assert torch.linalg.vector_norm(turned - states) > torch.linalg.vector_norm(states - states.mean(dim=0)) / 2


def test_options_part_where_their_tokens_do_and_logits_are_swapped_there_alone():
    assert branches(OPTIONS) == {(): [5, 8], (5,): [9, 7]}
    assert branches([[5, 2], [6, 7, 7, 2]]) == {(): [5, 6]}
    assert branches([[5, 2], [5, 7, 2]]) == {(5,): [2, 7]}  # one is the beginning of the other
    logits = torch.arange(2 * 3 * 12).view(2, 3, 12).float()
    written = torch.tensor([[0, 1, 5], [0, 5, 1]])
    out = Damage("swap", ANSWER, 0, severity=0.5).of_logits(logits, written, [0, 2**63 - 1], branches(OPTIONS))
    expected = logits.clone()
    expected[0, :, [5, 8]] = logits[0, :, [8, 5]]
    expected[0, 2, [7, 9]] = logits[0, 2, [9, 7]]
    assert torch.equal(out, expected)


def test_the_chosen_option_is_the_one_written_under_constraint():
    root, second = torch.zeros(3, 1, 12), torch.zeros(3, 1, 12)  # of three images
    root[..., 11] = 9  # what no option goes on with
    root[[0, 1, 2], 0, [5, 5, 8]] = second[[0, 1, 2], 0, [9, 7, 9]] = 2
    model = Mock(side_effect=lambda input_ids, **_: SimpleNamespace(logits=second if input_ids[0, -1] == 5 else root))
    loaded, prompts = SimpleNamespace(model=model, device="cpu"), {"input_ids": torch.ones(3, 1, dtype=int)}
    assert calibration.chosen(loaded, prompts, OPTIONS, 0).tolist() == [0, 1, 2]


@each_family_in_time
def test_the_class_can_be_decoded_where_a_kind_keeps_it_and_nowhere_else(tiny, encoder, image_set):
    """By means of image tokens, which follow from the intact states or from a pass."""
    generator, labels = np.random.default_rng(0), np.arange(96) % 2
    images = [generator.integers(k * 120, k * 120 + 90, (64, 64, 3), dtype=np.uint8) for k in labels]
    batches, half = [lambda: encoder.questions(images)], 48
    observe = torch.inference_mode()(partial(calibration.observed, tiny, encoder, image_set.card.options, batches))
    damages = [planted(fault_in(module, kind=kind), tiny.family) for kind, module in EVERY if module != ANSWER]
    _, seen = observe(None, {damage.place for damage in damages})

    def share(damage: Damage) -> float:
        inside = damage.severity and (damage.of_text or damage.kind == "heads")
        means = calibration.means(seen[damage.place], None if inside else damage)
        if inside or damage.severity == 1:
            passed = calibration.means(observe(damage, [damage.place])[1][damage.place])
            if not inside:
                np.testing.assert_allclose(means, passed, rtol=1e-3, atol=1e-3)
            means = passed
        return calibration.correct(means[:half], labels[:half], means[half:], labels[half:]).mean()

    for damage in damages:
        damage = replace(damage, statistics=calibration.statistics_of(seen[damage.known_by]))
        assert share(damage) > 0.95
        if KINDS[damage.kind].destroys:
            assert share(damage.at(1.0)) < 0.7, damage
        else:
            assert min(share(damage.at(severity)) for severity in (0.5, 1.0)) > 0.95, damage


def test_the_oracle_is_fitted_on_other_images_than_it_judges():
    states = np.random.default_rng(0).standard_normal((2, 200, 4))
    labels = states[..., 0] > 0
    assert calibration.correct(states[0], labels[0], states[1], labels[1]).mean() > 0.9
    assert calibration.correct(states[0], labels[0], states[1], ~labels[1]).mean() < 0.1


def test_the_severity_is_found_or_the_most_is_said():
    assert calibration.severity_for(lambda s: 40 * s**2, 20, 4) == pytest.approx((0.5**0.5, 40), abs=1e-3)
    assert calibration.severity_for(lambda s: 10 * s, 20, 4) == (1.0, 10)


def test_fresh_phantoms_are_new_and_always_the_same():
    given = load_data_card("chest-xray-phantom"), load_protocol("miniature").images
    labels = ["NORMAL", "PNEUMONIA"] * 2
    few, more, other = (calibration.fresh_images(*given, labels[:n], part) for n, part in ((2, 0), (4, 0), (4, 1)))
    assert all((a == b).all() for a, b in zip(few, more[:2], strict=True))
    assert len({image.tobytes() for image in (*more, *other)}) == 8


def test_a_depth_is_given_where_there_is_one_and_becomes_a_point_of_every_model():
    for module, depth, mend in (("V", None, "give the depth"), ("C", 0.5, "remove it")):
        with pytest.raises(ValidationError, match=f"depth of a fault in module '{module}': {mend}"):
            fault_in(module, depth=depth)
    with pytest.raises(ValidationError, match="kind 'swap' in module 'V': it is for output"):
        fault_in("V", kind="swap")
    points = ["V.00", "V.01", "V.02", "D.00", "C.00", "C.01", "L.00", "L.01"]
    assert [fault_in("V", depth=d).place(points) for d in (0, 0.5, 1)] == ["V.00", "V.01", "V.02"]
    assert [fault_in(module).place(points) for module in ("C", "L", ANSWER)] == ["C.01", "L.01", None]


def test_every_module_has_faults_of_both_sorts_and_every_kind_is_known():
    assert {kind for kind, module in EVERY if module != ANSWER} == {*kinds.ON_STATES, "heads"}
    assert {kind for kind, module in EVERY if module == ANSWER} == {*kinds.ON_LOGITS}
    sorts = Counter((fault.module, fault.destroys) for fault in all_faults())
    assert all(sorts[module, True] >= 2 and sorts[module, False] >= 3 for module in MODULES)
    for fault in all_faults():
        assert fault.expected == MODES[MODULES.index(fault.module) if fault.destroys else -1]


@pytest.mark.parametrize("datasets", [3, 4])
def test_the_draw_is_balanced_and_the_same_for_every_run(datasets):
    trial, every = fault_card.load_trial(), range(16)
    drawn = {(m, d): trial.drawn(m, d, datasets) for m in every for d in range(datasets)}
    assert drawn[3, 1] == trial.drawn(3, 1, datasets) != trial.model_copy(update={"seed": 1}).drawn(3, 1, datasets)
    cases = [(m, d, fault.slug, p, fault.destroys) for (m, d), own in drawn.items() for fault, p in own]
    for destroys in (True, False):
        own = [case for case in cases if case[-1] == destroys]
        assert len(own) == len(drawn) * trial.each >= 150
        assert len({case[:3] for case in own}) == len(own)  # no fault twice in one place
        for axes, most in (((2,), 1), ((3,), 1), ((2, 3), 2), ((0, 3), 2), ((0, 2), 1), ((1, 2), 2)):
            counts = Counter(tuple(case[axis] for axis in axes) for case in own)
            whole = np.prod([len({case[axis] for case in own}) for axis in axes])
            least = min(counts.values()) if len(counts) == whole else 0
            assert max(counts.values()) - least <= most, (axes, counts)


def test_damaged_models_are_of_the_books_model_on_phantoms():
    book = load_book().planted_faults
    found = damaged_models(["medvlm-r1-miniature", book.model])
    assert damaged_models(["medvlm-r1-miniature"]) == []
    assert [(one.fault.module, one.strength) for one in found] == [(m, s) for m in MODULES for s in ("weak", "strong")]
    assert {(one.strength, one.points_lost) for one in found} == {*book.strengths.items()}
    assert [one.mode for one in found] == [mode for mode in MODES for _ in range(2)]
    phantoms = Run((book.model,), ("busi", "covid19-ct-phantom"), "miniature", "paper", "x")
    place = damaged_selection(phantoms)
    assert (place.models, place.datasets) == (tuple(one.slug for one in found), ("covid19-ct-phantom",))
    assert damaged_selection(replace(phantoms, datasets=("chest-xray", "busi"))).datasets == ("chest-xray-phantom",)
    assert len({place.folder(slug, "busi-phantom") for slug in place.models}) == len(found)
    refused = {"busi": "'busi' holds real images.*give 'busi-phantom'", "busi-phantom": r"not planted in 'm.*book\.yml"}
    for dataset, wrong in refused.items():
        with pytest.raises(InputError, match=wrong):
            planting.run_whole_model("medvlm-r1-miniature", [], "miniature", "paper", planted=[dataset])


@pytest.fixture
def made(outputs, tiny_card, tmp_path, monkeypatch):
    """Calls what makes faults of the tiny model on few images, and returns the names of the artefacts that it made."""
    few = fault_card.load_trial().model_copy(update={"images": 50, "destroying": [2.0, 90.0]})
    of_book = {"faults": SLUGS, "strengths": {"weak": 5.0, "strong": 90.0}}
    planted = PlantedFaults(model="tiny", dataset="busi-phantom", **of_book)
    own = load_book().model_copy(update={"planted_faults": planted})
    image_set = make_image_set(tmp_path, 24, "busi-phantom", 3, 6)
    small = changed(load_protocol("miniature"), probe={"epochs": 2}, answering={"max_new_tokens": 2})
    small = small.model_copy(update={"fine_tuning": RECIPE})
    monkeypatch.setattr(places, "load_model_card", lambda slug: tiny_card)
    monkeypatch.setattr(places, "load_image_set", lambda slug, protocol: image_set)
    monkeypatch.setattr(calibration, "MOST_CHOOSING", 30)
    for module in (places, results):
        monkeypatch.setattr(module, "load_protocol", lambda slug: small)
    monkeypatch.setattr(fault_card, "load_book", lambda: own)
    for module in (fault_card, places):
        monkeypatch.setattr(module, "load_trial", lambda: few)

    def call(command, **options) -> list[str]:
        given = "tiny", ["busi-phantom"], "miniature", "paper"
        return newly_made(SELECTION.folder("tiny", "busi-phantom"), lambda: command(*given, **options))

    return call


def test_cases_of_a_tiny_model(made):
    assert fault_card.FOLDER in made(planting.run_trial)
    folder = SELECTION.folder("tiny", "busi-phantom") / fault_card.FOLDER
    table, rows = pd.read_parquet(folder / fault_card.CASES), pd.read_parquet(folder / fault_card.ROWS)
    assert table["fault"].isna().sum() == RECIPE.runs
    drawn = fault_card.strengths("tiny", "busi-phantom", trial=True)
    assert list(zip(table["fault"].dropna(), table["wanted"].dropna(), strict=True)) == [(f.slug, p) for f, p in drawn]
    assert table["destroys"].dropna().tolist() == [fault.destroys for fault, _ in drawn]
    of_states, damaged = table["module"].isin(OF_STATES), table["fault"].notna()
    assert table["oracle_lost"].notna().tolist() == of_states.tolist()
    assert table[["answer_lost", "answer_low", "lost_high"]].notna().all(axis=1).tolist() == damaged.tolist()
    own = np.where(of_states & (table["destroys"] == True), table["oracle_lost"], table["answer_lost"])  # noqa: E712
    np.testing.assert_array_equal(table.loc[damaged, "lost"].astype(float), own[damaged].astype(float))
    for name, own in rows[rows["point"].notna()].groupby("fault", dropna=False):
        first = "V" if pd.isna(name) else table.set_index("case")["module"][name]
        assert "".join(own["point"].str[0].unique()) == "VCL"["VCL".index(first) :]
        assert set(own.groupby("point")["seed"].nunique()) == {5}
        assert set(own["point"]) <= {"V.00", "V.03", "C.01", "L.02"}
    assert set(rows.loc[rows["point"].isna(), "fault"].dropna()) == set(table["case"].dropna())
    assert (rows.groupby(["run", "point", "pooling", "seed", "fault"], dropna=False).size() == 6).all()
    assert made(planting.run_trial) == []


def test_damaged_models_leave_the_artefacts_of_intact_ones(made, monkeypatch):
    encoded, whole = Counter(), Encoder.questions

    def questions(self, images, *prompts):
        encoded.update(image.tobytes() for image in images if image is not None)
        return whole(self, images, *prompts)

    monkeypatch.setattr(Encoder, "questions", questions)
    names = made(planting.run_whole_model, planted=["busi-phantom"])
    (intact,) = work.works("tiny", ["busi-phantom"], "miniature", "paper")
    images = intact.images("train", "validation", "test").index
    # once, and the first of its size in each of three other wordings
    assert {encoded[intact.image_set.pixels(i).tobytes()] for i in images} <= {1, 4}
    own = ["features-finetuned-0", "predictions-finetuned-0", "probes"]
    wanted = {f"faults/{slug}-{strength}/{n}" for slug in SLUGS for strength in ("weak", "strong") for n in own}
    wanted |= {f"faults/{slug}-strong/replication" for slug in SLUGS}
    assert {name for name in names if name.startswith("faults/")} == wanted
    folder, damaged = SELECTION.folder("tiny", "busi-phantom"), damaged_models(["tiny"])
    for one in damaged:
        place = folder / "faults" / one.folder
        for name in own:
            record = json.loads((place / name / "made_from.json").read_text())
            assert record["fault"]["points_lost"] == one.points_lost
        assert [*record["recipe"]["probes"]] == ["main"]  # of the probes: no variants
        source = "features-finetuned-0" if one.fault.module == ANSWER else "calibration"
        assert {folder / "adapter-0", folder / source} <= {*artefacts.upstream(place / "probes")}
    place, slugs = damaged_selection(SELECTION), [one.slug for one in damaged]
    for read in (results.probe_rows, results.prediction_rows, results.end_rows):
        assert list(read(place)["model"].unique()) == slugs
    strengths, table = strengths_of(SELECTION, damaged), effects(SELECTION, place, damaged)
    assert strengths["model"].tolist() == slugs
    np.testing.assert_allclose(strengths["lost"], 100 * (strengths["intact"] - strengths["damaged"]) / 50)
    of_mapping = table["model"].str.contains("semantic-mapping")
    assert (table[of_mapping].query("point != 'output'")["change"] == 0).all()
    with monkeypatch.context() as patch:
        for loader in ("load", "load_random"):
            patch.setattr(work, loader, lambda *_: pytest.fail("a current run loads no model"))
        assert made(planting.run_whole_model, planted=["busi-phantom"]) == []


def test_what_was_not_planted_says_how(outputs):
    healthy = replace(SELECTION, models=(load_book().planted_faults.model,))
    command = f"make it with `python -m mlprobe_utils model {healthy.models[0]} --datasets busi-phantom"
    for reader, selection in ((measured, healthy), (results.probe_rows, damaged_selection(healthy))):
        with pytest.raises(InputError, match=command):
            reader(selection)


def table_of(changes: dict[str, float], place: str) -> pd.DataFrame:
    rows = []
    for i, (name, change) in enumerate(changes.items()):
        point, _, pooling = name.partition("/")
        row = {"dataset": "d", "model": "f", "place": place, "where": WHERE[1 + np.sign(i - [*changes].index(place))]}
        row |= {"point": point, "pooling": None if point == ANSWER else pooling or "image_mean"}
        rows.append(row | {"change": change, "low": change - 1, "high": change + 1})
    return pd.DataFrame(rows)


def test_the_first_drop_and_what_lies_around_a_place():
    changes = {"V.00": 0, "V.01": 0, "D.00": -9, "C.00": -5, "L.00": -6, "L.00/last_token": 0, ANSWER: -7}
    table = table_of(changes, "C.00")
    assert list(first_drop(table).iloc[0]) == ["d", "f", "C.00", "C.00", "connector"]
    places = around(table)[["where", "point"]].to_numpy().tolist()
    assert places == [["before", "V.01"], ["at", "C.00"], ["after", "L.00"]]
    assert list(first_drop(table_of({"V.00": 0, ANSWER: -0.5}, ANSWER)).iloc[0])[3:] == ["nowhere", "none"]


def test_profiles_are_compared_with_the_healthy_one():
    damaged = [DamagedModel("m", fault_in(module), "weak", 10) for module in ("V", ANSWER)]
    scores = {"m": [80, 80, 80, 80], damaged[0].slug: [50, 60, 70, 75], damaged[1].slug: [80, 78, 80, 79]}
    rows = [{"model": slug, "dataset": "d"} | dict(zip(SCORES, own, strict=True)) for slug, own in scores.items()]
    changes = profile_changes(pd.DataFrame(rows), damaged)
    assert changes["FHS_V"].tolist() == [-30, 0]
    assert changes["falls most where damaged"].tolist() == ["yes", "no"]
