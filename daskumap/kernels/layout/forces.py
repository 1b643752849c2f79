"""The forces between two points of the map, as tables, and the loss that they descend.

A coefficient is looked up by the leading bits of the squared distance: no `pow`, no division in an iteration.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from daskumap.kernels.jit import inlined, kernel
from daskumap.kernels.layout.sampling import (
    LOSS,
    Array,
    below,
    mix,
    readonly,
    stream_seed,
    vertex_hash,
)
from daskumap.kernels.parts import element_part

# Exponent and 9 mantissa bits: relative error (1 + b) / 2**10, at most 0.3 % for b <= 2. 8 bits gain no time.
MANTISSA_BITS = 9
SHIFT = np.uint32(23 - MANTISSA_BITS)
TABLE_SIZE = 1 << (8 + MANTISSA_BITS)
TABLE_MASK = np.uint32(TABLE_SIZE - 1)
# umap-learn's softening of the repulsion near distance zero.
SOFTENING = 0.001
# Parametric UMAP's floor under 1 - v: the loss of a pair at distance zero stays finite.
LOSS_FLOOR = 1e-4


class Forces(NamedTuple):
    """Force coefficients by leading bits of the squared distance, built once a run."""

    attraction: Array  # (TABLE_SIZE,) float32, negative
    repulsion: Array  # (TABLE_SIZE,) float32, positive
    negatives: int  # negatives per fired edge


@lru_cache(maxsize=1)
def forces(a: float, b: float, gamma: float, negative_sample_rate: int) -> Forces:
    """Tabulate the attractive and repulsive coefficients over all non-negative float32 squared distances.

    An entry covers the distances that share the exponent and `MANTISSA_BITS` leading bits of the mantissa,
    and holds the harmonic mean of the coefficients at both ends, which balances the relative error. The ends
    of the range: below 1.2e-38 (subnormal, zero) coefficients are coarse but finite, so that points in one
    place exert no force; a square that overflows to infinity, or NaN, gets 0. No index lies outside. The last
    tables stay for the next caller: 1 MB, which take 15 ms (measured), a seventh of a small fit.

    Parameters
    ----------
    a, b
        Of v = 1 / (1 + a r^2b).
    gamma
        Factor of the repulsion, applied before it is clipped, as in umap-learn.
    negative_sample_rate
        Negatives per fired edge.

    References
    ----------
    McInnes, Healy, Melville (2018), section 4.2 and appendix C; umap-learn `layouts.py`.
    """
    entries = np.arange(TABLE_SIZE, dtype=np.uint32) << SHIFT
    ends = np.stack([entries, entries | np.uint32((1 << SHIFT) - 1)])
    ends[0, 0] = 1  # the smallest positive number in place of zero
    with np.errstate(all="ignore"):
        d2 = ends.view(np.float32).astype(np.float64)
        curve = 1 + a * d2**b
        pull, push = 2 * a * b * d2 ** (b - 1) / curve, 2 * b * gamma / ((SOFTENING + d2) * curve)
        tables = [2 / (1 / c[0] + 1 / c[1]) for c in (-pull, push)]
    # Capped well inside float32, for zero times infinity is NaN.
    tables = [np.clip(np.nan_to_num(t, nan=0.0), -1e30, 1e30) for t in tables]
    for table in tables:
        table[entries >= np.uint32(0x7F800000)] = 0
    return Forces(tables[0].astype(np.float32), tables[1].astype(np.float32), int(negative_sample_rate))


def layout_loss(
    positions: Array,
    first: int,
    indptr: Array,
    tails: Array,
    weights: Array,
    pool: Array,
    a: float,
    b: float,
    negatives: int,
    key: int,
) -> tuple[float, float]:
    """Sum the cross-entropy of a block's vertices, edges exactly and non-edges by sampling.

    Parameters
    ----------
    positions, first, indptr, tails, weights
        (n, d) float32 of all vertices, and the block's graph as in `Edges`, with float32 weights.
    pool
        `negative_pool` of these positions.
    negatives
        Pairs sampled per vertex.

    Returns
    -------
    attractive, repulsive
        Sums over the block's rows i of sum_j -w log v and of sum_j -(1 - w) log(1 - v), j over all other
        vertices, v = 1 / (1 + a r^2b), 1 - v at least 1e-4. The latter is scaled to all pairs: (n - 1) times
        the mean of -log(1 - v) over sampled vertices at a distance, minus the edges' sum of -w log(1 - v).
        So a small sample may make it negative. Blocks add up; each unordered pair counts twice.
    """
    seed = stream_seed(key, LOSS, 0)
    arrays = (readonly(indptr, np.int64), readonly(tails), readonly(weights, np.float32))
    positions, pool = readonly(positions, np.float32), readonly(pool, np.float32)
    return _layout_loss(positions, int(first), *arrays, pool, float(a), float(b), int(negatives), seed)  # type: ignore[no-any-return]


@inlined
def entry(d2):  # type: ignore[no-untyped-def]
    """Return the place of a float32 squared distance in the tables."""
    return (np.float32(d2).view(np.uint32) >> SHIFT) & TABLE_MASK


@inlined
def clip(x, limit):  # type: ignore[no-untyped-def]
    """Limit a component of a force, by selection, which vectorises; NaN becomes the limit and ends there."""
    x = x if x < limit else limit
    return x if x > -limit else -limit


@element_part
def pull(attraction, d2, vertex, tail):  # type: ignore[no-untyped-def]
    """Return the coefficient of an edge, given `forces.attraction` and the squared distance of its ends."""


@element_part
def push(repulsion, d2):  # type: ignore[no-untyped-def]
    """Return the coefficient of a negative, given `forces.repulsion` and its squared distance."""


@pull.version(Forces)
def _pull(attraction, d2, vertex, tail):  # type: ignore[no-untyped-def]
    return attraction[entry(d2)]


@push.version(Forces)
def _push(repulsion, d2):  # type: ignore[no-untyped-def]
    return repulsion[entry(d2)]


@kernel
def _minus_log(x, floor):  # type: ignore[no-untyped-def]
    return -np.log(max(x, floor))


@kernel
def _curve(first, second, a, b):  # type: ignore[no-untyped-def]
    """Return 1 - v and the squared distance of two points, in float64."""
    d2 = 0.0
    for c in range(first.size):
        d2 += (np.float64(first[c]) - np.float64(second[c])) ** 2
    power = a * d2**b
    return power / (1.0 + power), d2


@kernel
def _layout_loss(positions, first, indptr, tails, weights, pool, a, b, negatives, seed):  # type: ignore[no-untyped-def]
    attractive, repulsive = 0.0, 0.0
    for row in range(indptr.size - 1):
        here = positions[first + row]
        for e in range(indptr[row], indptr[row + 1]):
            gap, _ = _curve(here, positions[tails[e]], a, b)
            attractive -= weights[e] * np.log(1.0 - gap)
            repulsive -= weights[e] * _minus_log(gap, LOSS_FLOOR)
        draw, total, met = vertex_hash(seed, first + row), 0.0, 0
        for k in range(negatives):
            at = below(mix(np.uint32(draw + np.uint32(k))), pool.shape[1])
            gap, d2 = _curve(here, pool[:, at], a, b)
            if d2 > 0.0:
                total += _minus_log(gap, LOSS_FLOOR)
                met += 1
        repulsive += (positions.shape[0] - 1) * total / max(met, 1)
    return attractive, repulsive
