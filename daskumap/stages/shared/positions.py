"""Positions of the finished layout, and arrays of the rows' order in the vertices' order."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.params import OPTIMIZERS
from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def segments(context: Context) -> list[tuple[int, int]]:
    """Return the iterations [first, last) of each segment; segments end between two reconciliations.

    Without any iteration there is one segment, whose state is the start.
    """
    p, iterations = context.params, context.job.iterations
    if not iterations:
        return [(0, 0)]
    checkpoint = p.checkpoint_every * OPTIMIZERS[p.optimizer]
    every = -(-checkpoint // p.reconcile_every) * p.reconcile_every
    return [(first, min(first + every, iterations)) for first in range(0, iterations, every)]


def final_positions(context: Context) -> Array:
    """Return the finished positions, (n, d) in vertex order, NaN for vertices without edges.

    A row that nothing joins to the others has no place on the map; umap-learn gives NaN too. A map that was
    given as it is to be stays so.
    """
    last = len(segments(context)) - 1
    positions = context.checkpoint(schema.STATE, last).read("positions", 0, context.sizes.rows)
    if context.job.iterations:
        positions[context.read(schema.DEGREES) == 0] = np.nan
    return positions


def final_bytes(context: Context) -> int:
    """Return what reading the finished positions takes: with the degrees, or a chunk as read and decoded."""
    s, d = context.sizes, context.params.n_components
    return s.rows * d * 4 + max(s.rows * 5, s.state_chunk * d * 8)
