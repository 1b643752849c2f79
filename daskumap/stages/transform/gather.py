"""Gather: the training rows of the cells that any new row reaches, brought together cell by cell.

The model has its rows where the fit read them, in the order of their source. What is written is the row
itself, or its id where the one worker holds all rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.fitted import send_fitted
from daskumap.stages.shared.pieces import gathered_rows, pieces_of
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def plan_gather(context: Context) -> Stage:
    """Plan one task a row block of the model."""
    model, s = context.model, context.model.sizes
    rows, row_bytes = gathered_rows(context), (8 if model.rows.held else model.row_bytes) + 8
    return Stage(
        task=gather_task,
        tasks=s.row_blocks,
        memory={
            "input block": model.input_bytes(s.row_block),
            "gathered rows": s.row_block * (row_bytes + 40),
            "pieces": (len(pieces_of(context)) + model.cells) * 24,
        },
        read_bytes=s.rows * (s.columns * model.source.dtype.itemsize + 8),
        made=(schema.GATHERED.name,),
        made_bytes=rows * row_bytes + s.row_blocks * len(pieces_of(context)) * 8,
        work=s.rows * (costs.SHUFFLE_ROW + costs.SHUFFLE_VALUE * s.columns * rows / s.rows),
    )


def gather_task(context: Context, number: int) -> Receipt:
    """Send the rows of one block to the pieces of their cells."""
    model = context.model
    vertices = model.read(schema.VERTEX, *model.sizes.block(number))
    cells = np.searchsorted(model.read(schema.CELL_STARTS), vertices, side="right") - 1
    wanted = context.held("wanted cells", lambda: _wanted_cells(context))[cells]
    pieces = context.held("pieces", lambda: pieces_of(context))
    return send_fitted(context, schema.GATHERED, number, vertices, wanted, pieces)


def _wanted_cells(context: Context) -> Array:
    """Return (c + 1,) bool: cells that any new row reaches; twins, which come after the last, are in none."""
    blocks = range(context.sizes.row_blocks)
    wanted = np.zeros(context.model.cells + 1, bool)
    for block in blocks:
        wanted[:-1] |= context.read(schema.REACHED_BY, block, block + 1)[0] > 0
    return wanted


GATHER = Step(
    "transform.gather",
    plan_gather,
    reads=(schema.REACHED_BY,),
    writes=(schema.GATHERED,),
    model=(schema.SOURCE, schema.VERTEX, schema.CELL_STARTS),
)
