"""Merge: the nearest k of each vertex from what its cells found, a vertex partition a task."""

from __future__ import annotations

import numpy as np

from daskumap.kernels.neighbors.lists import cut_off, merge_lists
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.mean_distance import save_mean_distance, sums_of
from daskumap.store import schema


def plan_merge(context: Context) -> Stage:
    """Plan one task a vertex partition."""
    s, k = context.sizes, context.job.neighbors
    largest = min(s.partition_rows, s.rows)
    return Stage(
        task=merge_task,
        tasks=s.partitions,
        memory={
            # All of them may be on their way at a time: of many batches several are read together.
            "found lists": largest * (k * 12 + 8) * (min(context.params.max_overlap, s.cells) + 1),
            "merged lists": largest * k * 12 * 2,
            "offsets": context.extent(lists_of(context).by) * (largest // s.vertex_chunk + 2) * 8,
        },
        outputs=(context.output(schema.INDICES), context.output(schema.DISTANCES)),
        read_bytes=int(s.rows * context.copies * (k * 12 + 8)),
        work=costs.MERGE_NEIGHBOR * s.rows * context.copies * k,
        conclude=save_mean_distance,
    )


def lists_of(context: Context) -> schema.Exchange:
    """Return where the lists are: found by a search, or given by the user."""
    return schema.FOUND if context.params.precomputed_knn is None else schema.GIVEN


def merge_task(context: Context, number: int) -> Receipt:
    """Merge what the cells found for the vertices of a partition."""
    s, k = context.sizes, context.job.neighbors
    start, stop = s.partition(number)
    ids = np.full((stop - start, k), -1, np.int64)
    distances = np.full((stop - start, k), np.inf, np.float32)
    chunks = s.chunks(start, stop)
    for found in context.reader(lists_of(context), *chunks).slices(*chunks):
        merge_lists(found["vertices"] - start, found["ids"], found["distances"], ids, distances)
    cut_off(ids, distances, context.cutoff)
    context.write(schema.INDICES, start, ids)
    context.write(schema.DISTANCES, start, distances)
    return Receipt(stop - start, sums_of(context, ids, distances))


MERGE = Step(
    "neighbors.merge",
    plan_merge,
    reads=(schema.FOUND, schema.GIVEN),
    writes=(schema.INDICES, schema.DISTANCES, schema.MEAN_DISTANCE),
)
