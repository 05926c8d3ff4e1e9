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
from mlprobe_utils.models.encoding import Encoder, Questions, append_answers
from mlprobe_utils.models.loading import LoadedModel, to_device
from mlprobe_utils.pipeline.artefacts import read_rows
from mlprobe_utils.pipeline.cards import DataCard
from mlprobe_utils.pipeline.fault_card import Fault
from mlprobe_utils.pipeline.results import DAMAGED_RUN, HITS, STATISTICS, STRENGTHS
from mlprobe_utils.pipeline.work import Work
from mlprobe_utils.probing.extraction import load_tensors, save_whole
from mlprobe_utils.synthetic.faults.damage import WITH_TEXT, Damage, branches, damaged, module_at, planted, prints
from mlprobe_utils.synthetic.phantoms.making import JPEG_QUALITY, drawn, read_recipe

PARTS = ("fitting", "choosing", "measuring")  # of the phantoms: discriminants, severities, and what these cost
MOST_CHOOSING = 400  # images to fit and to choose on: more change the severity by less than the measured interval
MOST_ANSWERED = 256  # of them, to choose on by answers
STEPS, STEPS_ANSWERED = 8, 4  # of the bisection
SMALLEST = 1e-3  # of the mean variance of directions: what is less is not told from it


class Seen(NamedTuple):
    """The intact states of a batch at some point, and what a damage of them depends on."""

    states: torch.Tensor
    places: Sequence  # of each image's tokens in them
    prints: list[bytes]
    pool: Callable[[torch.Tensor], torch.Tensor]  # to the means of images' tokens

    def means(self, damage: Damage) -> np.ndarray:
        numbers = damage.numbers(self.prints)
        states = damage.of_states(self.states, self.places, numbers) if damage.severity else self.states
        return self.pool(states).cpu().numpy()


def make_calibration(work: Work, trial: bool = False) -> None:
    """Finds how severe the book's faults have to be, or those drawn for the trial, where that is not current. Raises
    InputError for one that has no place in the model."""
    own = work.calibration(trial)

    def fill(folder: Path) -> None:
        with work.state(DAMAGED_RUN):
            _calibrate(work, work.strengths(trial), own.inputs["recipe"]["images"], folder)

    if processes().is_main_process:
        own.make(fill)
    processes().wait_for_everyone()


