"""The neighbours of new rows among those of the model, and how far they are from them.

A task holds a row block and reads the cells that its rows reach, a window of them at a time. Neighbours are
exact within the cells that a row reaches, and ties go to the lower vertex. Where distances are given, an
earlier step has found the neighbours.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from daskumap.kernels.graph.calibrate import calibrate_new, memberships
from daskumap.kernels.neighbors import knn
from daskumap.kernels.neighbors.equal import hash_rows
from daskumap.kernels.neighbors.lists import cut_off, mean_distances
from daskumap.planning import costs, memory
from daskumap.planning.stage import Receipt
from daskumap.runtime.context import Context
from daskumap.runtime.listen import tell
from daskumap.stages.shared.pieces import gathered_column, gathered_rows, largest_piece, pieces_of
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# Cells that a new row is compared with, before the probes tell (measured: 2.5 on Fashion-MNIST, 10 on
# 200,000 x 64).
EXPECTED_CELLS = 4
# Offsets of pieces that are read at a time.
OFFSETS = 1 << 18
# A neighbour that is entered into a list.
ENTERED = 0.06e-6


def near_memory(context: Context) -> dict[str, int]:
    """Return the terms of memory that finding the neighbours of a row block takes."""
    s, model, row = context.sizes, context.model, context.sizes.columns * 4
    k, d = context.params.n_neighbors, context.params.n_components
    lists = s.row_block * memory.transform_row(k, d)
    if context.metric.is_given:
        return {"lists": lists}
    piece = largest_piece(context)
    return {
        "input block": context.input_bytes(s.row_block),
        "queries": 3 * s.row_block * row,
        "input window": 2 * (max(s.window_rows, piece) * (model.row_bytes + 8)),
        "cell": 2 * piece * row + memory.SCORES,
        "lists": lists,
        "offsets": 2 * OFFSETS * 8 + len(pieces_of(context)) * 16,
    }


def near_bytes(context: Context) -> int:
    """Return the bytes that finding all neighbours reads."""
    s, k = context.sizes, context.params.n_neighbors
    if context.metric.is_given:
        return s.rows * k * 12
    return s.row_blocks * gathered_rows(context) * (context.model.row_bytes + 8)


def near_seconds(context: Context) -> float:
    """Return the seconds of finding all neighbours on one core."""
    s, model, k = context.sizes, context.model, context.params.n_neighbors
    if context.metric.is_given:
        return 0.0
    cells = context.fact(schema.REACH, {"cells": min(EXPECTED_CELLS, model.cells)})["cells"]
    distances = s.rows * cells * model.sizes.rows / model.cells
    return float(distances * costs.distance_ns(s.columns) * 1e-9 + s.rows * ENTERED * cells * k)


def find_near(context: Context, start: int, stop: int) -> tuple[Array, Array, Array]:
    """Return the neighbours of new rows by vertex, and what their randomness is keyed by.

    Returns
    -------
    ids, distances
        (r, n_neighbors) int64 and float32, ascending by (distance, vertex); -1 and inf where missing.
    digests
        (r,) uint64, of a row's values, or of its neighbours where distances are given.
    """
    if context.metric.is_given:
        ids = context.read(schema.NEW_INDICES, start, stop)
        distances = context.read(schema.NEW_DISTANCES, start, stop)
        return ids, distances, hash_rows(np.hstack([ids.view(np.float32), distances]))[0]
    X = context.rows.read(start, stop)
    ids, distances = find_neighbors(context, X, context.read(schema.REACHED, start, stop))
    return ids, distances, hash_rows(X)[0]


def weigh(context: Context, distances: Array) -> Array:
    """Return the memberships of new rows' neighbours, (r, k) float32, by the kernel of the fit.

    Where all of them vanish the nearest neighbour is joined, as it is in a fit.
    """
    p, mean, made_by = context.params, float(context.model.fact(schema.MEAN_DISTANCE)), context.memberships
    found = calibrate_new(distances, p.n_neighbors, p.local_connectivity, mean, made_by.bandwidths)
    weights = memberships(distances, *found, made_by.weights)
    weights[~weights.any(axis=1) & (distances[:, 0] < np.inf), 0] = 1.0
    return weights


def count_rows(ids: Array, distances: Array, fit_distance: Array) -> dict[str, int]:
    """Return what the receipt of a block says: how many rows equal a fitted one, and so on."""
    return {
        "fit_distance_crc32": zlib.crc32(fit_distance.tobytes()),
        "known": int(np.count_nonzero(distances[:, 0] == 0.0)),
        "alone": int(np.count_nonzero(ids[:, 0] < 0)),
        "unlike": int(np.count_nonzero(fit_distance == 1.0)),
    }


def total_counts(context: Context, receipts: dict[int, Receipt]) -> dict[str, int]:
    """Return how many rows there are, and the sums of what their blocks counted."""
    counts = {name: Receipt.total(receipts, name) for name in ("known", "alone", "unlike")}
    return {"rows": context.sizes.rows, **counts}


def rate_distance(context: Context, distances: Array) -> Array:
    """Return (r,) float32: the share of the training rows that are nearer to their neighbours, on average."""
    typical = context.held("typical", lambda: context.read(schema.TYPICAL))
    means = mean_distances(distances, context.model.job.neighbors)
    return np.asarray(np.searchsorted(typical, means, side="left") / len(typical), np.float32)


def find_neighbors(context: Context, X: Array, reached: Array) -> tuple[Array, Array]:
    """Return the nearest training rows of some rows within the cells that they reach, by vertex.

    Returns
    -------
    ids, distances
        (r, n_neighbors) int64 and float32, ascending by (distance, vertex); -1 and inf where missing.
    """
    k, metric = context.params.n_neighbors, context.metric
    ids = np.full((len(X), k), -1, context.model.dtype("vertex"))
    distances = np.full((len(X), k), np.inf, np.float32)
    queries = Queries(reached, context.model.cells)
    starts = context.model.read(schema.CELL_STARTS)
    for cell, rows, first in read_cells(context, starts, queries):
        here = queries.of(cell)
        known, near = ids[here], distances[here]
        knn.enter(X[here], rows, metric, first, known, near)
        ids[here], distances[here] = known, near
    ids = ids.astype(np.int64)
    cut_off(ids, distances, context.model.cutoff)
    return ids, distances


class Queries:
    """Which rows of a block reach each cell."""

    def __init__(self, reached: Array, cells: int) -> None:
        flat = reached.ravel()
        order = np.argsort(flat, kind="stable")[np.count_nonzero(flat < 0) :]
        self.rows = order // reached.shape[1]
        self.bounds = np.searchsorted(flat[order], np.arange(cells + 1))

    def of(self, cell: int) -> Array:
        """Return the rows that reach a cell."""
        return np.asarray(self.rows[self.bounds[cell] : self.bounds[cell + 1]])

    def any(self, cells: Array) -> Array:
        """Tell of some cells whether any row reaches them."""
        return np.asarray(self.bounds[cells + 1] > self.bounds[cells])


def read_cells(context: Context, starts: Array, queries: Queries) -> Iterator[tuple[int, Array, int]]:
    """Yield the pieces of cells that any row reaches: the cell, its rows, (r, D), and the first one's vertex.

    A window of consecutive pieces is read at a time. Rows that are held are copied a piece at a time: a piece
    lies in a cache while it is compared, and its memory, which is not fresh, takes the next one.
    """
    pieces = context.held("pieces", lambda: pieces_of(context))
    owners = np.searchsorted(starts, pieces[:-1], side="right") - 1
    wanted = queries.any(owners)
    step = max(1, OFFSETS // context.model.sizes.row_blocks)
    for first in range(0, len(owners), step):
        last = min(first + step, len(owners))
        if not wanted[first:last].any():
            continue
        column = gathered_column(context)
        reader = context.reader(schema.GATHERED, first, last, "vertices", column)
        sizes = np.sum([np.diff(table) for table in reader.offsets], axis=0)
        for start, stop in windows(sizes, wanted[first:last], context.sizes.window_rows):
            records = reader.read(first + start, first + stop)
            sent = records[column][np.argsort(records["vertices"])]
            ends = np.cumsum(sizes[start:stop])
            for piece, end, size in zip(
                range(first + start, first + stop), ends, sizes[start:stop], strict=True
            ):
                if wanted[piece] and size:
                    rows = sent[end - size : end]
                    rows = context.model.rows.gather(rows) if column == "ids" else rows
                    yield int(owners[piece]), rows, int(pieces[piece])
        tell(last / len(owners))


def windows(sizes: Array, wanted: Array, most: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of consecutive pieces of at most so many rows, or of one piece, that hold all wanted ones.

    >>> list(windows(np.array([3, 3, 9, 1, 1]), np.array([1, 1, 0, 1, 1], bool), 7))
    [(0, 2), (3, 5)]
    """
    ends, pieces, at = np.cumsum(sizes), np.flatnonzero(wanted).tolist(), 0
    while at < len(pieces):
        first, stop = pieces[at], at + 1
        while stop < len(pieces) and ends[pieces[stop]] - ends[first] + sizes[first] <= most:
            stop += 1
        yield first, pieces[stop - 1] + 1
        at = stop
