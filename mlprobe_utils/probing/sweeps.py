"""Is what can be decoded also used? Edits of every point in turn, and what the model makes of its images under each.

Pairs of images of different classes stand one behind the other, so that each one's donor is beside it. One pass records
a batch; passes with an edit compute the blocks behind it alone."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from mlprobe_utils.evaluation.points import ANSWER, MODULES, flow_order
from mlprobe_utils.evaluation.rows import OPTION
from mlprobe_utils.evaluation.used import (
    CUT,
    CUT_LAST,
    ERASED,
    MOVED,
    MOVED_AT_RANDOM,
    NOTHING,
    PARTS,
    PATCHED,
    PUT_BACK,
    RANKED,
    SKIPPED,
    TWIN,
)
from mlprobe_utils.models.encoding import Encoder, append_answers, branches
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.probing.edits import Erase, Keep, KnockOut, Patch, Skip, Steer
from mlprobe_utils.probing.interventions import ALL, IMAGE_TOKENS, LAST_TOKEN, TEXT, Edit, intervene, recorded, replayed
from mlprobe_utils.probing.logit_lens import first_tokens, through_the_lens

POOLED = {IMAGE_TOKENS: "image_mean", LAST_TOKEN: "last_token"}  # which features tell where classes lie
FROM_PARTNER = (IMAGE_TOKENS, TEXT, LAST_TOKEN)  # tokens whose states are patched
States = dict[str, list[torch.Tensor]]  # point -> [tokens, width] of each image of a batch, all tokens


class Trained(NamedTuple):
    """What train images tell of classes: `point/pooling` -> features [images, width], and their labels [images]."""

    features: Mapping[str, torch.Tensor]
    labels: np.ndarray  # places among the options


class Trial(NamedTuple):
    """Edits that are made together, and what rows call them."""

    edit: str
    point: str
    tokens: str | None
    edits: list[Edit]


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


def twin_of(
    loaded: LoadedModel, questions: dict[str, torch.Tensor], options: Sequence[Sequence[int]]
) -> tuple[States, torch.Tensor]:
    """What `sweep_blocks` needs of an intact twin, of one batch: its states where parts end, and its scores."""
    points = [point for own in _part_ends(loaded) for point in own]
    return states_of(loaded, questions, points), option_scores(loaded, questions, options)


def sweep_uses(
    loaded: LoadedModel,
    batches: Sequence[dict[str, torch.Tensor]],
    encoder: Encoder,
    labels: np.ndarray,
    options: list[str],
    trained: Trained,
    every: int = 1,
) -> pd.DataFrame:
    """What a model makes of pairs of images while text is cut off from them, and their states are patched, moved and
    erased. `batches` are encoded questions, each of whole pairs, `labels` the places of all images' labels among the
    options; of layers and blocks each `every`-th is edited, and the last.

    Returns a row per edit and image: edit (`evaluation.used`), point, tokens, image (its number; 2 n and 2 n + 1 are a
    pair), label, other (the partner's label), and p_<option>: float, of the options alone."""

    def tried(questions: dict, _, rows: np.ndarray) -> Iterator[Trial]:
        layers = _points(loaded, "L", every)
        states = {tokens: states_of(loaded, questions, layers, tokens) for tokens in FROM_PARTNER}
        return _uses(loaded, states, trained, labels[rows], every)

    return _sweep(loaded, batches, encoder, labels, options, tried)


def sweep_blocks(
    loaded: LoadedModel,
    batches: Sequence[dict[str, torch.Tensor]],
    encoder: Encoder,
    labels: np.ndarray,
    options: list[str],
    twin: Sequence[tuple[States, torch.Tensor]] | None = None,
    every: int = 1,
) -> pd.DataFrame:
    """What a model makes of images while one block after the other is left out, and as its output layer ranks the
    options. `twin`: of each batch what `twin_of` gives of an intact twin, whose states are put back part by part.
    Arguments and rows as of `sweep_uses`; images need not be in pairs."""

    def tried(_, number: int, rows: np.ndarray) -> Iterator[Trial]:
        yield from _skips(loaded, every)
        yield from _put_back(loaded, twin[number][0]) if twin else ()

    found = [_sweep(loaded, batches, encoder, labels, options, tried, ranked=True)]
    if twin:
        intact = torch.cat([scores for _, scores in twin]).softmax(dim=1)
        frame = _rows(np.arange(len(labels)), labels, options, intact)
        found.append(frame.assign(edit=TWIN, point="", tokens=None))
    return pd.concat(found, ignore_index=True)


def _sweep(
    loaded: LoadedModel,
    batches: Sequence[dict[str, torch.Tensor]],
    encoder: Encoder,
    labels: np.ndarray,
    options: list[str],
    tried: Callable[[dict, int, np.ndarray], Iterable[Trial]],
    ranked: bool = False,
) -> pd.DataFrame:
    answers, frames, begun = encoder.answer_tokens(options), [], 0
    for number, questions in enumerate(batches):
        rows = np.arange(begun, begun := begun + len(questions["input_ids"]))
        with intervene(loaded, keep := Keep(_ends(loaded)[-1], LAST_TOKEN)), recorded(loaded) as kept:
            found = {(NOTHING, "", None): option_scores(loaded, questions, answers).softmax(dim=1)}
        if ranked:
            last = torch.cat(keep.kept[: len(rows)]).float()  # of the first pass: others go on with options' beginnings
            lens = through_the_lens(loaded, last, first_tokens(encoder, options), len(rows))
            found[RANKED, keep.point, LAST_TOKEN] = torch.from_numpy(lens)
        for trial in tried(questions, number, rows):
            found[trial[:3]] = option_scores(loaded, questions, answers, trial.edits, kept).softmax(dim=1)
        for (edit, point, tokens), probabilities in found.items():
            own = _rows(rows, labels[rows], options, probabilities)
            frames.append(own.assign(edit=edit, point=point, tokens=tokens))
    return pd.concat(frames, ignore_index=True)


def _points(loaded: LoadedModel, modules: str, every: int) -> list[str]:
    """Each so-manieth point of each module, from its last one back."""
    names = [point.name for point in loaded.family.probe_points()]
    own = [[name for name in names if name[0] == module] for module in modules]
    return [name for of_module in own for name in of_module[::-1][::every][::-1]]


def _ends(loaded: LoadedModel) -> list[str]:
    return [_points(loaded, module, 1)[-1] for module in MODULES]


def _skips(loaded: LoadedModel, every: int) -> Iterator[Trial]:
    for point in _points(loaded, "VL", every):
        yield Trial(SKIPPED, point, None, [Skip(point)])


def _part_ends(loaded: LoadedModel) -> list[list[str]]:
    """The points that all behind a part depends on, of each of PARTS but the output; a side path leaves earlier."""
    vision, connector, llm = (_points(loaded, module, 1) for module in MODULES)
    side = _points(loaded, "D", 1)
    return [vision if side else vision[-1:], [*side, connector[-1]], [llm[(len(llm) + 1) // 2 - 1]], llm[-1:]]


def _put_back(loaded: LoadedModel, twin: States) -> Iterator[Trial]:
    """The twin's states at the end of a part, and of those before it. What follows of the model works on them."""
    points: list[str] = []
    for part, ends in zip(PARTS[:-1], _part_ends(loaded), strict=True):
        points = list(dict.fromkeys([*points, *ends]))  # of an LLM of one layer, both halves have one end
        yield Trial(PUT_BACK, part, None, [Patch(point, twin[point], ALL) for point in points])


def _uses(
    loaded: LoadedModel, states: Mapping[str, States], trained: Trained, labels: np.ndarray, every: int
) -> Iterator[Trial]:
    """What each point's states are used for; an image's donor is its partner, whose class it is also moved to."""
    partner = np.arange(len(labels)) ^ 1
    layers, last = _points(loaded, "L", every), _ends(loaded)[-1]
    for point in layers:
        yield Trial(CUT, point, TEXT, [KnockOut(point, last, TEXT, IMAGE_TOKENS)])
        yield Trial(CUT_LAST, point, LAST_TOKEN, [KnockOut(point, last, LAST_TOKEN, IMAGE_TOKENS)])
        for tokens, own in states.items():
            yield Trial(PATCHED, point, tokens, [Patch(point, [own[point][donor] for donor in partner], tokens)])
    for point in _points(loaded, "VCL", every):
        for tokens, pooling in POOLED.items():
            if (key := f"{point}/{pooling}") not in trained.features:
                continue
            features = trained.features[key]
            means = torch.stack([features[trained.labels == label].mean(dim=0) for label in np.unique(trained.labels)])
            towards = means[labels[partner]] - means[labels]
            drawn = torch.randn(towards.shape[1], generator=torch.Generator().manual_seed(len(features)))
            aside = drawn / drawn.norm() * towards.norm(dim=1, keepdim=True)
            yield Trial(MOVED, point, tokens, [Steer(point, towards, 1.0, tokens)])
            yield Trial(MOVED_AT_RANDOM, point, tokens, [Steer(point, aside, 1.0, tokens)])
            yield Trial(ERASED, point, tokens, [Erase.mean_difference(point, features, trained.labels, tokens)])


def _rows(numbers: np.ndarray, labels: np.ndarray, options: list[str], probabilities: torch.Tensor) -> pd.DataFrame:
    names, partner = np.array(options), np.minimum(np.arange(len(labels)) ^ 1, len(labels) - 1)
    rows = pd.DataFrame({"image": numbers, "label": names[labels], "other": names[labels[partner]]})
    columns = zip((OPTION + option for option in options), np.asarray(probabilities, dtype=float).T, strict=True)
    return rows.assign(**dict(columns))
