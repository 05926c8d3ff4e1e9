"""The jobs of a run: commands of the package, what each waits for, and which of its artefacts are due. `make book` runs
them through the Snakefile; a chapter in an open notebook runs those that it needs by `prepare`."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.pipeline.artefacts import Artefact, from_outputs, stale
from mlprobe_utils.pipeline.baseline_card import STEP as BASELINES
from mlprobe_utils.pipeline.baseline_card import BaselineCard, baseline_artefact, baselines_of
from mlprobe_utils.pipeline.cards import imported, load_data_card, load_model_card, load_protocol, miniature
from mlprobe_utils.pipeline.configuration import Run, lineages
from mlprobe_utils.pipeline.exchange import check_imported
from mlprobe_utils.pipeline.fault_card import STEPS as TRIAL_STEPS
from mlprobe_utils.pipeline.fault_card import damaged_models, damaged_selection, phantom_twin
from mlprobe_utils.pipeline.images import load_image_set, located, manifest, phantom
from mlprobe_utils.pipeline.places import places
from mlprobe_utils.pipeline.stages import CALIBRATED, PLANTED, REPLICATED, STEPS
from mlprobe_utils.pipeline.variants import Discussion, discussed_on, taking_part
from mlprobe_utils.pipeline.variants import discussions as all_discussions

# of every job: one torch thread, and no library's warnings between the lines of progress
STEP_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True, eq=False)
class Job:
    """A command that makes artefacts."""

    kind: str  # manifest, miniatures, baselines, model, trial, laboratory or pages: a rule of the Snakefile
    name: str  # the slug that it works on, or "all"
    command: tuple[str, ...]  # of `python -m mlprobe_utils`, with its arguments
    after: tuple["Job", ...]  # whose artefacts it reads
    due: Callable[[], list[str]]  # names what is not current of what it makes; InputError: its input is wrong
    steps: tuple[str, ...] = ()  # the stages of the lines of progress that it prints


def due(jobs: Iterable[Job]) -> dict[Job, list[str] | None]:
    """The jobs that have something to do, upstream ones first -> what; None: all that follows from a job before it."""
    found = {}
    for job in jobs:
        if (waits := any(other in found for other in job.after)) or (names := job.due()):
            found[job] = None if waits else names
    return found


def book_jobs(run: Run) -> list[Job]:
    """All that the pages of a run's book read, upstream first."""
    return jobs_of(run, all_discussions(), True, baselines_of(load_protocol(run.protocol)))


def jobs_of(
    run: Run, discussions: Sequence[Discussion] = (), faults: bool = False, baselines: Sequence[BaselineCard] = ()
) -> list[Job]:
    """The image sets, checkpoints and results of a run, with what its models take part in; upstream first."""
    damaged = damaged_models(run.models) if faults else []
    planted = {one.model: damaged_selection(run).datasets for one in damaged[:1]}
    discussed = {slug: [card for card in discussions if taking_part(card, [slug])] for slug in run.models}
    before = upstream_jobs(run, [*run.datasets, *(slug for datasets in planted.values() for slug in datasets)])
    # what does more than the others begins first: begun last, it would keep one core only
    models = sorted(run.models, key=lambda slug: (slug not in planted, not discussed[slug]))
    found = [*before, *(model_job(run, slug, before, discussed[slug], planted.get(slug, ())) for slug in models)]
    if not baselines:
        return found

    def trained() -> Iterable[Artefact]:
        protocol, sets = load_protocol(run.protocol), [load_image_set(slug, run.protocol) for slug in run.datasets]
        return (baseline_artefact(card, protocol, one, run.split_rule) for card in baselines for one in sets)

    command = ("baselines", *(card.slug for card in baselines), *run.options)
    after = tuple(job for job in before if job.kind == "manifest")
    steps = (BASELINES,) * len(baselines) * len(run.datasets)
    return [*found, Job("baselines", "all", command, after, _due(trained), steps)]


def laboratory_jobs(run: Run) -> list[Job]:
    """Cases of a run's models and, undamaged, of those that they were adapted from; then the diagnosis of all."""
    if without := [slug for slug in run.models if imported(slug)]:
        raise InputError(f"'{without[0]}' is imported: faults can only be planted in models with local weights")
    run = replace(run, datasets=tuple(dict.fromkeys(phantom_twin(load_data_card(slug)).slug for slug in run.datasets)))
    before = upstream_jobs(run, run.datasets)
    bases = [slug for own in lineages(run.models).values() for slug in own]
    trials = [trial_job(run, slug, before, slug in run.models) for slug in dict.fromkeys([*run.models, *bases])]
    command = ("laboratory", *(job.name for job in trials), *run.options)
    return [*before, *trials, Job("laboratory", "all", command, tuple(trials), lambda: ["cases"], ("laboratory",))]


