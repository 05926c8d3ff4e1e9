"""Models with planted faults: those of a book, and the laboratory's, whose cases the diagnosis is judged by. Of the
latter only sites after the damage are extracted and probed: all before are the intact model's.
And what any model predicts for fresh phantoms, on which the front page's sentences are tested once more."""

import datetime
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import file_hash, write_parquet
from mlprobe_utils.common.processes import processes
from mlprobe_utils.common.progress import step
from mlprobe_utils.datasets.controls import reference_rows as reference_of
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.diagnosis import losses
from mlprobe_utils.evaluation.metrics import collapsed
from mlprobe_utils.evaluation.outcomes import site_outcomes
from mlprobe_utils.evaluation.points import ANSWER, flow_order
from mlprobe_utils.evaluation.rows import MAIN_PROBE, write_rows
from mlprobe_utils.models.encoding import branches
from mlprobe_utils.models.families import name_of
from mlprobe_utils.pipeline import artefacts, fault_card, laboratory_results, model_steps, results
from mlprobe_utils.pipeline.configuration import load_book
from mlprobe_utils.pipeline.images import load_image_set
from mlprobe_utils.pipeline.laboratory_results import LOSS
from mlprobe_utils.pipeline.places import SEEDED
from mlprobe_utils.pipeline.results import CALIBRATION, DAMAGED_RUN, state_name
from mlprobe_utils.pipeline.stages import CALIBRATED, PLANTED, REPLICATED
from mlprobe_utils.pipeline.tested import resamples_of_tested
from mlprobe_utils.pipeline.variants import STATES, discussed_on, load_discussion
from mlprobe_utils.pipeline.variants import discussions as all_discussions
from mlprobe_utils.pipeline.work import Work, works
from mlprobe_utils.probing.extraction import FEATURES, features_of, load_features, stacked
from mlprobe_utils.probing.probes import fit_probes
from mlprobe_utils.stats.intervals import RECIPE
from mlprobe_utils.synthetic.editing import make_drawn, make_interventions
from mlprobe_utils.synthetic.faults.calibration import batched, fresh_images, load_damages, make_calibration
from mlprobe_utils.synthetic.faults.damage import Damage, damaged
from mlprobe_utils.training.prediction import answer_batch

IMAGES, PIXELS = "images.parquet", "pixels.bin"  # train images and fresh phantoms
CASE = ["case", "run", *laboratory_results.MEASURED]


def run_whole_model(
    model: str,
    datasets: list[str],
    protocol: str,
    split_rule: str,
    discussions: list[str] | None = None,
    planted: list[str] | None = None,
) -> None:
    """Makes what is not current of all that a book needs of a model: its own artefacts, those of `discussions` (none
    named: of all), and those with faults planted in it on the phantom sets `planted`. Raises InputError for faults on
    real images, or in another model than data/book.yml names, and as what it calls."""
    planted = planted or []
    fault_card.check_drawable(planted)
    if planted and not fault_card.damaged_models([model]):
        raise InputError(f"faults are not planted in '{model}': name it as planted_faults.model in data/book.yml")
    cards = all_discussions() if discussions == [] else [load_discussion(name) for name in discussions or []]
    everything = works(model, list(dict.fromkeys([*datasets, *planted])), protocol, split_rule)
    model_steps.make_model(everything)
    discussed = [work for work in everything if work.image_set.card.slug in datasets]
    model_steps.make_discussions(discussed, [card for card in cards if card.varies != STATES])
    for card in (card for card in cards if card.varies == STATES):
        about = discussed_on(card, datasets)
        for work in (work for work in discussed if work.image_set.card.slug in about):
            with work.step(card.slug):
                make_interventions(work)
    for work in everything:
        if work.image_set.card.synthetic:
            with work.step(REPLICATED):
                make_replication(work)
        if work.image_set.card.slug in planted:
            with work.step(CALIBRATED):
                make_calibration(work)
            with work.step(PLANTED):
                make_damaged(work)


