"""Distances in float64 among the rows of a small sample, and what the cast to float32 does to them."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.metrics.metric import Metric

Array = np.ndarray[Any, Any]

# What float64 itself rounds away: differences below 16 units in the last place are noise.
NOISE = 2.0**-48


def to_space(X: Array, metric: Metric) -> Array:
    """Return `metric.to_space` of (r, D) rows in float64; rows as they are where the metric has no space."""
    values = dict(metric.keywords)
    match metric.space:
        case "scaled":
            return np.asarray(X / np.sqrt(values["V"]))
        case "linear":
            return np.asarray(X @ np.linalg.cholesky(values["VI"]))
        case "unit":
            return _unit(X)
        case "centred_unit":
            return _unit(X - X.mean(axis=1, keepdims=True))
        case "ranked_unit":
            ranks = X.argsort(axis=1).argsort(axis=1).astype(np.float64)
            return _unit(ranks - ranks.mean(axis=1, keepdims=True))
        case "root_unit":
            total = X.sum(axis=1, keepdims=True)
            return np.sqrt(np.maximum(X, 0) / np.where(total > 0, total, 1.0))
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
