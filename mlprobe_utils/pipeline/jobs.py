"""The jobs of a run: commands of the package, what each waits for, and which of its artefacts are due.

`make book` and the Snakefile run them, and a chapter in an open notebook runs those that it needs.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mlprobe_utils.pipeline.artefacts import Artefact, from_outputs, stale
from mlprobe_utils.pipeline.baseline_card import STEP as BASELINES
from mlprobe_utils.pipeline.baseline_card import BaselineCard, baselines_of
from mlprobe_utils.pipeline.baseline_files import baseline_artefact
from mlprobe_utils.pipeline.cards import load_data_card, load_model_card, load_protocol
from mlprobe_utils.pipeline.configuration import Run, lineages
from mlprobe_utils.pipeline.damaged_models import damaged_models, damaged_selection, phantom_twin
from mlprobe_utils.pipeline.discussion_card import Discussion, discussed_on, discussions, taking_part
from mlprobe_utils.pipeline.fault_card import STEPS as TRIAL_STEPS
from mlprobe_utils.pipeline.fault_card import all_faults, load_trial
from mlprobe_utils.pipeline.images import load_image_set, manifest, phantom
from mlprobe_utils.pipeline.lineage import miniature
from mlprobe_utils.pipeline.places import places
from mlprobe_utils.pipeline.step_names import CALIBRATED, PLANTED, STEPS

KINDS = ("images", "manifest", "miniatures", "baselines", "model", "trial", "laboratory", "pages")


@dataclass(frozen=True, eq=False)
class Job:
    """A command that makes artefacts.

    Attributes:
        kind: one of KINDS, a rule of the Snakefile.
        name: what it works on: a slug.
        command: of `python -m mlprobe_utils`, with its arguments.
        after: the jobs whose artefacts it reads.
        due: names what is not current of what it makes; raises InputError for what is wrong with its input.
        steps: the stages of the lines of progress that it prints.
    """

    kind: str
    name: str
    command: tuple[str, ...]
    after: tuple["Job", ...]
    due: Callable[[], list[str]]
    steps: tuple[str, ...] = ()


def due(jobs: Iterable[Job]) -> dict[Job, list[str] | None]:
    """The jobs that have something to do, upstream ones first -> what; None: all that follows from a job before it.

    Raises:
        InputError: as `Job.due`.
    """
    found = {}
    for job in jobs:
        waits = any(other in found for other in job.after)
        if waits or (names := job.due()):
            found[job] = None if waits else names
    return found


def names_of_stale(artefacts: Iterable[Artefact]) -> list[str]:
    """The folders, below `outputs/`, of those that have to be made."""
    return [from_outputs(one.folder) for one in stale(artefacts)]


def image_jobs(run: Run, datasets: Iterable[str]) -> list[Job]:
    """What makes image sets: phantoms are drawn, and every set has its manifest."""
    found = []
    for card in map(load_data_card, dict.fromkeys(datasets)):
        drawn, data = (), ["--data", run.data]
        if card.synthetic:
            command = (card.made_by, card.slug)
            drawn, data = (Job("images", card.slug, command, (), partial(_due, phantom, card), ("images drawn",)),), []
        command = ("manifest", card.slug, "--protocol", run.protocol, *data)
        own = partial(_due, manifest, card, load_protocol(run.protocol), Path(run.data) if data else None)
        found += [*drawn, Job("manifest", card.slug, command, drawn, own, ("manifest",))]
    return found


def miniature_jobs(models: Iterable[str]) -> list[Job]:
    """What makes checkpoints: a job for each miniature that is adapted from none, and all that descend from it."""

    def stale_of(members: list[str]) -> list[str]:
        return names_of_stale(miniature(load_model_card(slug)) for slug in members)

    return [
        Job("miniatures", root, ("miniatures", *members), (), partial(stale_of, members), ("made as miniatures",))
        for root, members in lineages(models).items()
    ]


def model_job(
    run: Run, model: str, before: Iterable[Job], cards: Iterable[Discussion] = (), planted: tuple[str, ...] = ()
) -> Job:
    """What is made of a model on the data sets of a run.

    Args:
        before: the jobs of image sets and checkpoints.
        cards: the discussions that it takes part in.
        planted: the phantom sets on which faults are planted in it.
    """
    cards, datasets = list(cards), list(dict.fromkeys([*run.datasets, *planted]))

    def own() -> list[str]:
        found = []
        for place in places(model, datasets, run.protocol, run.split):
            dataset = place.image_set.card.slug
            found += place.of_pipeline()
            for card in cards:
                found += place.of_discussion(card) if dataset in discussed_on(card, run.datasets) else []
            found += place.of_faults() if dataset in planted else []
        return names_of_stale(found)

    steps = [*STEPS] * len(datasets) + [CALIBRATED, PLANTED] * len(planted)
    steps += [card.slug for card in cards for _ in discussed_on(card, run.datasets)]
    options = ["--discussions", *(card.slug for card in cards)] if cards else []
    options += ["--planted", *planted] if planted else []
    command = ("model", model, *_options(run), *options)
    return Job("model", model, command, _read_by(model, datasets, before), own, tuple(steps))


def baselines_job(run: Run, cards: Iterable[BaselineCard], before: Iterable[Job]) -> Job:
    """The traditional classifiers on the data sets of a run."""
    protocol, cards = load_protocol(run.protocol), list(cards)

    def own() -> list[str]:
        sets = [load_image_set(slug, run.protocol) for slug in run.datasets]
        return names_of_stale(baseline_artefact(card, protocol, one, run.split) for card in cards for one in sets)

    command = ("baselines", *(card.slug for card in cards), *_options(run))
    after = tuple(job for job in before if job.kind == "manifest" and job.name in run.datasets)
    return Job("baselines", "all", command, after, own, (BASELINES,) * len(cards) * len(run.datasets))


def book_jobs(run: Run) -> list[Job]:
    """All that the pages of a run's book read."""
    planted = {one.model: damaged_selection(run).datasets for one in damaged_models(run.models)}
    before = image_jobs(run, [*run.datasets, *(slug for datasets in planted.values() for slug in datasets)])
    before += miniature_jobs(run.models)
    # what does more than the others begins first: begun last, it would keep one core only
    models = sorted(run.models, key=lambda slug: (slug not in planted, not _discussed(slug)))
    found = [model_job(run, slug, before, _discussed(slug), tuple(planted.get(slug, ()))) for slug in models]
    return [*before, *found, baselines_job(run, baselines_of(load_protocol(run.protocol)), before)]


