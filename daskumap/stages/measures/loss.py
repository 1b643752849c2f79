"""The loss of the map over all edges, and which edges a layout by cells would cut; a partition a task."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from daskumap.kernels.layout.iterations import layout_loss, negative_pool
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.positions import final_bytes, final_positions
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# Repulsion is estimated from as many random pairs a vertex.
PAIRS = 16
# Vertices from which these are drawn. The layout takes fewer at a time, and others in each iteration.
POOL_SIZE = 65_536


def plan_loss(context: Context) -> Stage:
    """Plan one task a vertex partition."""
    s, d, k = context.sizes, context.params.n_components, context.job.neighbors
    return Stage(
        task=loss_task,
        tasks=s.partitions,
        memory={
            # As read and joined, and while those that leave a cell are counted.
            "edges": min(s.partition_rows, s.rows) * k * 2 * 44,
            "pool": POOL_SIZE * d * 4,
        },
        shared=final_bytes(context),
        read_bytes=s.rows * k * 16,
        work=costs.LOSS_NEIGHBOR * s.rows * k,
        conclude=keep_loss,
    )


def loss_task(context: Context, number: int) -> Receipt:
    """Sum the loss over one partition's vertices, and count its edges that leave the vertex' own cell.

    The loss is that of a plane: with another metric of the map there is none.
    """
    start, stop = context.sizes.partition(number)
    found = {"attractive": 0.0, "repulsive": 0.0, "cut_edges": 0, "edges": 0}
    distinct = context.distinct  # The rest are twins, which are no vertices of the graph.
    if start >= distinct:
        return Receipt(stop - start, found)
    indptr, tails, weights = context.edges(start, min(stop, distinct))
    found |= {"cut_edges": cut_edges(context, start, indptr, tails), "edges": len(tails)}
    if context.output_metric is None:
        found["attractive"], found["repulsive"] = _loss(context, start, indptr, tails, weights)
    return Receipt(stop - start, found)


def _loss(context: Context, start: int, indptr: Array, tails: Array, weights: Array) -> tuple[float, float]:
    """Return the sums over the vertices of one partition."""
    positions = context.held(
        "positions", lambda: np.nan_to_num(final_positions(context), copy=False)[: context.distinct]
    )
    key = context.key("report")
    pool = negative_pool(positions, key, 0, POOL_SIZE)
    a, b = context.params.curve()
    return layout_loss(positions, start, indptr, tails, weights, pool, a, b, PAIRS, key)


def cut_edges(context: Context, first: int, indptr: Array, tails: Array) -> int:
    """Count the edges between vertices whose nearest cells differ: what a layout by cells would cut."""
    starts = context.read(schema.CELL_STARTS)
    heads = np.repeat(np.arange(first, first + len(indptr) - 1), np.diff(indptr))
    cell = np.searchsorted(starts, heads, side="right")
    return int(np.count_nonzero((tails < starts[cell - 1]) | (tails >= starts[cell])))


def keep_loss(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep the sums over all partitions."""
    found = [receipts[number].found for number in sorted(receipts)]
    context.save_fact(
        schema.LOSS,
        {
            "attractive": math.fsum(one["attractive"] for one in found),
            "repulsive": math.fsum(one["repulsive"] for one in found),
            "cut_edges": sum(one["cut_edges"] for one in found),
            "edges": sum(one["edges"] for one in found),
        },
    )


LOSS = Step(
    "report.loss",
    plan_loss,
    reads=(
        schema.STATE,
        schema.DEGREES,
        schema.GRAPH,
        schema.CELL_STARTS,
    ),
    writes=(schema.LOSS,),
)
