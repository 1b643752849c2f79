"""How well the map fits its graph, and which edges a layout by cells would cut; a partition a task."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.layout.diagnostics import Sums, add_sums
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.pairs import diagnostics_of, on_the_map, sums_of
from daskumap.stages.shared.positions import PLACES, final_bytes, final_positions
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def plan_loss(context: Context) -> Stage:
    """Plan one task a vertex partition."""
    s, k = context.sizes, context.job.neighbors
    return Stage(
        task=loss_task,
        tasks=s.partitions,
        # As read and joined, and while those that leave a cell are counted.
        memory={"edges": min(s.partition_rows, s.rows) * k * 2 * 44},
        shared=final_bytes(context),
        read_bytes=s.rows * k * 16,
        work=costs.LOSS_NEIGHBOR * s.rows * k,
        conclude=keep_loss,
    )


def loss_task(context: Context, number: int) -> Receipt:
    """Sum over the pairs of one partition's vertices, and count its edges that leave the vertex' own cell.

    The sums are those of a plane: with another metric of the map there are none.
    """
    start, stop = context.sizes.partition(number)
    distinct = context.distinct  # The rest are twins, which are no vertices of the graph.
    if start >= distinct:
        return Receipt(stop - start, {"cut_edges": 0, "edges": 0})
    edges = context.edges(start, min(stop, distinct))
    found: dict[str, Any] = {"cut_edges": cut_edges(context, start, *edges[:2]), "edges": len(edges[1])}
    if context.output_metric is None:
        positions = context.held("positions", lambda: on_the_map(context, final_positions(context)))
        found["sums"] = sums_of(context, positions, start, edges, *context.params.curve())
    return Receipt(stop - start, found)


def cut_edges(context: Context, first: int, indptr: Array, tails: Array) -> int:
    """Count the edges between vertices whose nearest cells differ: what a layout by cells would cut."""
    starts = context.read(schema.CELL_STARTS)
    heads = np.repeat(np.arange(first, first + len(indptr) - 1), np.diff(indptr))
    cell = np.searchsorted(starts, heads, side="right")
    return int(np.count_nonzero((tails < starts[cell - 1]) | (tails >= starts[cell])))


def keep_loss(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep what the sums over all partitions say."""
    counts = {name: Receipt.total(receipts, name) for name in ("cut_edges", "edges")}
    sums = [Sums(*one.found["sums"]) for one in receipts.values() if "sums" in one.found]
    found = diagnostics_of(context, add_sums(sums), counts["edges"]) if sums else {}
    context.save_fact(schema.LOSS, counts | found)


READ = (schema.DEGREES, schema.GRAPH, schema.CELL_STARTS)
LOSS = Step(
    "report.loss",
    plan_loss,
    reads=(schema.STATE, *READ),
    writes=(schema.LOSS,),
)
# Of a map that a network made.
TRAINED_LOSS = Step("report.loss", plan_loss, reads=(*PLACES, *READ), writes=(schema.LOSS,))
