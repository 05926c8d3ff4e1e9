"""Fresh phantoms: drawn as those of a set, but in no set and in no training."""

import io

import numpy as np
from PIL import Image

from mlprobe_utils.datasets.decoding import working_copy
from mlprobe_utils.datasets.settings import Images as WorkingCopies
from mlprobe_utils.pipeline.cards import DataCard
from mlprobe_utils.synthetic.phantoms.making import read_recipe
from mlprobe_utils.synthetic.phantoms.seeds import generator
from mlprobe_utils.synthetic.phantoms.writing import JPEG_QUALITY, MODALITY_OF

STREAM = "oracle"


def fresh_images(
    card: DataCard, settings: WorkingCopies, labels: list[str], part: int, first: int = 0
) -> list[np.ndarray]:
    """Working copies, uint8 [height, width, 3], of fresh phantoms of the classes `labels`.

    Args:
        settings: the protocol's, of working copies.
        part: a number for what they are drawn for; images of different parts are unrelated.
        first: the running number of the first; image n of a part is the same whatever is drawn before.
    """
    recipe = read_recipe(card)
    choices = {name: getattr(recipe, name) for name in type(recipe).model_fields if name != "seed"}
    module, images = MODALITY_OF[card.layout], []
    for number, label in enumerate(labels, first):
        rng = generator(STREAM, recipe.seed, module.LABELS.index(label), part, number)
        pixels, _ = module.draw(label, rng, **choices)
        images.append(np.array(working_copy(_stored(Image.fromarray(pixels), card).convert("RGB"), settings)))
    return images


def _stored(picture: Image.Image, card: DataCard) -> Image.Image:
    """As a file of the set gives it back: JPEG loses a little."""
    if card.layout != "chest-xray":
        return picture
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return Image.open(file)
