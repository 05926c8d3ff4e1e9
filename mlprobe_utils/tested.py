"""Resamples of a data set's test images, by whole patients and duplicate groups. No torch."""

from mlprobe_utils.datasets.components import components
from mlprobe_utils.datasets.image_set import ImageSet
from mlprobe_utils.resampling import Resamples, resample


def resamples_of_tested(image_set: ImageSet, split: str) -> tuple[Resamples, list[str]]:
    """Resamples of the test images of a split, in the order of their names, and these names.

    Raises:
        InputError: an unknown split; fewer than two patients or duplicate groups.
    """
    tested = image_set.part(split, "test").sort_values("image")
    return resample(components(tested)), list(tested["image"])
