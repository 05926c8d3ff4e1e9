"""Is what can be decoded also used? Edits of every point in turn, and what the model makes of its images under each: of
a book's images, and of the laboratory's cases.

Pairs of images of different classes stand one behind the other, so that each one's donor is beside it. Phantoms are
drawn as twins, which differ in the signs of their class; a real image is paired with the test image of another class
that looks most like it. One pass records a batch; passes with an edit compute the blocks behind it alone."""

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.spatial.distance import cdist

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.common.processes import processes
from mlprobe_utils.evaluation import used
from mlprobe_utils.evaluation.points import ANSWER, MODULES, flow_order
from mlprobe_utils.evaluation.rows import OPTION
from mlprobe_utils.models.encoding import Encoder, append_answers, branches
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.pipeline import results
from mlprobe_utils.pipeline.results import DAMAGED_RUN
from mlprobe_utils.pipeline.work import Work
from mlprobe_utils.probing.edits import Erase, Keep, KnockOut, Patch, Skip, Steer
from mlprobe_utils.probing.extraction import FEATURES, load_features
from mlprobe_utils.probing.interventions import ALL, IMAGE_TOKENS, LAST_TOKEN, TEXT, Edit, intervene, recorded, replayed
from mlprobe_utils.probing.logit_lens import first_tokens, through_the_lens
from mlprobe_utils.synthetic.faults.calibration import as_stored, batched, load_damages
from mlprobe_utils.synthetic.faults.damage import damaged
from mlprobe_utils.synthetic.phantoms.making import read_recipe, twins

SIDE = 16  # of the thumbnails that real images are compared by
POOLED = {IMAGE_TOKENS: "image_mean", LAST_TOKEN: "last_token"}  # which features tell where classes lie
FROM_PARTNER = (IMAGE_TOKENS, TEXT, LAST_TOKEN)  # tokens whose states are patched
States = dict[str, list[torch.Tensor]]  # point -> [tokens, width] of each image of a batch, all tokens
Trial = tuple[str, str, str | None, list[Edit]]  # edit, point and tokens as rows call them, and the edits made together


class Trained(NamedTuple):
    """What train images tell of classes: `point/pooling` -> features [images, width], and their labels [images]."""

    features: Mapping[str, torch.Tensor]
    labels: np.ndarray  # places among the options


@torch.inference_mode()
def option_scores(
    loaded: LoadedModel,
    questions: dict[str, torch.Tensor],
    options: Sequence[Sequence[int]],
    edits: Sequence[Edit] = (),
    kept: dict | None = None,
) -> torch.Tensor:
    """Log-probabilities of options (token ids), float32 [images, options], where nothing else may be written. `kept`,
    of `recorded` on the same questions, saves the blocks before the first edit."""
    found, points = torch.zeros(len(questions["input_ids"]), len(options)), [edit.point for edit in edits]
    first = min(points, key=lambda point: (9,) if point == ANSWER else flow_order(point.split("/")[0]), default=ANSWER)
    for prefix, tokens in branches(options).items():
        longer = append_answers(questions, [list(prefix)] * len(found), pad=0)  # pads nothing: all are equally long
        inputs = to_device({key: value for key, value in longer.items() if key != "labels"}, loaded)
        whole = kept is None or prefix
        with intervene(loaded, edits) as now, contextlib.nullcontext() if whole else replayed(loaded, kept, first):
            now.appended = len(prefix)
            logits = loaded.model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1, tokens]
            now.appended = 0
        scores = logits.float().log_softmax(dim=-1).cpu()
        for place, option in enumerate(options):
            if tuple(option[: len(prefix)]) == prefix:
                found[:, place] += scores[:, tokens.index(option[len(prefix)])]
    return found


@torch.inference_mode()
def states_of(
    loaded: LoadedModel, questions: dict[str, torch.Tensor], points: Iterable[str], tokens: str = ALL
) -> States:
    """The states of a batch at some points."""
    keeps = [Keep(point, tokens) for point in points]
    with intervene(loaded, keeps):
        loaded.model(**to_device(questions, loaded), logits_to_keep=1, use_cache=False)
    return {keep.point: keep.kept for keep in keeps}


