"""The edges that a process moves vertices along, kept while they fit, else read every iteration."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from daskumap.kernels.layout.iterations import Edges, MaskedEdges, firing_edges, mask_edges
from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]


class RangeEdges:
    """The edges of a range of vertices, and the masks that were made of them last."""

    def __init__(self, edges: Edges, first: int, key: int) -> None:
        self.edges, self.first, self.key = edges, first, key
        self._masked: MaskedEdges | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the edges and one set of masks."""
        return sum(array.nbytes for array in self.edges) + len(self.edges.tails)

    def masked(self, iteration: int) -> MaskedEdges:
        """Return the edges with masks that hold an iteration, made anew if the last ones do not."""
        masked = self._masked
        if masked is None or not masked.holds(iteration):
            self._masked = masked = None  # or the old masks would stay in memory beside the new ones
            self._masked = masked = mask_edges(self.edges, self.first, self.key, iteration)
        return masked


class KeptEdges:
    """The edges that a process has read, by range of vertices, while they fit."""

    def __init__(self, room: int) -> None:
        self.room, self.ranges = room, dict[tuple[int, int], RangeEdges]()
        self._lock = threading.Lock()

    def keep(self, place: tuple[int, int], edges: RangeEdges) -> RangeEdges:
        """Keep the edges of a range if there is room; return them."""
        with self._lock:
            if edges.nbytes > self.room:
                return edges
            self.room -= edges.nbytes
            # Copied, or the memory of the edges that never fire would be kept as well.
            copied = Edges(*map(np.copy, edges.edges))
            kept = self.ranges[place] = RangeEdges(copied, edges.first, edges.key)
            return kept


def edges_of(context: Context, start: int, stop: int) -> RangeEdges:
    """Return the edges of a range of vertices, from this process while they fit, else from the store."""
    kept = context.held("edges", lambda: KeptEdges(context.sizes.edge_bytes))
    place = (start, stop)
    return kept.ranges.get(place) or kept.keep(place, load_edges(context, start, stop))


def load_edges(context: Context, start: int, stop: int) -> RangeEdges:
    """Read the edges of a range of vertices, without those that would never fire."""
    edges = firing_edges(
        *context.edges(start, stop), largest_weight(context), context.job.iterations or 2**32
    )
    return RangeEdges(edges, start, context.key("negatives"))


def largest_weight(context: Context) -> float:
    """Return what an edge weighs that fires in each iteration."""
    return float(context.fact(schema.GRAPH_FACTS)["largest_weight"] or 1.0)
