"""Cells: k-means on a sample, the start's axes, and how many cells a row must join."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.jit import kernel
from daskumap.kernels.random import mix_rows
from daskumap.kernels.scores import squared_distance

Array = np.ndarray[Any, Any]

# From here on k-means works in two levels: 5,658 cells of 8,000,000 x 128 took a minute flat (measured).
FLAT_CELLS = 2_048
# How often cells that are too large are split.
SPLITS = 3
# How near to the border with another cell a row joins that one as well, in radii of its own cell. Where it
# has its neighbours depends on that, not on how many cells are near: at equal recall, cells joined by margin
# have 10 to 75 % fewer pairs than those joined by rank (docs/decisions/0009-join-by-margin.md).
MARGINS = np.array([0.0, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25, 0.3, 0.4, np.inf])
LEVELS = len(MARGINS) + 1


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
    levels = _k_means if n_cells <= FLAT_CELLS else _two_levels
    centroids = levels(sample, n_cells, seed)
    for level in range(1, SPLITS + 2):
        owner, distances = _nearest(sample, centroids)
        counts = np.bincount(owner, minlength=len(centroids))
        large = np.flatnonzero(counts > max_share * len(sample))
        if not len(large) or level > SPLITS:
            break
        parts = [np.delete(centroids, large, axis=0)]
        for cell in large:
            pieces = int(np.ceil(counts[cell] / (max_share * len(sample)))) + 1
            parts.append(_k_means(sample[owner == cell], pieces, seed + level))
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


@kernel
def _rank_margins(nearest, distances, centres, radii, members, enough, margins, out):  # type: ignore[no-untyped-def]
    last = margins.shape[0] - 1
    for i in range(nearest.shape[0]):
        own = nearest[i, 0]
        held = 0.0
        for j in range(nearest.shape[1]):
            cell = nearest[i, j]
            if cell < 0:
                continue
            few = held < enough
            held += members[cell]
            if j == 0 or few:
                out[i, j] = j > 0
                continue
            near, far = np.float64(distances[i, 0]), np.float64(distances[i, j])
            reach = np.float64(radii[own])
            # By the triangle inequality the border is at least so far; in a space it is known how far.
            margin = 0.5 * (far - near)
            if centres.shape[0] > 0 and margin <= margins[last - 1] * reach:
                apart = math.sqrt(squared_distance(centres[own], centres[cell]))
                if apart > 0.0:
                    margin = (far * far - near * near) / (2.0 * apart)
            level = 0
            while level < last and margin > margins[level] * reach:
                level += 1
            out[i, j] = level + 1


def rank_margins(
    nearest: Array, distances: Array, radii: Array, members: Array, enough: float, centres: Array | None
) -> Array:
    """Return (r, m) uint8: the level from which on each row joins each of its nearest cells.

    At level 0 a row joins its nearest cell only. At level 1 it joins more where those before are small, so
    that no row is alone; at level l also those whose border with the nearest one is not farther than
    `MARGINS[l - 1]` radii, at the last all.

    Parameters
    ----------
    nearest, distances
        (r, m) int32 and float32: the nearest cells, -1 for none, and the distances of their centres.
    radii, members
        (c,) float32 and float64: radii as of `measure_cells`, and about how many rows each cell has.
    enough
        So many rows are not too few.
    centres
        (c, D) float32 in a Euclidean space; None where there is no such space.
    """
    out = np.zeros(nearest.shape, np.uint8)
    points = np.empty((0, 1), np.float32) if centres is None else np.ascontiguousarray(centres, np.float32)
    _rank_margins(nearest, distances, points, radii, members, float(enough), MARGINS, out)
    return out


def joined(nearest: Array, levels: Array, level: int) -> Array:
    """Return the cells that rows join at a level, shaped as `nearest`; -1 for those that they do not."""
    return np.where(levels <= level, nearest, -1)


def principal_axes(sample: Array, n_components: int) -> tuple[Array, Array, Array]:
    """Return mean (D,), axes (D, n_components) and limits (2, n_components) of a sample's main directions.

    The limits are the range of the sample's coordinates without the outer 0.1 %: a single far row must not
    squeeze the start of all others into a point. An axis' sign is fixed by its largest entry.
    """
    mean = sample.mean(axis=0, dtype=np.float64)
    rows = sample - mean.astype(np.float32)
    # Squares of what is larger overflow, and eigenvectors do not depend on the scale.
    scale = np.float32(np.abs(rows).max(initial=0.0))
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


def shared_recall(probe_cells: Array, neighbor_cells: Array, neighbor_ids: Array) -> tuple[float, float]:
    """Return the share of the probes' neighbours that share a cell with them, and its standard error.

    Parameters
    ----------
    probe_cells
        (p, m) int: the cells, or slices of cells, that the probes join; -1 for none.
    neighbor_cells
        (p, k, m) int: those that their exact neighbours join.
    neighbor_ids
        (p, k) int64; -1 marks a missing neighbour.
    """
    there = neighbor_ids >= 0
    if not there.any():
        return 1.0, 0.0
    known = np.where(neighbor_cells < 0, -2, neighbor_cells)
    shared = (probe_cells[:, None, :, None] == known[:, :, None, :]).any(axis=(2, 3))
    share = (shared & there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return float(shared[there].mean()), float(share.std() / np.sqrt(len(share)))


@kernel
def _widen(nearest, wide_of, out, small):  # type: ignore[no-untyped-def]
    for i in range(nearest.shape[0]):
        found = 0
        for j in range(nearest.shape[1]):
            cell = nearest[i, j]
            if cell < 0:
                continue
            place = 0
            while place < found and out[i, place] != wide_of[cell]:
                place += 1
            if place == found:
                out[i, found] = wide_of[cell]
                found += 1
            for s in range(small.shape[2]):
                if small[i, place, s] < 0:
                    small[i, place, s] = cell
                    break


def widen(nearest: Array, wide_of: Array, seeds: int = 0) -> tuple[Array, Array]:
    """Return the wide cells that hold the nearest small ones: nearest first, each once, -1 for none left.

    Parameters
    ----------
    nearest
        (..., m) int32: nearest small cells, -1 for none.
    wide_of
        (c,) int32: the wide cell of each small one.
    seeds
        How many of its nearest small cells to return for each wide one.

    Returns
    -------
    wide, small
        (..., m) int32, and (..., m, seeds) int32, -1 where there are fewer.
    """
    flat = np.ascontiguousarray(nearest.reshape(-1, nearest.shape[-1]))
    out, small = np.full_like(flat, -1), np.full((*flat.shape, seeds), -1, np.int32)
    _widen(flat, wide_of, out, small)
    return out.reshape(nearest.shape), small.reshape(*nearest.shape, seeds)


def join_cells(members: Array, rows: int) -> Array:
    """Join consecutive cells to wide ones of about so many rows; returns (c,) int32, the wide cell of each.

    Neighbouring numbers are neighbouring cells. A cell of more rows stays alone.

    Parameters
    ----------
    members
        (c,) int64: rows of each cell.
    """
    middle = np.cumsum(members) - members / 2
    wides = max(1, round(float(members.sum()) / rows))
    share = (middle * (wides / max(1.0, float(members.sum())))).astype(np.int64)
    return np.unique(np.minimum(share, wides - 1), return_inverse=True)[1].astype(np.int32)


def halve(wide_of: Array, members: Array, large: Array) -> Array:
    """Return the wide cells with each of the `large` ones, (w,) bool, cut in two; single cells stay."""
    out, next_ = np.empty_like(wide_of), 0
    for wide in range(int(wide_of[-1]) + 1):
        here = np.flatnonzero(wide_of == wide)
        parts = join_cells(members[here], max(1, int(members[here].sum()) // 2)) if large[wide] else 0 * here
        out[here] = next_ + parts
        next_ = int(out[here[-1]]) + 1
    return out


def slices_of(rows: Array, cells: Array, slice_starts: Array) -> Array:
    """Return the slice of each cell that a row joins, shaped as `cells`; -1 for no cell.

    The slice is a hash of row and cell: two rows that are parted in one cell may meet in another.

    Parameters
    ----------
    rows
        (...) int64 row ids.
    cells
        (..., m) int32: the cells that each joins, -1 for none.
    slice_starts
        (c + 1,) int64: first slice of each cell.
    """
    pieces = np.diff(slice_starts)[cells]
    slices = slice_starts[cells] + mix_rows(mix_rows(rows)[..., None] ^ cells) % pieces
    return np.where(cells >= 0, slices, -1)


def cut(members: Array, max_rows: int) -> Array:
    """Cut cells of more than `max_rows` into slices; returns (c + 1,) int64, the first slice of each cell.

    A hash decides who is in which slice, so they aim at 90 % of the limit: chance does not pass it.
    """
    pieces = np.where(members > max_rows, np.ceil(members / (0.9 * max_rows)), 1).astype(np.int64)
    return np.concatenate([[0], np.cumsum(pieces)])


def plan_slices(members: Array, max_rows: int, group_rows: int, group_cells: int) -> tuple[Array, Array]:
    """Slice oversized cells and group the slices for tasks.

    Parameters
    ----------
    members
        (c,) int64: rows that joined each cell.
    max_rows
        Rows that one slice may hold.
    group_rows, group_cells
        Rows, and slices, that one task may hold.

    Returns
    -------
    slice_starts, group_starts
        (c + 1,) and (g + 1,) int64: first slice of each cell, and of each group.
    """
    slice_starts = cut(members, max_rows)
    pieces = np.diff(slice_starts)
    rows = np.repeat(members / pieces, pieces)
    starts, held = [0], 0.0
    for number, size in enumerate(rows):
        if number - starts[-1] == group_cells or (held and held + size > group_rows):
            starts.append(number)
            held = 0.0
        held += size
    starts.append(len(rows))
    return slice_starts, np.asarray(starts, np.int64)
