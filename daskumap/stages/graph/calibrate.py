"""Calibrate: each vertex's rho and sigma, and its memberships sent to the other end of each edge."""

from __future__ import annotations

import math

import numpy as np

from daskumap.kernels.graph.calibrate import calibrate, memberships
from daskumap.kernels.graph.union import sort_by_tail
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.store import schema

# A sum of memberships that is as near to its target is on it: ten times the tolerance of the bisection.
ON_TARGET = 1e-4


def plan_calibrate(context: Context) -> Stage:
    """Plan one task a vertex partition."""
    s, k = context.sizes, context.job.neighbors
    largest = min(s.partition_rows, s.rows)
    return Stage(
        task=calibrate_task,
        tasks=s.partitions,
        memory={
            "lists": largest * k * 12,
            "memberships": largest * (k * 4 + 8),
            "reversed edges": largest * k * 20,
        },
        outputs=(context.output(schema.RHO), context.output(schema.SIGMA)),
        read_bytes=s.rows * k * 12,
        made=(schema.REVERSE.name,),
        made_bytes=s.rows * k * 20,
        work=costs.CALIBRATE_NEIGHBOR * s.rows * k,
        conclude=keep_bits,
    )


def calibrate_task(context: Context, number: int) -> Receipt:
    """Calibrate the vertices of a partition and send each edge to its tail."""
    p, s = context.params, context.sizes
    start, stop = s.partition(number)
    distances = context.read(schema.DISTANCES, start, stop)
    mean = float(context.fact(schema.MEAN_DISTANCE))
    rho, sigma = calibrate(distances, p.n_neighbors, float(p.local_connectivity), mean)
    context.write(schema.RHO, start, rho)
    context.write(schema.SIGMA, start, sigma)
    weights = memberships(distances, rho, sigma)
    del distances
    indices = context.read(schema.INDICES, start, stop)
    tails, heads, reverse, offsets = sort_by_tail(indices, weights, start, s.vertex_chunk, s.vertex_chunks)
    context.send(schema.REVERSE, number, offsets, tails=tails, heads=heads, weights=reverse)
    sums = weights.sum(axis=1, dtype=np.float64)
    on_target = int(np.count_nonzero(abs(sums - math.log2(p.n_neighbors)) <= ON_TARGET))
    return Receipt(stop - start, {"edges": len(tails), "bits": math.fsum(sums), "on_target": on_target})


def keep_bits(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep what the memberships of all vertices sum to, and for how many this is what was asked for."""
    bits = math.fsum(receipt.found["bits"] for receipt in receipts.values())
    context.save_fact(schema.BITS, {"bits": bits, "on_target": Receipt.total(receipts, "on_target")})


CALIBRATE = Step(
    "calibrate",
    plan_calibrate,
    reads=(schema.INDICES, schema.DISTANCES, schema.MEAN_DISTANCE),
    writes=(schema.RHO, schema.SIGMA, schema.REVERSE, schema.BITS),
)
