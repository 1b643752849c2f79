"""Order: which cells are searched, how many of them a row joins, and the numbers of the vertices."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from daskumap.kernels.cells import join, slices
from daskumap.kernels.metrics import exact
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.choose import Probes, choose_cells, fit_wide_cells
from daskumap.stages.shared.probes import merge_probes
from daskumap.stages.shared.sample import probe_rows
from daskumap.store import schema

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]


def plan_order(context: Context) -> Stage:
    """Plan the one task that chooses the overlap and numbers the vertices."""
    s, m, k = context.sizes, context.params.max_overlap, context.job.neighbors
    size, bundles = context.cells, context.sizes.bundles
    made = [schema.SLICE_STARTS, schema.GROUP_STARTS, schema.CELL_STARTS, schema.PROBE_IDS, schema.DOUBTED]
    if context.order("wide", 0):
        made.append(schema.WIDE_OF)
    return Stage(
        task=order_task,
        tasks=1,
        memory={
            "counts": size * (4 * join.LEVELS + 4) * 8,
            "rows of wide cells": context.resources.threads * s.row_block * m * 13,
            "probes": s.probe_rows * (k * (12 + 5 * m) * 6 + s.columns * 24),
        },
        outputs=(context.output(schema.FIRST_VERTICES),),
        read_bytes=bundles * (size * join.LEVELS * 4 + s.probe_rows * k * (12 + 5 * m)),
        made=tuple(item.name for item in made),
        # Mostly the rows of wide cells, which are counted twice as a rule.
        work=costs.ORDER
        + bundles * (costs.ORDER_BUNDLE + costs.ORDER_CELL * size * join.LEVELS)
        + costs.ORDER_ROW * s.rows,
        conclude=keep_order,
    )


def order_task(context: Context, number: int) -> Receipt:
    """Merge the probes' neighbours, choose cells and overlap, number the vertices, group the cells."""
    s = context.sizes
    ids, distances, found, found_levels = merge_probes(context, schema.BUNDLE_PROBES, range(s.bundles))
    members = sum(
        context.read(schema.BUNDLE_COUNTS, bundle, bundle + 1)[0].astype(int) for bundle in range(s.bundles)
    )
    rows = probe_rows(context)
    near, levels = context.take(schema.NEAREST, rows), context.take(schema.LEVELS, rows)
    probes = Probes(rows, near, levels, ids, found, found_levels)
    choice = choose_cells(context, probes, members)
    _number_cells(context, members[0])
    if choice.wide_of is None:
        joined, limit, group = members[: choice.level + 1].sum(axis=0), s.max_cell_rows, s.group_rows
    else:
        wide_of, choice, joined = fit_wide_cells(context, choice.wide_of, choice.level, probes, members[0])
        context.put(schema.WIDE_OF, wide_of)
        limit, group = s.wide_rows, min(s.group_rows, s.wide_rows)
    slice_starts, group_starts = slices.plan_slices(joined, limit, group, s.group_cells)
    context.put(schema.SLICE_STARTS, slice_starts)
    context.put(schema.GROUP_STARTS, group_starts)
    context.put(schema.PROBE_IDS, ids)
    doubted = exact.in_doubt(context.read(schema.PROBES), distances[:, -1], context.metric, context.whole)
    context.put(schema.DOUBTED, doubted.astype(np.uint8))
    return Receipt(
        s.rows,
        {
            "distinct": int(members[0].sum()),
            "wide": 0 if choice.wide_of is None else int(choice.wide_of[-1]) + 1,
            "level": choice.level,
            "copies": round(float(joined.sum()) / s.rows, 4),
            "recall": [round(float(r), 4) for r in choice.recall],
            "groups": len(group_starts) - 1,
            "largest_cell": int(joined.max()),
            "doubted": int(doubted.sum()),
            "sliced_cells": int((np.diff(slice_starts) > 1).sum()),
        },
    )


def _number_cells(context: Context, members: Array) -> None:
    """Write where each cell's vertices start, and where each bundle of row blocks has its part of each cell.

    Rows without a cell, which are twins, come last, as if they had a cell of their own.
    """
    s = context.sizes
    starts = np.concatenate([[0], np.cumsum(members)])
    context.put(schema.CELL_STARTS, starts)
    free = starts.copy()
    for bundle in range(s.bundles):
        context.write(schema.FIRST_VERTICES, bundle, free[None])
        counts = context.read(schema.BUNDLE_COUNTS, bundle, bundle + 1)[0, 0]
        rows = sum(stop - start for start, stop in map(s.block, s.bundle(bundle)))
        free += np.append(counts, rows - counts.sum())


def keep_order(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep what was chosen; say so where no overlap allowed reaches the target."""
    found = receipts[0].found
    context.save_fact(schema.ORDER, found)
    if max(found["recall"]) < context.params.target_recall:
        log.warning(
            "Joining up to %d cells a row finds %.1f %% of the neighbours, less than target_recall %.1f %%. "
            "Raise max_overlap (now %d) or max_cell_rows (now %d), or accept the recall.",
            context.params.max_overlap,
            100 * max(found["recall"]),
            100 * context.params.target_recall,
            context.params.max_overlap,
            context.sizes.max_cell_rows,
        )


ORDER = Step(
    "partition.order",
    plan_order,
    reads=(
        schema.BUNDLE_COUNTS,
        *schema.BUNDLE_PROBES,
        schema.NEAREST,
        schema.LEVELS,
        schema.PROBES,
        schema.PROBE_ROWS,
    ),
    writes=(
        schema.SLICE_STARTS,
        schema.GROUP_STARTS,
        schema.CELL_STARTS,
        schema.WIDE_OF,
        schema.FIRST_VERTICES,
        schema.PROBE_IDS,
        schema.DOUBTED,
        schema.ORDER,
    ),
)
