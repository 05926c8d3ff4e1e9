"""In which model and on which images faults are planted: one of a run's models, and a phantom set. No torch.

Strength is measured on thousands of fresh images from the distribution that the model was fine-tuned on, and such can
be drawn for phantoms only. For real images the phantom set of the same layout stands in: the model is fine-tuned on it
as on the real one, so that image set and oracle are of one distribution.
"""

from mlprobe_utils.cards import DataCard, ModelCard, load_data_card, load_model_card, slugs
from mlprobe_utils.errors import InputError
from mlprobe_utils.results import Selection


def laboratory(selection: Selection) -> Selection:
    """The model with the most training stages (of several the first) on the first phantom set.

    What was never learned cannot be damaged.

    Raises:
        InputError: there are real sets only, and no phantom set has the layout of the first.
    """
    model = max(selection.models, key=lambda slug: len(stages_of(load_model_card(slug))))
    cards = sorted(map(load_data_card, selection.datasets), key=lambda card: not card.synthetic)
    return Selection((model,), (phantom_twin(cards[0]).slug,), selection.protocol, selection.split)


def stages_of(card: ModelCard) -> list:
    """The training stages of a card; a miniature's recipe names its own."""
    return card.recipe.get("stages", []) if card.recipe else card.training_stages or []


def phantom_twin(card: DataCard) -> DataCard:
    """The phantom set that stands in for a real one, by its layout; a phantom set stands for itself.

    Raises:
        InputError: no phantom set has this layout.
    """
    for twin in [card, *map(load_data_card, slugs(DataCard))]:
        if twin.synthetic and twin.layout == card.layout:
            return twin
    raise InputError(
        f"data set '{card.slug}': no phantom set has its layout ({card.layout}), and faults are measured on fresh "
        "phantoms: give data/datasets/ a card that is made by mlprobe_utils.phantoms"
    )


def check_drawable(card: DataCard) -> None:
    """Raises InputError for a set of real images, which names its phantom twin."""
    if not card.synthetic:
        raise InputError(
            f"data set '{card.slug}' holds real images, of which no fresh ones can be drawn to measure a fault on: "
            f"give '{phantom_twin(card).slug}', on which the model is then fine-tuned"
        )
