"""Calibrate: each vertex's rho and sigma, and its memberships sent to the other end of each edge."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np

from daskumap.errors import ParameterError
from daskumap.kernels.graph.calibrate import calibrate, memberships, tally
from daskumap.kernels.graph.union import sort_by_tail
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.store import schema

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

# Between these a kernel that compares gaps with 1 tells near from far: e^-10 is nothing, e^-0.1 almost 1.
LEAST_GAP, MOST_GAP = 0.1, 10.0


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
    refuse_scaled(context)
    made_by = context.memberships
    rho, sigma = calibrate(distances, p.n_neighbors, float(p.local_connectivity), mean, made_by.bandwidths)
    context.write(schema.RHO, start, rho)
    context.write(schema.SIGMA, start, sigma)
    weights = memberships(distances, rho, sigma, made_by.weights)
    found = tally_by_chunk(context, distances, rho, weights)
    del distances
    indices = context.read(schema.INDICES, start, stop)
    tails, heads, reverse, offsets = sort_by_tail(indices, weights, start, s.vertex_chunk, s.vertex_chunks)
    context.send(schema.REVERSE, number, offsets, tails=tails, heads=heads, weights=reverse)
    return Receipt(stop - start, {"edges": len(tails), **found})


def refuse_scaled(context: Context) -> None:
    """Refuse a kernel that compares gaps with 1 where all values were scaled to suit float32.

    Raises
    ------
    ParameterError
        Saying by how much.
    """
    if context.memberships.weights.in_units and context.unit:
        raise ParameterError(
            f"membership is {context.params.membership!r}, which compares distances with 1, and distances "
            f"were scaled by 2**{context.unit} to suit float32. Scale the data so that distances are about 1."
        )


def tally_by_chunk(context: Context, distances: Array, rho: Array, weights: Array) -> dict[str, Any]:
    """Return what the memberships of a partition are: sums and medians one a vertex chunk.

    Chunks do not depend on the partitions.
    """
    step, target = context.sizes.vertex_chunk, math.log2(context.params.n_neighbors)
    parts = [slice(at, at + step) for at in range(0, len(rho), step)]
    found = [tally(distances[part], rho[part], weights[part], target) for part in parts]
    return {
        "bits": [float(one[0]) for one in found],
        "on_target": sum(int(one[1]) for one in found),
        "vanished": sum(int(one[2]) for one in found),
        "gaps": [float(np.median(one[3])) for one in found if len(one[3])],
    }


def keep_bits(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep what memberships sum to, and how far neighbours are; warn where the kernel cannot tell them."""
    gaps = [gap for receipt in receipts.values() for gap in receipt.found["gaps"]]
    found = {
        "bits": math.fsum(bits for receipt in receipts.values() for bits in receipt.found["bits"]),
        "on_target": Receipt.total(receipts, "on_target"),
        "vanished": Receipt.total(receipts, "vanished"),
        "median_gap": float(np.ldexp(np.median(gaps or [0.0]), -context.unit)),
    }
    context.save_fact(schema.BITS, found)
    gap = found["median_gap"]  # Of rows without neighbours and of copies 0, which no scale changes.
    if context.memberships.weights.in_units and gap and not LEAST_GAP <= gap <= MOST_GAP:
        log.warning(
            "membership is %r, which compares distances with 1, and the farthest neighbour of a row is %.3g "
            "farther than its nearest one. Scale the data so that this is about 1.",
            context.params.membership,
            gap,
        )


CALIBRATE = Step(
    "calibrate",
    plan_calibrate,
    reads=(schema.INDICES, schema.DISTANCES, schema.MEAN_DISTANCE),
    writes=(schema.RHO, schema.SIGMA, schema.REVERSE, schema.BITS),
)
