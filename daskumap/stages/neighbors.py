"""Neighbors: one kNN graph per cell, merged into the nearest k of each vertex.

`neighbors`        a group of cells a task.        reads the exchange `shuffle`; writes the exchange `found`
`neighbors.merge`  a vertex partition a task.      reads `found`; writes knn/indices, knn/distances
Memory: a window of cells with its largest cell, and the lists found so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from daskumap.kernels import join, knn
from daskumap.kernels.lists import cut_off, merge_lists
from daskumap.planning.job import Job
from daskumap.planning.progress import tell
from daskumap.planning.stage import Output, Receipt, Stage
from daskumap.stages.common import (
    Array,
    distinct_of,
    fact,
    gather_rows,
    holds_rows,
    key_of,
    metric_of,
    row_bytes,
    run_of,
    source_of,
)
from daskumap.stages.order import copies_of, distance_ns, join_ns, wide_cells_of
from daskumap.store.exchange import RunReader, RunWriter

# pynndescent with what it compiled, which stays in the process (measured: 180 to 210 MB).
DESCENT_RESERVED = 220_000_000
# What NN-descent holds a row beside the vectors: 30 candidates, old and new, and the trees (measured).
DESCENT_BYTES = 900
# What it takes for a row, once compiled (measured: 55 us at D = 64, 80 us at D = 384).
DESCENT_SECONDS = 65e-6


def uses_descent(job: Job) -> bool:
    """Return whether pynndescent takes part: where no matrix product gives the distances."""
    return metric_of(job).space is None


def plan_neighbors(job: Job) -> Stage:
    """Plan one task a group of cells."""
    s, k, copies = job.sizes, job.neighbors, copies_of(job)
    other = 8 + 4 * join.SEEDS
    largest = largest_cell(job)
    window = max(s.window_rows, largest)
    return Stage(
        name="neighbors",
        task=neighbors_task,
        tasks=_groups(job),
        memory={
            "input window": int(min(window, s.rows * copies)) * (row_bytes(job) + other),
            # Read again where a process goes on with a run that another one began.
            "input block": source_of(job).projected_read_bytes(s.row_block) if holds_rows(job) else 0,
            "cell": largest * _cell_row_bytes(job) + 16_000_000,
            "lists": (_group_rows(job) + largest) * (k * 12 + 8) * 2,
            "offsets": s.row_blocks * (min(_cells_of_group(job), s.group_cells) + 2) * 8,
        },
        read_bytes=int(s.rows * copies * (other + (8 if holds_rows(job) else row_bytes(job)))),
        exchange="found",
        exchange_bytes=int(s.rows * copies * (k * 12 + 8)),
        work=_seconds(job),
        products=not uses_descent(job),
    )


def largest_cell(job: Job) -> int:
    """Return the most rows that a task searches at a time; before the run either kind of cell may come."""
    s = job.sizes
    small = min(s.max_cell_rows, s.rows)
    if uses_descent(job) or fact(job, "partition.order", "wide", -1) == 0:
        return small
    return max(small, s.wide_rows)


def _cell_row_bytes(job: Job) -> int:
    """Return what a search holds for each row: the rows in order, and moved or transformed; its lists."""
    columns, k = job.sizes.columns, job.neighbors
    if uses_descent(job):
        return columns * 12 + k * 24 + DESCENT_BYTES
    return columns * 8 + k * 24 + join.bytes_per_row(k)


def _cells_of_group(job: Job) -> int:
    """Return how many sliced cells a task searches at most, as far as is known."""
    return job.sizes.cells if not wide_cells_of(job) else wide_cells_of(job)


def _group_rows(job: Job) -> int:
    """Return how many rows a task may search besides a cell that is larger."""
    return min(job.sizes.group_rows, job.sizes.wide_rows) if wide_cells_of(job) else job.sizes.group_rows


def _seconds(job: Job) -> float:
    """Return the seconds of the search on one core."""
    s = job.sizes
    if uses_descent(job):
        return s.rows * copies_of(job) * DESCENT_SECONDS
    seeds = join.SEEDS if wide_cells_of(job) else copies_of(job)
    # Cells differ in size, so a row is compared with a fifth more than the mean.
    compared = 1.2 * s.rows * seeds**2 * (s.rows / s.cells) * distance_ns(job)
    return (compared + (join_ns(job) * s.rows * copies_of(job) if wide_cells_of(job) else 0.0)) * 1e-9


def _groups(job: Job) -> int:
    """Return the number of groups: as made, or before the run as expected."""
    expected = math.ceil(job.sizes.rows * copies_of(job) / job.sizes.group_rows)
    return fact(job, "partition.order", "groups", expected)


def neighbors_task(job: Job, number: int) -> Receipt:
    """Find the neighbours within each cell of a group."""
    run, s, k = run_of(job), job.sizes, job.neighbors
    first, last = (int(cell) for cell in run.read("order/group_starts", number, number + 2))
    names = ("ids" if holds_rows(job) else "rows", "vertices", *(("cells",) if wide_cells_of(job) else ()))
    reader = RunReader(run, "shuffle", s.row_blocks, names, first, last)
    found = []
    for cell, X, vertices, *small in read_cells(job, reader, first, last):
        indices, distances = _search(job, cell, X, *small)
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
    return {"rows": len(order), "cells": last - first}


def _search(job: Job, cell: int, X: Array, small: Array | None = None) -> tuple[Array, Array]:
    """Search one cell; `small` are the small cells of the rows of a wide one."""
    k, metric = job.neighbors, metric_of(job)
    if small is None:
        return knn.cell_neighbors(X, k, metric, key_of(job, "cells", cell))
    return knn.wide_neighbors(X, small, k, metric, job.sizes.max_cell_rows)


def read_cells(job: Job, reader: RunReader, first: int, last: int) -> Iterator[tuple[Any, ...]]:
    """Yield (cell, rows, vertices, ...) for the sliced cells first to last - 1, rows in vertex order.

    Whole windows are read at once: a request for each cell of each run would cost more than the search.
    """
    tables = [table - table[0] for table in reader.offsets]
    sizes = np.sum([np.diff(table) for table in tables], axis=0)
    start = first
    while start < last:
        stop = start + 1
        rows = int(sizes[start - first])
        while stop < last and rows + sizes[stop - first] <= job.sizes.window_rows:
            rows += int(sizes[stop - first])
            stop += 1
        columns = list(reader.read(start, stop))
        numbers = np.arange(start, stop)
        cells = np.concatenate(
            [np.repeat(numbers, np.diff(table[start - first : stop - first + 1])) for table in tables]
        )
        order = np.lexsort((columns[1], cells))
        ends = np.cumsum(sizes[start - first : stop - first])
        in_order = holds_rows(job) or stop == start + 1
        if holds_rows(job):
            columns = [gather_rows(job, columns[0][order]), *(column[order] for column in columns[1:])]
        elif in_order:  # a wide cell fills its window: no second copy of all of it
            columns = [columns.pop(0)[order] for _ in range(len(columns))]
        for cell, begin, end in zip(range(start, stop), [0, *ends[:-1]], ends, strict=True):
            if end > begin:
                members = slice(begin, end) if in_order else order[begin:end]
                yield cell, *(column[members] for column in columns)
        start = stop


def plan_merge(job: Job) -> Stage:
    """Plan one task a vertex partition."""
    s, k = job.sizes, job.neighbors
    chunks = (s.vertex_chunk, k)
    largest = min(s.partition_rows, s.rows)
    return Stage(
        name="neighbors.merge",
        task=merge_task,
        tasks=s.partitions,
        memory={
            # All of them may be on their way at a time: of many runs several are read together.
            "found lists": largest * (k * 12 + 8) * (min(job.params.max_overlap, s.cells) + 1),
            "merged lists": largest * k * 12 * 2,
            "offsets": _groups(job) * (largest // s.vertex_chunk + 2) * 8,
        },
        outputs=(
            Output("knn/indices", (s.rows, k), chunks, "int64"),
            Output("knn/distances", (s.rows, k), chunks, "float32"),
        ),
        read_bytes=int(s.rows * copies_of(job) * (k * 12 + 8)),
        work=0.06e-6 * s.rows * copies_of(job) * k,
        finish=save_mean_distance,
    )


def merge_task(job: Job, number: int) -> Receipt:
    """Merge what the cells found for the vertices of a partition."""
    run, s, k = run_of(job), job.sizes, job.neighbors
    start, stop = s.partition(number)
    ids = np.full((stop - start, k), -1, np.int64)
    distances = np.full((stop - start, k), np.inf, np.float32)
    chunks = s.chunks(start, stop)
    reader = RunReader(run, "found", _groups(job), ("vertices", "ids", "distances"), *chunks)
    for vertices, new_ids, new_distances in reader.slices(*chunks):
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
    """Keep the mean distance over all rows but twins, each row itself counted at 0, as umap-learn does."""
    edges = sum(receipt["edges"] for receipt in receipts.values()) + distinct_of(job)
    total = math.fsum(value for receipt in receipts.values() for value in receipt["sums"])
    run_of(job).save_json("facts/mean_distance", total / edges)
