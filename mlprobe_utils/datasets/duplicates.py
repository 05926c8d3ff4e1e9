"""Groups of images that show the same picture."""

from collections.abc import Sequence

import imagehash
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Two pictures are the same if their 256-bit hashes are near and they are alike beyond what all pictures of the set
# share. Calibrated on the three real sets and their phantoms. Chest-Xray: no two different films are nearer than 48
# bits. COVID-CT: all pairs within 32 bits are slices of one patient or known copies. Phantoms, which hold no duplicate,
# come as near as 22 bits but correlate at most 0.933; the known copies across COVID-CT's labels at least 0.987.
NEAR_BITS = 32
ALIKE = 0.94
BLOCK = 1024  # rows of the table of distances held at a time


def duplicate_groups(
    images: Sequence[str], sha256: Sequence[str], perceptual_hashes: Sequence[str], thumbnails: np.ndarray
) -> list[str | None]:
    """The duplicate group of every image, None for an image without a duplicate.

    Byte-identical images share a group, and so do images whose perceptual hashes (hexadecimal) differ in at most
    `NEAR_BITS` bits while their thumbnails (grey, [images, side, side]), the set's mean thumbnail taken away,
    correlate above `ALIKE`; groups are closed under both. Group ids (`d001`, ...) follow the smallest image id of the
    group: they do not depend on the order of the images.
    """
    order = np.argsort(np.asarray(images, dtype=object))
    near = _near_pairs([perceptual_hashes[i] for i in order], thumbnails[order])
    pairs = np.concatenate([near, _equal_pairs([sha256[i] for i in order])], axis=1)
    edges = coo_array((np.ones(pairs.shape[1], dtype=bool), tuple(pairs)), shape=(len(order), len(order)))
    _, group = connected_components(edges, directed=False)
    sizes = np.bincount(group, minlength=1)
    names: dict[int, str] = {}
    result: list[str | None] = [None] * len(order)
    for position, member in zip(order, group, strict=True):
        if sizes[member] > 1:
            result[position] = names.setdefault(member, f"d{len(names) + 1:03d}")
    return result


def _near_pairs(hashes: list[str], thumbnails: np.ndarray) -> np.ndarray:
    """[2, pairs] positions of images that show the same picture."""
    bits = np.array([imagehash.hex_to_hash(h).hash.ravel() for h in hashes], dtype=np.float32)
    signs = 2 * bits - 1  # a product of signs is bits in common minus bits apart
    directions = _departures(thumbnails)
    found = []
    for start in range(0, len(signs), BLOCK):
        block = slice(start, start + BLOCK)
        near = (signs.shape[1] - signs[block] @ signs.T) / 2 <= NEAR_BITS
        row, column = np.nonzero(near & (directions[block] @ directions.T > ALIKE))
        found.append(np.stack([row + start, column]))
    return np.concatenate(found, axis=1)


def _departures(thumbnails: np.ndarray) -> np.ndarray:
    """[images, pixels] departures from the mean thumbnail, of mean 0 and length 1: their products are correlations.

    Brightness and contrast of each image are evened out before the mean is taken, so that copies may differ in them.
    """
    evened = _standardised(thumbnails.reshape(len(thumbnails), -1).astype(np.float32))
    return _standardised(evened - evened.mean(axis=0))


def _standardised(rows: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1; a constant row becomes 0."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _equal_pairs(sha256: list[str]) -> np.ndarray:
    """[2, images] position of every image and of the first image with the same bytes."""
    _, first, which = np.unique(np.asarray(sha256, dtype=str), return_index=True, return_inverse=True)
    return np.stack([np.arange(len(sha256)), first[which]])
