"""Exact neighbours and ranks of some query rows, read in blocks.

Lists never hold the row itself; -1 marks a missing neighbour. Whatever has one entry a row is read in blocks,
so that 10^8 rows of a Zarr array need the memory of 10^5.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.jit import kernel
from daskumap.kernels.layout.distances import measure
from daskumap.kernels.parts import build

# Rows that are read at once: 2 MB of a 2-D embedding, a fraction of any chunk of a Zarr array.
READ_ROWS = 262_144
# Rows whose distances to one query are kept at once: 16 kB of float64, half of a first-level cache.
TILE_ROWS = 2_048
# Distances that are kept at once by the matrix products: 64 MB of float64.
PRODUCT_CELLS = 8_388_608

Ids = NDArray[np.int64]


@kernel
def offer(distances, count, first_row, skip, ids, best):  # type: ignore[no-untyped-def]
    """Insert `distances[:count]` of the rows from `first_row` into one sorted list of nearest rows.

    Rows come in ascending order, so a strict comparison keeps ties in order of their id.
    """
    last = len(best) - 1
    for i in range(count):
        distance = distances[i]
        # False for NaN as well: a row without a position is nobody's neighbour.
        if distance < best[last] and first_row + i != skip:
            slot = last
            while slot > 0 and best[slot - 1] > distance:
                best[slot] = best[slot - 1]
                ids[slot] = ids[slot - 1]
                slot -= 1
            best[slot] = distance
            ids[slot] = first_row + i


@kernel
def square_tile(columns, first, query, squared):  # type: ignore[no-untyped-def]
    """Fill `squared` with squared distances of a query to rows from place `first` on, given as (d, rows)."""
    squared[:] = 0.0
    # Column by column, so that the inner loop is contiguous and vectorises without reordering a sum.
    for j in range(len(columns)):
        origin = query[j]
        for i in range(len(squared)):
            difference = np.float64(columns[j, first + i]) - origin
            squared[i] += difference * difference


@kernel
def _offer_block(columns, first_row, queries, query_rows, ids, best):  # type: ignore[no-untyped-def]
    """Offer the rows of one block, given as (d, rows) float32, to the lists of all queries."""
    rows = columns.shape[1]
    squared = np.empty(TILE_ROWS)
    for tile in range(0, rows, TILE_ROWS):
        count = min(TILE_ROWS, rows - tile)
        for q in range(len(queries)):
            square_tile(columns, tile, queries[q], squared[:count])
            offer(squared, count, first_row + tile, query_rows[q], ids[q], best[q])


@kernel
def _offer_distances(squared, first_row, query_rows, ids, best):  # type: ignore[no-untyped-def]
    """Offer the columns of a (q, rows) matrix of squared distances to the lists of all queries."""
    for q in range(len(squared)):
        offer(squared[q], squared.shape[1], first_row, query_rows[q], ids[q], best[q])


@kernel
def _count_closer(squared, first_row, query_rows, ids, limits, closer):  # type: ignore[no-untyped-def]
    """Add to `closer` (q, k) how many rows of the block are closer than each of the k given rows."""
    rows = squared.shape[1]
    for q in range(len(squared)):
        # The query is no neighbour of itself, and must not count as one.
        own = query_rows[q] - first_row
        if 0 <= own < rows:
            squared[q, own] = np.inf
        for c in range(ids.shape[1]):
            limit = limits[q, c]
            target = ids[q, c] - first_row
            count = 0
            for i in range(rows):
                count += squared[q, i] < limit
            if 0 <= target < rows:
                # Rounding may have put the row before itself.
                count -= squared[q, target] < limit
            # Ties go to the lower id.
            for i in range(min(rows, max(target, 0))):
                count += squared[q, i] == limit
            closer[q, c] += count


def blocks(array: Any, rows: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, block) of anything that slices."""
    for start in range(0, array.shape[0], rows):
        yield start, np.asarray(array[start : start + rows])