def laboratory_jobs(run: Run) -> list[Job]:
    """The laboratory: cases of a run's models and, undamaged, of those that they were adapted from; then it judges."""
    datasets = list(dict.fromkeys(phantom_twin(load_data_card(slug)).slug for slug in run.datasets))
    before = [*image_jobs(run, datasets), *miniature_jobs(run.models)]
    bases = [slug for own in lineages(run.models).values() for slug in own]
    run = replace(run, datasets=tuple(datasets))
    trials = [trial_job(run, slug, before) for slug in dict.fromkeys([*run.models, *bases])]
    command = ("laboratory", *(job.name for job in trials), *_options(run))
    return [*before, *trials, Job("laboratory", "all", command, tuple(trials), lambda: ["cases"], ("laboratory",))]


def trial_job(run: Run, model: str, before: Iterable[Job]) -> Job:
    """One model's cases; of one that is not among the run's, undamaged ones alone."""
    faults = all_faults() if model in run.models else []

    def own() -> list[str]:
        found = []
        for place in places(model, list(run.datasets), run.protocol, run.split):
            found += [place.image_controls(), *map(place.adapter, place.runs())]
            found += [*map(place.predictions, place.states()), *map(place.features, place.states())]
            found += [*([place.calibration()] if faults else []), place.trial(load_trial(), faults)]
        return names_of_stale(found)

    command = ("trial", model, *_options(run), *([] if faults else ["--undamaged"]))
    steps = (*TRIAL_STEPS,) * len(run.datasets)
    return Job("trial", model, command, _read_by(model, run.datasets, before), own, steps)


def _due(artefact: Callable[..., Artefact], *arguments) -> list[str]:
    return names_of_stale([artefact(*arguments)])


def _discussed(model: str) -> list[Discussion]:
    return [card for card in discussions() if taking_part(card, [model])]


def _options(run: Run) -> tuple[str, ...]:
    return ("--datasets", *run.datasets, "--protocol", run.protocol, "--split", run.split)


def _read_by(model: str, datasets: Iterable[str], before: Iterable[Job]) -> tuple[Job, ...]:
    """The jobs that make a model's checkpoint and some image sets."""
    root = next((root for root, members in lineages([model]).items() if model in members), None)
    wanted = {("miniatures", root), *(("manifest", slug) for slug in datasets)}
    return tuple(job for job in before if (job.kind, job.name) in wanted)
