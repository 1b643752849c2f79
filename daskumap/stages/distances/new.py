"""New rows as distances to the rows that were fitted: the nearest of each, and what usual distances are."""

from __future__ import annotations

import numpy as np

from daskumap.kernels.neighbors.lists import cut_off
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.checks import count_missing, refuse_missing
from daskumap.stages.shared.distances import GIVEN_VALUE, given_memory, look_at, refuse_faults, reread_task
from daskumap.stages.shared.typical import QUANTILES, typical_bytes, typical_of, typical_read_bytes
from daskumap.store import schema


def plan_typical(context: Context) -> Stage:
    """Plan the one task."""
    return Stage(
        task=typical_task,
        tasks=1,
        memory={"distances": typical_bytes(context.model)},
        made=(schema.TYPICAL.name,),
        made_bytes=QUANTILES * 4,
        read_bytes=typical_read_bytes(context.model),
    )


def typical_task(context: Context, number: int) -> Receipt:
    """Keep quantiles of the training rows' mean distances to their neighbours."""
    context.put(schema.TYPICAL, typical_of(context.model))
    return Receipt(1)


def plan_scan(context: Context) -> Stage:
    """Plan one task a row block."""
    s = context.sizes
    return Stage(
        task=scan_task,
        tasks=s.row_blocks,
        memory=given_memory(context),
        outputs=(context.output(schema.NEW_INDICES), context.output(schema.NEW_DISTANCES)),
        read_bytes=s.rows * s.columns * context.source.dtype.itemsize,
        work=GIVEN_VALUE * s.rows * s.columns,
        conclude=refuse,
    )


def scan_task(context: Context, number: int) -> Receipt:
    """Write the nearest training rows of each row of a block; those beyond the cutoff are none."""
    start, stop = context.sizes.block(number)
    rows, nowhere = context.rows.distances(start, stop), np.full(stop - start, -1)
    ids, distances, found = look_at(rows, nowhere, start, context.params.n_neighbors)
    cut_off(ids, distances, context.model.cutoff)
    context.write(schema.NEW_INDICES, start, ids)
    context.write(schema.NEW_DISTANCES, start, distances)
    return Receipt(stop - start, found)


def refuse(context: Context, receipts: dict[int, Receipt]) -> None:
    """Raise where a row cannot be placed."""
    refuse_missing(context, count_missing(context) if context.params.missing == "refuse" else 0)
    refuse_faults(context, receipts)


def plan_reread(context: Context) -> Stage:
    """Plan the digests of all row blocks once more, to compare them with those of the scan."""
    return Stage(task=reread_task, tasks=context.sizes.row_blocks, memory=given_memory(context))


TYPICAL = Step(
    "transform.typical", plan_typical, writes=(schema.TYPICAL,), model=(schema.DISTANCES, schema.TYPICAL)
)
SCAN = Step(
    "transform.scan",
    plan_scan,
    reads=(schema.SOURCE,),
    writes=(schema.NEW_INDICES, schema.NEW_DISTANCES),
)
REREAD = Step("transform.reread", plan_reread, reads=(schema.SOURCE,))
