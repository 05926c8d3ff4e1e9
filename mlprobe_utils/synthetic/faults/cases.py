"""A model's trial: cases to judge the diagnosis by, undamaged, and with every fault at every strength.

`python -m mlprobe_utils trial MODEL --datasets D ... --protocol P`; what is current is skipped, and the intact model is
made first. With `--undamaged`, for a model that others were trained on from, there are undamaged cases alone. Of a
damaged model only the sites that lie after the damage are extracted and probed: all before are the intact model's.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch

from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.common.processes import processes
from mlprobe_utils.evaluation.names import PROBED_SITES
from mlprobe_utils.evaluation.points import ANSWER, flow_order
from mlprobe_utils.evaluation.rows import MAIN_PROBE, image_rows
from mlprobe_utils.models.families.registry import name_of
from mlprobe_utils.models.loading import to_device
from mlprobe_utils.pipeline.cards import load_data_card
from mlprobe_utils.pipeline.fault_card import CASES, ROWS, STEPS, Fault, Trial, check_drawable, load_trial
from mlprobe_utils.pipeline.model_steps import make_adapters, make_features, make_image_controls, make_predictions
from mlprobe_utils.pipeline.results import CALIBRATION, DAMAGED_RUN, state_name
from mlprobe_utils.pipeline.work import Work, works
from mlprobe_utils.probing.extraction import FEATURES, features_of, load_features
from mlprobe_utils.probing.probes import fit_probes
from mlprobe_utils.synthetic.faults.calibration import batched, load_damages, make_calibration
from mlprobe_utils.synthetic.faults.damage import Damage, branches, damaged
from mlprobe_utils.training.prediction import greedy

Features = dict[str, torch.Tensor]  # point/pooling -> float32 [images, width]
CASE = ["case", "run", "fault", "module", "wanted", "severity"]


def run_trial(model: str, datasets: list[str], protocol: str, split_rule: str, undamaged: bool = False) -> None:
    """Makes a model's cases on some phantom sets that are not there and current. Raises InputError for a set of real
    images, a fault without a place in the model, and as `works`."""
    for slug in datasets:
        check_drawable(load_data_card(slug))
    trial = load_trial()
    for work in works(model, datasets, protocol, split_rule):
        actions = (make_adapters, make_predictions, make_features, make_image_controls)
        for name, action in zip(STEPS, actions, strict=False):
            with work.step(name):
                action(work)
        with work.step(STEPS[-1]):
            make_cases(work, trial, [] if undamaged else make_calibration(work))


def make_cases(work: Work, trial: Trial, faults: list[Fault]) -> None:
    """Leaves `cases.parquet`, one row a case, and `rows.parquet`, one row a case, site, seed and test image."""
    if not processes().is_main_process or (own := work.trial(trial, faults)).is_current():
        return
    with own.making() as temporary:
        images = work.images("train", "validation", "test")
        read = np.flatnonzero(images["split"] != "validation")
        images, features, rows, cases = images.iloc[read], {}, [], []
        tested = images[images["split"] == "test"]
        for run in work.runs():
            saved = module_ends(load_features(work.folder / state_name("features", run) / FEATURES))
            features |= {(None, run, key): tensor[torch.from_numpy(read)] for key, tensor in saved.items()}
            answered = pd.read_parquet(work.folder / state_name("predictions", run) / "predictions.parquet")
            rows.append(_answers(work, answered[answered["split"] == "test"]["parsed"], tested, run))
            cases.append({"run": run})
        if faults:
            planted = _strengths(work, trial, faults)
            damages = {name: damage for name, (*_, damage) in planted.items()}
            with work.state(DAMAGED_RUN):
                found = damaged_features(work, list(images.index), damages)
                parsed = damaged_answers(work, list(tested.index), damages)
            for name, (fault, points, damage) in planted.items():
                features |= {(name, DAMAGED_RUN, key): tensor for key, tensor in found.get(name, {}).items()}
                rows.append(_answers(work, parsed[name], tested, DAMAGED_RUN, name))
                of_fault = {"fault": fault.slug, "module": fault.module, "wanted": points}
                cases.append({"run": DAMAGED_RUN, "case": name, "severity": damage.severity} | of_fault)
        rows += _probed(work, images, features)
        constants = {"model": work.card.slug, "dataset": work.image_set.card.slug}
        constants |= {"family": name_of(type(work.loaded.family))}
        write_parquet(pd.concat(rows, ignore_index=True), temporary / ROWS)
        write_parquet(pd.DataFrame(cases).reindex(columns=CASE).assign(**constants), temporary / CASES)


def _strengths(work: Work, trial: Trial, faults: list[Fault]) -> dict[str, tuple[Fault, float, Damage]]:
    """Name of the case -> its fault, the pp wanted, and the damage: of strengths that are the same, the least."""
    found, damages = {}, load_damages(work.folder / CALIBRATION)
    for fault in faults:
        distinct = {}
        for points in sorted(trial.points_lost):
            damage = damages[fault.slug, points]
            distinct.setdefault(damage.rank if damage.module == "C" else damage.severity, (points, damage))
        found |= {f"{fault.slug}, {points:g} points": (fault, points, damage) for points, damage in distinct.values()}
    return found


def module_ends(features: Features) -> Features:
    """Those of the ends of the modules alone: what the diagnosis reads."""
    last = {(key[0], key.split("/")[1]): key for key in features}  # in the order the data flows
    return {last[place]: features[last[place]] for place in PROBED_SITES.values()}


def changed_by(damage: Damage, sites: Iterable[str]) -> list[str]:
    """Of sites `point/pooling` those that a damage can change: none before it, and of the mapping none at all."""
    if damage.module == ANSWER:
        return []
    return [key for key in sites if flow_order(key.split("/")[0]) >= flow_order(damage.point)]


@torch.inference_mode()
def damaged_features(work: Work, positions: list[int], planted: dict[str, Damage]) -> dict[str, Features]:
    """The sites that each damage changes, of the images at `positions`: case -> features."""
    of_states = {name: damage for name, damage in planted.items() if damage.module != ANSWER}
    found: dict[str, list[Features]] = {name: [] for name in of_states}
    for batch in batched(positions, work.protocol.extraction.batch_size):
        questions = work.questions.batch(batch)
        for name, damage in of_states.items():
            with damaged(work.loaded, damage):
                sites = module_ends(features_of(work.loaded, questions))
            found[name].append({key: sites[key] for key in changed_by(damage, sites)})
    return {name: {key: torch.cat([part[key] for part in parts]) for key in parts[0]} for name, parts in found.items()}


@torch.inference_mode()
def damaged_answers(work: Work, positions: list[int], planted: dict[str, Damage]) -> dict[str, list[str | None]]:
    """What the model answers under each damage about the images at `positions`: case -> option, None if unparsed."""
    options, settings, synonyms = work.options, work.answering, work.image_set.card.synonyms
    parting = branches(work.encoder.answer_tokens(options))
    parsed: dict[str, list[str | None]] = {name: [] for name in planted}
    for batch in batched(positions, settings.batch_size):
        inputs = to_device(work.questions.batch(batch), work.loaded)
        for name, damage in planted.items():
            generation = greedy(work.loaded, settings.max_new_tokens, work.encoder.end)
            with damaged(work.loaded, damage, parting), generation as configuration:
                new = work.loaded.model.generate(**inputs, generation_config=configuration)
            new = new[:, inputs["input_ids"].shape[1] :]
            texts = [work.encoder.text_of(tokens, configuration.eos_token_id) for tokens in new.tolist()]
            parsed[name] += [work.encoder.answer(text, options, synonyms)["parsed"] for text in texts]
    return parsed


def _probed(work: Work, images: pd.DataFrame, features: dict[tuple, torch.Tensor]) -> list[pd.DataFrame]:
    """Rows of the test images: each site of each case, by probes of every seed."""
    options, protocol = work.options, work.protocol
    train, tested = (np.flatnonzero(images["split"] == split) for split in ("train", "test"))
    labels = images["option"].map(options.index).to_numpy(copy=True)
    seeded = {(*key, seed): tensor for key, tensor in features.items() for seed in range(protocol.probe_seeds)}
    seeds = {key: key[-1] for key in seeded}
    fitted = fit_probes(seeded, dict.fromkeys(seeded, labels), train, len(options), protocol.probe, seeds)
    rows = []
    for (name, run, key, seed), probabilities in fitted.items():
        point, pooling = key.split("/")
        of = work.constants(run) | {"probe": MAIN_PROBE, "point": point, "pooling": pooling, "fault": name}
        rows.append(image_rows(images.iloc[tested], options, probabilities[tested], **of).assign(seed=seed))
    return rows


def _answers(work: Work, parsed, tested: pd.DataFrame, run: int, name: str | None = None) -> pd.DataFrame:
    constants = work.constants(run) | {"fault": name}
    return image_rows(tested, work.options, None, **constants).assign(parsed=list(parsed))
