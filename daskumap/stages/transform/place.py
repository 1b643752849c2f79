"""Place: the neighbours of each new row among the training rows, and its place on their map.

A task holds a row block and reads the cells that its rows reach, a window of them at a time. What becomes of
a row depends on the row, the model and the seed alone: neighbours are exact within the cells that it reaches,
ties go to the lower vertex, and what is drawn at random is keyed by a digest of the row.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.graph.calibrate import calibrate_new, memberships
from daskumap.kernels.layout.fixed import place_rows
from daskumap.kernels.layout.iterations import forces, negative_pool
from daskumap.kernels.neighbors import knn
from daskumap.kernels.neighbors.equal import hash_rows
from daskumap.kernels.neighbors.lists import cut_off, drop, mean_distances, merge_lists
from daskumap.planning import costs, memory
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.runtime.listen import tell
from daskumap.stages.shared.fitted import places_by_vertex
from daskumap.stages.shared.pieces import gathered_column, gathered_rows, largest_piece, pieces_of
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# umap-learn's epochs for up to 10,000 new rows, and its share of the fit's where those are given. It takes 30
# for more rows; here a row's place must not depend on how many there are.
EPOCHS, SHARE_OF_EPOCHS = 100, 3
# Places of the map of which negatives are drawn: a row draws a few thousand.
POOL = 1 << 16
# Cells that a new row is compared with, before the probes tell (measured: 2.5 on Fashion-MNIST, 10 on
# 200,000 x 64).
EXPECTED_CELLS = 4
# Offsets of pieces that are read at a time.
OFFSETS = 1 << 18
# A neighbour that is merged; a row that is placed, in two dimensions (measured: 26 us with 15 neighbours).
MERGED, PLACED = 0.06e-6, 26e-6


def plan_place(context: Context) -> Stage:
    """Plan one task a row block."""
    s, model, k = context.sizes, context.model, context.params.n_neighbors
    d, piece, row = context.params.n_components, largest_piece(context), s.columns * 4
    cells = context.fact(schema.REACH, {"cells": min(EXPECTED_CELLS, model.cells)})["cells"]
    return Stage(
        task=place_task,
        tasks=s.row_blocks,
        memory={
            "input block": context.input_bytes(s.row_block),
            "queries": 3 * s.row_block * row,
            "input window": 2 * (max(s.window_rows, piece) * (model.row_bytes + 8)),
            "cell": 2 * piece * row + memory.SCORES,
            "lists": s.row_block * memory.transform_row(k, d),
            "offsets": 2 * OFFSETS * 8 + len(pieces_of(context)) * 16,
            "forces": 4 << 20,
        },
        shared=held_bytes(context),
        outputs=(context.output(schema.EMBEDDING), context.output(schema.FIT_DISTANCE)),
        read_bytes=s.row_blocks * gathered_rows(context) * (model.row_bytes + 8),
        work=s.rows * cells * model.sizes.rows / model.cells * costs.distance_ns(s.columns) * 1e-9
        + s.rows * (PLACED * d / 2 + MERGED * cells * k),
        products=not model.metric.uses_descent,
        conclude=keep_placed,
    )


def held_bytes(context: Context) -> int:
    """Return what a worker holds of the model: the places of all rows by vertex."""
    s, d = context.model.sizes, context.params.n_components
    # Without those that have no place they are copied once.
    return s.rows * (2 * d * 4 + 1) + s.row_block * (d * 4 + 8) + 3 * POOL * d * 4


def place_task(context: Context, number: int) -> Receipt:
    """Place the rows of one block."""
    start, stop = context.sizes.block(number)
    X = context.rows.read(start, stop)
    ids, distances = find_neighbors(context, X, context.read(schema.REACHED, start, stop))
    fit_distance = _fit_distance(context, distances)
    model = context.held("map", lambda: Map.of(context))
    drop(ids, distances, model.gone)
    p = context.params
    mean = float(context.model.fact(schema.MEAN_DISTANCE))
    weights = memberships(distances, *calibrate_new(distances, p.n_neighbors, p.local_connectivity, mean))
    digests = hash_rows(X)[0]
    tables = context.held("forces", lambda: _forces(context))
    places = place_rows(
        model.places,
        ids,
        distances,
        weights,
        digests,
        model.pool,
        tables,
        context.key("transform"),
        epochs(context),
        float(p.learning_rate),
        context.output_metric,
    )
    context.write(schema.EMBEDDING, start, places)
    context.write(schema.FIT_DISTANCE, start, fit_distance)
    return Receipt(
        stop - start,
        {
            "crc32": zlib.crc32(places.tobytes()),
            "fit_distance_crc32": zlib.crc32(fit_distance.tobytes()),
            "known": int(np.count_nonzero(distances[:, 0] == 0.0)),
            "alone": int(np.count_nonzero(ids[:, 0] < 0)),
            "unlike": int(np.count_nonzero(fit_distance == 1.0)),
        },
    )


def keep_placed(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep how many rows equal a fitted one, have no neighbour, and are farther from theirs than any is."""
    counts = {name: Receipt.total(receipts, name) for name in ("known", "alone", "unlike")}
    context.save_fact(schema.PLACED, {"rows": context.sizes.rows, "epochs": epochs(context), **counts})


