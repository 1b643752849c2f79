"""How many rows are closer to the probes, in the data, than their neighbours on the map are."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.neighbors import knn
from daskumap.planning import costs, memory
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.distinct import READS, distinct_memory, read_distinct
from daskumap.stages.shared.sample import places_of, probe_rows
from daskumap.stages.shared.stored import MEASURE_STORED
from daskumap.stages.shared.visitors import Share, Visitor, plan_pass
from daskumap.stages.shared.wanted import wanted_rows
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def plan_distances(context: Context) -> Stage:
    """Plan the one task that measures the map's neighbours in the data."""
    s, k = context.sizes, context.job.neighbors
    return Stage(
        task=distances_task,
        tasks=1,
        memory={"probes and their neighbours": s.probe_rows * (k + 2) * s.columns * 4},
        outputs=(context.output(schema.MAP_DISTANCES),),
        read_bytes=s.probe_rows * k * s.columns * 4,
    )


def distances_task(context: Context, number: int) -> Receipt:
    """Measure the distances in the data of the probes' neighbours on the map; 0 where one is missing."""
    probes, ids, known = context.read(schema.PROBES), context.read(schema.MAP_IDS), wanted_rows(context)
    rows = context.reader(schema.MAP_ROWS, 0, 1).read(0, 1)["rows"]
    out = np.zeros(ids.shape, np.float32)
    for i, there in enumerate(ids >= 0):
        near = rows[np.searchsorted(known, ids[i, there])]
        order, distances = knn.nearest(probes[i : i + 1], near, len(near), context.metric, np.array([-1]), 0)
        out[i, np.flatnonzero(there)[order[0]]] = distances[0]
    context.write(schema.MAP_DISTANCES, 0, out)
    return Receipt(len(ids))


def plan_ranks(context: Context) -> Stage:
    """Plan one task a row block."""
    visitors = (Visitor(count_closer, _share_of_ranks), MEASURE_STORED)
    return plan_pass(context, visitors, read_block, products=True)


def read_block(context: Context, number: int) -> tuple[Array, Array]:
    """Return the rows of a block without twins, and their ids."""
    start, stop = context.sizes.block(number)
    X, places = read_distinct(context, start, stop)
    return X, places + start


def _share_of_ranks(context: Context) -> Share:
    s, k = context.sizes, context.job.neighbors
    return Share(
        outputs=(context.output(schema.CLOSER),),
        memory={
            "transformed rows": s.row_block * s.columns * 4,
            "probes": s.probe_rows * (s.columns * 8 + k * 12),
            "scores": memory.SCORES,
            **distinct_memory(context),
        },
        work=s.rows * s.probe_rows * (costs.RANK_PAIR + 2.0 * s.columns / costs.FLOPS),
    )


def count_closer(context: Context, number: int, block: tuple[Array, Array]) -> dict[str, Any]:
    """Count the rows of one block that are closer to each probe than its neighbours on the map are."""
    X, rows = block
    probes, thresholds = context.read(schema.PROBES), context.read(schema.MAP_DISTANCES)
    own = places_of(rows, probe_rows(context))
    counts = knn.count_closer(probes, X, thresholds, context.metric, own, 0)
    context.write(schema.CLOSER, number, counts[None])
    return {}


MAP_DISTANCES = Step(
    "report.distances",
    plan_distances,
    reads=(schema.PROBES, schema.MAP_IDS, schema.MAP_ROWS),
    writes=(schema.MAP_DISTANCES,),
)
RANKS = Step(
    "report.ranks",
    plan_ranks,
    reads=(
        schema.SOURCE,
        *READS,
        schema.PROBES,
        schema.PROBE_ROWS,
        schema.MAP_DISTANCES,
        schema.DOUBTED,
        schema.MAP_IDS,
        schema.STORED_ROWS,
    ),
    writes=(schema.CLOSER, *schema.STORED_NEAREST, schema.STORED_CLOSER),
)
