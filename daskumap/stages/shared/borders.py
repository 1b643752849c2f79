"""Which neighbours lie beyond a border of cells, where the search misses most."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def across_borders(context: Context, rows: Array, neighbors: Array) -> Array:
    """Return (q, k) bool: which neighbours of some rows have another nearest cell than the row has.

    Parameters
    ----------
    rows, neighbors
        (q,) and (q, k) row ids; of -1, and of copies, which are in no cell, it is not said.
    """
    starts = context.read(schema.CELL_STARTS)
    wanted, places = np.unique(np.append(rows, np.maximum(neighbors, 0)), return_inverse=True)
    cells = np.searchsorted(starts, context.take(schema.VERTEX, wanted), side="right") - 1
    cells = np.where(cells < len(starts) - 1, cells, -1)[places]
    own, near = cells[: len(rows), None], cells[len(rows) :].reshape(neighbors.shape)
    found: Array = (neighbors >= 0) & (own >= 0) & (near >= 0) & (own != near)
    return found