@dataclass(frozen=True)
class Sweep:
    """A model, and images under whose questions one edit after the other is made.

    Methods return a row per edit and image: edit (`evaluation.used`), point, tokens, image (its number; 2 n and 2 n + 1
    are a pair), label, other (the partner's label), p_<option>: float, of the options alone, and images (`used`)."""

    loaded: LoadedModel
    batches: Sequence[dict[str, torch.Tensor]]  # encoded questions
    encoder: Encoder
    labels: np.ndarray  # the places of all images' labels among the options
    options: list[str]
    every: int = 1  # of layers and blocks each so-manieth is edited, and the last

    @cached_property
    def answers(self) -> list[list[int]]:
        """The token ids of each option."""
        return self.encoder.answer_tokens(self.options)

    def twins(self) -> list[tuple[States, torch.Tensor]]:
        """What `blocks` needs of an intact twin, of each batch: its states where parts end, and its scores."""
        points, given = [point for own in _part_ends(self.loaded) for point in own], self.answers
        return [(states_of(self.loaded, own, points), option_scores(self.loaded, own, given)) for own in self.batches]

    def uses(self, trained: Trained) -> pd.DataFrame:
        """What a model makes of pairs of images while text is cut off from them, and their states are patched, moved
        and erased. Each batch is of whole pairs."""
        frames = [self._under(own, rows, self._uses(own, self.labels[rows], trained)) for own, rows in self._batches()]
        return pd.concat(frames, ignore_index=True).assign(images=used.PAIRS)

    def blocks(self, twins: Sequence[tuple[States, torch.Tensor]] | None = None) -> pd.DataFrame:
        """What a model makes of images while one block after the other is left out, and as its output layer ranks the
        options. States of `twins`, an intact model's, are put back part by part. Images need not be in pairs."""
        points, frames = _points(self.loaded, "VL", self.every), []
        skips = [(used.SKIPPED, point, None, [Skip(point)]) for point in points]
        for number, (questions, rows) in enumerate(self._batches()):
            trials = itertools.chain(skips, _put_back(self.loaded, twins[number][0]) if twins else ())
            frames.append(self._under(questions, rows, trials, ranked=True))
        if twins:
            intact = torch.cat([scores for _, scores in twins]).softmax(dim=1)
            frames.append(self._rows(np.arange(len(self.labels)), intact).assign(edit=used.TWIN, point="", tokens=None))
        return pd.concat(frames, ignore_index=True).assign(images=used.TESTED)

    def _batches(self) -> Iterator[tuple[dict[str, torch.Tensor], np.ndarray]]:
        """Each batch, and the numbers of its images."""
        ends = np.cumsum([len(questions["input_ids"]) for questions in self.batches])
        return zip(self.batches, np.split(np.arange(len(self.labels)), ends[:-1]), strict=True)

    def _under(
        self, questions: dict[str, torch.Tensor], rows: np.ndarray, trials: Iterable[Trial], ranked: bool = False
    ) -> pd.DataFrame:
        keep = Keep(_points(self.loaded, "L")[-1], LAST_TOKEN)
        with intervene(self.loaded, keep), recorded(self.loaded) as kept:
            found = {(used.NOTHING, "", None): option_scores(self.loaded, questions, self.answers).softmax(dim=1)}
        if ranked:
            last = torch.cat(keep.kept[: len(rows)]).float()  # of the first pass: others go on with options' beginnings
            lens = through_the_lens(self.loaded, last, first_tokens(self.encoder, self.options), len(rows))
            found[used.RANKED, keep.point, LAST_TOKEN] = torch.from_numpy(lens)
        for *name, edits in trials:
            found[*name] = option_scores(self.loaded, questions, self.answers, edits, kept).softmax(dim=1)
        frames = [
            self._rows(rows, probabilities).assign(edit=edit, point=point, tokens=tokens)
            for (edit, point, tokens), probabilities in found.items()
        ]
        return pd.concat(frames, ignore_index=True)

    def _uses(self, questions: dict[str, torch.Tensor], labels: np.ndarray, trained: Trained) -> Iterator[Trial]:
        """What each point's states are used for; an image's donor is its partner, whose class it is also moved to."""
        partner, layers = np.arange(len(labels)) ^ 1, _points(self.loaded, "L", self.every)
        states = {tokens: states_of(self.loaded, questions, layers, tokens) for tokens in FROM_PARTNER}
        for point in layers:
            yield used.CUT, point, TEXT, [KnockOut(point, layers[-1], TEXT, IMAGE_TOKENS)]
            yield used.CUT_LAST, point, LAST_TOKEN, [KnockOut(point, layers[-1], LAST_TOKEN, IMAGE_TOKENS)]
            for tokens, own in states.items():
                yield used.PATCHED, point, tokens, [Patch(point, [own[point][donor] for donor in partner], tokens)]
        for point in _points(self.loaded, "VCL", self.every):
            for tokens, pooling in POOLED.items():
                if (key := f"{point}/{pooling}") not in trained.features:
                    continue
                features = trained.features[key]
                means = torch.stack([features[trained.labels == own].mean(dim=0) for own in np.unique(trained.labels)])
                towards = means[labels[partner]] - means[labels]
                drawn = torch.randn(towards.shape[1], generator=torch.Generator().manual_seed(len(features)))
                aside = drawn / drawn.norm() * towards.norm(dim=1, keepdim=True)
                yield used.MOVED, point, tokens, [Steer(point, towards, 1.0, tokens)]
                yield used.MOVED_AT_RANDOM, point, tokens, [Steer(point, aside, 1.0, tokens)]
                yield used.ERASED, point, tokens, [Erase.mean_difference(point, features, trained.labels, tokens)]

    def _rows(self, numbers: np.ndarray, probabilities: torch.Tensor) -> pd.DataFrame:
        names, labels = np.array(self.options), self.labels[numbers]
        partner = np.minimum(np.arange(len(labels)) ^ 1, len(labels) - 1)
        rows = pd.DataFrame({"image": numbers, "label": names[labels], "other": names[labels[partner]]})
        columns = zip((OPTION + option for option in self.options), probabilities.double().numpy().T, strict=True)
        return rows.assign(**dict(columns))