class DamagedWork(Work):
    """The work of a model with a fault planted in one of its fine-tuned states."""

    @contextmanager
    def state(self, run: int | None) -> Iterator[None]:
        options = branches(self.encoder.answer_tokens(self.options))
        damage = load_damages(self.healthy.folder / CALIBRATION)[self.planted.fault.slug, self.planted.points_lost]
        with Work.state(self.healthy, run), damaged(self.loaded, damage, options):
            yield


def make_damaged(work: Work) -> None:
    """Every artefact of the book's damaged models on a data set whose calibration is made."""
    for own in (DamagedWork(**vars(one)) for one in work.damaged()):
        model_steps.make_predictions(own)
        if own.planted.fault.module != ANSWER:
            model_steps.make_features(own)
        elif processes().is_main_process:  # no state is changed: the intact model's
            features = own.features(DAMAGED_RUN)
            features.make(partial(artefacts.link, features.upstream[0].folder))
        model_steps.make_probes(own)
        if own.planted.is_strongest:
            make_replication(own)
        if own.planted.is_edited:
            make_interventions(own)


def make_replication(work: Work) -> None:
    """Rows of the fresh phantoms: of the reference, the final output, and probes of every seed at the modules' ends."""
    if processes().is_main_process:
        (fresh := work.healthy.fresh()).make(partial(_draw, work))
        work.replication().make(partial(_replicate, work, fresh.folder))


def _draw(work: Work, folder: Path) -> None:
    """The train images, phantoms of the test images' classes, and the rows of the reference about the latter."""
    card, train, tested = work.image_set.card, work.images("train"), work.images("test")
    drawn = fresh_images(card, work.protocol.images, tested["label"], load_book().replication, "replication")
    pixels = [*map(work.image_set.pixels, train.index), *drawn]
    (folder / PIXELS).write_bytes(b"".join(image.tobytes() for image in pixels))
    tested["image"] = [f"fresh-{number:04d}" for number in range(len(tested))]
    images = pd.concat([train, tested]).assign(offset=np.cumsum([0, *(image.nbytes for image in pixels[:-1])]))
    images[["stored_height", "stored_width"]] = [image.shape[:2] for image in pixels]
    write_parquet(images.drop(columns="split"), folder / IMAGES)
    write_rows(reference_of(_fresh(work, folder), work.split_rule), folder / fault_card.ROWS)


def _fresh(work: Work, folder: Path) -> ImageSet:
    manifest = artefacts.read_rows(folder / IMAGES)
    return replace(work.image_set, manifest=manifest, data_hash=file_hash(folder / PIXELS), folder=folder)


def _replicate(work: Work, drawn: Path, folder: Path) -> None:
    """Probes are fitted again, on the train images' features as they are kept."""
    own = replace(work, image_set=_fresh(work, drawn))
    images, train = own.images("train", "test"), len(own.images("train"))
    tested = batched(own.images("test").index, work.answering.batch_size)
    given, synonyms = (work.encoder, work.options, work.answering.max_new_tokens), work.image_set.card.synonyms
    batches = [work.encoder.questions([*map(own.image_set.pixels, batch)]) for batch in tested]
    features, answers, name = {}, {}, work.planted and work.planted.fault.slug
    for run in (run for run in SEEDED if run in work.states()):
        with work.state(run):
            parts = [model_steps.features_of_sites(features_of(work.loaded, questions)) for questions in batches]
            texts = pd.concat([answer_batch(work.loaded, questions, *given)["text"] for questions in batches])
        for site, kept in model_steps.features_of_sites(load_features(work.features(run).folder / FEATURES)).items():
            features[name, run, site] = stacked([kept[:train], *(part[site] for part in parts)])
        answers[name, run] = [work.encoder.answer(text, work.options, synonyms)["parsed"] for text in texts]
    rows = [_rows(own, images, features, answers), artefacts.read_rows(drawn / fault_card.ROWS)]
    write_rows(pd.concat(rows, ignore_index=True), folder / fault_card.ROWS)


