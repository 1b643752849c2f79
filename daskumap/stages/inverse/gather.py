"""Gather: the training rows that any point needs, brought together by vertex.

One pass over the model's rows, which lie in the order of their source. What is written is the row itself, or
its id where the one worker holds all rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.fitted import send_fitted
from daskumap.stages.shared.windows import wanted_rows, window_starts
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def plan_gather(context: Context) -> Stage:
    """Plan one task a row block of the model."""
    model, s = context.model, context.model.sizes
    rows, row_bytes = wanted_rows(context), (8 if model.rows.held else model.row_bytes) + 8
    windows = len(window_starts(context))
    return Stage(
        task=gather_task,
        tasks=s.row_blocks,
        memory={
            "input block": model.input_bytes(s.row_block),
            "gathered rows": s.row_block * (row_bytes + 40),
            "windows": windows * 16,
        },
        shared=s.rows + context.sizes.row_block * context.extent("nearest") * 8,
        read_bytes=s.rows * (s.columns * model.source.dtype.itemsize + 8),
        made=(schema.NEEDED.name,),
        made_bytes=rows * row_bytes + s.row_blocks * windows * 8,
        work=s.rows * costs.SHUFFLE_ROW + rows * costs.SHUFFLE_VALUE * s.columns,
    )


def gather_task(context: Context, number: int) -> Receipt:
    """Send the rows of one block that any point needs to the windows of their vertices."""
    vertices = context.model.read(schema.VERTEX, *context.model.sizes.block(number))
    wanted = context.held("wanted vertices", lambda: _wanted_vertices(context))[vertices]
    return send_fitted(context, schema.NEEDED, number, vertices, wanted, window_starts(context))


def _wanted_vertices(context: Context) -> Array:
    """Return (n,) bool: the vertices that are a neighbour of any point."""
    wanted = np.zeros(context.model.sizes.rows, bool)
    for start, stop in map(context.sizes.block, range(context.sizes.row_blocks)):
        nearest = context.read(schema.NEAREST_VERTICES, start, stop)
        wanted[nearest[nearest >= 0]] = True
    return wanted


GATHER = Step(
    "inverse.gather",
    plan_gather,
    reads=(schema.NEAREST_VERTICES,),
    writes=(schema.NEEDED,),
    model=(schema.SOURCE, schema.VERTEX),
)
