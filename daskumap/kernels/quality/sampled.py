"""Measures of a sample of rows, each from the distances between all its rows, and their intervals.

They compare the order of distances in the data with that on the map, so that neither scale matters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = np.ndarray[Any, Any]

# Two-sided 95 % of a normal distribution.
NORMAL_95 = 1.96
# Parts of the rows that are left out one after the other; the variance of fewer is itself too uncertain.
PARTS = 10


class Estimate(NamedTuple):
    """A figure of a sample, with its interval.

    Attributes
    ----------
    value
        The figure.
    low, high
        Of 95 %: what another sample of as many rows gives in 19 of 20 cases, about. Equal to the value where
        all rows were taken.
    """

    value: float
    low: float
    high: float


def of_mean(values: Array, whole: bool = False) -> Estimate:
    """Return the mean of one figure a row, with its interval; NaN where there is no row.

    Parameters
    ----------
    whole
        Whether these are all rows there are, so that nothing is uncertain.
    """
    if not len(values):
        return Estimate(np.nan, np.nan, np.nan)
    value = float(np.mean(values))
    error = (
        0.0 if whole or len(values) < 2 else NORMAL_95 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    )
    return Estimate(value, value - error, value + error)


def of_rows(measure: Callable[[Array], float], rows: int, whole: bool = False) -> Estimate:
    """Return a figure of some rows, with its interval by the jackknife: each tenth of them is left out once.

    Parameters
    ----------
    measure
        Takes the places of the rows that count, ascending.
    """
    everything = np.arange(rows)
    value = measure(everything)
    if whole or rows < 2 * PARTS:
        return Estimate(value, value, value)
    left = np.array([measure(everything[everything % PARTS != part]) for part in range(PARTS)])
    error = NORMAL_95 * float(np.sqrt((PARTS - 1) / PARTS * np.sum((left - left.mean()) ** 2)))
    return Estimate(value, value - error, value + error)


def ranks(distances: Array) -> NDArray[np.int32]:
    """Return the rank of each row among the others by distance to each row, from 1; 0 for the row itself.

    Parameters
    ----------
    distances
        (m, m); ties go to the lower row.
    """
    own = np.array(distances, np.float64)
    np.fill_diagonal(own, -1.0)
    order = np.argsort(own, axis=1, kind="stable")
    found = np.empty(own.shape, np.int32)
    np.put_along_axis(found, order, np.arange(len(own), dtype=np.int32)[None], axis=1)
    return found


def neighbors_kept(high: Array, low: Array) -> NDArray[np.float64]:
    """Return Q_NX(K) for K = 1 .. m - 1: the share of the K nearest rows in the data that are so on the map.

    Parameters
    ----------
    high, low
        (m, m) distances between the same rows, in the data and on the map.

    References
    ----------
    Lee and Verleysen (2009), "Quality assessment of dimensionality reduction: rank-based criteria".
    """
    m = len(high)
    later = np.maximum(ranks(high), ranks(low))
    # A pair is among the K nearest on both sides from the later of its two ranks on.
    pairs = np.cumsum(np.bincount(later.ravel(), minlength=m)[1:m])
    found: NDArray[np.float64] = pairs / (m * np.arange(1, m))
    return found


def area_under_rnx(high: Array, low: Array) -> float:
    """Return the area under R_NX(K) over the logarithm of K: 0 for a map at random, 1 for a faithful one.

    R_NX is Q_NX without what chance gives; small neighbourhoods count most. Arguments as in `neighbors_kept`.

    References
    ----------
    Lee, Peluffo-Ordonez, Verleysen (2015), "Multi-scale similarities in stochastic neighbour embedding".
    """
    m = len(high)
    sizes = np.arange(1, m - 1)
    gain = ((m - 1) * neighbors_kept(high, low)[:-1] - sizes) / (m - 1 - sizes)
    return float(np.sum(gain / sizes) / np.sum(1.0 / sizes))


def distance_correlation(high: Array, low: Array) -> float:
    """Return Spearman's rank correlation of the distances of all pairs, ties at their mean rank."""
    from scipy.stats import spearmanr

    upper = np.triu_indices(len(high), 1)
    return float(spearmanr(high[upper], low[upper]).statistic)


def triplet_agreement(high: Array, low: Array, triplets: Array) -> NDArray[np.float64]:
    """Return for each triplet whether the same one of two rows is nearer in the data and on the map.

    A tie on one side alone is no agreement.

    Parameters
    ----------
    triplets
        (t, 3) places: a row, and two others.

    References
    ----------
    Wang, Huang, Rudin, Shaposhnik (2021), "Understanding how dimension reduction tools work".
    """
    i, j, k = triplets.T
    same: NDArray[np.float64] = (np.sign(high[i, j] - high[i, k]) == np.sign(low[i, j] - low[i, k])).astype(
        np.float64
    )
    return same
