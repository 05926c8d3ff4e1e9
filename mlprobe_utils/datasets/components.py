"""Which images belong together: of one patient, byte-identical, or showing the same picture."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Calibrated on the three real sets and their phantoms. Chest-Xray: no two different films are nearer than 48 bits.
# COVID-CT: all pairs within 32 bits are slices of one patient or known copies. Phantoms, which hold no duplicate, come
# as near as 22 bits but correlate at most 0.933; the known copies across COVID-CT's labels at least 0.987.
NEAR_BITS = 32
ALIKE = 0.94
BLOCK = 1024  # rows of the table of distances held at a time


def components(table: pd.DataFrame) -> np.ndarray:
    """The component of every image, int [images]: images linked by `duplicate_group` or `patient` (null: no link)."""
    pairs = [_pairs_with_first(table[column]) for column in ("duplicate_group", "patient")]
    return _connected(np.concatenate(pairs, axis=1), len(table))


def duplicate_groups(table: pd.DataFrame, thumbnails: np.ndarray) -> pd.Series:
    """The duplicate group of every image, null for none; from image, sha256, perceptual_hash. A group is closed under
    equal bytes, and under perceptual hashes (hexadecimal) that differ in at most `NEAR_BITS` while thumbnails (grey,
    [images, side, side]), less the mean one, correlate above `ALIKE`. Named `d001`, ... by smallest image name."""
    order = np.argsort(table["image"].to_numpy(dtype=object))
    near = _near_pairs(table["perceptual_hash"].iloc[order], thumbnails[order])
    pairs = np.concatenate([near, _pairs_with_first(table["sha256"].iloc[order])], axis=1)
    group = pd.Series(_connected(pairs, len(table)), table.index[order])
    shared = group[group.duplicated(keep=False)]
    names = [f"d{number:03d}" for number in 1 + pd.factorize(shared)[0]]
    return pd.Series(names, shared.index, dtype=object).reindex(table.index)


def _connected(pairs: np.ndarray, images: int) -> np.ndarray:
    graph = coo_array((np.ones(pairs.shape[1], dtype=bool), tuple(pairs)), shape=(images, images))
    return connected_components(graph, directed=False)[1]


def _pairs_with_first(values: Sequence) -> np.ndarray:
    """[2, known] positions of every value that is not null, and of the first equal to it."""
    codes = pd.factorize(values)[0]
    known = np.flatnonzero(codes >= 0)
    first = np.unique(codes[known], return_index=True)[1]
    return np.stack([known, known[first[codes[known]]]])


def _near_pairs(hashes: pd.Series, thumbnails: np.ndarray) -> np.ndarray:
    """[2, pairs] positions of images that show the same picture."""
    bits = np.unpackbits(np.array([[*bytes.fromhex(own)] for own in hashes], np.uint8), axis=1).astype(np.float32)
    signs = 2 * bits - 1  # a product of signs is bits in common minus bits apart
    # brightness and contrast are evened out before the mean is taken away, so that copies may differ in them
    evened = _standardised(thumbnails.reshape(len(thumbnails), -1).astype(np.float32))
    departures = _standardised(evened - evened.mean(axis=0))  # their products are correlations
    found = []
    for start in range(0, len(signs), BLOCK):
        block = slice(start, start + BLOCK)
        near = (signs.shape[1] - signs[block] @ signs.T) / 2 <= NEAR_BITS
        row, column = np.nonzero(near & (departures[block] @ departures.T > ALIKE))
        found.append(np.stack([row + start, column]))
    return np.concatenate(found, axis=1)


def _standardised(rows: np.ndarray) -> np.ndarray:
    """Rows of mean 0 and length 1; a constant row becomes 0."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
