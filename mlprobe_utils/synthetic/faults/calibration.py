"""How severe a fault has to be in one model to cost a given accuracy, measured by an oracle on fresh phantoms.

The oracle shares no means with probes and scores. What states hold is read by a linear discriminant of scikit-learn,
its covariance shrunk after Ledoit and Wolf (2004), fitted on other phantoms that passed through the same damage. What
the model answers is the option that it begins to write if it may write nothing else.

On some phantoms the statistics of intact states are taken and discriminants fitted, on others severities are chosen,
and on the rest it is measured what they cost. What a damage leaves of a state is affine in it, so that intact states
and what severity 1 would leave of them give those of every severity between (`pooled_at`); and an image whose answer is
swapped at some severity is swapped in the same way at all above. So one pass over the phantoms serves all severities.
"""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.common.processes import processes
from mlprobe_utils.datasets.decoding import working_copy
from mlprobe_utils.datasets.settings import Images
from mlprobe_utils.evaluation.points import ANSWER
from mlprobe_utils.models.encoding import Encoder, append_answers
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.pipeline.cards import DataCard
from mlprobe_utils.pipeline.fault_card import Fault, all_faults
from mlprobe_utils.pipeline.results import DAMAGED_RUN, HITS, STATISTICS, STRENGTHS
from mlprobe_utils.pipeline.work import Work
from mlprobe_utils.probing.extraction import capturing, features_of, save_whole
from mlprobe_utils.synthetic.faults.damage import Damage, damage_noted, numbers_of, planted, pooled_states, uniform
from mlprobe_utils.synthetic.faults.mapping import Branches, branches, chosen
from mlprobe_utils.synthetic.phantoms.making import JPEG_QUALITY, MODALITY_OF, read_recipe
from mlprobe_utils.synthetic.phantoms.modalities import class_index, draw
from mlprobe_utils.synthetic.phantoms.randomness import generator

PARTS = ("fitting", "choosing", "measuring")  # of the phantoms: no image is in two of them
MOST_CHOOSING = 600  # images to fit and to choose on: more change the severity by less than the measured interval
STEPS = 12  # of the bisection: severity to 1 / 4096

Batches = list[list[np.ndarray]]


def make_calibration(work: Work) -> list[Fault]:
    """Finds how severe each fault has to be at every strength of trial and book, where that is not current.

    Returns the faults. Raises InputError for one that has no place in the model.
    """
    faults, own = all_faults(), work.calibration()
    if processes().is_main_process and not own.is_current():
        card, test = work.image_set.card, work.image_set.rows_of(work.split_rule, "test")["label"].to_numpy()
        batches, labels = {}, {}
        for number, part in enumerate(PARTS):
            count = own.inputs["recipe"]["images"]
            count = count if part == "measuring" else min(MOST_CHOOSING, count)
            names = np.random.default_rng(number).choice(test, count)  # in proportion as the test set has them
            images = fresh_images(card, work.protocol.images, names, number)
            batches[part] = batched(images, work.protocol.extraction.batch_size)
            labels[part] = np.array([[known.name for known in card.classes].index(name) for name in names])
        with own.making() as temporary, work.state(DAMAGED_RUN):
            wanted = own.inputs["recipe"]["points_lost"]
            calibrated = calibrate(work.loaded, work.encoder, faults, card.options, batches, labels, wanted)
            strengths, hits, statistics = calibrated
            save_whole(statistics, temporary / STATISTICS)
            write_parquet(hits, temporary / HITS)
            write_parquet(strengths, temporary / STRENGTHS)
    processes().wait_for_everyone()
    return faults


def load_damages(folder: Path) -> dict[tuple[str, float], Damage]:
    """The damages of a calibration in its folder: (slug of the fault, points wanted) -> damage."""
    rows, saved, found = pd.read_parquet(folder / STRENGTHS), load_file(folder / STATISTICS), {}
    for fault in all_faults():
        own = {key.partition("/")[2]: value for key, value in saved.items() if key.partition("/")[0] == fault.slug}
        for row in rows[rows["fault"] == fault.slug].itertuples():
            point = None if fault.module == ANSWER else row.point
            found[fault.slug, row.wanted] = Damage(fault.module, fault.seed, point, row.severity, own)
    return found


def batched(items: Sequence, size: int) -> list:
    """`items` in parts of `size`."""
    return [items[first : first + size] for first in range(0, len(items), size)]


