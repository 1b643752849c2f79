"""Nearest neighbours of a block of rows: exact by matrix product or by pairs, approximate by NN-descent.

Lists are ascending by (distance, id), without the row itself, and end in -1 and inf where there are too few
rows. A pair at an infinite or undefined distance is no neighbour. Within one process and metric the distance
of a pair has the same bits in every list, whatever the cell, the block or the order of the two.
"""

import contextlib
import threading
import warnings
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.jit import kept_as, kernel
from daskumap.kernels.metrics.metric import Metric, distance_function, kernel_of, to_space
from daskumap.kernels.neighbors import join, products
from daskumap.kernels.neighbors.scores import (
    LARGEST,
    SQRT,
    STRIP,
    finished,
    insert,
    squared_distance,
    unfinished,
)

Array = np.ndarray[Any, Any]
Lists = tuple[NDArray[np.int32], NDArray[np.float32]]

# Pairs of 4,096 rows take about a second under a cheap metric; NN-descent compiles for 20 s and saves little
# below.
MAX_PAIRWISE_ROWS = 4096

_serial = threading.Lock()


def cell_neighbors(X: Array, n_neighbors: int, metric: Metric, seed_key: int) -> Lists:
    """Find the nearest neighbours of every row among the rows of one cell.

    Parameters
    ----------
    X
        (r, D) rows as the user has them, not in the metric's space.
    n_neighbors
        k, how many others to find; the row itself does not count.
    seed_key
        64-bit key of the cell's random numbers; only NN-descent draws any.

    Returns
    -------
    indices, distances
        (r, k) int32 and float32.
    """
    rows = _cast(X, metric)
    if metric.space is not None or len(rows) <= MAX_PAIRWISE_ROWS:
        return brute_force(rows, n_neighbors, metric)
    return nn_descent(rows, n_neighbors, metric, seed_key)


def brute_force(X: Array, n_neighbors: int, metric: Metric) -> Lists:
    """Find the nearest neighbours exactly; arguments and result as in `cell_neighbors`.

    Notes
    -----
    With a Euclidean space: r^2 D flops to 2 r^2 D in `sgemm`, and 8 D r bytes besides X. Without: r^2
    evaluations.
    """
    rows = _cast(X, metric)
    if metric.space is None:
        return _by_pairs(rows, rows, n_neighbors, metric, np.arange(len(rows), dtype=np.int32))
    return products.nearest_others(to_space(rows, metric), n_neighbors, metric.finish)


def wide_neighbors(X: Array, cells: NDArray[np.int32], k: int, metric: Metric, max_rows: int) -> Lists:
    """Find most of the nearest neighbours in a cell of many small ones, by matrix products and joins.

    Parameters
    ----------
    cells, max_rows
        As in `join.wide_neighbors`; the other arguments and the result are those of `cell_neighbors`.
    """
    return join.wide_neighbors(to_space(_cast(X, metric), metric), cells, k, metric.finish, max_rows)


def nn_descent(X: Array, k: int, metric: Metric, seed: int) -> Lists:
    """Find most of the nearest neighbours by NN-descent; arguments and result as in `cell_neighbors`.

    One thread and one seed give one result. The distances are evaluated again, since pynndescent's went
    through a logarithm for some metrics.

    References
    ----------
    Dong, Moses, Li (2011), Efficient k-nearest neighbor graph construction for generic similarity measures.
    """
    from pynndescent import NNDescent  # seconds
    from sklearn import config_context

    rows = _cast(X, metric)
    # A function with bound keywords is passed as such: NNDescent would compile a new one for every cell.
    named = metric.function is None and not metric.keywords
    # What is not finite is the metric's own business here: the fit has refused what it does not measure.
    with warnings.catch_warnings(), config_context(assume_finite=True), _guard():
        warnings.filterwarnings("ignore", "Failed to correctly find n_neighbors")
        index = NNDescent(
            rows,
            metric=metric.name if named else distance_function(metric),
            n_neighbors=min(max(30, 2 * (k + 1)), len(rows)),
            n_jobs=1,
            random_state=(seed ^ seed >> 32) & 0xFFFFFFFF,
        )
    candidates = np.ascontiguousarray(index.neighbor_graph[0], np.int32)
    ids, distances = _empty(len(rows), k)
    if k > 0:
        kernel_of(_evaluate, metric)(rows, candidates, ids, distances)
    return ids, distances


