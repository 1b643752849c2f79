"""What a step draws: edges by their weights, pairs, rows. A draw is a hash of key, step, purpose and slot."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.jit import inlined, kernel

Array = NDArray[Any]
# What a draw is for.
EDGE, NEGATIVE, FAR, LABELLED, LANDMARK, ROW, OWN = range(7)


class Edges(NamedTuple):
    """The edges of some vertices, from both ends, which are never repeated by their weights.

    An edge is drawn in two levels: a vertex by the cumulative weight of its edges, then an edge of it. So a
    draw reads few places of the memory, and no cumulative weight is held for an edge.
    """

    indptr: Array  # (n + 1,) int64 place of each vertex' first edge
    tails: Array  # (e,) int32 vertices at the other end
    weights: Array  # (e,) float32
    cumulative: Array  # (n,) float64 weight of all edges up to and with those of each vertex

    @classmethod
    def of(cls, indptr: Array, tails: Array, weights: Array) -> "Edges":
        """Return edges with the sums that draws need."""
        indptr, tails = np.ascontiguousarray(indptr, np.int64), np.ascontiguousarray(tails, np.int32)
        weights = np.ascontiguousarray(weights, np.float32)
        return cls(indptr, tails, weights, _cumulative(indptr, weights))


@kernel
def _cumulative(indptr, weights):  # type: ignore[no-untyped-def]
    sums, total = np.empty(len(indptr) - 1), 0.0
    for i in range(len(sums)):
        own = 0.0  # as `draw_edges` sums them
        for k in range(indptr[i], indptr[i + 1]):
            own += np.float64(weights[k])
        total += own
        sums[i] = total
    return sums


@inlined
def _hash(key, step, purpose, slot):  # type: ignore[no-untyped-def]
    """Hash four numbers to 64 bits (SplitMix64, twice)."""
    x = np.uint64(key) + (np.uint64(step) * np.uint64(8) + np.uint64(purpose)) * np.uint64(0xD1342543DE82EF95)
    for word in (np.uint64(0), np.uint64(slot)):
        x = x + (word + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return x


@inlined
def _fraction(x):  # type: ignore[no-untyped-def]
    """Map 64 random bits to [0, 1)."""
    return np.float64(x >> np.uint64(11)) * (1.0 / 9007199254740992.0)


def draw_edges(edges: Edges, key: int, step: int, heads: Array, tails: Array) -> None:
    """Write the ends of one edge for each place, drawn with replacement by weight.

    Parameters
    ----------
    heads, tails
        (B,) int32, written. Edges that weigh nothing are not drawn; some must weigh something.
    """
    _draw_edges(*edges, np.uint64(key), np.uint64(step), heads, tails)


@kernel
def _draw_edges(indptr, others, weights, cumulative, key, step, heads, tails):  # type: ignore[no-untyped-def]
    for slot in range(len(heads)):
        at = _fraction(_hash(key, step, EDGE, slot)) * cumulative[-1]
        vertex = np.searchsorted(cumulative, at, side="right")
        rest = at - (cumulative[vertex - 1] if vertex else 0.0)
        chosen = -1
        for k in range(indptr[vertex], indptr[vertex + 1]):
            if weights[k] > 0.0:
                chosen = k  # the last one that weighs, where rounding leaves a rest
                rest -= np.float64(weights[k])
                if rest < 0.0:
                    break
        heads[slot], tails[slot] = vertex, others[chosen]


def draw_numbers(key: int, step: int, purpose: int, bound: int, out: Array) -> None:
    """Write one whole number below `bound` for each place, all equally likely; (m,) int32."""
    _draw_numbers(np.uint64(key), np.uint64(step), purpose, bound, out)


@kernel
def _draw_numbers(key, step, purpose, bound, out):  # type: ignore[no-untyped-def]
    for slot in range(len(out)):
        out[slot] = np.int64(_fraction(_hash(key, step, purpose, slot)) * bound)


def draw_key(key: int, step: int) -> int:
    """Return the key of what a network itself draws in a step, below 2^31."""
    out = np.empty(1, np.int32)
    draw_numbers(key, step, OWN, 2**31 - 1, out)
    return int(out[0])


def draw_partners(key: int, step: int, edges: int, pushed: Array) -> None:
    """Write to column 1 which tail of the batch each head in column 0 is pushed from; (N, 2) int32."""
    _draw_numbers(np.uint64(key), np.uint64(step), NEGATIVE, edges, pushed[:, 1])
    pushed[:, 1] += edges


@kernel
def gather(rows, chosen, out):  # type: ignore[no-untyped-def]
    """Write the chosen rows one after the other."""
    for i in range(len(chosen)):
        for j in range(rows.shape[1]):
            out[i, j] = rows[chosen[i], j]
