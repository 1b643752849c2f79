"""Neighbors: one kNN graph per cell, merged into the nearest k of each vertex.

`neighbors`        a group of cells a task.        reads the exchange `shuffle`; writes the exchange `found`
`neighbors.merge`  a vertex partition a task.      reads `found`; writes knn/indices, knn/distances
Memory: a window of cells with its largest cell, and the lists found so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from daskumap.kernels import knn
from daskumap.kernels.lists import cut_off, merge_lists
from daskumap.plan.job import Job
from daskumap.plan.progress import tell
from daskumap.plan.stage import Output, Receipt, Stage
from daskumap.stages.common import Array, fact, key_of, metric_of, run_of
from daskumap.stages.partition import overlap_of, span_of
from daskumap.store.exchange import RunReader, RunWriter

# A wide cell that turned out this small is searched by brute force all the same.
BRUTE_ROWS = 4_096
# pynndescent with what it compiled, which stays in the process (measured: 180 to 210 MB).
DESCENT_RESERVED = 220_000_000
# What NN-descent holds a row beside the vectors: 30 candidates, old and new, and the trees (measured).
DESCENT_BYTES = 900


def uses_descent(job: Job) -> bool:
    """Return whether NN-descent takes part, as far as is known."""
    return metric_of(job).space is None or span_of(job) > 1


def plan_neighbors(job: Job) -> Stage:
    """Plan one task a group of cells."""
    s, k, m = job.sizes, job.neighbors, overlap_of(job)
    row = s.columns * np.dtype(metric_of(job).dtype).itemsize
    largest = min(s.max_cell_rows, s.rows)
    cell = largest * (s.columns * 4 * (2 if metric_of(job).space else 3) + k * 24) + 16_000_000
    # Before the run either kind of cell may come.
    if metric_of(job).space and fact(job, "partition.order", "span", 0) != 1:
        largest = max(largest, s.wide_rows)
        cell = max(cell, s.wide_rows * (s.columns * 4 * 3 + k * 24 + DESCENT_BYTES))
    window = max(s.window_rows, largest)
    return Stage(
        name="neighbors",
        task=neighbors_task,
        tasks=_groups(job),
        memory={
            "input window": min(window, s.rows * m) * (row + 16),
            "cell": cell,
            "lists": (s.group_rows + largest) * (k * 12 + 8) * 2,
            "offsets": s.row_blocks * s.cells * 8,
        },
        read_bytes=s.rows * m * (row + 8),
        exchange="found",
        exchange_bytes=s.rows * m * (k * 12 + 8),
        work=2.0 * s.rows * m * m * (s.rows / s.cells) * s.columns,
    )


def _groups(job: Job) -> int:
    """Return the number of groups: as made, or before the run as expected."""
    expected = math.ceil(job.sizes.rows * overlap_of(job) / job.sizes.group_rows)
    return fact(job, "partition.order", "groups", expected)


def neighbors_task(job: Job, number: int) -> Receipt:
    """Find the neighbours within each cell of a group."""
    run, s, k, metric = run_of(job), job.sizes, job.neighbors, metric_of(job)
    first, last = run.read("order/group_starts", number, number + 2)
    reader = RunReader(run, "shuffle", s.row_blocks, ("rows", "vertices"))
    found, wide = [], span_of(job) > 1
    for cell, X, vertices in read_cells(reader, int(first), int(last), s.window_rows):
        search = knn.nn_descent if wide and len(X) > BRUTE_ROWS else knn.cell_neighbors
        indices, distances = search(X, k, metric, key_of(job, "cells", cell))
        found.append((vertices, np.where(indices >= 0, vertices[np.maximum(indices, 0)], -1), distances))
        tell((cell - first + 1) / (last - first))
    vertices, ids, distances = (np.concatenate(column) for column in zip(*found, strict=True))
    found.clear()
    order = np.argsort(vertices, kind="stable")
    columns = {"vertices": ("int64", 0), "ids": ("int64", k), "distances": ("float32", k)}
    writer = RunWriter(run, "found", number, len(order), columns)
    for name, values in (("vertices", vertices), ("ids", ids), ("distances", distances)):
        writer.write(name, values[order])
    edges = np.arange(s.vertex_chunks + 1) * s.vertex_chunk
    writer.close(np.searchsorted(vertices[order], edges))
    return {"rows": len(order), "cells": int(last - first)}


def read_cells(
    reader: RunReader, first: int, last: int, window_rows: int
) -> Iterator[tuple[int, Array, Array]]:
    """Yield (cell, rows, vertices) for the sliced cells first to last - 1, rows in vertex order.

    Whole windows are read at once: a request for each cell of each run would cost more than the search.
    """
    sizes = np.sum([np.diff(table[first : last + 1]) for table in reader.offsets], axis=0)
    start = first
    while start < last:
        stop = start + 1
        rows = int(sizes[start - first])
        while stop < last and rows + sizes[stop - first] <= window_rows:
            rows += int(sizes[stop - first])
            stop += 1
        X, vertices = reader.read(start, stop)
        cells = np.concatenate(
            [np.repeat(np.arange(start, stop), np.diff(table[start : stop + 1])) for table in reader.offsets]
        )
        order = np.lexsort((vertices, cells))
        ends = np.cumsum(sizes[start - first : stop - first])
        for cell, members in zip(range(start, stop), np.split(order, ends[:-1]), strict=True):
            if len(members):
                yield cell, X[members], vertices[members]
        start = stop


def plan_merge(job: Job) -> Stage:
    """Plan one task a vertex partition."""
    s, k, m = job.sizes, job.neighbors, overlap_of(job)
    chunks = (s.vertex_chunk, k)
    largest = min(s.partition_rows, s.rows)
    return Stage(
        name="neighbors.merge",
        task=merge_task,
        tasks=s.partitions,
        memory={
            "found lists": largest * (k * 12 + 8) * min(m, 2),
            "merged lists": largest * k * 12 * 2,
            "offsets": _groups(job) * s.vertex_chunks * 8,
        },
        outputs=(
            Output("knn/indices", (s.rows, k), chunks, "int64"),
            Output("knn/distances", (s.rows, k), chunks, "float32"),
        ),
        read_bytes=s.rows * m * (k * 12 + 8),
        work=20.0 * s.rows * m * k,
        finish=save_mean_distance,
    )


def merge_task(job: Job, number: int) -> Receipt:
    """Merge what the cells found for the vertices of a partition."""
    run, s, k = run_of(job), job.sizes, job.neighbors
    start, stop = s.partition(number)
    ids = np.full((stop - start, k), -1, np.int64)
    distances = np.full((stop - start, k), np.inf, np.float32)
    reader = RunReader(run, "found", _groups(job), ("vertices", "ids", "distances"))
    for vertices, new_ids, new_distances in reader.slices(*s.chunks(start, stop)):
        merge_lists(vertices - start, new_ids, new_distances, ids, distances)
    cut_off(ids, distances, job.params.cutoff())
    run.array("knn/indices")[start:stop] = ids
    run.array("knn/distances")[start:stop] = distances
    finite = np.where(np.isfinite(distances), distances, 0.0).astype(np.float64)
    # One exact sum a vertex chunk: chunks do not depend on the partitions, and fsum does not depend on their
    # order.
    sums = [float(finite[at : at + s.vertex_chunk].sum()) for at in range(0, stop - start, s.vertex_chunk)]
    return {"rows": stop - start, "sums": sums, "edges": int((ids >= 0).sum())}


def save_mean_distance(job: Job, receipts: dict[int, Receipt]) -> None:
    """Keep the mean distance over all rows, each row itself counted at 0, as umap-learn does."""
    edges = sum(receipt["edges"] for receipt in receipts.values()) + job.sizes.rows
    total = math.fsum(value for receipt in receipts.values() for value in receipt["sums"])
    run_of(job).save_json("facts/mean_distance", total / edges)
