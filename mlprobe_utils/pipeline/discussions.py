"""What the paper's discussions need beyond the pipeline: variants of a model, and its vision tower trained alone.

Made after the pipeline of that model; what is current is skipped. Behind `accelerate-launch -m`, with DDP.
"""

from mlprobe_utils.common.processes import processes
from mlprobe_utils.evaluation.rows import image_rows, write_rows
from mlprobe_utils.pipeline.cards import slugs
from mlprobe_utils.pipeline.model_steps import make_adapters, make_features, make_predictions, make_probes
from mlprobe_utils.pipeline.results import ORDER, VISION_TOWER
from mlprobe_utils.pipeline.variants import TRAINABLE, Discussion, discussed_on, load_discussion, variants
from mlprobe_utils.pipeline.work import Work, shared, works
from mlprobe_utils.training.vision_classifier import classify, tower_end

STEPS = {  # of a variant, by its setting
    VISION_TOWER: (make_adapters, make_predictions),
    ORDER: (make_adapters, make_predictions, make_features, make_probes),
}


def run_discussions(
    model: str, datasets: list[str], protocol: str, split_rule: str, discussions: list[str] | None = None
) -> None:
    """Makes what is not current of some discussions (None: all), of a model on those data sets that they are about.

    Raises InputError for an unknown discussion, a chat template that cannot put the question first, and as `works`.
    """
    cards = [load_discussion(name) for name in discussions or slugs(Discussion)]
    make_discussions(works(model, datasets, protocol, split_rule), cards)


def make_discussions(everything: list[Work], cards: list[Discussion]) -> None:
    """Makes every artefact of some discussions, of a model's works, that is not current."""
    for card in cards:
        about = discussed_on(card, [work.image_set.card.slug for work in everything])
        for work in (work for work in everything if work.image_set.card.slug in about):
            with work.step(card.slug):
                if card.varies == "training":
                    make_classifiers(work)
                for variant in variants(card.varies, work.protocol):
                    own = work.of_variant(variant)
                    for make in STEPS[card.varies]:
                        make(own)


def make_classifiers(work: Work) -> None:
    """Rows and learning curves of the vision tower trained alone: TRAINABLE weights, every run."""
    rates, images, options = work.protocol.vision_training, work.images(), work.options
    shown, batch_size = images[images["split"] != "train"], work.protocol.extraction.batch_size
    for trainable in TRAINABLE:
        changed = {"precision": work.precision, "learning_rate": getattr(rates, f"learning_rate_{trainable}")}
        recipe = work.protocol.fine_tuning.model_copy(update=changed)
        for run in range(rates.runs):
            if (own := work.classifier(trainable, run)).is_current():
                continue
            with shared(own) as temporary:
                given = images, options, list(shown.index), trainable, recipe, run, batch_size, temporary
                probabilities = classify(work.loaded, work.questions, *given)
                if processes().is_main_process:
                    place = {"point": tower_end(work.loaded).name, "pooling": "image_mean", "probe": trainable}
                    rows = image_rows(shown, options, probabilities, **work.constants(run) | place | {"seed": run})
                    write_rows(rows, temporary / "predictions.parquet")
