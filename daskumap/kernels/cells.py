"""Cells: k-means on a sample, the start's axes, and how many cells a row must join."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from daskumap.kernels.jit import kernel

Array = np.ndarray[Any, Any]


def find_centroids(sample: Array, n_cells: int, max_share: float, seed: int) -> Array:
    """Return the centroids (c, D) float32 of about `n_cells` cells of the sample.

    A cell with more than `max_share` of the sample is split again, so that dense regions get many cells and
    no cell grows with the data. Exact duplicates cannot be split; the caller slices them.

    Parameters
    ----------
    sample
        (s, D) float32 in a space where the Euclidean distance means something.
    """
    centroids = _k_means(sample, n_cells, seed)
    for level in range(1, 4):
        owner = _nearest(sample, centroids)
        counts = np.bincount(owner, minlength=len(centroids))
        large = np.flatnonzero(counts > max_share * len(sample))
        if not len(large):
            break
        parts = [np.delete(centroids, large, axis=0)]
        for cell in large:
            pieces = int(np.ceil(counts[cell] / (max_share * len(sample)))) + 1
            parts.append(_k_means(sample[owner == cell], pieces, seed + level))
        split = np.unique(np.concatenate(parts), axis=0)
        if len(split) <= len(centroids):
            break
        centroids = split
    return np.ascontiguousarray(order_by_proximity(centroids), np.float32)


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


def _nearest(rows: Array, centroids: Array) -> Array:
    norms = np.einsum("ij,ij->i", centroids, centroids)
    return np.concatenate(
        [np.argmin(norms - 2.0 * rows[s : s + 8192] @ centroids.T, axis=1) for s in range(0, len(rows), 8192)]
    )


def order_by_proximity(centroids: Array) -> Array:
    """Order centroids so that near ones are near in number: by the tree of splits at the widest axis' median.

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

    return centroids[np.concatenate(split(np.arange(len(centroids))))] if len(centroids) else centroids


def principal_axes(sample: Array, n_components: int) -> tuple[Array, Array, Array]:
    """Return mean (D,), axes (D, n_components) and limits (2, n_components) of a sample's main directions.

    The limits are the range of the sample's coordinates without the outer 0.1 %: a single far row must not
    squeeze the start of all others into a point. An axis' sign is fixed by its largest entry.
    """
    mean = sample.mean(axis=0, dtype=np.float64)
    rows = (sample - mean).astype(np.float32)
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
    limits = np.quantile(rows @ axes, [0.001, 0.999], axis=0)
    return mean.astype(np.float32), axes.astype(np.float32), limits


def overlap_recall(probe_cells: Array, neighbor_cells: Array, neighbor_ids: Array) -> tuple[Array, Array]:
    """Return the recall that joining the nearest 1, 2, ... m cells gives and its standard error, (m,) each.

    A neighbour is found if it shares a cell with the probe.

    Parameters
    ----------
    probe_cells
        (p, m) int32: the probes' nearest cells, nearest first.
    neighbor_cells
        (p, k, m) int32: those of their exact neighbours.
    neighbor_ids
        (p, k) int64; -1 marks a missing neighbour.
    """
    levels = probe_cells.shape[1]
    there = neighbor_ids >= 0
    out, error = np.ones(levels), np.zeros(levels)
    for m in range(1, levels + 1):
        shared = (probe_cells[:, None, :m, None] == neighbor_cells[:, :, None, :m]).any(axis=(2, 3))
        if there.any():
            share = (shared & there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
            out[m - 1] = shared[there].mean()
            error[m - 1] = share.std() / np.sqrt(len(share))
    return out, error


@kernel
def _widen(nearest, span, out):  # type: ignore[no-untyped-def]
    for i in range(nearest.shape[0]):
        found = 0
        for j in range(nearest.shape[1]):
            cell = nearest[i, j] // span if nearest[i, j] >= 0 else -1
            known = cell < 0
            for t in range(found):
                known = known or out[i, t] == cell
            if not known:
                out[i, found] = cell
                found += 1


def widen(nearest: Array, span: int) -> Array:
    """Return the nearest wide cells of `span` consecutive cells: nearest first, each once, -1 for none left.

    Parameters
    ----------
    nearest
        (..., m) int32: nearest cells, -1 for none. Neighbouring numbers are neighbouring cells.
    """
    if span == 1:
        return nearest
    flat = np.ascontiguousarray(nearest.reshape(-1, nearest.shape[-1]))
    out = np.full_like(flat, -1)
    _widen(flat, span, out)
    return out.reshape(nearest.shape)


def plan_slices(members: Array, max_rows: int, group_rows: int) -> tuple[Array, Array]:
    """Slice oversized cells and group the slices for tasks.

    Parameters
    ----------
    members
        (c,) int64: rows that joined each cell.
    max_rows
        Rows that one slice may hold. A cell above it is cut into slices by a hash of the row, aiming at 90 %
        so that chance does not pass the limit.
    group_rows
        Rows that one task may hold.

    Returns
    -------
    slice_starts, group_starts
        (c + 1,) and (g + 1,) int64: first slice of each cell, and of each group.
    """
    pieces = np.where(members > max_rows, np.ceil(members / (0.9 * max_rows)), 1).astype(np.int64)
    slice_starts = np.concatenate([[0], np.cumsum(pieces)])
    rows = np.repeat(members / pieces, pieces)
    starts, held = [0], 0.0
    for number, size in enumerate(rows):
        if held and held + size > group_rows:
            starts.append(number)
            held = 0.0
        held += size
    starts.append(len(rows))
    return slice_starts, np.asarray(starts, np.int64)
