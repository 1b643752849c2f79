"""A sample of rows, and how far all its rows are from one another, in the data and on the map."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from daskumap.evaluation.pair import EUCLIDEAN
from daskumap.kernels.metrics.metric import Metric
from daskumap.kernels.neighbors import knn
from daskumap.kernels.quality import sampled
from daskumap.kernels.quality.sampled import Estimate

Array = np.ndarray[Any, Any]

# Triplets for each row of the sample, as in Wang et al. (2021).
TRIPLETS = 5


def draw(rng: np.random.Generator, rows: int, count: int) -> Array:
    """Return so many of the rows, ascending, each at most once; all where there are no more."""
    if count >= rows:
        return np.arange(rows)
    return np.sort(rng.choice(rows, count, replace=False))


def distance_table(rows: Array, metric: Metric | None) -> Array:
    """Return (m, m) float32 distances of all pairs, under the Euclidean metric where there is none given."""
    m = len(rows)
    found = np.zeros((m, m), np.float32)
    order, distances = knn.nearest(rows, rows, m - 1, metric or EUCLIDEAN, np.arange(m), 0)
    np.put_along_axis(found, order, distances, axis=1)
    return found


def compare_distances(high: Array, low: Array, rng: np.random.Generator, whole: bool) -> dict[str, Estimate]:
    """Compare (m, m) distances of all pairs of a sample, in the data and on the map."""
    m = len(high)

    def of_part(measure: Callable[[Array, Array], float]) -> Callable[[Array], float]:
        return lambda rows: measure(high[np.ix_(rows, rows)], low[np.ix_(rows, rows)])

    heads = np.repeat(np.arange(m), TRIPLETS)
    others = np.array([(heads + rng.integers(1, m, len(heads))) % m for _ in range(2)])
    triplets = np.stack([heads, *others], axis=1)[others[0] != others[1]]
    with warnings.catch_warnings():
        # Where all distances are equal there is no correlation: NaN, and none of its warnings.
        warnings.simplefilter("ignore")
        correlation = sampled.of_rows(of_part(sampled.distance_correlation), m, whole)
    return {
        "auc_rnx": sampled.of_rows(of_part(sampled.area_under_rnx), m, whole),
        # Triplets are drawn even where all rows are there.
        "triplet_accuracy": sampled.of_mean(sampled.triplet_agreement(high, low, triplets)),
        "distance_correlation": correlation,
    }