def run_trial(model: str, datasets: list[str], protocol: str, split_rule: str, undamaged: bool = False) -> None:
    """Makes what is not current of a model's cases on some phantom sets, the intact model first; `undamaged`: without
    faults, for a model that others were trained on from. Raises InputError for a set of real images, a fault without a
    place in the model, and as `works`."""
    fault_card.check_drawable(datasets)
    steps = model_steps.make_adapters, model_steps.make_predictions, model_steps.make_features
    cases = partial(make_cases, undamaged=undamaged), partial(make_drawn, undamaged=undamaged)
    actions = *steps, model_steps.make_image_controls, *cases
    named = list(zip(fault_card.STEPS, actions, strict=True))
    for work, (name, action) in itertools.product(works(model, datasets, protocol, split_rule), named):
        with work.step(name):
            action(work)


def make_cases(work: Work, undamaged: bool) -> None:
    """Leaves `cases.parquet`, one row per case, and `rows.parquet`, one row per case, site, seed and test image."""
    if not undamaged:
        make_calibration(work, trial=True)

    def fill(folder: Path) -> None:
        images = work.images("train", "validation", "test")
        read = np.flatnonzero(images["split"] != "validation")
        images, features, answers, runs = images.iloc[read], {}, {}, []
        for run in work.runs():
            saved = model_steps.features_of_sites(load_features(work.folder / state_name("features", run) / FEATURES))
            features |= {(None, run, key): tensor[torch.from_numpy(read)] for key, tensor in saved.items()}
            answered = artefacts.read_rows(work.folder / state_name("predictions", run) / "predictions.parquet")
            answers[None, run] = answered[answered["split"] == "test"]["parsed"]
            runs.append({"case": None, "run": run})
        found, cases = ({}, {}), pd.DataFrame(runs)
        if not undamaged:
            damages = load_damages(work.folder / results.DRAWN).items()
            planted = {f"{fault}, {points:g} points": damage for (fault, points), damage in damages}
            found = _of_damaged(work, images, planted)
            drawn = laboratory_results.measured_in(work.folder / results.DRAWN)
            cases = pd.concat([cases, drawn.assign(case=[*planted], run=DAMAGED_RUN)], ignore_index=True)
        rows = _rows(work, images, features | found[0], answers | found[1])
        constants = {"model": work.card.slug, "dataset": work.image_set.card.slug}
        constants |= {"family": name_of(type(work.loaded.family))}
        write_parquet(rows, folder / fault_card.ROWS)
        write_parquet(cases.reindex(columns=CASE).assign(**constants), folder / fault_card.CASES)

    if processes().is_main_process:
        work.trial(not undamaged).make(fill)


@torch.inference_mode()
def _of_damaged(work: Work, images: pd.DataFrame, planted: dict[str, Damage]) -> tuple[dict, dict]:
    """(case, run, site) -> features of the images, of sites that the damage can change; (case, run) -> what the model
    answers about the test images, option or None."""
    options, synonyms = work.options, work.image_set.card.synonyms
    parting, features, answers = branches(work.encoder.answer_tokens(options)), {}, {}

    def evaluated(damages: dict[str, Damage], positions: Iterable[int], size: int, evaluate: Callable) -> dict:
        found = {name: [] for name in damages}
        for questions in map(work.questions.batch, batched(list(positions), size)):
            for name, damage in damages.items():
                with damaged(work.loaded, damage, parting):
                    found[name].append(evaluate(questions))
        return found

    ends = lambda questions: model_steps.features_of_sites(features_of(work.loaded, questions))  # noqa: E731
    given = work.encoder, [], work.answering.max_new_tokens  # the text alone
    texts = lambda questions: answer_batch(work.loaded, questions, *given)["text"]  # noqa: E731
    of_states = {name: damage for name, damage in planted.items() if damage.module != ANSWER}
    tested = images.index[images["split"] == "test"]
    with work.state(DAMAGED_RUN):
        for name, parts in evaluated(of_states, images.index, work.protocol.extraction.batch_size, ends).items():
            for site in parts[0]:
                if flow_order(site.split("/")[0]) >= flow_order(planted[name].point):
                    features[name, DAMAGED_RUN, site] = stacked([part[site] for part in parts])
        for name, parts in evaluated(planted, tested, work.answering.batch_size, texts).items():
            answers[name, DAMAGED_RUN] = [work.encoder.answer(t, options, synonyms)["parsed"] for t in pd.concat(parts)]
    return features, answers


