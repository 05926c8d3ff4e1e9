"""A model on a data set under a protocol: its artefacts, and all that each is made from. No model is loaded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from mlprobe_utils.common.files import hash_of, known_hash
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.names import CONTROL_RUN
from mlprobe_utils.evaluation.points import ANSWER
from mlprobe_utils.evaluation.rows import MAIN_PROBE
from mlprobe_utils.models.identity import identity_of, loading_fields, shape_of
from mlprobe_utils.models.settings import RANDOM_SEED
from mlprobe_utils.pipeline import artefacts, results
from mlprobe_utils.pipeline.artefacts import Artefact
from mlprobe_utils.pipeline.cards import ModelCard, Protocol, load_model_card, load_protocol, recorded
from mlprobe_utils.pipeline.configuration import load_book
from mlprobe_utils.pipeline.fault_card import FOLDER, DamagedModel, damaged_models, load_trial, strengths
from mlprobe_utils.pipeline.images import load_image_set
from mlprobe_utils.pipeline.results import DAMAGED_RUN, Variant, state_name, states_of
from mlprobe_utils.pipeline.variants import STATES, TRAINABLE, Discussion, classifier_name, variants
from mlprobe_utils.probing.settings import Probe
from mlprobe_utils.training.settings import Answering

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
        return self.card.precision or self.protocol.fine_tuning.precision

    @property
    def healthy(self) -> Self:
        return replace(self, folder=self.folder.parents[1], planted=None) if self.planted else self

    @property
    def answering(self) -> Answering:
        """The protocol's, with the model's own limit of tokens where its card has one."""
        limit = {"max_new_tokens": self.card.max_new_tokens} if self.card.max_new_tokens else {}
        return self.protocol.answering.model_copy(update=limit)

    def runs(self) -> range:
        return range(self.protocol.fine_tuning.runs)

    def states(self) -> list[int | None]:
        return states_of(self.protocol, self.variant, bool(self.planted))

    def of_variant(self, variant: Variant) -> Self:
        folder = self.folder / variant.setting / variant.value
        return replace(self, protocol=variant.changed(self.protocol), folder=folder, variant=variant)

    def recipes(self) -> dict[str, Probe]:
        """The probe recipes: the main one alone where a state of SEEDED is missing."""
        return self.protocol.probes if set(SEEDED) <= set(self.states()) else {MAIN_PROBE: self.protocol.probe}

    def adapter(self, run: int) -> Artefact:
        recipe = recorded(self.protocol.fine_tuning, CHANGES_NOTHING)
        return self._made(f"adapter-{run}", "adapter", run, recipe=recipe)

    def predictions(self, run: int | None) -> Artefact:
        recipe = {"max_new_tokens": self.answering.max_new_tokens}  # a batch's size changes nothing
        recipe |= {"synonyms": synonyms} if (synonyms := self.image_set.card.synonyms) else {}
        return self._made(state_name("predictions", run), "predictions", run, self._weights(run), recipe=recipe)

    def prompts(self) -> Artefact:
        """Answers to the question in every wording, by the fine-tuned run that controls are of."""
        own = self.predictions(CONTROL_RUN)
        recipe = own.inputs["recipe"] | {"prompts": self.image_set.card.other_prompts}
        return self._made(results.PROMPTS, "prompts", CONTROL_RUN, (*own.upstream, own), recipe=recipe)

    def features(self, run: int | None) -> Artefact:
        unchanged = self.planted and self.planted.fault.module == ANSWER  # which changes no state
        upstream = (self.healthy.features(run),) if unchanged else self._weights(run)
        return self._made(state_name("features", run), "features", run, upstream)

    def random_features(self) -> Artefact:
        """Of the model with random weights: of all models of its shape."""
        found = self._made(results.RANDOM_FEATURES, "random features", recipe={"seed": RANDOM_SEED})
        inputs = found.inputs | {"model": shape_of(self.card)}
        name = f"{results.RANDOM_FEATURES}-{hash_of([inputs['model'], inputs['reading']])[:12]}"
        return replace(found, folder=self.folder.parent / name, inputs=inputs)

    def lens(self) -> Artefact:
        return self._made(results.LENS, "logit lens", upstream=map(self.features, self.states()))

    def probes(self) -> Artefact:
        probes = {name: recorded(probe) for name, probe in self.recipes().items()}
        recipe = {"probes": probes, "seeds": self.protocol.probe_seeds}
        return self._made("probes", "probes", upstream=map(self.features, self.states()), recipe=recipe)

    def transfer(self) -> Artefact:
        recipe = {"probe": recorded(self.protocol.probe)}
        return self._made(results.TRANSFER, "layer transfer", upstream=map(self.features, SEEDED), recipe=recipe)

    def controls(self) -> Artefact:
        upstream = (self.features(CONTROL_RUN), self.random_features(), self.image_controls())
        return self._made(results.CONTROLS, "controls", upstream=upstream, recipe=self._probe_and_answer())

    def image_controls(self) -> Artefact:
        """What needs no model: of all models on the data set."""
        folder = self.folder.parents[1] / f"{results.CONTROLS}-{self.split_rule}"
        return Artefact(folder, "image controls", {"data": self.image_set.data_hash, "split_rule": self.split_rule})

    def fresh(self) -> Artefact:
        """Phantoms that nothing else is made from, as many of each class as are tested: of all models."""
        inputs = {"data": self.image_set.data_hash, "split_rule": self.split_rule}
        inputs |= {"recipe": self.image_set.card.recipe, "number": load_book().replication}
        return Artefact(self.folder.parents[1] / f"{results.FRESH}-{self.split_rule}", "fresh phantoms", inputs)

    def replication(self) -> Artefact:
        """What is predicted for the fresh phantoms in the states of SEEDED."""
        runs = [run for run in SEEDED if run in self.states()]
        upstream = [self.healthy.fresh(), *map(self.features, runs), *map(self.predictions, runs)]
        recipe = {"seeds": self.protocol.probe_seeds} | self._probe_and_answer()
        return self._made(results.REPLICATION, "replication", upstream=upstream, recipe=recipe)

    def classifier(self, trainable: str, run: int) -> Artefact:
        rate = getattr(self.protocol.vision_training, f"learning_rate_{trainable}")
        recipe = recorded(self.protocol.fine_tuning, CHANGES_NOTHING) | {"learning_rate": rate, "way": trainable}
        return self._made(classifier_name(trainable, run), "vision tower alone", run, recipe=recipe)

    def calibration(self, trial: bool = False) -> Artefact:
        """How severe each fault has to be at its strengths."""
        wanted = strengths(self.card.slug, self.image_set.card.slug, trial)
        planted = [[recorded(fault, {"name"}), points] for fault, points in wanted]
        recipe = {"planted": planted, "images": load_trial().images, "phantom": self.image_set.card.recipe}
        name = results.DRAWN if trial else results.CALIBRATION
        return self._made(name, "calibration", DAMAGED_RUN, (self.adapter(DAMAGED_RUN),), recipe=recipe)

    def trial(self, damaged: bool) -> Artefact:
        upstream = [make(run) for make in (self.features, self.predictions) for run in self.runs()]
        upstream += [self.calibration(trial=True)] if damaged else []
        recipe = {"seeds": self.protocol.probe_seeds, "damaged": damaged}
        return self._made(FOLDER, "trial", upstream=upstream, recipe=recipe | self._probe_and_answer())

    def interventions(self) -> Artefact:
        """What the model makes of pairs of images while its states are edited."""
        upstream = (*self._weights(DAMAGED_RUN), self.features(DAMAGED_RUN))
        return self._made(results.INTERVENTIONS, "interventions", DAMAGED_RUN, upstream, recipe=self._edited())

    def drawn_interventions(self, damaged: bool) -> Artefact:
        """The same of the laboratory's cases."""
        upstream = [*map(self.adapter, self.runs()), *([self.calibration(trial=True)] if damaged else [])]
        return self._made(results.INTERVENTIONS_DRAWN, "interventions", upstream=upstream, recipe=self._edited())

    def _edited(self) -> dict:
        return recorded(self.protocol.interventions) | {"phantom": self.image_set.card.recipe}

    def damaged(self) -> list[Self]:
        faults = self.folder / results.FAULTS
        return [replace(self, folder=faults / one.folder, planted=one) for one in damaged_models([self.card.slug])]

    def of_pipeline(self) -> Iterator[Artefact]:
        """What is made of every model, upstream first."""
        yield from (self.random_features(), self.image_controls(), *map(self.adapter, self.runs()))
        yield from (*map(self.predictions, self.states()), *map(self.features, self.states()))
        yield from (self.prompts(), self.lens(), self.probes(), self.transfer(), self.controls())
        yield from (self.fresh(), self.replication()) if self.image_set.card.synthetic else ()

    def of_discussion(self, discussion: Discussion) -> Iterator[Artefact]:
        """What a discussion needs beyond that, on a data set that it is about."""
        if discussion.varies == "training":
            runs = range(self.protocol.vision_training.runs)
            yield from (self.classifier(trainable, run) for trainable in TRAINABLE for run in runs)
        if discussion.varies == STATES:
            yield self.interventions()
        for one in (self.of_variant(own) for own in variants(discussion.varies, self.protocol)):
            yield from (*map(one.adapter, one.runs()), *map(one.predictions, one.states()))
            if one.variant.setting == results.ORDER:
                yield from (*map(one.features, one.states()), one.probes())

    def of_faults(self) -> Iterator[Artefact]:
        """The calibration of the faults, and what is made of the book's damaged models."""
        yield self.calibration()
        for one in self.damaged():
            yield from (one.predictions(DAMAGED_RUN), one.features(DAMAGED_RUN), one.probes())
            yield from [one.replication()] if one.planted.is_strongest else []
            yield from [one.interventions()] if one.planted.is_edited else []

    def of_trial(self, damaged: bool) -> Iterator[Artefact]:
        yield from (self.image_controls(), *map(self.adapter, self.runs()))
        yield from (*map(self.predictions, self.states()), *map(self.features, self.states()))
        yield from (*([self.calibration(trial=True)] if damaged else []), self.trial(damaged))
        yield self.drawn_interventions(damaged)

    def _probe_and_answer(self) -> dict:
        return {"probe": recorded(self.protocol.probe), "max_new_tokens": self.answering.max_new_tokens}

    def _weights(self, run: int | None) -> tuple[Artefact, ...]:
        """What the weights of a state are made from, beside the checkpoint."""
        if self.planted:
            return (self.healthy.calibration(),)
        return () if run is None else (self.adapter(run),)

    def _made(
        self, name: str, stage: str, run: int | None = None, upstream: Iterable[Artefact] = (), **inputs
    ) -> Artefact:
        common = {"run": run, "model": self.identity, "data": self.image_set.data_hash, "order": self.protocol.order}
        common |= {"split_rule": self.split_rule, "reading": loading_fields(self.card) | {"precision": self.precision}}
        if self.planted:
            fault = recorded(self.planted.fault, {"name"})
            common["fault"] = {"card": fault, "points_lost": self.planted.points_lost}
        return Artefact(self.folder / name, stage, common | inputs, tuple(upstream))


def places(model: str, datasets: list[str], protocol_slug: str, split_rule: str) -> Iterator[Place]:
    """A model on each data set. Raises InputError for an unknown slug, a missing manifest, missing weights."""
    card, protocol = load_model_card(model), load_protocol(protocol_slug)
    selection = results.Selection((model,), tuple(datasets), protocol_slug, split_rule)
    identity = identity_of(card, partial(known_hash, artefacts.OUTPUTS / ".hashes.json"))
    for dataset in datasets:
        folder = selection.folder(model, dataset)
        yield Place(card, protocol, split_rule, load_image_set(dataset, protocol_slug), folder, identity)
