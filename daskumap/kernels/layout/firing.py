"""When edges fire: integer arithmetic on their ids and rates, done for several iterations at a time.

Edges carry no state. What the next iterations need to know of an edge is one byte: the arithmetic vectorises
over edges, where the selection of those that fire in an iteration does not.
"""

from typing import NamedTuple

import numpy as np

from daskumap.kernels.jit import fast_kernel, inlined, kernel
from daskumap.kernels.layout.sampling import GOLDEN, PHASE, Array, readonly, stream_seed, vertex_hash

# Iterations a mask: the bits of a byte. With 32 an iteration takes 1 % less, but a mask takes as much memory
# as a tail (docs/decisions/0005).
MASKED = 8


class Edges(NamedTuple):
    """CSR rows of the vertices [first, first + rows)."""

    indptr: Array  # (rows + 1,) int64
    tails: Array  # (edges,) int32 or int64 global vertex ids
    rates: Array  # (edges,) uint32 of `edge_rates`


class MaskedEdges(NamedTuple):
    """CSR rows as those of `Edges`, and in which of `MASKED` iterations each edge fires."""

    indptr: Array  # (rows + 1,) int64
    tails: Array  # (edges,) int32 or int64 global vertex ids
    masks: Array  # (edges,) uint8; bit t is set where the edge fires in iteration `since` + t
    since: int

    def holds(self, iteration: int) -> bool:
        """Return whether the masks say what fires in an iteration."""
        return self.since <= iteration < self.since + MASKED


def edge_rates(weights: Array, max_weight: float, n_iterations: int) -> Array:
    """Turn weights into firing probabilities per iteration.

    Parameters
    ----------
    weights
        (edges,) float32 in [0, max_weight].
    max_weight
        Largest weight of the whole graph, not of this block.
    n_iterations
        Of the run. Edges that would fire less than once in all of them never fire, as in umap-learn.

    Returns
    -------
    rates
        (edges,) uint32: weight / max_weight in units of 2**-32, saturated at 2**32 - 1.
    """
    return _edge_rates(readonly(weights, np.float32), float(max_weight), int(n_iterations))  # type: ignore[no-any-return]


def firing_edges(indptr: Array, tails: Array, weights: Array, max_weight: float, n_iterations: int) -> Edges:
    """Return the edges that fire at least once, with their rates, in the memory of `tails` and `weights`.

    With arrays of their own this took two thirds of an iteration over these edges: fresh pages are slow.

    Parameters
    ----------
    indptr
        (rows + 1,) int64, from 0.
    tails, weights
        (edges,) int32 or int64, and float32; both are overwritten.
    max_weight, n_iterations
        As of `edge_rates`.
    """
    starts, rates = np.empty_like(indptr), weights.view(np.uint32)
    rows = readonly(indptr, np.int64)
    kept = _firing_edges(rows, tails, weights, float(max_weight), int(n_iterations), starts, rates)
    return Edges(starts, tails[:kept], rates[:kept])


def mask_edges(edges: Edges, first: int, key: int, iteration: int) -> MaskedEdges:
    """Return edges with the masks of `MASKED` iterations from one on.

    An edge fires iff floor(p (t + 1) + phase) > floor(p t + phase), that is if adding its rate once more
    overflows 32 bits. The phase is a hash of both ids.

    Parameters
    ----------
    edges, first
        CSR rows, and the global id of row 0.
    key, iteration
        64-bit key of the run, and the first iteration of the masks.
    """
    indptr, tails = readonly(edges.indptr, np.int64), readonly(edges.tails)
    masks, phases = np.empty(tails.size, np.uint8), stream_seed(key, PHASE, 0)
    rates = readonly(edges.rates, np.uint32)
    mask_rows(indptr, tails, rates, int(first), 0, indptr.size - 1, phases, np.uint32(iteration), masks)
    return MaskedEdges(indptr, tails, readonly(masks), int(iteration))


@fast_kernel
def longest_row(indptr, start, stop):  # type: ignore[no-untyped-def]
    """Return the largest number of edges of a row in [start, stop)."""
    longest = 0
    for row in range(start, stop):
        longest = max(longest, indptr[row + 1] - indptr[row])
    return longest


@inlined
def fired_edges(edges, row, bit, fired):  # type: ignore[no-untyped-def]
    """Write the tails of a row's edges whose mask has a bit set into `fired`, return their number.

    Every tail is written, and the cursor moves only if it fired: a branch here takes twice as long.
    """
    count = np.uint64(0)
    # Unsigned, or numba tests each index for being negative.
    for e in range(np.uint64(edges.indptr[row]), np.uint64(edges.indptr[row + 1])):
        fired[count] = edges.tails[e]
        count += np.uint64((edges.masks[e] >> bit) & np.uint8(1))
    return np.int64(count)


@inlined
def _rate(weight, max_weight, n_iterations):  # type: ignore[no-untyped-def]
    weight = np.float64(weight)  # NumPy would go on in 32 bits, of which the heaviest edges' rate is none.
    if weight >= max_weight / n_iterations:
        return np.uint32(min(weight / max_weight * 4294967296.0, 4294967295.0))
    return np.uint32(0)


@kernel
def _edge_rates(weights, max_weight, n_iterations):  # type: ignore[no-untyped-def]
    rates = np.empty(weights.size, np.uint32)
    for e in range(weights.size):
        rates[e] = _rate(weights[e], max_weight, n_iterations)
    return rates


@kernel
def _firing_edges(indptr, tails, weights, max_weight, n_iterations, starts, rates):  # type: ignore[no-untyped-def]
    kept = 0
    starts[0] = 0
    for row in range(indptr.size - 1):
        for e in range(indptr[row], indptr[row + 1]):
            rate = _rate(weights[e], max_weight, n_iterations)  # read before the same memory is written
            tails[kept], rates[kept] = tails[e], rate
            kept += rate > 0
        starts[row + 1] = kept
    return kept


@kernel
def mask_rows(indptr, tails, rates, first, start, stop, phases, iteration, masks):  # type: ignore[no-untyped-def]
    """Make the masks of the rows [start, stop)."""
    for row in range(start, stop):
        phase_hash = vertex_hash(phases, first + row)
        for e in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            rate, mask = rates[e], np.uint32(0)
            # The phase needs only good high bits, so one multiplication mixes it.
            phase = np.uint32(np.uint32(phase_hash ^ np.uint32(tails[e])) * GOLDEN)
            at = np.uint32(phase + np.uint32(rate * iteration))
            for t in range(MASKED):
                after = np.uint32(at + rate)
                mask |= np.uint32(np.uint32(after < at) << np.uint32(t))
                at = after
            masks[e] = np.uint8(mask)
