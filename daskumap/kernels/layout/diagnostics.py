"""How well a map fits its graph, as sums over pairs of vertices: edges exactly, all other pairs by sampling.

What a vertex adds to a sum is rounded to whole units first. Sums of whole numbers do not depend on their
order, so that any ranges of vertices, added up in any order, give the same bits.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.jit import inlined, kernel
from daskumap.kernels.layout.sampling import LOSS, Array, below, mix, readonly, stream_seed, vertex_hash

# Of Parametric UMAP's floor under 1 - v, 1e-4: the loss of a pair at distance zero stays finite.
LARGEST_PUSH = -math.log(1e-4)
# Parts of 1 in which sums are counted: fine enough for pairs that are far apart, whose loss is 1e-6, and
# coarse enough that the sums of 10**7 edges whose loss is 90, at distances of 1e20, stay below 2**63.
UNITS = 2.0**28
# Partners that are drawn for each vertex. With 64 the standard error is half as large (digits: 1,393 in place
# of 2,561, of 126,000), and the sampling takes four times as long.
SAMPLES = 16
# No logarithm of a r^2b is larger: its exponential is finite.
FARTHEST = 690.0


class Sums(NamedTuple):
    """Sums over the vertices of a range, in whole `UNITS`, but for `placed`; an edge is met from both ends.

    v is 1 / (1 + a r^2b), 1 - v at least 1e-4, and weights w are clipped to [0, 1].
    """

    placed: int  # vertices that are on the map
    attraction: int  # of edges: -w log v
    edge_repulsion: int  # of edges: -(1 - w) log(1 - v)
    graph_entropy: int  # of edges: -w log w - (1 - w) log(1 - w)
    weight: int  # of edges: w
    touch: int  # of edges: -w log(1 - v)
    non_edge_repulsion: int  # of vertices: mean of -log(1 - v) over partners, 0 where one is a neighbour
    squares: int  # of vertices: square of that
    felt: int  # of vertices: weighted degree, times the mean of -log(1 - v) over partners, neighbours too


def pair_sums(
    positions: Array,
    first: int,
    indptr: Array,
    tails: Array,
    weights: Array,
    a: float,
    b: float,
    key: int,
    *,
    samples: int = SAMPLES,
    every: int = 1,
    unit: float = 1.0,
) -> Sums:
    """Sum what the pairs of a range of vertices add to the cross-entropy of map and graph.

    Parameters
    ----------
    positions
        (n, d) float32 of all vertices; those that are not on the map are NaN, in no pair, and have no edges.
    first, indptr, tails, weights
        The range begins with vertex `first`; its CSR rows with global tails in ascending order. Weights are
        float32 or uint32, in multiples of `unit`.
    a, b
        Of v.
    key
        64-bit key of the run. The partners of a vertex are a hash of it, the vertex and a count.
    samples
        Partners of each vertex, drawn from all others.
    every
        About one vertex in so many counts, the same ones in each call; a power of two.

    References
    ----------
    McInnes, Healy, Melville (2018), section 2.3; Damrich, Hamprecht (2021).
    """
    arrays = readonly(positions, np.float32), int(first), readonly(indptr, np.int64), readonly(tails)
    seed = stream_seed(key, LOSS, 0)
    found = _pair_sums(
        *arrays,
        readonly(weights),
        float(unit),
        math.log(a),
        float(b),
        int(samples),
        np.uint32(every - 1),
        seed,
    )
    return Sums(*map(int, found))


def add_sums(parts: Any) -> Sums:
    """Return the sums over several ranges."""
    return Sums(*map(sum, zip(*parts, strict=True)))


def loss_of(sums: Sums, vertices: int) -> dict[str, float]:
    """Return the loss of a map, over all unordered pairs, edges or not, from sums over some vertices.

    Parameters
    ----------
    vertices
        From which partners were drawn. Sums over a sample of them are scaled up.
    """
    share = vertices / max(1, sums.placed) / UNITS / 2
    attraction = sums.attraction * share
    repulsion = (sums.edge_repulsion + (vertices - 1) * sums.non_edge_repulsion) * share
    return {"attraction": attraction, "repulsion": repulsion, "loss": attraction + repulsion}


def diagnostics(sums: Sums, vertices: int, edges: int, draws: float) -> dict[str, float]:
    """Return what the sums over all vertices of a map say: over unordered pairs, in natural logarithms.

    Parameters
    ----------
    vertices
        From which partners were drawn.
    edges
        Unordered ones.
    draws
        Negatives that a fired edge draws, times the strength of the repulsion.

    Returns
    -------
    :
        "attraction" and "edge_repulsion", which add up to "cross_entropy"; "graph_entropy", what of it no map
        can take away, and "kl_divergence", the rest, which the floor under 1 - v may take below 0, by
        log(1 + 1e-4) an edge at most; "non_edge_repulsion" and its standard error,
        "non_edge_repulsion_se"; "effective_loss", the attraction with each pair's repulsion weighted by how
        often the layout draws it; "bits_per_edge", the entropy of an edge.
    """
    attraction, edge_repulsion, entropy = (
        sum_ / UNITS / 2 for sum_ in (sums.attraction, sums.edge_repulsion, sums.graph_entropy)
    )
    spread = max(0.0, sums.squares - sums.non_edge_repulsion**2 / UNITS / max(1, sums.placed)) / UNITS
    drawn = draws * (vertices - 1) / (4 * max(1, vertices)) * sums.felt / UNITS
    return {
        "attraction": attraction,
        "edge_repulsion": edge_repulsion,
        "cross_entropy": attraction + edge_repulsion,
        "graph_entropy": entropy,
        "kl_divergence": attraction + edge_repulsion - entropy,
        "non_edge_repulsion": (vertices - 1) * sums.non_edge_repulsion / UNITS / 2,
        "non_edge_repulsion_se": (vertices - 1) * spread**0.5 / 2,
        "effective_loss": attraction + drawn,
        "bits_per_edge": entropy / max(1, edges) / math.log(2),
    }


@inlined
def _pair(positions, vertex, other, log_a, b):  # type: ignore[no-untyped-def]
    """Return -log v and -log(1 - v) of two vertices: log(1 + e^x) and that of -x, with x = log(a r^2b)."""
    d2 = 0.0
    for c in range(positions.shape[1]):
        d2 += (np.float64(positions[vertex, c]) - np.float64(positions[other, c])) ** 2
    x = min(log_a + b * np.log(d2), FARTHEST) if d2 > 0.0 else -FARTHEST
    pull = np.log1p(np.exp(x))
    return pull, min(pull - x, LARGEST_PUSH)


@inlined
def _times_log(p):  # type: ignore[no-untyped-def]
    return p * np.log(p) if p > 0.0 else 0.0


@inlined
def _partner(draw, count, vertex, n):  # type: ignore[no-untyped-def]
    """Draw one of the other n - 1 vertices; as one number of 64 bits, or some would be favoured."""
    high = mix(np.uint32(draw + np.uint32(count)))
    low = below(mix(np.uint32(~high)), n - 1)
    other = np.int64((np.uint64(high) * np.uint64(n - 1) + low) >> np.uint64(32))
    return other + 1 if other >= vertex else other


@inlined
def _is_among(tails, start, stop, vertex):  # type: ignore[no-untyped-def]
    low, high = start, stop
    while low < high:
        middle = (low + high) // 2
        if tails[middle] < vertex:
            low = middle + 1
        else:
            high = middle
    return low < stop and tails[low] == vertex


@kernel
def _pair_sums(positions, first, indptr, tails, weights, unit, log_a, b, samples, left_out, seed):  # type: ignore[no-untyped-def]
    n, sums, part = positions.shape[0], np.zeros(9, np.int64), np.empty(9)
    for row in range(min(indptr.size - 1, n - first)):
        vertex = first + row
        draw = vertex_hash(seed, vertex)
        if draw & left_out or np.isnan(positions[vertex, 0]):
            continue
        part[:] = 0.0
        for e in range(indptr[row], indptr[row + 1]):
            w = min(max(np.float64(weights[e]) * unit, 0.0), 1.0)
            pull, push = _pair(positions, vertex, tails[e], log_a, b)
            part[1] += w * pull
            part[2] += (1.0 - w) * push
            if left_out == 0:
                part[3] -= _times_log(w) + _times_log(1.0 - w)
            part[4] += w
            part[5] += w * push
        everyone = 0.0
        for count in range(samples if n > 1 else 0):
            other = _partner(draw, count, vertex, n)
            if np.isnan(positions[other, 0]):
                continue
            push = _pair(positions, vertex, other, log_a, b)[1] / samples
            everyone += push
            if not _is_among(tails, indptr[row], indptr[row + 1], other):
                part[6] += push
        part[7] = part[6] ** 2
        part[8] = part[4] * everyone
        sums[0] += 1
        for k in range(1, 9):
            sums[k] += np.int64(np.rint(part[k] * UNITS))
    return sums
