"""How severe a fault has to be in one model to cost a given accuracy, measured on fresh phantoms: by an oracle at the
damaged place where it destroys the class, else by the model's own answers.

The oracle shares no means with probes and scores. States are decoded by a linear discriminant of scikit-learn, its
covariance shrunk after Ledoit and Wolf (2004), fitted on other phantoms that passed through the same damage. A model's
answer is the option that it begins to write if it may write nothing else. The states under any severity follow from the
intact ones, which one pass gives; answers need a pass a severity, so few are tried, on few images.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlprobe_utils.common.files import write_parquet
from mlprobe_utils.common.processes import processes
from mlprobe_utils.datasets.decoding import working_copy
from mlprobe_utils.datasets.settings import Images
from mlprobe_utils.evaluation.points import ANSWER
from mlprobe_utils.models.encoding import Encoder, Questions, append_answers, branches
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.pipeline.artefacts import read_rows
from mlprobe_utils.pipeline.cards import DataCard
from mlprobe_utils.pipeline.fault_card import Fault, strengths
from mlprobe_utils.pipeline.results import DAMAGED_RUN, HITS, STATISTICS, STRENGTHS
from mlprobe_utils.pipeline.work import Work
from mlprobe_utils.probing.extraction import load_tensors, save_whole
from mlprobe_utils.probing.interventions import module_at, prints
from mlprobe_utils.synthetic.faults.damage import WITH_TEXT, Damage, damaged, planted
from mlprobe_utils.synthetic.phantoms.making import JPEG_QUALITY, drawn, read_recipe

PARTS = ("fitting", "choosing", "measuring")  # of the phantoms: discriminants, severities, and what these cost
MOST_CHOOSING = 400  # images to fit and to choose on: more change the severity by less than the measured interval
MOST_ANSWERED = 256  # of them, to choose on by answers
STEPS, STEPS_ANSWERED = 8, 4  # of the bisection
SMALLEST = 1e-3  # share of the mean variance; directions and channels of less count as having so much


class Seen(NamedTuple):
    """The states of a batch at some point, and what a damage of them depends on."""

    states: torch.Tensor
    places: Sequence  # of each image's tokens in them
    prints: list[bytes]
    pool: Callable[[torch.Tensor], torch.Tensor]  # to the means of images' tokens


def make_calibration(work: Work, trial: bool = False) -> None:
    """Finds how severe the book's faults have to be, or those drawn for the trial, where that is not current. Raises
    InputError for one that has no place in the model."""
    own, wanted = work.calibration(trial), strengths(work.card.slug, work.image_set.card.slug, trial)

    def fill(folder: Path) -> None:
        with work.state(DAMAGED_RUN):
            _calibrate(work, wanted, own.inputs["recipe"]["images"], folder)

    if processes().is_main_process:
        own.make(fill)
    processes().wait_for_everyone()


@torch.inference_mode()
def _calibrate(work: Work, wanted: Sequence[tuple[Fault, float]], count: int, folder: Path) -> None:
    """Writes STRENGTHS, a row per fault and strength: fault, wanted (pp to lose), kind, module, destroys, seed, point,
    severity (at most 1), reached (whether as much is lost, on the images it is chosen on); HITS, of each a row a
    measuring image: whether oracle (null of the semantic mapping, where no state changes) and answer are correct
    without and with the damage (`oracle_intact` and so on); and STATISTICS, `states/name`."""
    card, size = work.image_set.card, work.protocol.extraction.batch_size
    classes, test = [known.name for known in card.classes], work.images("test")["label"].to_numpy()
    damages = {fault.slug: planted(fault, work.loaded.family) for fault, _ in wanted}
    points = sorted({damage.place for damage in damages.values()})
    observe = partial(observed, work.loaded, work.encoder, card.options)
    labels, batches, answers, seen = {}, {}, {}, {}
    for number, part in enumerate(PARTS):
        many = count if part == "measuring" else min(MOST_CHOOSING, count)
        names = np.random.default_rng(number).choice(test, many)  # in proportion as the test set has them
        questions = Questions(work.encoder, fresh_images(card, work.protocol.images, names, number).__getitem__)
        batches[part] = [partial(questions.batch, own) for own in batched(range(many), size)]
        labels[part] = np.array([classes.index(name) for name in names])
        answers[part], seen[part] = observe(batches[part], None, points)
    statistics = {name: statistics_of(seen["fitting"][name]) for name in {one.known_by for one in damages.values()}}

    def oracle(damage: Damage, part: str, judged: np.ndarray | None = None) -> np.ndarray:
        """Whether it is correct about images of a part, bool [images], whose means a pass may have given."""
        sides = {"fitting": None, part: judged}
        for side, known in sides.items():
            if known is None and damage.severity and (damage.of_text or damage.kind == "heads"):
                known = means(observe(batches[side], damage, [damage.place])[1][damage.place])  # more than image tokens
            sides[side] = means(seen[side][damage.place], damage) if known is None else known
        return correct(sides["fitting"], labels["fitting"], sides[part], labels[part])

    rows, judged = [], []
    for fault, points_lost in wanted:
        damage = replace(damages[fault.slug], statistics=statistics[damages[fault.slug].known_by])
        by_oracle = fault.destroys and fault.module != ANSWER

        def share(severity: float, damage=damage, by_oracle=by_oracle) -> float:
            if by_oracle:
                return oracle(damage.at(severity), "choosing").mean()
            few = batches["choosing"][: -(-MOST_ANSWERED // size)]
            found = observe(few, damage.at(severity))[0] if severity else answers["choosing"][: len(few) * size]
            return (found == labels["choosing"][: len(found)]).mean()

        whole, steps = share(0.0), STEPS if by_oracle else STEPS_ANSWERED
        lost = lambda severity, share=share, whole=whole: 100 * (whole - share(severity))  # noqa: E731
        severity, most = severity_for(lost, points_lost, steps)
        after, broken = observe(batches["measuring"], damage.at(severity), [damage.place])
        hits = {"answer_intact": answers["measuring"], "answer_damaged": after}
        hits = {name: own == labels["measuring"] for name, own in hits.items()}
        if damage.point:
            hits["oracle_intact"] = oracle(damage.at(0.0), "measuring")
            hits["oracle_damaged"] = oracle(damage.at(severity), "measuring", means(broken[damage.point]))
        of = {"fault": fault.slug, "wanted": points_lost}
        judged.append(pd.DataFrame(hits | of).astype({name: "boolean" for name in hits}))
        of |= {"kind": fault.kind, "module": fault.module, "destroys": fault.destroys, "seed": fault.seed}
        rows.append(of | {"point": damage.place, "severity": severity, "reached": most >= points_lost})
    kept = {f"{of}/{name}": value for of, own in statistics.items() for name, value in own.items()}
    save_whole(kept, folder / STATISTICS)
    write_parquet(pd.concat(judged, ignore_index=True), folder / HITS)
    write_parquet(pd.DataFrame(rows), folder / STRENGTHS)


def load_damages(folder: Path) -> dict[tuple[str, float], Damage]:
    """Loads the damages of a calibration from its folder: (slug of the fault, pp wanted) -> damage."""
    saved, found = load_tensors(folder / STATISTICS), {}
    for row in read_rows(folder / STRENGTHS).itertuples():
        damage = Damage(row.kind, row.module, row.seed, None if row.point == ANSWER else row.point, row.severity)
        own = {key: value for key, value in saved.items() if key.rpartition("/")[0] == damage.known_by}
        statistics = {key.rpartition("/")[2]: value for key, value in own.items()}
        found[row.fault, row.wanted] = replace(damage, statistics=statistics)
    return found


def batched(items: Sequence, size: int) -> list:
    return [items[first : first + size] for first in range(0, len(items), size)]


def fresh_images(card: DataCard, settings: Images, labels: Iterable, part: int, stream="oracle") -> list[np.ndarray]:
    """Working copies, uint8 [height, width, 3], of phantoms of these classes: in no set, training or other part."""
    recipe = read_recipe(card)
    fresh = (drawn(card, recipe, stream, label, part, number)[0] for number, label in enumerate(labels))
    return [as_stored(card, settings, pixels) for pixels in fresh]


def as_stored(card: DataCard, settings: Images, pixels: np.ndarray) -> np.ndarray:
    """The working copy, uint8 [height, width, 3], of a phantom as a file of its set gives it back."""
    kind = "JPEG" if card.layout == "chest-xray" else "PNG"  # which loses a little
    Image.fromarray(pixels).save(file := io.BytesIO(), kind, quality=JPEG_QUALITY)
    return np.array(working_copy(Image.open(file).convert("RGB"), settings))


def observed(
    loaded: LoadedModel,
    encoder: Encoder,
    options: list[str],
    batches: Sequence[Callable[[], dict]],
    damage: Damage | None,
    points: Iterable[str] = (),
) -> tuple[np.ndarray, dict[str, list[Seen]]]:
    """What the damaged model answers about images, int [images], and their states at some points: those of image
    tokens, in the LLM also WITH_TEXT, and at ANSWER what the LM head reads. All are kept, in the model's precision."""
    tokens, answers, found, family = encoder.answer_tokens(options), [], {}, loaded.family
    for questions in (batch() for batch in batches):
        inputs, states = to_device(questions, loaded), {}

        def keep(point: str, module, arguments, output, states=states) -> None:
            own = arguments[0] if point == ANSWER else output[0] if isinstance(output, tuple) else output
            states.setdefault(point, own)  # of the first pass: others go on with the beginning of an option

        with damaged(loaded, damage, branches(tokens)), ExitStack() as stack:
            for point in points:
                stack.callback(module_at(loaded, point).register_forward_hook(partial(keep, point)).remove)
            answers.append(chosen(loaded, questions, tokens, encoder.tokenizer.pad_token_id))
        rows, pools = [*enumerate(mask.nonzero()[:, 0] for mask in inputs["attention_mask"])], family.poolers(inputs)
        places = {part: family.places_at(inputs, part) for part in "VC"}
        places |= {"L": family.text_places(inputs), ANSWER: [*range(len(rows))]}
        for point, own in states.items():
            of = ANSWER if point == ANSWER else point[0]
            own = own[:, : inputs["input_ids"].shape[1]] if of == "L" else own
            pool = pools.get(f"{of}/image_mean", lambda last: last.mean(dim=1).float())
            found.setdefault(point, []).append(Seen(own, places[of], prints(family, inputs), pool))
            if of == "L":
                pool = lambda own, rows=rows: torch.stack([own[row].float().mean(dim=0) for row in rows])  # noqa: E731
                found.setdefault(point + WITH_TEXT, []).append(Seen(own, rows, [], pool))
    return torch.cat(answers).numpy(), found