def fresh_images(card: DataCard, settings: Images, labels: Iterable[str], part: int) -> list[np.ndarray]:
    """Working copies, uint8 [height, width, 3], of phantoms of some classes that are in no set and in no training.

    Images of different parts, each a number, are unrelated; image n of a part is the same however many are drawn.
    """
    recipe, modality, images = read_recipe(card), MODALITY_OF[card.layout], []
    for number, label in enumerate(labels):
        rng = generator("oracle", recipe.seed, class_index(modality, label), part, number)
        pixels, _ = draw(modality, label, rng, recipe.side, recipe.difficulty, recipe.shortcut)
        picture = Image.fromarray(pixels)
        if card.layout == "chest-xray":  # as a file of the set gives it back: JPEG loses a little
            picture.save(file := io.BytesIO(), "JPEG", quality=JPEG_QUALITY)
            picture = Image.open(file)
        images.append(np.array(working_copy(picture.convert("RGB"), settings)))
    return images


def calibrate(
    loaded: LoadedModel,
    encoder: Encoder,
    faults: Iterable[Fault],
    options: list[str],
    batches: Mapping[str, Batches],
    labels: Mapping[str, np.ndarray],
    wanted: list[float],
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, torch.Tensor]]:
    """Each fault at every strength.

    Args:
        options: answers of the classes, in the order of their numbers.
        batches: part -> images of all PARTS.
        labels: part -> number of each image's class, int [images].
        wanted: strengths: points that the oracle is to lose.

    Returns:
        A row a fault and strength: fault, wanted, point, severity (1 where even that does not lose as much on the
        images it is chosen on), reached (whether it does). Of each a row a measuring image: whether the oracle is right
        without and with the damage (intact, damaged), fault, wanted. And `fault/name` -> statistics of intact states.

    Raises:
        InputError: a fault that has no place in the model.
    """
    places = {fault.slug: planted(fault, loaded.family) for fault in faults}
    points = [place.point for place in places.values() if place.point]
    statistics = statistics_of(loaded, encoder, batches["fitting"], points)
    full = {
        slug: Damage(place.module, place.seed, place.point, 1.0, statistics.get(place.point, {}))
        for slug, place in places.items()
    }
    read = {part: read_whole(loaded, encoder, options, batches[part], full) for part in PARTS}
    rows, judged = [], []
    for slug, damage in full.items():
        hits = cache(_hits(damage, {part: read[part][slug] for part in PARTS}, labels))

        def lost(severity: float, hits=hits) -> float:
            return 100 * (hits(0.0, "choosing").mean() - hits(severity, "choosing").mean())

        for points_lost in wanted:
            of = {"fault": slug, "wanted": points_lost}
            severity, most = severity_for(lost, points_lost)
            rows.append(of | {"point": damage.point or ANSWER, "severity": severity, "reached": most >= points_lost})
            both = {"intact": hits(0.0, "measuring"), "damaged": hits(severity, "measuring")}
            judged.append(pd.DataFrame(both).assign(**of))
    kept = {f"{slug}/{name}": value for slug, damage in full.items() for name, value in damage.statistics.items()}
    return pd.DataFrame(rows), pd.concat(judged, ignore_index=True), kept


@torch.inference_mode()
def statistics_of(
    loaded: LoadedModel, encoder: Encoder, batches: Batches, points: list[str]
) -> dict[str, dict[str, torch.Tensor]]:
    """Of the intact states of image tokens, which a damage keeps: point -> name -> float32.

    `mean` [width]; standard deviations [width] of images' means, `between`, and of an image's tokens around their own
    mean, `within`; and in the connector `root` and `inverse`, [width, width], the square root of the covariance of
    images' means and its inverse, shrunk after Ledoit and Wolf (2004) as there may be fewer images than numbers.
    """
    means, squares = [], []
    for images in batches:
        questions = encoder.questions(images)
        squaring = {point: (point, lambda states: states.float() ** 2) for point in points}
        with pooled_states(loaded, to_device(questions, loaded), squaring) as squared:
            features = features_of(loaded, questions)
        means.append({point: features[f"{point}/image_mean"] for point in points})
        squares.append(dict(squared))
    found = {}
    for point in points:
        mean, square = (torch.cat([part[point] for part in parts]) for parts in (means, squares))
        within = (square - mean**2).mean(dim=0).clamp(min=0).sqrt()
        found[point] = {"mean": mean.mean(dim=0), "between": mean.std(dim=0), "within": within}
        if point[0] == "C":
            variances, vectors = np.linalg.eigh(LedoitWolf().fit(mean.double().numpy()).covariance_)
            spread = np.sqrt(variances.clip(min=variances.max() * np.finfo(np.float32).eps))
            found[point]["root"] = torch.from_numpy(vectors * spread @ vectors.T).float()
            found[point]["inverse"] = torch.from_numpy(vectors / spread @ vectors.T).float()
    return found


