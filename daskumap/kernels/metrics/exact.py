"""Distances in float64, what the cast to float32 does to them, and where it may hide who is near whom."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.metrics import metric as metrics
from daskumap.kernels.metrics import spaces
from daskumap.kernels.metrics.metric import Metric
from daskumap.kernels.neighbors.scores import unfinished

Array = np.ndarray[Any, Any]

# What float64 itself rounds away: differences below 16 units in the last place are noise.
NOISE = 2.0**-48
# A row and its neighbour are each rounded in the cast and again in the space: by four units of 2^-24 of their
# length at most, together eight.
ROUNDING = 2.0**-21
# Rounding by less than this share of the distance to a neighbour hides no neighbour worth counting: that of
# usual rows is a fortieth of its bound.
COARSE = 1e-3
# Spaces in which rows are rounded by a share of their length there; in others by more, where a row's mean or
# its large columns cancel.
RELATIVE = ("identity", "scaled", "unit", "root_unit")
# Metrics without a space that are norms of differences: they have float64 code here.
NORMS = ("manhattan", "chebyshev", "minkowski", "wminkowski")


def to_space(X: Array, metric: Metric) -> Array:
    """Return `metric.to_space` of (r, D) rows in float64; rows as they are where the metric has no space."""
    flat = _to_space(X, metric)
    if not metric.apart:
        return flat
    apart = metrics.rows_apart(X, metric)[:, None]
    return np.concatenate([np.where(apart, 0.0, flat), apart], axis=1)


def _to_space(X: Array, metric: Metric) -> Array:
    values = dict(metric.keywords)
    match metric.space:
        case "scaled":
            return np.asarray(X / np.sqrt(values["V"]))
        case "linear":
            # No BLAS, whose bits depend on the block: copies of a row have to stay equal.
            return np.asarray(np.einsum("ij,jk->ik", X, np.linalg.cholesky(values["VI"])))
        case "unit":
            return _unit(X)
        case "centred_unit":
            return _unit(X - X.mean(axis=1, keepdims=True))
        case "ranked_unit":
            ranks = spaces.ranks(X).astype(np.float64)
            return _unit(ranks - ranks.mean(axis=1, keepdims=True))
        case "root_unit":
            total = X.sum(axis=1, keepdims=True)
            return np.sqrt(np.maximum(X, 0) / np.where(total > 0, total, 1.0))
        case "root_softmax":
            roots = np.exp(0.5 * (X - X.max(axis=1, keepdims=True)))
            return np.asarray(roots / np.sqrt((roots * roots).sum(axis=1, keepdims=True)))
    return X


def _unit(X: Array) -> Array:
    largest = np.abs(X).max(axis=1, keepdims=True)
    scaled = X / np.where(largest > 0, largest, 1.0)  # or squares would leave the range of float64
    length = np.sqrt((scaled * scaled).sum(axis=1, keepdims=True))
    return np.asarray(scaled / np.where(length > 0, length, 1.0))


def distances_from(X: Array, row: int) -> Array:
    """Return (r,) the Euclidean distances of one row to all; the largest difference is taken out first."""
    difference = X - X[row]
    largest = np.abs(difference).max() or 1.0
    difference /= largest
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", difference, difference)) * largest)


def kept_neighbors(stored: Array, cast: Array, probes: Array, k: int) -> tuple[Array, Array]:
    """Return the share of each probe's k nearest rows that stay among them, and how far the k-th is.

    Parameters
    ----------
    stored, cast
        (r, D) float64, the same rows in one space, as stored and after the cast.
    probes
        (p,) int, places of the rows that are asked for.

    Returns
    -------
    kept, farthest
        (p,) float64 each. A row that is as near as the k-th counts as kept.
    """
    kept, farthest = np.ones(len(probes)), np.zeros(len(probes))
    slack = NOISE * np.abs(stored).max() * stored.shape[1] ** 0.5
    for place, probe in enumerate(probes.tolist()):
        true, seen = distances_from(stored, probe), distances_from(cast, probe)
        true[probe] = seen[probe] = np.inf
        farthest[place] = np.partition(true, k - 1)[k - 1]
        nearest = np.argpartition(seen, k - 1)[:k]
        kept[place] = np.mean(true[nearest] <= farthest[place] * (1 + 1e-6) + slack)
    return kept, farthest


def norms(X: Array, metric: Metric) -> Array:
    """Return (r,) what a metric of `NORMS` makes of differences of rows, (r, D) float64."""
    values, sizes = dict(metric.keywords), np.abs(X)
    match metric.name:
        case "manhattan":
            return np.asarray(sizes.sum(axis=1))
        case "chebyshev":
            return np.asarray(sizes.max(axis=1))
    power = values["p"]
    return np.asarray((values.get("w", 1.0) * sizes**power).sum(axis=1) ** (1.0 / power))


def in_doubt(X: Array, farthest: Array, metric: Metric, whole: bool) -> Array:
    """Return (p,) bool: rows whose nearest neighbours float32 may not tell from others.

    Whatever is nearer to a row than its k-th neighbour is, is rounded by as much as the row itself: no more
    than a share of its length. Where that is little beside the distance to the k-th neighbour as float32 sees
    it, float32 sees the neighbours that there are.

    Parameters
    ----------
    X
        (p, D) rows as the metric works on them.
    farthest
        (p,) float32, their distances to the k-th neighbour.
    whole
        Whether these rows are what is stored, to the bit.
    """
    if whole and metric.space in ("identity", None):
        return np.zeros(len(X), bool)
    if metric.space is not None:
        if not whole and metric.space not in RELATIVE:
            return np.ones(len(X), bool)
        size = np.linalg.norm(metrics.to_space(X, metric).astype(np.float64), axis=1)
        away = np.sqrt([unfinished(distance, metric.finish) for distance in farthest])
    elif metric.name in NORMS:
        size, away = norms(X.astype(np.float64), metric), farthest.astype(np.float64)
    else:
        return np.zeros(len(X), bool)
    return np.asarray(ROUNDING * size > COARSE * away)
