"""How severe a fault has to be in one model to cost a given accuracy, measured by an oracle on fresh phantoms.

The oracle shares no means with probes and scores. States are decoded by a linear discriminant of scikit-learn, its
covariance shrunk after Ledoit and Wolf (2004), fitted on other phantoms that passed through the same damage. A model's
answer is the option that it begins to write if it may write nothing else. A damage is affine in the states, so that
those of the intact model and of severity 1 give those of every severity between (`pooled_at`); an image whose answer is
swapped at some severity is swapped at all above. So one pass over the phantoms serves all severities of a fault.
"""

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
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
from mlprobe_utils.pipeline.artefacts import read_rows
from mlprobe_utils.pipeline.cards import DataCard
from mlprobe_utils.pipeline.fault_card import Fault, all_faults
from mlprobe_utils.pipeline.results import DAMAGED_RUN, HITS, STATISTICS, STRENGTHS
from mlprobe_utils.pipeline.work import Work
from mlprobe_utils.probing.extraction import features_of, load_tensors, save_whole
from mlprobe_utils.synthetic.faults.damage import Damage, branches, damaged, module_at, planted, uniform
from mlprobe_utils.synthetic.phantoms.making import JPEG_QUALITY, drawn, read_recipe

PARTS = ("fitting", "choosing", "measuring")  # of the phantoms: discriminants, severities, and what these cost
MOST_CHOOSING = 600  # images to fit and to choose on: more change the severity by less than the measured interval
STEPS = 12  # of the bisection: severity to 1 / 4096


def make_calibration(work: Work) -> list[Fault]:
    """Finds how severe each fault has to be at every strength of trial and book, where that is not current. Returns the
    faults. Raises InputError for one that has no place in the model."""
    faults, own = all_faults(), work.calibration()

    def fill(folder: Path) -> None:
        with work.state(DAMAGED_RUN):
            _calibrate(work, faults, own.inputs["recipe"], folder)

    if processes().is_main_process:
        own.make(fill)
    processes().wait_for_everyone()
    return faults


def _calibrate(work: Work, faults: list[Fault], recipe: dict, folder: Path) -> None:
    """Writes STRENGTHS, a row a fault and strength: fault, wanted (pp that the oracle is to lose), point, severity (at
    most 1), reached (whether it loses as much, on the images it is chosen on); HITS, of each a row a measuring image:
    whether the oracle is correct without and with the damage (intact, damaged); and STATISTICS, `fault/name`."""
    loaded, encoder, card = work.loaded, work.encoder, work.image_set.card
    classes, test = [known.name for known in card.classes], work.images("test")["label"].to_numpy()
    batches, labels = {}, {}
    for number, part in enumerate(PARTS):
        count = recipe["images"] if part == "measuring" else min(MOST_CHOOSING, recipe["images"])
        names = np.random.default_rng(number).choice(test, count)  # in proportion as the test set has them
        fresh = fresh_images(card, work.protocol.images, names, number)
        batches[part] = batched(fresh, work.protocol.extraction.batch_size)
        labels[part] = np.array([classes.index(name) for name in names])
    damages = {fault.slug: planted(fault, loaded.family).at(1.0) for fault in faults}
    points = [damage.point for damage in damages.values() if damage.point]
    statistics = statistics_of(loaded, encoder, batches["fitting"], points)
    damages = {slug: replace(own, statistics=statistics.get(own.point, {})) for slug, own in damages.items()}
    found = {part: states_and_answers(loaded, encoder, card.options, batches[part], damages) for part in PARTS}
    rows, judged = [], []
    for slug, damage in damages.items():
        hits = cache(partial(_hits, damage, {part: found[part][slug] for part in PARTS}, labels))

        def lost(severity: float, hits=hits) -> float:
            return 100 * (hits("choosing", 0.0).mean() - hits("choosing", severity).mean())

        for wanted in recipe["points_lost"]:
            of = {"fault": slug, "wanted": wanted}
            severity, most = severity_for(lost, wanted)
            rows.append(of | {"point": damage.point or ANSWER, "severity": severity, "reached": most >= wanted})
            both = {"intact": hits("measuring", 0.0), "damaged": hits("measuring", severity)}
            judged.append(pd.DataFrame(both | of))
    kept = {f"{slug}/{name}": value for slug, damage in damages.items() for name, value in damage.statistics.items()}
    save_whole(kept, folder / STATISTICS)
    write_parquet(pd.concat(judged, ignore_index=True), folder / HITS)
    write_parquet(pd.DataFrame(rows), folder / STRENGTHS)


