"""Search: one kNN graph per cell, a group of cells a task.

A task holds a window of cells with its largest cell, and the lists found so far.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.neighbors import join, knn
from daskumap.planning import costs, memory
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.runtime.listen import tell
from daskumap.store import schema
from daskumap.store.exchange import BatchReader

Array = np.ndarray[Any, Any]


def plan_neighbors(context: Context) -> Stage:
    """Plan one task a group of cells."""
    s, k, copies, held = context.sizes, context.job.neighbors, context.copies, context.rows.held
    other = 8 + 4 * join.SEEDS
    largest = largest_cell(context)
    wide = context.order("wide", 0)
    group_rows = min(s.group_rows, s.wide_rows) if wide else s.group_rows
    return Stage(
        task=neighbors_task,
        tasks=context.groups,
        memory={
            "input window": int(min(max(s.window_rows, largest), s.rows * copies))
            * (context.row_bytes + other),
            # Read again where a process goes on with a run that another one began.
            "input block": context.input_bytes(s.row_block) if held else 0,
            "cell": largest * _cell_row_bytes(context) + memory.SCORES,
            "lists": (group_rows + largest) * (k * 12 + 8) * 2,
            "offsets": s.row_blocks * (min(wide or s.cells, s.group_cells) + 2) * 8,
        },
        read_bytes=int(s.rows * copies * (other + (8 if held else context.row_bytes))),
        made=(schema.FOUND.name,),
        made_bytes=int(s.rows * copies * (k * 12 + 8)),
        work=_seconds(context),
        products=not context.metric.uses_descent,
    )


def largest_cell(context: Context) -> int:
    """Return the most rows that a task searches at a time; before the run either kind of cell may come."""
    s = context.sizes
    small = min(s.max_cell_rows, s.rows)
    if context.metric.uses_descent or context.order("wide", -1) == 0:
        return small
    return max(small, s.wide_rows)


def _cell_row_bytes(context: Context) -> int:
    """Return what a search holds for each row: the rows in order, and moved or transformed; its lists."""
    columns, k = context.sizes.columns, context.job.neighbors
    if context.metric.uses_descent:
        return columns * 12 + k * 24 + memory.DESCENT_ROW
    return columns * 8 + k * 24 + join.bytes_per_row(k)


def _seconds(context: Context) -> float:
    """Return the seconds of the search on one core."""
    s, copies, wide = context.sizes, context.copies, context.order("wide", 0)
    if context.metric.uses_descent:
        return s.rows * copies * costs.DESCENT_ROW
    seeds = join.SEEDS if wide else copies
    # Cells differ in size, so a row is compared with a fifth more than the mean.
    compared = 1.2 * s.rows * seeds**2 * (s.rows / s.cells) * costs.distance_ns(s.columns)
    return (compared + (costs.join_ns(s.columns) * s.rows * copies if wide else 0.0)) * 1e-9


def neighbors_task(context: Context, number: int) -> Receipt:
    """Find the neighbours within each cell of a group."""
    first, last = (int(cell) for cell in context.read(schema.GROUP_STARTS, number, number + 2))
    wide = context.fact(schema.ORDER)["wide"]
    columns = ("vertices", "ids" if context.rows.held else "rows", *(("cells",) if wide else ()))
    reader = context.reader(schema.SHUFFLE, first, last, *columns)
    found = []
    for cell in read_cells(context, reader, first, last):
        indices, distances = _search(context, cell)
        ids = np.where(indices >= 0, cell.vertices[np.maximum(indices, 0)], -1)
        found.append((cell.vertices, ids, distances))
        tell((cell.number - first + 1) / (last - first))
    vertices, ids, distances = (np.concatenate(column) for column in zip(*found, strict=True))
    found.clear()
    order = np.argsort(vertices, kind="stable")
    writer = context.writer(schema.FOUND, number, len(order))
    for name, values in (("vertices", vertices), ("ids", ids), ("distances", distances)):
        writer.write(name, values[order])
    s = context.sizes
    writer.close(np.searchsorted(vertices[order], np.arange(s.vertex_chunks + 1) * s.vertex_chunk))
    return Receipt(len(order), {"cells": last - first})


class Cell(NamedTuple):
    """A sliced cell: rows (r, D) in vertex order, their vertices, and small cells of a wide one's rows."""

    number: int
    X: Array
    vertices: Array
    small: Array | None


def _search(context: Context, cell: Cell) -> tuple[Array, Array]:
    """Search one cell."""
    k, metric = context.job.neighbors, context.metric
    if cell.small is None:
        return knn.cell_neighbors(cell.X, k, metric, context.key("cells", cell.number))
    return knn.wide_neighbors(cell.X, cell.small, k, metric, context.sizes.max_cell_rows)


def read_cells(context: Context, reader: BatchReader, first: int, last: int) -> Iterator[Cell]:
    """Yield the sliced cells first to last - 1 that have rows, a window of them read at a time."""
    tables = [table - table[0] for table in reader.offsets]
    sizes = np.sum([np.diff(table) for table in tables], axis=0)
    for start, stop in _windows(sizes, context.sizes.window_rows):
        numbers = np.arange(first + start, first + stop)
        members = np.concatenate([np.repeat(numbers, np.diff(table[start : stop + 1])) for table in tables])
        ends = np.cumsum(sizes[start:stop])
        yield from _cut_window(context, reader, numbers, members, ends)


def _windows(sizes: Array, window_rows: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of cells of at most so many rows, or of one cell.

    Whole windows are read at once: a request for each cell of each batch would cost more than the search.
    """
    start = 0
    while start < len(sizes):
        stop, rows = start + 1, int(sizes[start])
        while stop < len(sizes) and rows + sizes[stop] <= window_rows:
            rows += int(sizes[stop])
            stop += 1
        yield start, stop
        start = stop


def _cut_window(
    context: Context, reader: BatchReader, numbers: Array, members: Array, ends: Array
) -> Iterator[Cell]:
    """Yield the cells of a window; `members` says of which cell each record is, batch after batch."""
    records = reader.read(int(numbers[0]), int(numbers[-1]) + 1)
    order = np.lexsort((records["vertices"], members))
    held = context.rows.held
    in_order = held or len(numbers) == 1
    if in_order:
        # One column after the other: a wide cell fills its window, and there is no second copy of all of it.
        for name in list(records):
            records[name] = records.pop(name)[order]
    if held:
        records["rows"] = context.rows.gather(records.pop("ids"))
    for number, begin, end in zip(numbers.tolist(), [0, *ends[:-1]], ends, strict=True):
        if end > begin:
            place = slice(begin, end) if in_order else order[begin:end]
            small = records["cells"][place] if "cells" in records else None
            yield Cell(number, records["rows"][place], records["vertices"][place], small)


NEIGHBORS = Step(
    "neighbors",
    plan_neighbors,
    reads=(schema.SOURCE, schema.SHUFFLE, schema.GROUP_STARTS, schema.ORDER),
    writes=(schema.FOUND,),
)