@torch.inference_mode()
def read_whole(
    loaded: LoadedModel, encoder: Encoder, options: list[str], batches: Batches, damages: Mapping[str, Damage]
) -> dict[str, tuple[np.ndarray, ...]]:
    """Reads images once through the intact model, noting what each damage of severity 1 would leave.

    Returns:
        Name -> intact, and as severity 1 leaves it: means of the image tokens at its place, float32 [images, width]; of
        the semantic mapping the options that are answered, int [images], and from which severity on an image's answer
        is swapped, float [images].
    """
    parting = branches(encoder.answer_tokens(options))
    of_states = {name: damage for name, damage in damages.items() if damage.module != ANSWER}
    parts: dict[str, list[tuple]] = {name: [] for name in damages}
    for images in batches:
        inputs = to_device(encoder.questions(images), loaded)
        with damage_noted(loaded, of_states, inputs) as noted, capturing(loaded, inputs) as states:
            first = _next_logits(loaded, inputs)
        for name, damage in damages.items():
            if damage.module != ANSWER:
                parts[name].append((states[f"{damage.point}/image_mean"], noted[name]))
                continue
            answers = (_answered(loaded, encoder, inputs, first, parting, len(options), by) for by in (None, damage))
            hit_above = [uniform(number) for number in numbers_of(damage, loaded.family, inputs)]
            parts[name].append((*answers, torch.tensor(hit_above, dtype=torch.float64)))
    return {name: tuple(torch.cat(column).numpy() for column in zip(*own, strict=True)) for name, own in parts.items()}


def _answered(
    loaded: LoadedModel,
    encoder: Encoder,
    inputs: dict,
    first: torch.Tensor,
    parting: Branches,
    options: int,
    damage: Damage | None,
) -> torch.Tensor:
    """The option that each image is answered with, int [images]; `first` are the logits after the prompt."""

    def next_logits(prefix: tuple[int, ...]) -> torch.Tensor:
        logits, written = first, inputs["input_ids"]
        if prefix:
            longer = append_answers(inputs, [list(prefix)] * len(first), encoder.tokenizer.pad_token_id)
            longer.pop("labels")
            logits = _next_logits(loaded, to_device(longer, loaded))
        if damage is None:
            return logits
        numbers = numbers_of(damage, loaded.family, inputs)
        written = torch.cat([written, written.new_tensor([prefix] * len(written)).view(len(written), -1)], dim=1)
        return damage.of_logits(logits[:, None], written, numbers, parting)[:, 0]

    return chosen(next_logits, parting, options).cpu()


def _next_logits(loaded: LoadedModel, inputs: dict) -> torch.Tensor:
    return loaded.model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]


def _hits(damage: Damage, read: Mapping[str, tuple[np.ndarray, ...]], labels: Mapping[str, np.ndarray]) -> Callable:
    def hits(severity: float, part: str) -> np.ndarray:
        """Whether the oracle is right about the images of a part under the damage, bool [images]."""
        if damage.module == ANSWER:
            intact, full, hit_above = read[part]
            return np.where(hit_above < severity, full, intact) == labels[part]
        fitting, judged = (
            pooled_at(damage.at(severity), *read[name]) if severity else read[name][0] for name in ("fitting", part)
        )
        return correct(fitting, labels["fitting"], judged, labels[part])

    return hits


def correct(fitted: np.ndarray, fitted_labels: np.ndarray, judged: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether a classifier fitted on states [images, width] with their labels is right about others, bool [images]."""
    discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    classifier = make_pipeline(StandardScaler(), discriminant)
    return classifier.fit(fitted, fitted_labels).predict(judged) == labels


def pooled_at(damage: Damage, intact: np.ndarray, full: np.ndarray) -> np.ndarray:
    """Means of image tokens at the damaged place, float32 [images, width], from those without damage and at severity 1.

    A damage is affine in a state, and its noise the same at every severity: the mean over tokens follows exactly.
    """
    mean = damage.statistics["mean"].numpy()
    if damage.module == "C":
        return damage.of_states(torch.from_numpy(intact)).numpy()
    kept, noise = (1 - damage.severity) ** 0.5, damage.severity**0.5
    return mean + kept * (intact - mean) + noise * (full - mean)


def severity_for(lost: Callable[[float], float], wanted: float) -> tuple[float, float]:
    """The severity, 0 to 1, that loses `wanted` percentage points; and what severity 1 loses.

    By bisection, so that `lost` should rise with the severity; of the severities tried the one that comes nearest.
    Where severity 1 loses less than is wanted, it is 1.
    """
    tried = {1.0: lost(1.0)}
    if tried[1.0] <= wanted:
        return 1.0, tried[1.0]
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        tried[middle] = lost(middle)
        low, high = (middle, high) if tried[middle] < wanted else (low, middle)
    return min(tried, key=lambda severity: (abs(tried[severity] - wanted), severity)), tried[1.0]
