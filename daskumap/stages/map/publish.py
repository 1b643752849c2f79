"""Publish: the finished positions back in the user's row order; a twin's is that of its first row.

A worker holds the positions of all vertices, with `unique` also the vertices of all rows.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from daskumap.planning import costs
from daskumap.planning.stage import ITEM_BYTES, Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.positions import final_bytes, final_positions
from daskumap.stages.shared.vertices import all_vertices
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def plan_publish(context: Context) -> Stage:
    """Plan one task a row block."""
    s, d, unique = context.sizes, context.params.n_components, context.params.unique
    vertices = s.rows * ITEM_BYTES[context.dtype("vertex")] if unique else 0
    return Stage(
        task=publish_task,
        tasks=s.row_blocks,
        memory={"row block": s.row_block * ((24 if unique else 8) + d * 8)},
        shared=final_bytes(context) + vertices,
        outputs=(context.output(schema.EMBEDDING),),
        read_bytes=s.rows * (d * 4 + 12),
        work=costs.PUBLISH_ROW * s.rows,
    )


def publish_task(context: Context, number: int) -> Receipt:
    """Write the positions of a row block's rows."""
    start, stop = context.sizes.block(number)
    if context.params.unique:
        first = context.read(schema.FIRST, start, stop)
        vertices = context.held("vertices", lambda: all_vertices(context))[first]
    else:
        vertices = context.read(schema.VERTEX, start, stop)
    positions = context.held("positions", lambda: final_positions(context))
    block = positions[vertices]
    context.write(schema.EMBEDDING, start, block)
    return Receipt(stop - start, {"crc32": zlib.crc32(block.tobytes())})


PUBLISH = Step(
    "publish",
    plan_publish,
    reads=(schema.STATE, schema.DEGREES, schema.VERTEX, schema.FIRST),
    writes=(schema.EMBEDDING,),
)
