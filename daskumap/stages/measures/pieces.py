"""The pieces of the graph and of the map: components, and islands with their shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.graph import union
from daskumap.kernels.quality.islands import islands, unite_near
from daskumap.planning import costs
from daskumap.planning.stage import ITEM_BYTES, Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.positions import PLACES, final_bytes, final_positions
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# An edge joins an island where the map's own curve gives its ends a membership of one half at least: up to a
# length of .78 at the default min_dist. With .3 and less, clusters that touch grow together (record 16).
MEMBERSHIP = 0.5
# Of fewer rows the axes are chance: 50 of a normal distribution have an aspect of up to 1.5.
LEAST_ROWS = 50
# At most so many islands, so that the longest of many small ones does not speak for a large map.
MOST_ISLANDS = 10_000


def plan_pieces(context: Context) -> Stage:
    """Plan the one task that follows all edges."""
    s, d, k = context.sizes, context.params.n_components, context.job.neighbors
    edge_bytes = ITEM_BYTES[context.dtype("vertex")] + 8
    return Stage(
        task=pieces_task,
        tasks=1,
        memory={
            "components and islands": s.rows * 24,
            "edges": min(s.partition_rows, s.rows) * k * 2 * edge_bytes,
            "islands": MOST_ISLANDS * (d + 1) ** 2 * 24,
        },
        shared=final_bytes(context),
        read_bytes=s.rows * (d * 4 + k * 16),
        work=costs.PIECES_NEIGHBOR * s.rows * k,
        conclude=keep_pieces,
    )


def pieces_task(context: Context, number: int) -> Receipt:
    """Count components, islands and their rows, and find the longest island; twins are in none of these.

    Islands are those of a plane: with another metric of the map there are none.
    """
    s, distinct = context.sizes, context.distinct
    positions = context.held("positions", lambda: final_positions(context))
    components, near = np.arange(distinct), np.arange(distinct)
    a, b = context.params.curve()
    with np.errstate(over="ignore"):  # All is within reach of a curve that hardly falls.
        reach = float(np.float64((1.0 / MEMBERSHIP - 1.0) / a) ** (0.5 / b))
    for start, stop in map(s.partition, range(s.partitions)):
        indptr, tails, _ = context.edges(start, stop)
        union.unite(components, start, indptr, tails)
        if context.output_metric is None:
            unite_near(near, positions, start, indptr, tails, reach)
    count, largest = union.count_components(components)
    found = {"components": count, "largest_component": largest}
    if context.output_metric is None:
        found |= _shapes(near, positions[:distinct])
    return Receipt(s.rows, found)


def _shapes(near: Array, positions: Array) -> dict[str, Any]:
    """Return what the report says of islands; one component has no shape."""
    if positions.shape[1] < 2:
        return {}
    sizes, aspects = islands(near, positions, max(LEAST_ROWS, len(near) // MOST_ISLANDS))
    found = {"islands": len(sizes), "island_rows": int(sizes.sum())}
    if not len(sizes):
        return found
    longest = int(aspects.argmax())
    return found | {
        "longest_aspect": round(float(aspects[longest]), 3),
        "longest_island": int(sizes[longest]),
    }


def keep_pieces(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep what was found."""
    context.save_fact(schema.PIECES, receipts[0].found)


PIECES = Step(
    "report.pieces",
    plan_pieces,
    reads=(schema.STATE, schema.DEGREES, schema.GRAPH),
    writes=(schema.PIECES,),
)
# Of a map that a network made: vertices without edges are on it.
TRAINED_PIECES = Step("report.pieces", plan_pieces, reads=(*PLACES, schema.GRAPH), writes=(schema.PIECES,))