def nearest(
    queries: Array, X: Array, k: int, metric: Metric, query_ids: NDArray[np.int64], first: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the k nearest rows of a block for each query, exactly.

    Parameters
    ----------
    queries, X
        (q, D) and (r, D) rows as the user has them.
    query_ids
        (q,) int64, the queries' own ids: a row with the same id is left out.
    first
        id of the block's first row; the others follow.

    Returns
    -------
    ids, distances
        (q, k) int64 and float32; `merge_nearest` joins the lists of several blocks.
    """
    Q, rows, own = _cast(queries, metric), _cast(X, metric), _local(query_ids, first, len(X))
    if metric.space is None:
        ids, distances = _by_pairs(Q, rows, k, metric, own)
    else:
        ids, distances = products.search(to_space(Q, metric), to_space(rows, metric), k, metric.finish, own)
    return np.where(ids >= 0, ids.astype(np.int64) + first, -1), distances


def enter(
    queries: Array, X: Array, metric: Metric, first: int, ids: Array, distances: NDArray[np.float32]
) -> None:
    """Enter the rows of a block into lists of the nearest rows of each query, in place.

    Parameters
    ----------
    queries, X
        (q, D) and (r, D) rows as the user has them; no query is one of the block.
    first
        id of the block's first row; the others follow.
    ids, distances
        (q, k) int32 or int64, and float32: what other blocks entered, -1 and inf where there are fewer.
    """
    Q, rows, own = _cast(queries, metric), _cast(X, metric), np.full(len(queries), -1, np.int32)
    if metric.space is None:
        kernel_of(_pairs, metric)(Q, rows, own, first, ids, distances)
    else:
        products.enter(to_space(Q, metric), to_space(rows, metric), metric.finish, own, first, ids, distances)


def merge_nearest(
    ids_a: Array, distances_a: Array, ids_b: Array, distances_b: Array, k: int
) -> tuple[Array, NDArray[np.float32]]:
    """Merge two lists per row to the k nearest by (distance, id), each id once at its smaller distance.

    Parameters
    ----------
    ids_a, ids_b
        (n, ka) and (n, kb) integers of one dtype, -1 where missing.
    distances_a, distances_b
        same shapes, float32, inf where missing.
    """
    ids = np.full((len(ids_a), k), -1, ids_a.dtype)
    distances = np.full((len(ids_a), k), np.inf, np.float32)
    _merge(ids_a, distances_a, ids_b, distances_b, ids, distances)
    return ids, distances


def assign_cells(X: Array, centroids: Array, n_nearest: int, metric: Metric) -> Lists:
    """Find the nearest cells of each row, nearest first, ties by cell.

    Parameters
    ----------
    X
        (r, D) rows as the user has them.
    centroids
        (c, D) float32: points of the metric's space if it has one, else rows (pivots) as the user has them.

    Returns
    -------
    cells, distances
        (r, n_nearest) int32 and float32: distances in the metric's space if it has one, else by the metric.
        Missing cells (n_nearest > c, or all at infinite distance) are -1.
    """
    rows = _cast(X, metric)
    own = np.full(len(rows), -1, np.int32)
    if metric.space is None:
        return _by_pairs(rows, _cast(centroids, metric), n_nearest, metric, own)
    points = np.ascontiguousarray(centroids, np.float32)
    return products.search(to_space(rows, metric), points, n_nearest, SQRT, own)


def count_closer(
    queries: Array, X: Array, thresholds: Array, metric: Metric, query_ids: NDArray[np.int64], first: int
) -> NDArray[np.int64]:
    """Count the rows of a block that are closer to each query than each threshold, exactly.

    A rank in the data is such a count summed over all blocks: trustworthiness by streaming.

    Parameters
    ----------
    thresholds
        (q, t) float32 distances, in any order. Those that came from this module compare equal to their own
        pair.

    Returns
    -------
    :
        (q, t) int64. The other arguments are those of `nearest`.
    """
    Q, rows, own = _cast(queries, metric), _cast(X, metric), _local(query_ids, first, len(X))
    limits = np.ascontiguousarray(thresholds, np.float32)
    counts = np.zeros(limits.shape, np.int64)
    if metric.space is None:
        kernel_of(_count_pairs, metric)(Q, rows, own, limits, counts)
    elif limits.size and len(rows):
        _count_by_products(to_space(Q, metric), to_space(rows, metric), own, metric.finish, limits, counts)
    return counts


def _cast(X: Array, metric: Metric) -> Array:
    return np.ascontiguousarray(X, metric.dtype)


def _empty(rows: int, k: int) -> Lists:
    return np.full((rows, k), -1, np.int32), np.full((rows, k), np.inf, np.float32)


def _local(query_ids: NDArray[np.int64], first: int, rows: int) -> NDArray[np.int32]:
    """Return each query's position in the block, -1 where it is elsewhere."""
    own = np.asarray(query_ids, np.int64) - first
    return np.where((own >= 0) & (own < rows), own, -1).astype(np.int32)


def _guard() -> Any:
    """Return a lock where numba's parallel layer aborts when two threads enter it: "workqueue"."""
    try:
        safe = numba.threading_layer() != "workqueue"
    except ValueError:  # nothing has run in parallel yet, so the layer is not chosen
        safe = False
    return contextlib.nullcontext() if safe else _serial


def _by_pairs(Q: Array, X: Array, k: int, metric: Metric, own: NDArray[np.int32]) -> Lists:
    ids, distances = _empty(len(Q), k)
    if k > 0:
        kernel_of(_pairs, metric)(Q, X, own, 0, ids, distances)
    return ids, distances


def _pairs(distance: Any, name: str | None) -> Any:
    @kept_as(name)
    def pairs(Q, X, own, first, ids, distances):  # type: ignore[no-untyped-def]
        for i in range(Q.shape[0]):
            for j in range(X.shape[0]):
                if j != own[i]:
                    insert(ids[i], distances[i], first + j, distance(Q[i], X[j]))

    return pairs


def _evaluate(distance: Any, name: str | None) -> Any:
    @kept_as(name)
    def evaluate(X, candidates, ids, distances):  # type: ignore[no-untyped-def]
        """Fill the lists from each row's candidates: itself and repeats are skipped wherever they stand."""
        for i in range(X.shape[0]):
            for place in range(candidates.shape[1]):
                j = candidates[i, place]
                fresh = j >= 0 and j != i
                for before in range(place):
                    fresh = fresh and candidates[i, before] != j
                if fresh:
                    insert(ids[i], distances[i], j, distance(X[i], X[j]))

    return evaluate


def _count_pairs(distance: Any, name: str | None) -> Any:
    @kept_as(name)
    def count(Q, X, own, thresholds, counts):  # type: ignore[no-untyped-def]
        for i in range(Q.shape[0]):
            for j in range(X.shape[0]):
                if j != own[i]:
                    d = distance(Q[i], X[j])
                    for t in range(thresholds.shape[1]):
                        counts[i, t] += d < thresholds[i, t]

    return count


@kernel
def _merge(ids_a, distances_a, ids_b, distances_b, ids, distances):  # type: ignore[no-untyped-def]
    for i in range(ids.shape[0]):
        a = 0
        b = 0
        size = 0
        while size < ids.shape[1]:
            has_a = a < ids_a.shape[1] and ids_a[i, a] >= 0
            has_b = b < ids_b.shape[1] and ids_b[i, b] >= 0
            if not has_a and not has_b:
                break
            take_a = has_a
            if has_a and has_b:
                da, db = distances_a[i, a], distances_b[i, b]
                take_a = da < db or (da == db and ids_a[i, a] <= ids_b[i, b])
            if take_a:
                candidate, distance = ids_a[i, a], distances_a[i, a]
                a += 1
            else:
                candidate, distance = ids_b[i, b], distances_b[i, b]
                b += 1
            # In ascending order the first of two equal ids has the smaller distance.
            fresh = True
            for place in range(size):
                fresh = fresh and ids[i, place] != candidate
            if fresh:
                ids[i, size] = candidate
                distances[i, size] = distance
                size += 1


def _count_by_products(
    Q: Array, X: Array, own: NDArray[np.int32], finish: int, thresholds: Array, counts: Array
) -> None:
    order = np.argsort(thresholds, axis=1)
    limits = np.take_along_axis(thresholds, order, axis=1)
    # How many rows are within a limit and not within the one before.
    new = np.zeros_like(counts)
    for tile in products.tiles(Q, X):
        q, x = tile.queries, tile.rows
        _count_tile(
            tile.scores,
            tile.low,
            tile.high,
            tile.half,
            own[q] - x.start,
            Q[q],
            X[x],
            tile.error,
            finish,
            limits[q],
            new[q],
        )
    np.put_along_axis(counts, order, np.cumsum(new, axis=1), axis=1)


@kernel
def _count_tile(scores, low, high, half, own, Q, X, error, finish, limits, new):  # type: ignore[no-untyped-def]
    """Add each row of a tile to the first of some ascending limits that it is within, if it is within any.

    A product decides where its rounding allows, else the pair is evaluated.
    """
    last = limits.shape[1] - 1
    surely = np.empty(last + 1, np.float32)
    perhaps = np.empty(last + 1, np.float32)
    for i in range(scores.shape[0]):
        slack = error * np.float64(half[i])
        for t in range(last + 1):
            surely[t], perhaps[t] = _bounds(limits[i, t], half[i], slack, finish)
        for s in range(scores.shape[1]):
            # Most strips of most queries hold no row within the farthest limit.
            hits = np.int32(0)
            for c in range(STRIP):
                hits += np.int32(low[s, c] - scores[i, s, c] <= perhaps[last])
            if hits == 0:
                continue
            for c in range(STRIP):
                least, most = low[s, c] - scores[i, s, c], high[s, c] - scores[i, s, c]
                if not least <= perhaps[last] or s * STRIP + c == own[i]:
                    continue
                first = 0
                settled = 0
                for t in range(last + 1):
                    first += least > perhaps[t]
                    settled += most >= surely[t]
                if first < settled:
                    first = _first_above(limits[i], Q[i], X[s * STRIP + c], finish)
                if first <= last:
                    new[i, first] += 1


@kernel
def _bounds(limit, half, slack, finish):  # type: ignore[no-untyped-def]
    """Return the half scores below which a row surely is within a limit, and up to which it may be."""
    squared = 0.5 * unfinished(min(limit, np.float32(LARGEST)), finish)
    inner = squared * (1.0 - 1e-6) - half - slack
    outer = squared * (1.0 + 1e-6) - half + slack
    return np.float32(inner - 2.4e-7 * abs(inner)), np.float32(min(outer + 2.4e-7 * abs(outer), LARGEST))


@kernel
def _first_above(limits, x, y, finish):  # type: ignore[no-untyped-def]
    """Return the place of the first of some ascending limits that the distance of a pair is below."""
    distance = finished(squared_distance(x, y), finish)
    first = 0
    for t in range(limits.shape[0]):
        first += not distance < limits[t]
    return first
