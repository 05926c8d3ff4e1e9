"""A model on a data set under a protocol: which artefacts there are, and everything that each of them is made from.

This is read by what makes them, by `make book`, which asks what is not current, and by chapters. No model is loaded.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from mlprobe_utils.common.files import KnownHashes
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.control_names import CONTROL_RUN
from mlprobe_utils.evaluation.points import ANSWER
from mlprobe_utils.evaluation.rows import MAIN_PROBE
from mlprobe_utils.models.identity import identity_of, reading_of, shape_of
from mlprobe_utils.models.settings import RANDOM_SEED
from mlprobe_utils.pipeline import artefacts
from mlprobe_utils.pipeline.artefacts import Artefact
from mlprobe_utils.pipeline.book_card import load_book
from mlprobe_utils.pipeline.cards import ModelCard, Protocol, load_model_card, load_protocol, recorded
from mlprobe_utils.pipeline.damaged_models import DamagedModel, damaged_models
from mlprobe_utils.pipeline.discussion_card import Discussion
from mlprobe_utils.pipeline.fault_card import FOLDER, Fault, Trial, all_faults, load_trial
from mlprobe_utils.pipeline.images import load_image_set
from mlprobe_utils.pipeline.results import (
    CALIBRATION,
    CONTROLS,
    DAMAGED_RUN,
    FAULTS,
    LENS,
    ORDER,
    RANDOM_FEATURES,
    TRANSFER,
    Selection,
    image_controls,
    state_name,
)
from mlprobe_utils.pipeline.variants import WAYS, Variant, classifier_name, variants
from mlprobe_utils.probing.settings import Probe

SEEDED = (None, CONTROL_RUN)  # the states whose probes are fitted with many seeds, and with every recipe
CHANGES_NOTHING = {"runs", "precision", "gradient_checkpointing"}  # of fine-tuning: not in the weights of one run


@dataclass
class Place:
    """One model on one data set, or a variant of it, or the model with a fault planted in it."""

    card: ModelCard
    protocol: Protocol
    split_rule: str
    image_set: ImageSet
    folder: Path
    identity: str
    variant: Variant | None = None
    planted: DamagedModel | None = None

    @property
    def precision(self) -> str:
        """Of the model's weights, in every stage."""
        return self.card.precision or self.protocol.fine_tuning.precision

    @property
    def healthy(self) -> Self:
        """The model without a planted fault."""
        return replace(self, folder=self.folder.parents[1], planted=None) if self.planted else self

    def runs(self) -> range:
        return range(self.protocol.fine_tuning.runs)

    def states(self) -> list[int | None]:
        """None for the pretrained model, then the runs."""
        if self.planted:
            return [DAMAGED_RUN]
        return self.variant.states(self.protocol) if self.variant else [None, *self.runs()]

    def of_variant(self, variant: Variant) -> Self:
        """The same with one setting of the protocol changed."""
        return replace(
            self, protocol=variant.changed(self.protocol), folder=variant.folder(self.folder), variant=variant
        )

    def recipes(self) -> dict[str, Probe]:
        """The recipes that probes are fitted with: the main one alone where a state of SEEDED is missing."""
        return self.protocol.probes if set(SEEDED) <= set(self.states()) else {MAIN_PROBE: self.protocol.probe}

    def adapter_folder(self, run: int | None) -> Path | None:
        return None if run is None else self.healthy.folder / f"adapter-{run}"

    def adapter(self, run: int) -> Artefact:
        recipe = recorded(self.protocol.fine_tuning, CHANGES_NOTHING)
        return replace(self._made("adapter", "adapter", run, recipe=recipe), folder=self.adapter_folder(run))

    def predictions(self, run: int | None) -> Artefact:
        recipe = {"max_new_tokens": self.protocol.answering.max_new_tokens}  # a batch's size changes nothing
        return self._made(state_name("predictions", run), "predictions", run, self._weights(run), recipe=recipe)

    def features(self, run: int | None) -> Artefact:
        unchanged = self.planted and self.planted.fault.module == ANSWER  # which changes no state
        upstream = (self.healthy.features(run),) if unchanged else self._weights(run)
        return self._made(state_name("features", run), "features", run, upstream)

    def random_features(self) -> Artefact:
        """Features of the model with random weights, which are those of every model of its shape."""
        found = self._made(RANDOM_FEATURES, "random features", recipe={"seed": RANDOM_SEED})
        return replace(found, inputs=found.inputs | {"model": shape_of(self.card)})

    def lens(self) -> Artefact:
        return self._made(LENS, "logit lens", upstream=tuple(map(self.features, self.states())))

    def probes(self) -> Artefact:
        recipe = {"probes": {name: recorded(probe) for name, probe in self.recipes().items()}}
        recipe["seeds"] = self.protocol.probe_seeds
        return self._made("probes", "probes", upstream=tuple(map(self.features, self.states())), recipe=recipe)

    def transfer(self) -> Artefact:
        recipe = {"probe": recorded(self.protocol.probe)}
        return self._made(TRANSFER, "layer transfer", upstream=tuple(map(self.features, SEEDED)), recipe=recipe)

    def controls(self) -> Artefact:
        upstream = (self.features(CONTROL_RUN), self.random_features(), self.image_controls())
        recipe = {"probe": recorded(self.protocol.probe), "max_new_tokens": self.protocol.answering.max_new_tokens}
        return self._made(CONTROLS, "controls", upstream=upstream, recipe=recipe)

    def image_controls(self) -> Artefact:
        """What needs no model: of all models on the data set."""
        folder = image_controls(self.folder.parents[1], self.split_rule)
        return Artefact(folder, "image controls", {"data": self.image_set.data_hash, "split_rule": self.split_rule})

    def classifier(self, way: str, run: int) -> Artefact:
        """The vision tower trained alone, in one of WAYS."""
        rate = getattr(self.protocol.vision_training, f"learning_rate_{way}")
        recipe = recorded(self.protocol.fine_tuning, CHANGES_NOTHING) | {"learning_rate": rate, "way": way}
        return self._made(classifier_name(way, run), "vision tower alone", run, recipe=recipe)

    def calibration(self) -> Artefact:
        """How severe each fault has to be at every strength of trial and book."""
        trial = load_trial()
        strengths = sorted({*trial.points_lost, *load_book().planted_faults.strengths.values()})
        recipe = {"faults": _recorded(all_faults()), "points_lost": strengths, "images": trial.images}
        recipe["phantom"] = self.image_set.card.recipe
        return self._made(CALIBRATION, "calibration", DAMAGED_RUN, (self.adapter(DAMAGED_RUN),), recipe=recipe)

    def trial(self, trial: Trial, faults: list[Fault]) -> Artefact:
        """The laboratory's cases."""
        upstream = [make(run) for make in (self.features, self.predictions) for run in self.runs()]
        upstream += [self.calibration()] if faults else []
        recipe = {"faults": _recorded(faults), "points_lost": trial.points_lost}
        recipe |= {"probe": recorded(self.protocol.probe), "seeds": self.protocol.probe_seeds}
        recipe["max_new_tokens"] = self.protocol.answering.max_new_tokens
        return self._made(FOLDER, "trial", upstream=tuple(upstream), recipe=recipe)

    def damaged(self) -> list[Self]:
        """The model with each of the book's faults planted in it."""
        planted = damaged_models([self.card.slug])
        return [replace(self, folder=self.folder / FAULTS / one.folder, planted=one) for one in planted]

    def of_pipeline(self) -> Iterator[Artefact]:
        """What is made of every model, upstream first."""
        yield from (self.random_features(), self.image_controls(), *map(self.adapter, self.runs()))
        yield from (*map(self.predictions, self.states()), *map(self.features, self.states()))
        yield from (self.lens(), self.probes(), self.transfer(), self.controls())

    def of_discussion(self, discussion: Discussion) -> Iterator[Artefact]:
        """What a discussion needs beyond that, on a data set that it is about."""
        if discussion.varies == "training":
            runs = range(self.protocol.vision_training.runs)
            yield from (self.classifier(way, run) for way in WAYS for run in runs)
            return
        for one in (self.of_variant(own) for own in variants(discussion.varies, self.protocol)):
            yield from (*map(one.adapter, one.runs()), *map(one.predictions, one.states()))
            if one.variant.setting == ORDER:
                yield from (*map(one.features, one.states()), one.probes())

    def of_faults(self) -> Iterator[Artefact]:
        """The calibration of all faults, and what is made of the book's damaged models."""
        yield self.calibration()
        for one in self.damaged():
            yield from (one.predictions(DAMAGED_RUN), one.features(DAMAGED_RUN), one.probes())

    def _weights(self, run: int | None) -> tuple[Artefact, ...]:
        """What, beside the checkpoint, the weights of a state follow from."""
        if self.planted:
            return (self.healthy.calibration(),)
        return () if run is None else (self.adapter(run),)

    def _made(
        self, name: str, stage: str, run: int | None = None, upstream: tuple[Artefact, ...] = (), **inputs
    ) -> Artefact:
        common = {
            "run": run,
            "model": self.identity,
            "reading": reading_of(self.card) | {"precision": self.precision},
            "data": self.image_set.data_hash,
            "split_rule": self.split_rule,
            "order": self.protocol.order,
        }
        if self.planted:
            (card,) = _recorded([self.planted.fault])
            common["fault"] = {"card": card, "points_lost": self.planted.points_lost}
        return Artefact(self.folder / name, stage, common | inputs, upstream)


def _recorded(faults: list[Fault]) -> list[dict]:
    """What of faults' cards decides what is damaged."""
    return [recorded(fault, {"name"}) for fault in faults]


def places(model: str, datasets: list[str], protocol_slug: str, split_rule: str) -> Iterator[Place]:
    """A model on each of some data sets.

    Raises InputError for an unknown slug, and where a manifest or the model's weights are not there.
    """
    card, protocol = load_model_card(model), load_protocol(protocol_slug)
    selection = Selection((model,), tuple(datasets), protocol_slug, split_rule)
    identity = identity_of(card, KnownHashes(artefacts.OUTPUTS / ".hashes.json"))
    for dataset in datasets:
        image_set = load_image_set(dataset, protocol_slug)
        yield Place(card, protocol, split_rule, image_set, selection.folder(model, dataset), identity)
