"""Resamples of a data set's test images, by whole patients and duplicate groups: one draw for all that is compared."""

from mlprobe_utils.datasets.components import components
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.errors import InputError
from mlprobe_utils.resampling import Resamples, resample


def resamples_of_tested(image_set: ImageSet, split: str) -> tuple[Resamples, list[str]]:
    """Resamples of the test images of a split, and the names of their axis: the images sorted, as of `Outcomes`.

    Images are of one piece if a patient or a duplicate group links them, directly or through images of other parts.

    Raises:
        InputError: all test images are of one piece; an unknown split.
    """
    pieces = components(image_set.manifest)
    tested = image_set.part(split, "test").sort_values("image")
    own, slug = pieces[tested.index], image_set.card.slug
    if len(set(own)) < 2:
        raise InputError(
            f"{slug}: its test set ({len(own)} images) is of one patient or duplicate group: an interval needs two, "
            "add test images of others"
        )
    return resample(own), list(tested["image"])
