"""Neighbours and graph, copied from the model: a vertex partition of the new run a task.

With fewer neighbours, or a lower disconnection distance, the lists are cut, and the graph is made anew.
"""

from __future__ import annotations

import numpy as np

from daskumap.kernels.neighbors.lists import cut_off
from daskumap.planning import costs, memory
from daskumap.planning.stage import ITEM_BYTES, Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.graph_facts import facts_of, keep_graph
from daskumap.stages.shared.mean_distance import save_mean_distance, sums_of
from daskumap.store import schema


def plan_neighbors(context: Context) -> Stage:
    """Plan one task a vertex partition."""
    s, k = context.sizes, context.job.neighbors
    largest, model = min(s.partition_rows, s.rows), context.job.model
    known = k if model is None else model.neighbors
    return Stage(
        task=neighbors_task,
        tasks=s.partitions,
        memory={"lists": largest * (known + k) * 12, "sums": largest * k * 8},
        outputs=(context.output(schema.INDICES), context.output(schema.DISTANCES)),
        read_bytes=s.rows * known * 12,
        work=costs.MERGE_NEIGHBOR * s.rows * k,
        conclude=save_mean_distance,
    )


def neighbors_task(context: Context, number: int) -> Receipt:
    """Copy the neighbours of a partition's vertices: as many, and as near, as the new run has."""
    start, stop = context.sizes.partition(number)
    k = context.job.neighbors
    ids = context.model.read(schema.INDICES, start, stop)[:, :k].copy()
    distances = context.model.read(schema.DISTANCES, start, stop)[:, :k].copy()
    cut_off(ids, distances, context.cutoff)
    context.write(schema.INDICES, start, ids)
    context.write(schema.DISTANCES, start, distances)
    return Receipt(stop - start, sums_of(context, ids, distances))


def plan_graph(context: Context) -> Stage:
    """Plan one task a vertex partition."""
    s, k = context.sizes, context.job.neighbors
    edge_bytes = ITEM_BYTES[context.dtype("vertex")] + 4
    size = s.rows * k * 2 * edge_bytes + s.rows * 8
    return Stage(
        task=graph_task,
        tasks=s.partitions,
        memory={"edges": min(s.partition_rows, s.rows) * memory.edge_row(context.params.n_neighbors)},
        outputs=tuple(map(context.output, (schema.RHO, schema.SIGMA, schema.DEGREES))),
        read_bytes=size + s.rows * 8,
        made=(schema.GRAPH.name,),
        made_bytes=size,
        conclude=keep_facts,
    )


def graph_task(context: Context, number: int) -> Receipt:
    """Copy the calibration and the edges of a partition."""
    start, stop = context.sizes.partition(number)
    for item in (schema.RHO, schema.SIGMA):
        context.write(item, start, context.model.read(item, start, stop))
    indptr, tails, weights = context.model.edges(start, stop)
    context.send(schema.GRAPH, number, indptr, tails=tails, weights=weights)
    degrees = np.diff(indptr).astype(np.int32)
    context.write(schema.DEGREES, start, degrees)
    known = context.model.fact(schema.GRAPH_FACTS), context.model.fact(schema.BITS, {})
    found = facts_of(weights, degrees, context.sizes.vertex_chunk)
    return Receipt(stop - start, {**found, "known": known})


def keep_facts(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep what is known of the whole graph, and what the model knew: it may be gone by now."""
    graph, bits = receipts[0].found["known"]
    keep_graph(context, receipts, graph.get("edges_dropped_negative", 0))
    context.save_fact(schema.BITS, bits)


NEIGHBORS = Step(
    "taken.neighbors",
    plan_neighbors,
    writes=(schema.INDICES, schema.DISTANCES, schema.MEAN_DISTANCE),
    model=(schema.INDICES, schema.DISTANCES),
)
GRAPH = Step(
    "taken.graph",
    plan_graph,
    writes=(
        schema.RHO,
        schema.SIGMA,
        schema.BITS,
        schema.GRAPH,
        schema.DEGREES,
        schema.GRAPH_FACTS,
        schema.REPULSION,
    ),
    model=(schema.RHO, schema.SIGMA, schema.BITS, schema.GRAPH, schema.GRAPH_FACTS),
)