@torch.inference_mode()
def _calibrate(work: Work, wanted: Sequence[tuple[Fault, float]], count: int, folder: Path) -> None:
    """Writes STRENGTHS, a row a fault and strength: fault, wanted (pp to be lost), kind, module, destroys, seed, point,
    severity (at most 1), reached (whether as much is lost, on the images it is chosen on); HITS, of each a row a
    measuring image: whether oracle (null of the semantic mapping, where no state changes) and answer are correct
    without and with the damage (`oracle_intact` and so on); and STATISTICS, `states/name`."""
    loaded, card, size = work.loaded, work.image_set.card, work.protocol.extraction.batch_size
    classes, test = [known.name for known in card.classes], work.images("test")["label"].to_numpy()
    labels, batches = {}, {}
    for number, part in enumerate(PARTS):
        many = count if part == "measuring" else min(MOST_CHOOSING, count)
        names = np.random.default_rng(number).choice(test, many)  # in proportion as the test set has them
        questions = Questions(work.encoder, fresh_images(card, work.protocol.images, names, number).__getitem__)
        batches[part] = [partial(questions.batch, own) for own in batched(range(many), size)]
        labels[part] = np.array([classes.index(name) for name in names])
    few = batches["choosing"][: -(-MOST_ANSWERED // size)]
    damages = {fault.slug: planted(fault, loaded.family) for fault, _ in wanted}
    points = sorted({damage.place for damage in damages.values()})
    seen = {part: captured(loaded, batches[part], points) for part in PARTS[:2]}
    statistics = {name: statistics_of(seen["fitting"][name]) for name in {one.known_by for one in damages.values()}}
    observe = partial(observed, loaded, work.encoder, card.options)

    def means(damage: Damage, part: str) -> np.ndarray:
        if damage.severity and (damage.of_text or damage.kind == "heads"):  # more than the image's tokens there
            return observe(batches[part], damage, [damage.place])[1][damage.place]
        return np.concatenate([one.means(damage) for one in seen[part][damage.place]])

    def read(damage: Damage, part: str, judged: np.ndarray) -> np.ndarray:
        """Whether the oracle is correct about images of a part, bool [images]."""
        return correct(means(damage, "fitting"), labels["fitting"], judged, labels[part])

    intact, intact_means = observe(batches["measuring"], None, points)
    intact_few = observe(few, None)[0]
    rows, judged = [], []
    for fault, points_lost in wanted:
        damage = replace(damages[fault.slug], statistics=statistics[damages[fault.slug].known_by])
        by_oracle = fault.destroys and fault.module != ANSWER

        def share(severity: float, damage=damage, by_oracle=by_oracle) -> float:
            own = damage.at(severity)
            if by_oracle:
                return read(own, "choosing", means(own, "choosing")).mean()
            answers = observe(few, own)[0] if severity else intact_few
            return (answers == labels["choosing"][: len(answers)]).mean()

        of = {"fault": fault.slug, "wanted": points_lost}
        whole, steps = share(0.0), STEPS if by_oracle else STEPS_ANSWERED
        lost = lambda severity, share=share, whole=whole: 100 * (whole - share(severity))  # noqa: E731
        severity, most = severity_for(lost, points_lost, steps)
        broken = damage.at(severity)
        after, after_means = observe(batches["measuring"], broken, [damage.place])
        hits = {"answer_intact": intact == labels["measuring"], "answer_damaged": after == labels["measuring"]}
        if damage.point:
            hits["oracle_intact"] = read(damage.at(0.0), "measuring", intact_means[damage.point])
            hits["oracle_damaged"] = read(broken, "measuring", after_means[damage.point])
        judged.append(pd.DataFrame(hits | of).astype({name: "boolean" for name in hits}))
        of_fault = {"kind": fault.kind, "module": fault.module, "destroys": fault.destroys, "seed": fault.seed}
        rows.append(of | of_fault | {"point": damage.place, "severity": severity, "reached": most >= points_lost})
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


def fresh_images(card: DataCard, settings: Images, labels: Iterable[str], part: int) -> list[np.ndarray]:
    """Working copies, uint8 [height, width, 3], of phantoms of these classes: in no set, training or other part."""
    recipe, images = read_recipe(card), []
    kind = "JPEG" if card.layout == "chest-xray" else "PNG"  # as a file of the set gives it back: JPEG loses a little
    for number, label in enumerate(labels):
        pixels, _ = drawn(card, recipe, "oracle", label, part, number)
        Image.fromarray(pixels).save(file := io.BytesIO(), kind, quality=JPEG_QUALITY)
        images.append(np.array(working_copy(Image.open(file).convert("RGB"), settings)))
    return images


def captured(loaded: LoadedModel, batches: Sequence[Callable[[], dict]], points: Iterable[str]) -> dict[str, list]:
    """What a pass of the intact model shows at some points, one of which may be ANSWER: what the LM head reads; of LLM
    layers also WITH_TEXT. Returns name -> Seen of each batch. All of it is kept, in the model's precision."""
    found, family = {}, loaded.family
    for batch in batches:
        inputs = to_device(batch(), loaded)
        marks, rows = prints(family, inputs), [*enumerate(mask.nonzero()[:, 0] for mask in inputs["attention_mask"])]
        places = {"V": family.vision_places(inputs), "C": family.connector_places(inputs)}
        places |= {"L": family.text_places(inputs), ANSWER: [*range(len(rows))]}
        pools = family.poolers(inputs) | {f"{ANSWER}/image_mean": lambda states: states.mean(dim=1).float()}
        of_text = lambda states, rows=rows: torch.stack([states[row].float().mean(dim=0) for row in rows])  # noqa: E731

        def keep(point: str, module, arguments, output, known=(marks, places, pools, rows, of_text)) -> None:
            marks, places, pools, rows, of_text = known
            states = arguments[0] if point == ANSWER else output[0] if isinstance(output, tuple) else output
            of = ANSWER if point == ANSWER else point[0]
            found.setdefault(point, []).append(Seen(states, places[of], marks, pools[f"{of}/image_mean"]))
            if of == "L":
                found.setdefault(point + WITH_TEXT, []).append(Seen(states, rows, marks, of_text))

        with ExitStack() as stack:
            for point in points:
                stack.callback(module_at(loaded, point).register_forward_hook(partial(keep, point)).remove)
            loaded.model(**inputs, logits_to_keep=1, use_cache=False)
    return found


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


def observed(
    loaded: LoadedModel,
    encoder: Encoder,
    options: list[str],
    batches: Sequence[Callable[[], dict]],
    damage: Damage | None,
    points: Iterable[str] = (),
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What the damaged model answers about images, int [images], and the means of their tokens at some points, float32
    [images, width], without ANSWER."""
    tokens, answers, means = encoder.answer_tokens(options), [], {point: [] for point in points if point != ANSWER}
    for batch in batches:
        questions, seen = batch(), {}

        def keep(point: str, module, arguments, output, seen=seen, length=questions["input_ids"].shape[1]) -> None:
            states = output[0] if isinstance(output, tuple) else output
            seen.setdefault(point, states[:, :length] if point[0] == "L" else states)  # not the option's beginning

        with damaged(loaded, damage, branches(tokens)), ExitStack() as stack:
            for point in means:
                stack.callback(module_at(loaded, point).register_forward_hook(partial(keep, point)).remove)
            answers.append(chosen(loaded, questions, tokens, encoder.tokenizer.pad_token_id))
        poolers = loaded.family.poolers(to_device(questions, loaded))
        for point, own in means.items():
            own.append(poolers[f"{point[0]}/image_mean"](seen[point]).cpu())
    return torch.cat(answers).numpy(), {point: torch.cat(own).numpy() for point, own in means.items()}


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
    discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    classifier = make_pipeline(StandardScaler(), discriminant)
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
