"""All that a book wants of one model, in one process: the pipeline, the discussions it takes part in, planted faults.

`python -m mlprobe_utils.whole_model MODEL --datasets D ... --protocol P [--discussions C ...] [--planted D ...]`; what
is current is skipped.
"""

from mlprobe_utils.command import command
from mlprobe_utils.discussions import run_discussions
from mlprobe_utils.errors import run_command
from mlprobe_utils.faults.planting import plant, planted_in
from mlprobe_utils.pipeline import run_model


def run_whole_model(
    model: str,
    datasets: list[str],
    protocol: str,
    split: str,
    discussions: list[str] | None = None,
    planted: list[str] | None = None,
) -> None:
    """Makes every artefact of a model that is not there and current.

    Args:
        discussions: slugs of the discussions that it takes part in.
        planted: the phantom sets on which faults are planted in it.

    Raises:
        InputError: as `planted_in`, `pipeline.run_model`, `run_discussions` and `plant`.
    """
    damaged = planted_in(model, planted) if planted else []
    run_model(model, list(dict.fromkeys([*datasets, *(planted or [])])), protocol, split)
    if discussions:
        run_discussions(model, datasets, protocol, split, discussions)
    if damaged:
        plant(damaged, planted, protocol, split)


if __name__ == "__main__":
    lists = {
        "discussions": "slugs of cards in data/discussions that the model takes part in",
        "planted": "slugs of phantom sets on which faults are planted in it",
    }
    run_command(lambda: command("mlprobe_utils.whole_model", __doc__, run_whole_model, lists=lists))