def _points(loaded: LoadedModel, modules: str, every: int = 1) -> list[str]:
    """Each so-manieth point of each module, from its last one back."""
    names = [point.name for point in loaded.family.probe_points()]
    own = [[name for name in names if name[0] == module] for module in modules]
    return [name for of_module in own for name in of_module[::-1][::every][::-1]]


def _part_ends(loaded: LoadedModel) -> list[list[str]]:
    """The points that all behind a part depends on, of each of PARTS but the output; a side path leaves earlier."""
    vision, connector, llm, side = (_points(loaded, module) for module in [*MODULES, "D"])
    return [vision if side else vision[-1:], [*side, connector[-1]], [llm[(len(llm) + 1) // 2 - 1]], llm[-1:]]


def _put_back(loaded: LoadedModel, twin: States) -> Iterator[Trial]:
    """The twin's states at the end of a part, and of those before it. What follows of the model works on them."""
    points: list[str] = []
    for part, ends in zip(used.PARTS[:-1], _part_ends(loaded), strict=True):
        points = list(dict.fromkeys([*points, *ends]))  # of an LLM of one layer, both halves have one end
        yield used.PUT_BACK, part, None, [Patch(point, twin[point], ALL) for point in points]


def sweep_of(work: Work, pairs: bool) -> Sweep:
    """Over pairs of images of a work's data set, or the first test images in a random order."""
    chosen = _tested if not pairs else _twins if work.image_set.card.synthetic else _nearest
    images, labels = chosen(work)
    size = max(work.protocol.extraction.batch_size // 2, 1) * 2
    batches = [work.encoder.questions(own) for own in batched(images, size)]
    return Sweep(work.loaded, batches, work.encoder, labels, work.options, work.protocol.interventions.every)


def make_interventions(work: Work) -> None:
    """`interventions.parquet`: of the fine-tuned state, with all edits, and where a fault is planted with the states of
    the intact one; of an intact model also of the pretrained state, with those of the fine-tuned one."""

    def fill(folder: Path) -> None:
        pairs, tested, frames = sweep_of(work, pairs=True), sweep_of(work, pairs=False), []
        with torch.inference_mode():
            with Work.state(work.healthy, DAMAGED_RUN):
                intact = tested.twins()
            with work.state(DAMAGED_RUN):
                found = [pairs.uses(_trained(work)), tested.blocks(intact if work.planted else None)]
                frames.append(pd.concat(found).assign(**work.constants(DAMAGED_RUN)))
            if not work.planted:
                with work.state(None):
                    frames.append(tested.blocks(intact).assign(**work.constants(None)))
        write_parquet(pd.concat(frames, ignore_index=True), folder / results.INTERVENTION_ROWS)

    if processes().is_main_process:
        work.interventions().make(fill)


def make_drawn(work: Work, undamaged: bool) -> None:
    """Of the laboratory's cases what places a fault: with `case` (null: intact) and `run`."""
    if processes().is_main_process:
        work.drawn_interventions(not undamaged).make(partial(_sweep_cases, work, undamaged))


@torch.inference_mode()
def _sweep_cases(work: Work, undamaged: bool, folder: Path) -> None:
    tested, frames = sweep_of(work, pairs=False), []
    for run in work.runs():
        with work.state(run):
            frames.append(tested.blocks().assign(case=None, run=run))
            cases = load_damages(work.folder / results.DRAWN) if run == DAMAGED_RUN and not undamaged else {}
            intact = tested.twins() if cases else None
            for (fault, points), damage in cases.items():
                with damaged(work.loaded, damage, branches(tested.answers)):
                    frames.append(tested.blocks(intact).assign(case=f"{fault}, {points:g} points", run=run))
    write_parquet(pd.concat(frames, ignore_index=True), folder / results.INTERVENTION_ROWS)


def _trained(work: Work) -> Trained:
    images, saved = work.images(), load_features(work.features(DAMAGED_RUN).folder / FEATURES)
    train = np.flatnonzero(images["split"] == "train")
    labels = images["option"].map(work.options.index).to_numpy()[train]
    return Trained({key: own[torch.from_numpy(train)] for key, own in saved.items()}, labels)


def _tested(work: Work) -> tuple[list[np.ndarray], np.ndarray]:
    images = work.images("test").sample(frac=1.0, random_state=0)[: work.protocol.interventions.images]
    return [work.image_set.pixels(place) for place in images.index], images["option"].map(work.options.index).to_numpy()


def _twins(work: Work) -> tuple[list[np.ndarray], np.ndarray]:
    """Of several classes, two after the other in turn."""
    card, images, labels = work.image_set.card, [], []
    recipe, options = read_recipe(card), {known.name: work.options.index(known.option) for known in card.classes}
    for number in range(work.protocol.interventions.pairs):
        drawn = twins(card, recipe, number)
        for step in range(2):
            name = [*options][(number + step) % len(options)]
            images.append(as_stored(card, work.protocol.images, drawn[name]))
            labels.append(options[name])
    return images, np.array(labels)


def _nearest(work: Work) -> tuple[list[np.ndarray], np.ndarray]:
    """Pairs of test images of one size and different classes, the most alike first. InputError where there is none."""
    places = work.images("test").index
    found = [work.image_set.pixels(place) for place in places]
    labels = work.images("test")["option"].map(work.options.index).to_numpy()
    grey = [Image.fromarray(own).convert("L").resize((SIDE, SIDE)) for own in found]
    small = np.stack([np.asarray(own, dtype=float).ravel() for own in grey])
    apart, shapes = cdist(small, small), np.array([own.shape[:2] for own in found])
    apart[(labels[:, None] == labels) | (shapes[:, None] != shapes).any(axis=-1)] = np.inf
    chosen: list[int] = []
    closest_first = np.argsort(apart, axis=None, kind="stable")[: np.isfinite(apart).sum()]
    for one, other in np.stack(np.unravel_index(closest_first, apart.shape), axis=1).tolist():
        if len(chosen) < 2 * work.protocol.interventions.pairs and not {one, other} & {*chosen}:
            chosen += [one, other]
    if not chosen:
        wrong = "no two test images of different classes have one size"
        raise InputError(f"{work.image_set.card.slug}: {wrong}: set square_side in the protocol's images")
    return [found[place] for place in chosen], labels[chosen]