def upstream_jobs(run: Run, datasets: Iterable[str]) -> list[Job]:
    """Image sets, all in one process, and checkpoints, one a lineage."""
    protocol, cards = load_protocol(run.protocol), [load_data_card(slug) for slug in dict.fromkeys(datasets)]

    def image_sets() -> Iterable[Artefact]:
        for card in cards:
            yield from [phantom(card)] if card.synthetic else []
            yield manifest(card, protocol, located(card, run.data))

    data = ("--data", run.data) if run.data else ()
    command = ("manifest", *(card.slug for card in cards), "--protocol", run.protocol, *data)
    steps = tuple(name for card in cards for name in (["images drawn"] if card.synthetic else []) + ["manifest"])
    found = [Job("manifest", "all", command, (), _due(image_sets), steps)]
    for root, members in lineages(run.models).items():
        own = _due(lambda members=members: [miniature(load_model_card(slug)) for slug in members])
        found.append(Job("miniatures", root, ("miniatures", *members), (), own, ("made as miniatures",)))
    return found


def model_job(run: Run, model: str, before: Iterable[Job], cards: list[Discussion], planted: tuple[str, ...]) -> Job:
    """What is made of a model on the data sets of a run, with its discussions, and faults on the sets `planted`."""
    if imported(model):  # its results are there: it is checked that they are of this run
        command, of_run = ("fits", model, *run.options), (run.datasets, run.protocol, run.split_rule)
        return Job("model", model, command, _read_by(model, before), lambda: check_imported(model, *of_run) or [])
    datasets = list(dict.fromkeys([*run.datasets, *planted]))

    def artefacts() -> Iterable[Artefact]:
        for place in places(model, datasets, run.protocol, run.split_rule):
            dataset = place.image_set.card.slug
            yield from place.of_pipeline()
            for card in cards:
                yield from place.of_discussion(card) if dataset in discussed_on(card, run.datasets) else ()
            yield from place.of_faults() if dataset in planted else ()

    steps = STEPS * len(datasets) + (CALIBRATED, PLANTED) * len(planted)
    steps += tuple(REPLICATED for slug in datasets if load_data_card(slug).synthetic)
    steps += tuple(card.slug for card in cards for _ in discussed_on(card, run.datasets))
    command = ("model", model, *run.options, *(["--discussions", *(card.slug for card in cards)] if cards else []))
    command += ("--planted", *planted) if planted else ()
    return Job("model", model, command, _read_by(model, before), _due(artefacts), steps)


def trial_job(run: Run, model: str, before: Iterable[Job], damaged: bool) -> Job:
    of_run = model, list(run.datasets), run.protocol, run.split_rule
    own = _due(lambda: chain.from_iterable(place.of_trial(damaged) for place in places(*of_run)))
    command = ("trial", model, *run.options, *([] if damaged else ["--undamaged"]))
    return Job("trial", model, command, _read_by(model, before), own, TRIAL_STEPS * len(run.datasets))


def _due(artefacts: Callable[[], Iterable[Artefact]]) -> Callable[[], list[str]]:
    return lambda: [from_outputs(one.folder) for one in stale(artefacts())]


def _read_by(model: str, before: Iterable[Job]) -> tuple[Job, ...]:
    """The jobs that make a model's checkpoint and the image sets."""
    return tuple(job for job in before if job.kind == "manifest" or job.name in lineages([model]))


def prepare(
    run: Run, discussions: Sequence[Discussion] = (), faults: bool = False, baselines: Sequence[BaselineCard] = ()
) -> None:
    """Makes what is not current of `jobs_of` the run, for a page. Raises InputError as `run_command`."""
    if not os.environ.get("MLPROBE_PREPARED"):  # by `make book`
        for job in due(jobs_of(run, discussions, faults, baselines)):
            run_command(*job.command)


def look_at(models: Iterable[str]) -> None:
    """Checks the files of models that are not made here. Raises InputError for the first that cannot be loaded."""
    if own := [slug for slug in models if not (load_model_card(slug).made_by or imported(slug))]:
        run_command("look", *own)


def run_command(*command: str) -> None:
    """Runs a command of the package, with its progress on the terminal; its error is raised again, as InputError."""
    whole, lines = [sys.executable, "-m", "mlprobe_utils", *command], []
    with subprocess.Popen(whole, env=os.environ | STEP_ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            print(line, end="", file=sys.__stderr__, flush=True)
            lines.append(line)
    if process.returncode:
        message = "".join(lines).rpartition("error: ")[2].strip() or f"exit code {process.returncode}"
        raise InputError(f"{message} (while running python -m mlprobe_utils {' '.join(command)})")
