"""Scan: one pass over the distances between all rows, which checks and digests them and takes the nearest."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from daskumap.errors import SourceError
from daskumap.kernels.neighbors.distances import Distances
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.distances import GIVEN_VALUE, given_memory, look_at, refuse_faults, reread_task
from daskumap.store import schema

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

# Rows of a block whose distances to one another are compared both ways.
COMPARED_ROWS = 512
# Two distances of a pair that differ by more than this share are not rounding of one.
SYMMETRIC = 1e-3


def plan_scan(context: Context) -> Stage:
    """Plan one task a row block."""
    s, k = context.sizes, context.job.neighbors
    return Stage(
        task=scan_task,
        tasks=s.row_blocks,
        memory={**given_memory(context), "pairs": min(s.row_block, COMPARED_ROWS) ** 2 * 32},
        outputs=(context.output(schema.VERTEX),),
        read_bytes=s.rows * s.columns * context.source.dtype.itemsize,
        made=(schema.FOUND.name,),
        made_bytes=s.rows * (k * 12 + 8),
        work=GIVEN_VALUE * s.rows * s.columns,
        conclude=keep_scan,
    )


def scan_task(context: Context, number: int) -> Receipt:
    """Send the nearest of each row of a block to its vertex, which is the row itself."""
    s, (start, stop) = context.sizes, context.sizes.block(number)
    rows, own = context.rows.distances(start, stop), np.arange(start, stop)
    ids, distances, found = look_at(rows, own, start, context.job.neighbors)
    edges = np.arange(s.vertex_chunks + 1) * s.vertex_chunk
    context.send(
        schema.FOUND, number, np.searchsorted(own, edges), vertices=own, ids=ids, distances=distances
    )
    context.write(schema.VERTEX, start, own)
    return Receipt(stop - start, {**found, **_sides(rows, start)})


def _sides(rows: Distances, start: int) -> dict[str, int]:
    """Return how many distances are stored on both sides of the diagonal, or how many whole rows disagree."""
    count = len(rows.indptr) - 1
    if len(rows.columns) or not len(rows.values):
        own = np.repeat(np.arange(start, start + count), np.diff(rows.indptr))
        return {
            "below": int((rows.columns < own).sum()),
            "above": int((rows.columns > own).sum()),
            "other": 0,
        }
    few = min(count, COMPARED_ROWS)
    block = rows.values.reshape(count, -1)[:few, start : start + few]
    same = np.isclose(block, block.T, rtol=SYMMETRIC, atol=0.0)
    return {"below": 0, "above": 0, "other": int((~same).any(axis=1).sum())}


def keep_scan(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep that all rows are in one cell; refuse what is no matrix of distances.

    Raises
    ------
    SourceError
        Naming rows, or the numbers that differ, and what to do.
    """
    refuse_faults(context, receipts)
    below, above, other, few = (Receipt.total(receipts, name) for name in ("below", "above", "other", "few"))
    rows, k = context.sizes.rows, context.job.neighbors
    if below != above:
        raise SourceError(
            f"Of the sparse distances {below:,} are stored below the diagonal and {above:,} above; each pair "
            "has one distance, which stands on both sides. Pass data.maximum(data.T), which has all pairs."
        )
    if other:
        log.warning(
            "The distances are not symmetric: %d rows are not as far from another row as that is from them. "
            "Each row's neighbours are the nearest in its own row of the matrix.",
            other,
        )
    if few:
        log.warning(
            "%d of %d rows have finite distances to fewer than %d other rows, and as many neighbours. Lower "
            "n_neighbors, which counts the row itself, or give more distances.",
            few,
            rows,
            k,
        )
    context.save_fact(
        schema.ORDER,
        {
            "distinct": rows,
            "wide": 0,
            "level": 0,
            "copies": 1.0,
            "recall": [1.0],
            "groups": context.sizes.row_blocks,
            "largest_cell": rows,
            "doubted": 0,
            "sliced_cells": 0,
        },
    )


def plan_reread(context: Context) -> Stage:
    """Plan the digests of all row blocks once more, to compare them with those of the scan."""
    return Stage(task=reread_task, tasks=context.sizes.row_blocks, memory=given_memory(context))


SCAN = Step(
    "scan",
    plan_scan,
    reads=(schema.SOURCE,),
    writes=(schema.FOUND, schema.VERTEX, schema.ORDER),
)
# No step of a pipeline: it leaves no record. What it found is compared when a run goes on.
REREAD = Step("scan.reread", plan_reread, reads=(schema.SOURCE,))
