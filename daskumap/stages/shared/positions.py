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

    One also ends after each epoch whose map is kept. Without any iteration there is one segment, whose state
    is the start.
    """
    p, iterations = context.params, context.job.iterations
    checkpoint = p.checkpoint_every * max(1, OPTIMIZERS[p.optimizer])
    every = -(-checkpoint // p.reconcile_every) * p.reconcile_every
    ends = {*range(every, iterations, every), *_listed(context), iterations}
    ordered = sorted(ends)
    return list(zip([0, *ordered[:-1]], ordered, strict=True))


def listed_segments(context: Context) -> tuple[int, ...]:
    """Return the segments after which the map is kept, since `n_epochs` lists where they end."""
    ends = [last for _, last in segments(context)]
    return tuple(ends.index(iteration) for iteration in _listed(context))


def _listed(context: Context) -> list[int]:
    p = context.params
    return [epochs * OPTIMIZERS[p.optimizer] for epochs in p.listed_epochs]


def final_positions(context: Context, segment: int = -1) -> Array:
    """Return the finished positions, (n, d) in vertex order, NaN for vertices without edges.

    A row that nothing joins to the others has no place on the map; umap-learn gives NaN too. A map that was
    given as it is to be stays so.

    Parameters
    ----------
    segment
        After which they are asked for; the last one unless another is named.
    """
    if context.params.encoder is not None:
        return _places_by_vertex(context)
    segment = segment % len(segments(context))
    positions = context.checkpoint(schema.STATE, segment).read("positions", 0, context.sizes.rows)
    if context.params.optimizer == "none":
        positions[context.distinct :] = (
            np.nan
        )  # Of twins, which have the first one's place, and rows left out.
    else:
        positions[context.read(schema.DEGREES) == 0] = np.nan
    return positions


# What says where a network put the rows.
PLACES = (schema.EMBEDDING, schema.VERTEX)


def _places_by_vertex(context: Context) -> Array:
    """Return where a network put the rows, (n, d) in vertex order: also those without edges."""
    s = context.sizes
    positions = np.empty((s.rows, context.params.n_components), np.float32)
    for start, stop in map(s.block, range(s.row_blocks)):
        positions[context.read(schema.VERTEX, start, stop)] = context.read(schema.EMBEDDING, start, stop)
    return positions


def final_bytes(context: Context) -> int:
    """Return what reading the finished positions takes: with the degrees, or a chunk as read and decoded."""
    s, d = context.sizes, context.params.n_components
    return s.rows * d * 4 + max(s.rows * 5, s.state_chunk * d * 8)