def load_damages(folder: Path) -> dict[tuple[str, float], Damage]:
    """Loads the damages of a calibration from its folder: (slug of the fault, pp wanted) -> damage."""
    strengths, saved, found = read_rows(folder / STRENGTHS), load_tensors(folder / STATISTICS), {}
    for fault in all_faults():
        start = f"{fault.slug}/"
        statistics = {key.removeprefix(start): value for key, value in saved.items() if key.startswith(start)}
        for row in strengths[strengths["fault"] == fault.slug].itertuples():
            point = None if fault.module == ANSWER else row.point
            found[fault.slug, row.wanted] = Damage(fault.module, fault.seed, point, row.severity, statistics)
    return found


def batched(items: Sequence, size: int) -> list:
    return [items[first : first + size] for first in range(0, len(items), size)]


def fresh_images(card: DataCard, settings: Images, labels: Iterable, part: int, stream="oracle") -> list[np.ndarray]:
    """Working copies, uint8 [height, width, 3], of phantoms of these classes: in no set, training or other part."""
    recipe, images = read_recipe(card), []
    kind = "JPEG" if card.layout == "chest-xray" else "PNG"  # as a file of the set gives it back: JPEG loses a little
    for number, label in enumerate(labels):
        pixels, _ = drawn(card, recipe, stream, label, part, number)
        Image.fromarray(pixels).save(file := io.BytesIO(), kind, quality=JPEG_QUALITY)
        images.append(np.array(working_copy(Image.open(file).convert("RGB"), settings)))
    return images


@torch.inference_mode()
def statistics_of(
    loaded: LoadedModel, encoder: Encoder, batches: Sequence, points: list[str]
) -> dict[str, dict[str, torch.Tensor]]:
    """Of the intact states of image tokens, which a damage keeps: point -> name -> float32. `mean` [width]; standard
    deviations [width] of images' means, `between`, and of an image's tokens around their own, `within`; in the
    connector the square root of the shrunk covariance of images' means, `root` [width, width], and its `inverse`."""
    means, squares, found = [], {point: [] for point in points}, {}

    def note(point: str, pool: Callable, module, arguments, output) -> None:
        states = output[0] if isinstance(output, tuple) else output
        squares[point].append(pool(states.float() ** 2).cpu())

    for images in batches:
        questions = encoder.questions(images)
        poolers = loaded.family.poolers(to_device(questions, loaded))
        with contextlib.ExitStack() as stack:
            for point in points:
                hook = partial(note, point, poolers[f"{point[0]}/image_mean"])
                stack.callback(module_at(loaded, point).register_forward_hook(hook).remove)
            means.append(features_of(loaded, questions))
    for point in points:
        mean = torch.cat([part[f"{point}/image_mean"] for part in means])
        within = (torch.cat(squares[point]) - mean**2).mean(dim=0).clamp(min=0).sqrt()
        found[point] = {"mean": mean.mean(dim=0), "between": mean.std(dim=0), "within": within}
        if point[0] == "C":
            variances, vectors = np.linalg.eigh(LedoitWolf().fit(mean.double().numpy()).covariance_)
            spread = np.sqrt(variances.clip(min=variances.max() * np.finfo(np.float32).eps))
            found[point]["root"] = torch.from_numpy(vectors * spread @ vectors.T).float()
            found[point]["inverse"] = torch.from_numpy(vectors / spread @ vectors.T).float()
    return found


