"""All that a book wants of one model, in one process: the pipeline, the discussions it takes part in, planted faults.

What is current is skipped.
"""

from mlprobe_utils.pipeline.discussion_card import load_discussion
from mlprobe_utils.pipeline.discussions import make_discussions
from mlprobe_utils.pipeline.model_steps import make_model
from mlprobe_utils.pipeline.work import works
from mlprobe_utils.synthetic.faults.planting import check_plantable, plant


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
        InputError: as `check_plantable`, `load_discussion`, `run_model`, `run_discussions` and `plant`.
    """
    planted = planted or []
    if planted:
        check_plantable(model, planted)
    cards = [load_discussion(name) for name in discussions or []]
    everything = works(model, list(dict.fromkeys([*datasets, *planted])), protocol, split)
    make_model(everything)
    make_discussions([work for work in everything if work.image_set.card.slug in datasets], cards)
    plant([work for work in everything if work.image_set.card.slug in planted])
