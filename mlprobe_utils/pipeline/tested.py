"""Resamples of a data set's test images, by whole patients and duplicate groups: one draw for all that is compared."""

from mlprobe_utils.common.errors import InputError
from mlprobe_utils.datasets.components import components
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.evaluation.outcomes import Outcomes
from mlprobe_utils.stats.resampling import Resamples, resample


def resamples_of_tested(image_set: ImageSet, split: str) -> tuple[Resamples, list[str]]:
    """Resamples of the test images of a split, and their names, sorted as of `Outcomes`.

    What is drawn are components: images linked by a patient or duplicate group, be it through images of other parts.

    Raises InputError where all test images are of one component, or for an unknown split.
    """
    tested = image_set.part(split, "test").sort_values("image")
    own, slug = components(image_set.manifest)[tested.index], image_set.card.slug
    if len(set(own)) < 2:
        raise InputError(
            f"{slug}: its test set ({len(own)} images) is of one patient or duplicate group: an interval needs two, "
            "add test images of others"
        )
    return resample(own), list(tested["image"])


def of_tested(found: Outcomes, images: list[str], whose: str) -> Outcomes:
    """The outcomes, if their images are `images`, from `resamples_of_tested`. Raises InputError, naming `whose`."""
    if found.images != images:
        raise InputError(f"{whose}: its rows are not of the test images, make them anew")
    return found
