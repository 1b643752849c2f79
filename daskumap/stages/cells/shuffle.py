"""Shuffle: each row gets its vertex number, and is written once for every cell that it joins.

What is written is the row itself, or its id where the one worker holds all rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.cells import join, slices
from daskumap.kernels.neighbors.join import SEEDS
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.store import schema
from daskumap.store.exchange import BatchWriter

Array = np.ndarray[Any, Any]


def plan_shuffle(context: Context) -> Stage:
    """Plan one task a row block."""
    s, copies, held = context.sizes, context.copies, context.rows.held
    record = (8 if held else context.row_bytes) + 8 + 4 * SEEDS
    values = 0 if held else costs.SHUFFLE_VALUE * s.columns
    if context.params.precomputed_knn is not None:
        return Stage(
            task=number_task,
            tasks=s.row_blocks,
            memory={"vertices": s.row_block * (context.params.max_overlap * 4 + 64)},
            outputs=(context.output(schema.VERTEX),),
            read_bytes=s.rows * context.params.max_overlap * 4,
            work=s.rows * costs.SHUFFLE_ROW,
        )
    return Stage(
        task=shuffle_task,
        tasks=s.row_blocks,
        memory={
            "input block": 0 if held else context.input_bytes(s.row_block),
            "records": s.row_block * context.params.max_overlap * 64,
            "output window": 16 * (1 << 20),
            "offsets": context.cells * 32,
        },
        outputs=(context.output(schema.VERTEX),),
        read_bytes=0 if held else s.rows * s.columns * context.source.dtype.itemsize,
        made=(schema.SHUFFLE.name,),
        made_bytes=int(s.rows * copies * record),
        work=s.rows * copies * (costs.SHUFFLE_ROW + values),
    )


def shuffle_task(context: Context, number: int) -> Receipt:
    """Give a block's rows their numbers and write each once for every cell it joins, cell after cell."""
    start, stop = context.sizes.block(number)
    nearest, levels = context.read(schema.NEAREST, start, stop), context.read(schema.LEVELS, start, stop)
    vertices = _write_vertices(context, number, nearest)
    level = context.fact(schema.ORDER)["level"]
    joined, small = _joined(context, join.joined(nearest, levels, level))
    slice_starts = context.read(schema.SLICE_STARTS)
    places = slices.slices_of(np.arange(start, stop), joined, slice_starts).ravel()
    order = np.argsort(places, kind="stable")[np.count_nonzero(places < 0) :]
    held, wide = context.rows.held, bool(_wide_cells(context))
    columns = ("vertices", "ids" if held else "rows", *(("cells",) if wide else ()))
    writer = context.writer(schema.SHUFFLE, number, len(order), *columns)
    rows = order // joined.shape[1]
    if held:
        writer.write("ids", start + rows)
    else:
        _write_vectors(writer, context.rows.read(start, stop), rows)
    writer.write("vertices", vertices[rows])
    if wide:
        writer.write("cells", small.reshape(-1, SEEDS)[order])
    writer.close(np.searchsorted(places[order], np.arange(slice_starts[-1] + 1)))
    return Receipt(stop - start, {"written": len(rows)})


def number_task(context: Context, number: int) -> Receipt:
    """Give a block's rows their numbers: where neighbours are given nothing is searched."""
    start, stop = context.sizes.block(number)
    _write_vertices(context, number, context.read(schema.NEAREST, start, stop))
    return Receipt(stop - start, {"written": 0})


def _write_vertices(context: Context, number: int, nearest: Array) -> Array:
    vertices = number_vertices(nearest[:, 0], _first_vertices(context, number))
    context.write(schema.VERTEX, context.sizes.block(number)[0], vertices)
    return vertices


def _write_vectors(writer: BatchWriter, X: Array, rows: Array) -> None:
    step = writer.step("rows") * 16
    for at in range(0, len(rows), step):
        writer.write("rows", X[rows[at : at + step]], at)


def _wide_cells(context: Context) -> int:
    return int(context.fact(schema.ORDER)["wide"])


def _joined(context: Context, nearest: Array) -> tuple[Array, Array]:
    """Return the cells that each row joins, (r, m), and for each the small cells that it is compared in."""
    if not _wide_cells(context):
        return nearest, np.empty((*nearest.shape, 0), np.int32)
    return join.widen(nearest, context.read(schema.WIDE_OF), SEEDS)


def _first_vertices(context: Context, block: int) -> Array:
    """Return where a row block's part of each cell starts, (c + 1,) int64; at the end, where its twins do."""
    bundle = block // context.sizes.bundle_blocks
    parts = (
        context.read(schema.FIRST_VERTICES, bundle, bundle + 1),
        context.read(schema.COUNTS_BEFORE, block, block + 1),
    )
    return np.add(*parts)[0]  # type: ignore[no-any-return]


def number_vertices(cell: Array, first: Array) -> Array:
    """Return each row's vertex number: its cell's first free number in this block, then in row order.

    The last number of `first` is that of rows without a cell, -1.
    """
    cell = np.where(cell < 0, len(first) - 1, cell)
    order = np.argsort(cell, kind="stable")
    ordered = cell[order]
    rank = np.arange(len(cell)) - np.searchsorted(ordered, ordered, side="left")
    vertices = np.empty(len(cell), np.int64)
    vertices[order] = first[ordered] + rank
    return vertices


SHUFFLE = Step(
    "partition.shuffle",
    plan_shuffle,
    reads=(
        schema.SOURCE,
        schema.NEAREST,
        schema.LEVELS,
        schema.FIRST_VERTICES,
        schema.COUNTS_BEFORE,
        schema.SLICE_STARTS,
        schema.WIDE_OF,
        schema.ORDER,
    ),
    writes=(schema.VERTEX, schema.SHUFFLE),
)