def _rows(work: Work, images: pd.DataFrame, features: dict[tuple, torch.Tensor], answers: dict[tuple, Sequence]):
    """Rows of the test images: the answers of each case, and its sites, by probes of every seed."""
    options, protocol = work.options, work.protocol
    train, tested = (np.flatnonzero(images["split"] == split) for split in ("train", "test"))
    labels = images["option"].map(options.index).to_numpy(copy=True)
    seeded = {(*key, seed): tensor for key, tensor in features.items() for seed in range(protocol.probe_seeds)}
    seeds = {key: key[-1] for key in seeded}
    fitted = fit_probes(seeded, dict.fromkeys(seeded, labels), train, len(options), protocol.probe, seeds)
    rows = []
    for (name, run), parsed in answers.items():
        rows.append(work.rows(run, images.iloc[tested], None, fault=name).assign(parsed=list(parsed)))
    for (name, run, site, seed), probabilities in fitted.items():
        point, pooling = site.split("/")
        of = {"probe": MAIN_PROBE, "point": point, "pooling": pooling, "fault": name, "seed": seed}
        rows.append(work.rows(run, images.iloc[tested], probabilities[tested], **of))
    return pd.concat(rows, ignore_index=True)


def write_confusion(models: list[str], datasets: list[str], protocol: str, split_rule: str) -> None:
    """Writes the losses of every case to outputs/diagnosis/, and prints how often the diagnosis is correct.
    Raises InputError for a model and data set without its trial, and for models of one family alone."""
    selection, cases = results.Selection(tuple(models), tuple(datasets), protocol, split_rule), []
    modes = {fault.slug: fault.expected for fault in fault_card.all_faults()}
    with step("laboratory", "diagnosis of the cases"):
        for dataset in selection.datasets:
            drawn, images = resamples_of_tested(load_image_set(dataset, selection.protocol), selection.split_rule)
            reference = results.reference_rows(replace(selection, datasets=(dataset,)))
            for model in selection.models:
                own = replace(selection, models=(model,), datasets=(dataset,))
                folder = own.folder(model, dataset) / fault_card.FOLDER
                for made in (folder, folder.parent / results.INTERVENTIONS_DRAWN):
                    artefacts.read_made_from(made, own.command(model, dataset, name="trial"))
                rows = artefacts.read_rows(folder / fault_card.ROWS)
                planted = artefacts.read_rows(folder / fault_card.CASES)
                edited = artefacts.read_rows(folder.parent / results.INTERVENTIONS_DRAWN / results.INTERVENTION_ROWS)
                planted["mode"] = planted["fault"].map(modes)
                for case in planted.to_dict("records"):
                    of_run = rows[rows["run"] == case["run"]]  # sites before a damage are those of the intact model
                    found = pd.concat([of_run[of_run["fault"] == case["case"]], of_run[of_run["fault"].isna()]])
                    found = found.drop_duplicates(["image", "point", "pooling", "seed"])
                    sides = found[found["point"].notna()], found[found["point"].isna()]  # probes' rows, and answers'
                    correct = site_outcomes(*sides, reference, images)
                    case["collapsed"] = pd.isna(case["fault"]) and not collapsed(sides[1]).empty
                    lost = losses(correct, drawn, RECIPE).set_index("statement")
                    case |= {f"{column}: {name}": own for column in LOSS for name, own in lost[column].items()}
                    own = edited["case"].isna() if pd.isna(case["case"]) else edited["case"] == case["case"]
                    swept = edited[own & (edited["run"] == case["run"])]
                    cases.append(case | laboratory_results.edited(swept, sides[0], case["point"]))
    table = pd.DataFrame(cases)
    trained = " ".join(table.loc[table["fault"].notna(), "model"].unique())  # the others are their bases
    command = f'make laboratory MODELS="{trained}" DATASETS="{" ".join(selection.datasets)}" '
    command += f"PROTOCOL={selection.protocol} SPLIT={selection.split_rule}"
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    laboratory_results.write(table, date, artefacts.commit(), command)
    found = laboratory_results.read()
    whole = found.rates[found.rates["of"] == "all"].drop(columns="of").round(1)
    print(f"{laboratory_results.confusion(found.cases).to_string()}\n\n{whole.to_string()}\n\n{found.words()}")
