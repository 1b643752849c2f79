"""Join: the edges of each new row to training rows, with their memberships, where the graph is the result."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.near import (
    count_rows,
    find_near,
    near_bytes,
    near_memory,
    near_seconds,
    rate_distance,
    total_counts,
    weigh,
)
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def plan_join(context: Context) -> Stage:
    """Plan one task a row block."""
    s, k, model = context.sizes, context.params.n_neighbors, context.model.sizes
    return Stage(
        task=join_task,
        tasks=s.row_blocks,
        memory={**near_memory(context), "edges": s.row_block * k * 60},
        shared=(model.rows + model.row_block) * 8,
        outputs=(context.output(schema.FIT_DISTANCE),),
        made=(schema.NEW_GRAPH.name,),
        made_bytes=s.rows * (k * 12 + 8),
        read_bytes=near_bytes(context),
        work=near_seconds(context) + costs.CALIBRATE_NEIGHBOR * s.rows * k,
        products=not context.metric.uses_descent,
        conclude=keep_joined,
    )


def join_task(context: Context, number: int) -> Receipt:
    """Write the edges of one block as CSR, with the ids of training rows as columns."""
    start, stop = context.sizes.block(number)
    ids, distances, _ = find_near(context, start, stop)
    fit_distance, weights = rate_distance(context, distances), weigh(context, distances)
    heads, places = np.nonzero(weights)
    tails = context.held("rows", lambda: rows_by_vertex(context.model))[ids[heads, places]]
    order = np.lexsort((tails, heads))
    indptr = np.append(0, np.cumsum(np.bincount(heads, minlength=stop - start)))
    context.send(schema.NEW_GRAPH, number, indptr, tails=tails[order], weights=weights[heads, places][order])
    context.write(schema.FIT_DISTANCE, start, fit_distance)
    return Receipt(stop - start, count_rows(ids, distances, fit_distance))


def rows_by_vertex(model: Context) -> Array:
    """Return the row of each vertex, (n,) int64."""
    s = model.sizes
    rows = np.empty(s.rows, np.int64)
    for start, stop in map(s.block, range(s.row_blocks)):
        rows[model.read(schema.VERTEX, start, stop)] = np.arange(start, stop)
    return rows


def keep_joined(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep how many rows equal a fitted one, have no neighbour, and are farther from theirs than any is."""
    fitted = context.model.sizes.rows
    context.save_fact(schema.PLACED, {"fitted": fitted, **total_counts(context, receipts)})


JOIN = Step(
    "transform.join",
    plan_join,
    reads=(schema.SOURCE, schema.REACH, schema.REACHED, schema.GATHERED, schema.TYPICAL),
    writes=(schema.NEW_GRAPH, schema.FIT_DISTANCE, schema.PLACED),
    model=(schema.SOURCE, schema.CELL_STARTS, schema.VERTEX, schema.MEAN_DISTANCE),
)
JOIN_GIVEN = Step(
    "transform.join",
    plan_join,
    reads=(schema.NEW_INDICES, schema.NEW_DISTANCES, schema.TYPICAL),
    writes=(schema.NEW_GRAPH, schema.FIT_DISTANCE, schema.PLACED),
    model=(schema.VERTEX, schema.MEAN_DISTANCE),
)