def means(seen: Sequence[Seen], damage: Damage | None = None) -> np.ndarray:
    """Of images' tokens, once they are damaged, float32 [images, width]."""
    changed = damage is not None and damage.severity > 0
    states = (damage.of_states(*one[:2], damage.numbers(one.prints)) if changed else one.states for one in seen)
    return torch.cat([one.pool(own).cpu() for one, own in zip(seen, states, strict=True)]).numpy()


def statistics_of(seen: Sequence[Seen]) -> dict[str, torch.Tensor]:
    """Of the intact states of tokens, which a damage keeps or needs, float32. `mean` [width]; standard deviations
    [width] of images' means, `between`, of an image's tokens around their own, `within`, and of all, `deviation`;
    principal axes of tokens, `axes` [width, width], one a column, and the standard deviations there, `scales`."""
    powers = (lambda states: states, torch.square)
    means, squares = (torch.cat([one.pool(power(one.states.float())) for one in seen]).cpu() for power in powers)
    mean, within = means.mean(dim=0), (squares - means**2).mean(dim=0).clamp(min=0)
    tokens = [one.states[place].float().cpu() - mean for one in seen for place in one.places]
    covariance = sum(own.T.double() @ own.double() for own in tokens) / sum(map(len, tokens))
    variances, axes = torch.linalg.eigh(covariance)
    found = {"mean": mean, "between": means.std(dim=0), "within": within.sqrt(), "axes": axes.float()}
    for name, spread in {"scales": variances, "deviation": means.var(dim=0) + within}.items():
        found[name] = spread.clamp(min=SMALLEST * spread.mean().item()).sqrt().float()
    return found


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


def correct(fitted: np.ndarray, fitted_labels: np.ndarray, judged: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether a classifier fitted on states [images, width] and labels is correct about others, bool [images]."""
    classifier = make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"))
    return classifier.fit(fitted, fitted_labels).predict(judged) == labels


def severity_for(lost: Callable[[float], float], wanted: float, steps: int) -> tuple[float, float]:
    """The severity, 0 to 1, that loses `wanted` pp, or 1 where even that loses less; and what severity 1 loses. By
    bisection, as `lost` rises with the severity, and between the last two as if it rose in a line."""
    tried, low, high = {0.0: 0.0, 1.0: lost(1.0)}, 0.0, 1.0
    if tried[1.0] <= wanted:
        return 1.0, tried[1.0]
    for _ in range(steps):
        middle = (low + high) / 2
        tried[middle] = lost(middle)
        low, high = (middle, high) if tried[middle] < wanted else (low, middle)
    return low + (high - low) * (wanted - tried[low]) / (tried[high] - tried[low]), tried[1.0]
