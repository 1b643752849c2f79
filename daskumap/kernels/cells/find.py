"""Where cells are: k-means on a sample, pivots where there is no mean, their order and the start's axes."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

# From here on k-means works in two levels: 5,658 cells of 8,000,000 x 128 took a minute flat (measured).
FLAT_CELLS = 2_048
# How often cells that are too large are split.
SPLITS = 3


class Cells(NamedTuple):
    """Centres (c, D), radii (c,) float32, and how many rows of a sample are nearest to each, (c,) int64."""

    centres: Array
    radii: Array
    counts: Array


def find_centroids(sample: Array, n_cells: int, max_share: float, seed: int) -> Cells:
    """Return about `n_cells` cells of the sample, each about the mean of its rows.

    A cell with more than `max_share` of the sample is split again, so that dense regions get many cells and
    no cell grows with the data. Exact duplicates cannot be split; the caller slices them.

    Parameters
    ----------
    sample
        (s, D) float32 in a space where the Euclidean distance means something.
    """
    partition = _k_means if n_cells <= FLAT_CELLS else _two_levels
    centroids = partition(sample, n_cells, seed)
    for attempt in range(1, SPLITS + 2):
        owner, distances = _nearest(sample, centroids)
        counts = np.bincount(owner, minlength=len(centroids))
        large = np.flatnonzero(counts > max_share * len(sample))
        if not len(large) or attempt > SPLITS:
            break
        parts = [np.delete(centroids, large, axis=0)]
        for cell in large:
            pieces = int(np.ceil(counts[cell] / (max_share * len(sample)))) + 1
            parts.append(_k_means(sample[owner == cell], pieces, seed + attempt))
        split = np.unique(np.concatenate(parts), axis=0)
        if len(split) <= len(centroids):
            break
        centroids = split
    order = order_by_proximity(centroids)
    found = measure_cells(np.ascontiguousarray(centroids, np.float32), owner, distances)
    return Cells(*(part[order] for part in found))


def measure_cells(centres: Array, owner: Array, distances: Array) -> Cells:
    """Return cells with their radii: the mean distance of their rows; of all rows where that is 0 or unknown.

    Parameters
    ----------
    owner, distances
        (s,) int and float: the nearest cell of some rows, and how far its centre is.
    """
    counts = np.bincount(owner, minlength=len(centres))
    radii = np.bincount(owner, distances, len(centres)) / np.maximum(counts, 1)
    known = np.isfinite(radii) & (radii > 0)
    radii = np.where(known, radii, radii[known].mean() if known.any() else 1.0)
    return Cells(centres, radii.astype(np.float32), counts)


def _two_levels(sample: Array, n_cells: int, seed: int) -> Array:
    """Return about `n_cells` centroids: few cells first, then each cut in proportion to its rows.

    k-means takes rows x cells; with as many rows a cell, flat it grows with the square of the cells.
    """
    coarse = _k_means(sample, math.isqrt(n_cells), seed)
    owner, _ = _nearest(sample, coarse)
    counts = np.bincount(owner, minlength=len(coarse))
    shares = np.maximum(1, np.rint(counts * (n_cells / len(sample))).astype(np.int64))
    parts = []
    for cell in np.flatnonzero(counts).tolist():
        parts.append(_k_means(sample[owner == cell], int(shares[cell]), seed + cell))
    return np.unique(np.concatenate(parts), axis=0)


def find_pivots(sample: Array, n_cells: int, seed: int) -> Array:
    """Return `n_cells` distinct rows of the sample: the cells' centres where no mean is defined."""
    distinct = np.unique(sample, axis=0)
    chosen = np.random.RandomState(seed % 2**32).permutation(len(distinct))[:n_cells]
    return np.ascontiguousarray(distinct[np.sort(chosen)])


def _k_means(rows: Array, n_cells: int, seed: int) -> Array:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if n_cells >= len(rows):
        return np.unique(rows, axis=0)
    model = KMeans(
        n_cells, init="random", n_init=1, max_iter=10, algorithm="lloyd", random_state=seed % 2**32
    )
    with warnings.catch_warnings():
        # Fewer distinct rows than cells: np.unique handles it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows)
    return np.unique(model.cluster_centers_, axis=0)


def _nearest(rows: Array, centroids: Array) -> tuple[Array, Array]:
    """Return the nearest centroid of each row, and about how far it is."""
    norms = np.einsum("ij,ij->i", centroids, centroids)
    owner, distances = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    for part in (slice(start, start + 1024) for start in range(0, len(rows), 1024)):
        scores = norms - 2.0 * rows[part] @ centroids.T
        owner[part] = np.argmin(scores, axis=1)
        squares = scores.min(axis=1) + np.einsum("ij,ij->i", rows[part], rows[part])
        distances[part] = np.sqrt(np.maximum(squares, 0.0))
    return owner, distances


def order_by_proximity(centroids: Array) -> Array:
    """Return an order, (c,) int64, that puts near centroids together: by splits at the widest axis' median.

    Vertices are numbered cell after cell, so this makes partitions compact and cut edges few.
    """

    def split(members: Array) -> list[Array]:
        if len(members) <= 2:
            return [members]
        points = centroids[members]
        axis = int(np.argmax(points.var(axis=0)))
        order = members[np.argsort(points[:, axis], kind="stable")]
        half = len(order) // 2
        return split(order[:half]) + split(order[half:])

    return np.concatenate(split(np.arange(len(centroids))))


def fill_missing(rows: Array) -> Array:
    """Return rows with the mean of the column in place of what is not finite."""
    known = np.isfinite(rows)
    sums = np.where(known, rows, 0).sum(axis=0, dtype=np.float64)
    means = sums / np.maximum(known.sum(axis=0), 1)
    return np.where(known, rows, means.astype(rows.dtype))


def principal_axes(sample: Array, n_components: int) -> tuple[Array, Array, Array]:
    """Return mean (D,), axes (D, n_components) and limits (2, n_components) of a sample's main directions.

    The limits are the range of the sample's coordinates without the outer 0.1 %: a single far row must not
    squeeze the start of all others into a point. An axis' sign is fixed by its largest entry.
    """
    mean = sample.mean(axis=0, dtype=np.float64)
    rows = sample - mean.astype(np.float32)
    # Squares of what is larger overflow, and eigenvectors do not depend on the scale.
    scale = max(rows.max(initial=np.float32(0.0)), -rows.min(initial=np.float32(0.0)))
    scale = scale if scale > 1e15 else np.float32(1.0)
    rows /= scale
    wide = rows.shape[1] > rows.shape[0]
    gram = rows @ rows.T if wide else rows.T @ rows
    vectors = np.linalg.eigh(gram.astype(np.float64))[1][:, ::-1][:, :n_components]
    axes = rows.T @ vectors if wide else vectors
    norms = np.linalg.norm(axes, axis=0)
    axes = axes / np.where(norms > 0, norms, 1.0)
    if axes.shape[1] < n_components:  # fewer columns than components: the rest starts from noise alone
        axes = np.pad(axes, ((0, 0), (0, n_components - axes.shape[1])))
    signs = np.sign(axes[np.argmax(np.abs(axes), axis=0), np.arange(axes.shape[1])])
    axes = axes * np.where(signs == 0, 1.0, signs)
    limits = np.quantile(rows @ axes, [0.001, 0.999], axis=0) * scale
    return mean.astype(np.float32), axes.astype(np.float32), limits
