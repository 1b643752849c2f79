"""What an iteration draws: which edges fire, and which vertices are candidates for repulsion.

Every draw is a hash of (key, iteration, global vertex id, count): any split of the vertices gives the same
draws.
Edges carry no state: whether one fires is integer arithmetic on its ids.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.jit import fast_kernel, inlined, kernel

Array = NDArray[Any]

# A pool of 64 already costs no quality; 8,192 entries in 2-D fit in a first-level cache twice over with the
# table's used part, and take 5 % less of an iteration than 65,536, 14 % less in 10-D (measured).
POOL_SIZE = 8_192
# Below it runs of negatives would overlap too often; a small pool simply repeats vertices.
SMALLEST_POOL = 1_024
GOLDEN = np.uint32(0x9E3779B1)  # odd, 2**32 / golden ratio: products spread evenly over the 32 bits
PHASE, DRAW, POOL, LOSS = 1, 2, 3, 4  # what a seed is for


class Edges(NamedTuple):
    """CSR rows of the vertices [first, first + rows)."""

    indptr: Array  # (rows + 1,) int64
    tails: Array  # (edges,) int32 or int64 global vertex ids
    rates: Array  # (edges,) uint32 of `edge_rates`


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


def negative_pool(snapshot: Array, key: int, iteration: int, most: int = POOL_SIZE) -> Array:
    """Draw this iteration's candidates for repulsion from all vertices, with replacement.

    In random order whatever the size: kernels read runs of it, and runs of vertices in cell-major order would
    be each other's neighbours.

    Parameters
    ----------
    snapshot
        (n, d) float32 positions of all vertices when the iteration begins.
    key, iteration
        64-bit key of the run; what it is used for is hashed into it.
    most
        Largest number of candidates.

    Returns
    -------
    pool
        (d, s) float32, contiguous; s = n, but at least 1,024 and at most `most`.
    """
    size = min(max(snapshot.shape[0], SMALLEST_POOL), most)
    pool = np.empty((snapshot.shape[1], size), np.float32)
    _draw_pool(readonly(snapshot, np.float32), stream_seed(key, POOL, iteration), pool)
    return pool


def readonly(array: Array, dtype: Any = None) -> Array:
    """Return a contiguous read-only view: numba compiles for (dtype, layout, writable), and so only once."""
    view = np.ascontiguousarray(array, dtype).view()
    view.flags.writeable = False
    return view


def stream_seed(key: int, purpose: int, iteration: int) -> np.uint32:
    """Hash a 64-bit key, a purpose and an iteration to 32 bits (SplitMix64's finaliser)."""
    x = (int(key) + purpose * 0x9E3779B97F4A7C15 + iteration * 0xD1342543DE82EF95) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return np.uint32((x ^ (x >> 31)) >> 32)


@inlined
def mix(x):  # type: ignore[no-untyped-def]
    """Mix 32 bits (lowbias32, Wellons 2018). Each step is cast: numba would go on in 64 bits, NumPy in 32."""
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32(x * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@inlined
def vertex_hash(seed, vertex):  # type: ignore[no-untyped-def]
    """Hash a seed and a global vertex id to 32 bits."""
    high = np.uint32(np.uint64(vertex) >> np.uint64(32))
    return mix(np.uint32(mix(np.uint32(seed ^ np.uint32(vertex))) + high))


@inlined
def below(bits, bound):  # type: ignore[no-untyped-def]
    """Map 32 random bits to [0, bound) by multiplication, which vectorises where a remainder does not."""
    return (np.uint64(bits) * np.uint64(bound)) >> np.uint64(32)


@fast_kernel
def longest_row(indptr, start, stop):  # type: ignore[no-untyped-def]
    """Return the largest number of edges of a row in [start, stop)."""
    longest = 0
    for row in range(start, stop):
        longest = max(longest, indptr[row + 1] - indptr[row])
    return longest


@inlined
def fired_edges(edges, row, phase_hash, iteration, fired):  # type: ignore[no-untyped-def]
    """Write the tails of the edges that fire into `fired`, return their number.

    An edge fires iff floor(p (t + 1) + phase) > floor(p t + phase), that is if adding its rate once more
    overflows 32 bits. Every tail is written, and the cursor moves only if it fired: a branch here takes
    twice as long. The phase needs only good high bits, so one multiplication mixes it.
    """
    count = np.uint64(0)
    # Unsigned, or numba tests each index for being negative.
    for e in range(np.uint64(edges.indptr[row]), np.uint64(edges.indptr[row + 1])):
        rate, tail = edges.rates[e], edges.tails[e]
        phase = np.uint32(np.uint32(phase_hash ^ np.uint32(tail)) * GOLDEN)
        before = np.uint32(phase + np.uint32(rate * iteration))
        fired[count] = tail
        count += np.uint64(rate > np.uint32(~before))
    return np.int64(count)


@inlined
def _rate(weight, max_weight, n_iterations):  # type: ignore[no-untyped-def]
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
def _draw_pool(snapshot, seed, pool):  # type: ignore[no-untyped-def]
    n = np.uint64(snapshot.shape[0])
    for j in range(pool.shape[1]):
        high = mix(np.uint32(seed + np.uint32(j)))
        # Scaled as one number of 64 bits: 32 alone would favour some vertices by a quarter at n = 10**9.
        low = below(mix(np.uint32(~high)), n)
        at = (np.uint64(high) * n + low) >> np.uint64(32)
        for c in range(snapshot.shape[1]):
            pool[c, j] = snapshot[at, c]