def epochs(context: Context) -> int:
    """Return the epochs of the short layout."""
    given = context.params.given_epochs
    return EPOCHS if given is None else given // SHARE_OF_EPOCHS


def _forces(context: Context) -> Any:
    p = context.params
    return forces(*p.curve(), p.repulsion_strength, p.negative_sample_rate)


class Map(NamedTuple):
    """The map of the model in vertex order.

    Attributes
    ----------
    places
        (n, d) float32.
    gone
        (n,) bool: vertices that have no place.
    pool
        (d, s) float32: places of which negatives are drawn.
    """

    places: Array
    gone: Array
    pool: Array

    @classmethod
    def of(cls, context: Context) -> Map:
        """Read it."""
        places, distinct = places_by_vertex(context), context.model.distinct
        gone = np.isnan(places[:, 0])
        seen = places[:distinct]  # Twins count once, as in the fit.
        seen = seen[~gone[:distinct]] if gone.any() else seen
        pool = negative_pool(seen if len(seen) else places[:1] * 0, context.key("transform"), 0, POOL)
        return cls(places, gone, pool)


def _fit_distance(context: Context, distances: Array) -> Array:
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
    ids, distances = np.full((len(X), k), -1, np.int64), np.full((len(X), k), np.inf, np.float32)
    queries = Queries(reached, context.model.cells)
    starts = context.model.read(schema.CELL_STARTS)
    for cell, rows, vertices in read_cells(context, starts, queries):
        here = queries.of(cell)
        nowhere = np.full(len(here), -1)  # A new row is none of these.
        found, near = knn.nearest(X[here], rows, k, metric, nowhere, 0)
        found = np.where(found >= 0, vertices[np.maximum(found, 0)], -1)
        merge_lists(here, found, near, ids, distances)
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


def read_cells(context: Context, starts: Array, queries: Queries) -> Iterator[tuple[int, Array, Array]]:
    """Yield the pieces of cells that any row reaches: the cell, its rows, (r, D), and their vertices.

    A window of consecutive pieces is read at a time.
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
            order = np.argsort(records["vertices"])
            vertices, rows = records["vertices"][order], records[column][order]
            rows = context.model.rows.gather(rows) if column == "ids" else rows
            ends = np.cumsum(sizes[start:stop])
            for piece, end, size in zip(
                range(first + start, first + stop), ends, sizes[start:stop], strict=True
            ):
                if wanted[piece] and size:
                    yield int(owners[piece]), rows[end - size : end], vertices[end - size : end]
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


PLACE = Step(
    "transform.place",
    plan_place,
    reads=(schema.SOURCE, schema.REACH, schema.REACHED, schema.GATHERED, schema.TYPICAL),
    writes=(schema.EMBEDDING, schema.FIT_DISTANCE, schema.PLACED),
    model=(schema.SOURCE, schema.CELL_STARTS, schema.VERTEX, schema.EMBEDDING, schema.MEAN_DISTANCE),
)