@torch.inference_mode()
def states_and_answers(
    loaded: LoadedModel, encoder: Encoder, options: list[str], batches: Sequence, damages: Mapping[str, Damage]
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Name of a damage -> what the intact model has and what the damaged one has: means of the image tokens at the
    damage's place, float32 [images, width], or of the semantic mapping the options that they answer, int [images]; and
    from which severity on an image's answer is swapped, float [images]."""
    parts, tokens = {name: [] for name in damages}, encoder.answer_tokens(options)
    for images in batches:
        questions = encoder.questions(images)
        features = features_of(loaded, questions)
        for name, damage in damages.items():
            site, given = f"{damage.point}/image_mean", (loaded, questions, tokens, encoder.tokenizer.pad_token_id)
            intact = chosen(*given) if damage.module == ANSWER else features[site]
            with damaged(loaded, damage, branches(tokens)):
                full = chosen(*given) if damage.module == ANSWER else features_of(loaded, questions)[site]
            hit_above = [uniform(number) for number in damage.numbers(loaded.family, questions)]
            parts[name].append((intact, full, torch.tensor(hit_above, dtype=torch.float64)))
    return {name: tuple(torch.cat(own).numpy() for own in zip(*found, strict=True)) for name, found in parts.items()}


def chosen(loaded: LoadedModel, questions: dict, options: list[list[int]], pad: int) -> torch.Tensor:
    """The number of the option (token ids) that the model writes if it may write nothing else, int [images]."""
    picked = {}
    for prefix, tokens in branches(options).items():
        longer = append_answers(questions, [list(prefix)] * len(questions["input_ids"]), pad)
        del longer["labels"]
        logits = loaded.model(**to_device(longer, loaded), logits_to_keep=1, use_cache=False).logits[:, -1]
        picked[prefix] = torch.tensor(tokens)[logits[:, tokens].argmax(dim=1).cpu()]
    written = [[picked[p] == tokens[len(p)] for p in picked if p == tuple(tokens[: len(p)])] for tokens in options]
    return torch.stack([torch.stack(steps).all(dim=0) for steps in written]).int().argmax(dim=0)


def _hits(
    damage: Damage, found: Mapping[str, tuple[np.ndarray, ...]], labels: Mapping, part: str, severity: float
) -> np.ndarray:
    """Whether the oracle is correct about the images of a part under the damage, bool [images]."""
    if damage.module == ANSWER:
        intact, full, hit_above = found[part]
        return np.where(hit_above < severity, full, intact) == labels[part]
    fitting, judged = (pooled_at(damage.at(severity), *found[name][:2]) for name in ("fitting", part))
    return correct(fitting, labels["fitting"], judged, labels[part])


def correct(fitted: np.ndarray, fitted_labels: np.ndarray, judged: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether a classifier fitted on states [images, width] and labels is correct about others, bool [images]."""
    discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    classifier = make_pipeline(StandardScaler(), discriminant)
    return classifier.fit(fitted, fitted_labels).predict(judged) == labels


def pooled_at(damage: Damage, intact: np.ndarray, full: np.ndarray) -> np.ndarray:
    """Means of image tokens at the damaged place, float32 [images, width], from those intact and at severity 1."""
    if damage.severity == 0:
        return intact
    if damage.module == "C":
        return damage.of_states(torch.from_numpy(intact)).numpy()
    mean, kept, noise = damage.statistics["mean"].numpy(), (1 - damage.severity) ** 0.5, damage.severity**0.5
    return mean + kept * (intact - mean) + noise * (full - mean)


def severity_for(lost: Callable[[float], float], wanted: float) -> tuple[float, float]:
    """The severity, 0 to 1, that loses `wanted` pp, or 1 where even that loses less; and what severity 1 loses. By
    bisection, as `lost` rises with the severity: of those tried the one that comes nearest."""
    tried = {1.0: lost(1.0)}
    if tried[1.0] <= wanted:
        return 1.0, tried[1.0]
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        tried[middle] = lost(middle)
        low, high = (middle, high) if tried[middle] < wanted else (low, middle)
    return min(tried, key=lambda severity: (abs(tried[severity] - wanted), severity)), tried[1.0]
