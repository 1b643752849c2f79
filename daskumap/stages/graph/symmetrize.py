"""Symmetrize: the fuzzy union of the kNN graph with its transpose, a vertex partition a task.

Hubs have in-degrees in the thousands, so the incoming edges are counted before they are read.
"""

from __future__ import annotations

import numpy as np

from daskumap.kernels.graph.calibrate import memberships
from daskumap.kernels.graph.union import fuzzy_union
from daskumap.planning import costs, memory
from daskumap.planning.stage import ITEM_BYTES, Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.graph_facts import facts_of, keep_graph
from daskumap.store import schema


def plan_symmetrize(context: Context) -> Stage:
    """Plan one task a vertex partition."""
    s, k = context.sizes, context.job.neighbors
    largest = min(s.partition_rows, s.rows)
    edge_bytes = ITEM_BYTES[context.dtype("vertex")] + 4
    return Stage(
        task=symmetrize_task,
        tasks=s.partitions,
        memory={
            "lists and edges": largest * memory.edge_row(context.params.n_neighbors),
            "offsets": s.partitions * (largest // s.vertex_chunk + 2) * 8,
        },
        outputs=(context.output(schema.DEGREES),),
        read_bytes=s.rows * k * 32,
        made=(schema.GRAPH.name,),
        made_bytes=s.rows * k * 2 * edge_bytes + s.rows * 8,
        work=costs.SYMMETRIZE_NEIGHBOR * s.rows * k,
        conclude=keep_joined,
    )


def symmetrize_task(context: Context, number: int) -> Receipt:
    """Join the edges of a partition with those that point at it."""
    start, stop = context.sizes.partition(number)
    chunks = context.sizes.chunks(start, stop)
    incoming = context.reader(schema.REVERSE, *chunks).read(*chunks)
    distances = context.read(schema.DISTANCES, start, stop)
    rho, sigma = (context.read(item, start, stop) for item in (schema.RHO, schema.SIGMA))
    weights = memberships(distances, rho, sigma, context.memberships.weights)
    del distances
    indices = context.read(schema.INDICES, start, stop)
    indptr, tails, joined, dropped = fuzzy_union(
        indices,
        weights,
        start,
        incoming["tails"],
        incoming["heads"],
        incoming["weights"],
        float(context.params.set_op_mix_ratio),
        context.memberships.weights.cap,
    )
    tails = tails.astype(context.dtype("vertex"), copy=False)
    context.send(schema.GRAPH, number, indptr, tails=tails, weights=joined)
    degrees = np.diff(indptr).astype(np.int32)
    context.write(schema.DEGREES, start, degrees)
    found = facts_of(joined, degrees, context.sizes.vertex_chunk)
    return Receipt(stop - start, {**found, "dropped": dropped})


def keep_joined(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep what is known of the whole graph."""
    keep_graph(context, receipts, Receipt.total(receipts, "dropped"))


SYMMETRIZE = Step(
    "symmetrize",
    plan_symmetrize,
    reads=(schema.INDICES, schema.DISTANCES, schema.RHO, schema.SIGMA, schema.REVERSE),
    writes=(schema.GRAPH, schema.DEGREES, schema.GRAPH_FACTS, schema.REPULSION),
)
