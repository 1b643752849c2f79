"""Publish: the finished positions back in the user's row order; a twin's is that of its first row.

So too those after each epoch that `n_epochs` lists, one map after the other. A worker holds the positions of
all vertices on one map, with `unique` also the vertices of all rows.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from daskumap.planning import costs
from daskumap.planning.stage import ITEM_BYTES, Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.positions import final_bytes, final_positions, listed_segments
from daskumap.stages.shared.vertices import all_vertices
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def plan_publish(context: Context) -> Stage:
    """Plan one task a row block."""
    return _plan(context, publish_task, schema.EMBEDDING, 1)


def plan_publish_list(context: Context) -> Stage:
    """Plan one task a map and row block."""
    return _plan(context, publish_list_task, schema.EMBEDDING_LIST, len(context.params.listed_epochs))


def _plan(context: Context, task: Callable[..., Receipt], item: schema.Array, maps: int) -> Stage:
    s, d, unique = context.sizes, context.params.n_components, context.params.unique
    vertices = s.rows * ITEM_BYTES[context.dtype("vertex")] if unique else 0
    return Stage(
        task=task,
        tasks=maps * s.row_blocks,
        memory={"row block": s.row_block * ((24 if unique else 8) + d * 8)},
        shared=final_bytes(context) + vertices,
        outputs=(context.output(item),),
        read_bytes=maps * s.rows * (d * 4 + 12),
        work=maps * costs.PUBLISH_ROW * s.rows,
    )


def publish_task(context: Context, number: int) -> Receipt:
    """Write the positions of a row block's rows."""
    start, stop = context.sizes.block(number)
    positions = context.held("positions", lambda: final_positions(context))
    block = positions[_vertices(context, start, stop)]
    context.write(schema.EMBEDDING, start, block)
    return Receipt(stop - start, {"crc32": zlib.crc32(block.tobytes())})


def publish_list_task(context: Context, number: int) -> Receipt:
    """Write the positions of a row block's rows on one of the maps that are kept."""
    place, block_number = divmod(number, context.sizes.row_blocks)
    start, stop = context.sizes.block(block_number)
    maps = context.held("maps", lambda: OneMap(context))
    block = maps.positions(place, _vertices(context, start, stop))
    context.write(schema.EMBEDDING_LIST, (place, start), block[None])
    return Receipt(stop - start, {"crc32": zlib.crc32(block.tobytes())})


class OneMap:
    """The maps that are kept, of which a process holds one at a time."""

    def __init__(self, context: Context) -> None:
        self.context, self._segments = context, listed_segments(context)
        self._place, self._held = -1, np.empty((0, 0), np.float32)
        self._lock = threading.Lock()

    def positions(self, place: int, vertices: Array) -> Array:
        """Return the positions of some vertices on a map."""
        with self._lock:  # Threads that are at two maps take turns.
            if place != self._place:
                self._held = np.empty((0, 0), np.float32)
                self._held = final_positions(self.context, self._segments[place])
                self._place = place
            return np.asarray(self._held[vertices])


def _vertices(context: Context, start: int, stop: int) -> Array:
    """Return the vertices of a range of rows; a twin's is that of its first row."""
    if not context.params.unique:
        return context.read(schema.VERTEX, start, stop)
    first = context.read(schema.FIRST, start, stop)
    return np.asarray(context.held("vertices", lambda: all_vertices(context))[first])


PUBLISH = Step(
    "publish",
    plan_publish,
    reads=(schema.STATE, schema.DEGREES, schema.VERTEX, schema.FIRST),
    writes=(schema.EMBEDDING,),
)
PUBLISH_LIST = Step(
    "publish.list",
    plan_publish_list,
    reads=(schema.STATE, schema.DEGREES, schema.VERTEX, schema.FIRST),
    writes=(schema.EMBEDDING_LIST,),
)
