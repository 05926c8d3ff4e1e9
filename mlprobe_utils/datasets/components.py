"""Which images are of one piece: linked by a patient or a duplicate group, directly or through others."""

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def components(table: pd.DataFrame) -> np.ndarray:
    """The component of every image, numbered by row: images linked by a duplicate group or a patient share one.

    Args:
        table: one row an image with the columns `duplicate_group` and `patient` (null: linked to no other image by it).

    Returns:
        int [images].
    """
    rows = np.arange(len(table))
    links = []
    for column in ("duplicate_group", "patient"):
        first_row = pd.Series(rows, index=table.index).groupby(table[column], dropna=True).transform("min")
        linked = first_row.notna().to_numpy()
        links.append(np.stack([rows[linked], first_row[linked].to_numpy(dtype=int)]))
    start, end = np.concatenate(links, axis=1)
    graph = coo_array((np.ones(len(start), dtype=bool), (start, end)), shape=(len(table), len(table)))
    return connected_components(graph, directed=False)[1]
