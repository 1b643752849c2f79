"""The forces between two points of the map, as tables.

A coefficient is looked up by the leading bits of the squared distance: no `pow`, no division in an iteration.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from daskumap.kernels.jit import inlined
from daskumap.kernels.layout.sampling import Array
from daskumap.kernels.parts import element_part

# Exponent and 9 mantissa bits: relative error (1 + b) / 2**10, at most 0.3 % for b <= 2. 8 bits gain no time.
MANTISSA_BITS = 9
SHIFT = np.uint32(23 - MANTISSA_BITS)
TABLE_SIZE = 1 << (8 + MANTISSA_BITS)
TABLE_MASK = np.uint32(TABLE_SIZE - 1)
# umap-learn's softening of the repulsion near distance zero.
SOFTENING = 0.001


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
