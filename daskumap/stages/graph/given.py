"""Take: the neighbours that the user gives, sent to their vertices in place of those of a search."""

from __future__ import annotations

import numpy as np

from daskumap.kernels.neighbors.given import take_nearest
from daskumap.planning import costs
from daskumap.planning.stage import ITEM_BYTES, Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.given import digest_of, given_bytes, read_given, refuse_changed
from daskumap.stages.shared.vertices import all_vertices
from daskumap.store import schema


def plan_take(context: Context) -> Stage:
    """Plan one task a row block."""
    s, k = context.sizes, context.job.neighbors
    columns = int(context.params.precomputed_knn["columns"])
    return Stage(
        task=take_task,
        tasks=s.row_blocks,
        memory={
            "given lists": s.row_block * given_bytes(context),
            "lists": s.row_block * (k * 12 + 8) * 3,
        },
        shared=s.rows * ITEM_BYTES[context.dtype("vertex")],
        read_bytes=s.rows * columns * 16,
        made=(schema.GIVEN.name,),
        made_bytes=s.rows * (k * 12 + 8),
        work=costs.MERGE_NEIGHBOR * s.rows * columns,
    )


def take_task(context: Context, number: int) -> Receipt:
    """Send the nearest of what is given for the rows of a block, as vertices."""
    s, k = context.sizes, context.job.neighbors
    start, stop = s.block(number)
    indices, distances = read_given(context, start, stop)
    refuse_changed(context, "scan.given", number, digest_of(indices, distances))
    with np.errstate(over="ignore"):
        moved = np.ldexp(distances.astype(np.float64), context.unit)
    rows, near = take_nearest(indices, moved, start, k)
    vertices = context.held("vertices", lambda: all_vertices(context))
    ids = np.where(rows >= 0, vertices[np.maximum(rows, 0)], -1)
    own = vertices[start:stop].astype(np.int64)
    order = np.argsort(own)
    offsets = np.searchsorted(own[order], np.arange(s.vertex_chunks + 1) * s.vertex_chunk)
    sent = {"vertices": own[order], "ids": ids[order], "distances": near[order]}
    context.send(schema.GIVEN, number, offsets, **sent)
    return Receipt(stop - start)


TAKE = Step(
    "neighbors.given",
    plan_take,
    reads=(schema.GIVEN_INDICES, schema.GIVEN_DISTANCES, schema.VERTEX),
    writes=(schema.GIVEN,),
)