def _gather(array: Any, rows: Ids) -> NDArray[np.float64]:
    """Return the given rows as float64, reading contiguous ranges only: fancy indexing explodes on shards."""
    rows = np.asarray(rows, dtype=np.int64)
    out = np.empty((len(rows), array.shape[1]))
    order = np.argsort(rows, kind="stable")
    step = max(1, PRODUCT_CELLS // array.shape[1])
    edges = np.searchsorted(rows[order], np.arange(0, array.shape[0] + step, step))
    for part, (first, last) in enumerate(pairwise(edges)):
        if first < last:
            start = part * step
            mine = order[first:last]
            out[mine] = np.asarray(array[start : start + step])[rows[mine] - start]
    return out


def empty_lists(queries: int, k: int) -> tuple[Ids, NDArray[np.float64]]:
    """Return lists of nearest rows in which there are none yet."""
    return np.full((queries, k), -1, dtype=np.int64), np.full((queries, k), np.inf)


def _offer_measured(block, first_row, queries, query_rows, metric, x, y, gradient, ids, best):  # type: ignore[no-untyped-def]
    """Offer the rows of one block, (rows, d) float32, to the lists of all queries, by a metric."""
    distances = np.empty(TILE_ROWS)
    for tile in range(0, len(block), TILE_ROWS):
        count = min(TILE_ROWS, len(block) - tile)
        for q in range(len(queries)):
            for i in range(count):
                whole = True
                for c in range(x.size):
                    x[c], y[c] = queries[q, c], block[tile + i, c]
                    whole = whole and not np.isnan(x[c] + y[c])
                distances[i] = measure(metric, x, y, gradient) if whole else np.inf
            offer(distances, count, first_row + tile, query_rows[q], ids[q], best[q])


def embedding_neighbors(
    embedding: Any, query_rows: Ids, k: int, metric: Any = None
) -> tuple[Ids, NDArray[np.float64]]:
    """Return the exact k nearest rows of each query row in the embedding, without the row itself.

    2 s for 2,000 queries and 10^6 rows on one core; memory does not grow with the rows.

    Parameters
    ----------
    embedding
        (n, d) floating point, anything that slices. A row with NaN is nobody's neighbour.
    query_rows
        (q,) int64.
    metric
        Of the map: an instance of a class of `layout.distances`; None for the Euclidean one.

    Returns
    -------
    ids, distances
        (q, k) int64 and float64, ascending by (distance, id); -1 and inf where there are fewer rows than k.
    """
    query_rows = np.ascontiguousarray(query_rows, dtype=np.int64)
    queries = _gather(embedding, query_rows).astype(np.float32).astype(np.float64)
    ids, best = empty_lists(len(query_rows), k)
    if metric is not None:
        offer_measured, d = build(_offer_measured, type(metric)), embedding.shape[1]
        room = np.empty(d, np.float32), np.empty(d, np.float32), np.empty(d)
        for start, block in blocks(embedding, READ_ROWS):
            rows = np.ascontiguousarray(block, dtype=np.float32)
            offer_measured(rows, start, queries, query_rows, metric, *room, ids, best)
        return ids, best
    for start, block in blocks(embedding, READ_ROWS):
        columns = np.ascontiguousarray(block.T, dtype=np.float32)
        _offer_block(columns, start, queries, query_rows, ids, best)
    return ids, np.sqrt(best)


def _squared_distances(data: Any, queries: NDArray[np.float64]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield (first row, (q, rows) squared Euclidean distances) by matrix products in float64."""
    # Centred, as the products cancel for data far from zero; by whole numbers, so that integers stay exact.
    with np.errstate(invalid="ignore"):
        origin = np.nan_to_num(np.rint(queries.mean(axis=0)), posinf=0.0, neginf=0.0)
    left = queries - origin
    norms = np.einsum("ij,ij->i", left, left)
    step = max(1, PRODUCT_CELLS // max(len(queries), data.shape[1]))
    for start, block in blocks(data, step):
        right = block.astype(np.float64) - origin
        squared = left @ right.T
        squared *= -2.0
        squared += norms[:, None]
        squared += np.einsum("ij,ij->i", right, right)
        yield start, np.maximum(squared, 0.0, out=squared)


def exact_neighbors(data: Any, query_rows: Ids, k: int) -> tuple[Ids, NDArray[np.float64]]:
    """Return the exact Euclidean k nearest rows of each query row, without the row itself, for any width.

    Matrix products in float64: 3 s for 2,000 queries among 70,000 rows of 784 columns on two cores.

    Parameters
    ----------
    data
        (n, D), anything that slices.
    query_rows
        (q,) int64.

    Returns
    -------
    ids, distances
        (q, k) int64 and float64, ascending by (distance, id); -1 and inf where there are fewer rows than k.
    """
    query_rows = np.ascontiguousarray(query_rows, dtype=np.int64)
    ids, best = empty_lists(len(query_rows), k)
    for start, squared in _squared_distances(data, _gather(data, query_rows)):
        _offer_distances(squared, start, query_rows, ids, best)
    return ids, np.sqrt(best)


def exact_ranks(data: Any, query_rows: Ids, ids: Ids) -> Ids:
    """Return the 1-based rank of row `ids[i, c]` among all others, by distance to row `query_rows[i]`.

    Parameters
    ----------
    data
        (n, D), anything that slices; distances are Euclidean.
    ids
        (q, k) int64; a missing row, -1, gets the worst rank, n - 1.

    Returns
    -------
    ranks
        (q, k) int64 in [1, n - 1]; ties go to the lower id.
    """
    query_rows = np.ascontiguousarray(query_rows, dtype=np.int64)
    ids = np.ascontiguousarray(ids, dtype=np.int64)
    queries = _gather(data, query_rows)
    limits = np.empty(ids.shape)
    for c in range(ids.shape[1]):
        difference = _gather(data, np.maximum(ids[:, c], 0)) - queries
        limits[:, c] = np.einsum("ij,ij->i", difference, difference)
    closer = np.zeros(ids.shape, dtype=np.int64)
    for start, squared in _squared_distances(data, queries):
        _count_closer(squared, start, query_rows, ids, limits, closer)
    return np.where(ids < 0, data.shape[0] - 1, closer + 1)
