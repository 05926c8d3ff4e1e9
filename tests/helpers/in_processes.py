"""The pipeline of a tiny model as one of several processes, which test_processes forks or `accelerate-launch` starts.

`in_processes.py FOLDER CHECKPOINT [KILL_AT]` leaves results in FOLDER; the second process dies at the KILL_ATth example
that it reads while it trains.
"""

import json
import os
import sys
from pathlib import Path

import mlprobe_utils.models.compat

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from tiny_parts import RECIPE, make_image_set

from mlprobe_utils.common.files import atomic_write
from mlprobe_utils.common.processes import processes, sharded
from mlprobe_utils.pipeline import artefacts, places
from mlprobe_utils.pipeline import model_steps as pipeline
from mlprobe_utils.pipeline.cards import ModelCard, load_protocol
from mlprobe_utils.pipeline.variants import load_discussion
from mlprobe_utils.pipeline.work import works
from mlprobe_utils.training.trainer import AnswerTrainer, Examples

PROTOCOL = load_protocol("miniature").model_copy(
    update={"fine_tuning": RECIPE.model_copy(update={"epochs": 3, "length_grouped": True}), "probe_variants": {}}
)


def run(folder: Path, checkpoint: str) -> None:
    """Nine images train in batches of four, three validate and six are tested: two processes share none evenly."""
    images = folder / f"images-{processes().process_index}"
    images.mkdir(parents=True, exist_ok=True)
    image_set = make_image_set(images, count=18, validation=3, test=6)
    artefacts.OUTPUTS = folder / "outputs"
    places.load_model_card = lambda slug: ModelCard(slug="tiny", name="tiny", source=checkpoint)
    places.load_protocol = lambda slug: PROTOCOL
    places.load_image_set = lambda slug, protocol: image_set
    everything = works("tiny", ["busi"], "miniature", "paper")
    pipeline.make_model(everything)
    if not sharded():
        pipeline.make_discussions(everything, [load_discussion("training-paradigms")])


def die_at(example: int) -> None:
    """Lets the second process die when it reads example number `example` of its training, as if it were killed."""
    train, whole, read = pipeline.train_adapter, Examples.__getitem__, []

    def item(self, i):
        read.append(i)
        if processes().process_index == 1 and len(read) == example:
            os._exit(9)
        return whole(self, i)

    def train_adapter(*arguments) -> None:
        Examples.__getitem__ = item
        train(*arguments)

    pipeline.train_adapter = train_adapter


def main(folder: Path, checkpoint: str, kill_at: int = 0) -> None:
    """Notes of the trained model what its weights were: whole tensors, or shards of them."""
    whole, create = AnswerTrainer.evaluate, AnswerTrainer.create_accelerator_and_postprocess

    def evaluate(self, *arguments, **named):
        kinds = sorted({type(parameter.data).__name__ for parameter in self.model.parameters()})
        seen = {"weights": kinds, "processes": processes().num_processes, "device": str(self.accelerator.device)}
        atomic_write(folder / f"training-{processes().process_index}.json", json.dumps(seen))
        return whole(self, *arguments, **named)

    def create_accelerator_and_postprocess(self):
        # on CPUs accelerate passes over the request for FSDP in silence and runs DDP
        if sharded() and processes().distributed_type == DistributedType.MULTI_CPU:
            Accelerator(cpu=True).state.fsdp_plugin = FullyShardedDataParallelPlugin()
            processes().distributed_type = DistributedType.FSDP
        create(self)

    torch.set_num_threads(1)
    AnswerTrainer.evaluate = evaluate
    AnswerTrainer.create_accelerator_and_postprocess = create_accelerator_and_postprocess
    if kill_at:
        die_at(kill_at)
    run(folder, checkpoint)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
