"""Scan: one pass over the new rows, which checks and digests them, and finds the cells that they reach."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.cells import join
from daskumap.kernels.metrics import metric as metrics
from daskumap.planning import costs, memory
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.checks import (
    CHECK,
    DIGEST,
    count_missing,
    find_lost,
    keep_undefined,
    refuse_bad_rows,
    refuse_lost,
    refuse_missing,
)
from daskumap.stages.shared.nearest import nearest_cells
from daskumap.stages.shared.visitors import Share, Visitor, plan_pass, read_rows
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def plan_scan(context: Context) -> Stage:
    """Plan one task a row block."""
    return plan_pass(context, (CHECK, DIGEST, FIND_CELLS), read_rows, products=True, conclude=refuse)


def plan_reread(context: Context) -> Stage:
    """Plan the digests of all row blocks once more, to compare them with those of the scan."""
    return plan_pass(context, (DIGEST,), read_rows)


def _share_of_cells(context: Context) -> Share:
    s, cells, most = context.sizes, context.model.cells, context.extent("reach")
    return Share(
        outputs=(context.output(schema.REACHED), context.output(schema.REACHED_BY)),
        memory={
            "transformed rows": 2 * s.row_block * s.columns * 4,
            "scores": memory.SCORES,
            "centroids": 2 * cells * s.columns * 4,
            "cells": s.row_block * most * 32 + cells,
        },
        work=2.0 * s.rows * s.columns * cells / costs.FLOPS,
    )


def find_cells(context: Context, number: int, X: Array) -> dict[str, Any]:
    """Write the cells that each row of a block reaches, and those that any of them does."""
    start, _ = context.sizes.block(number)
    with np.errstate(invalid="ignore"):  # of rows that are refused when the pass is over
        nearest, levels = nearest_cells(context.model, X, context.extent("reach"))
    left_out = np.zeros(len(X), bool)
    if context.params.undefined == "isolate":
        left_out = metrics.invalid_rows(X, context.metric)
    nearest[left_out] = -1
    reached = join.joined(nearest, levels, context.fact(schema.REACH)["level"])
    by = np.zeros((1, context.model.cells), np.uint8)
    by[0, reached[reached >= 0]] = 1
    context.write(schema.REACHED, start, reached)
    context.write(schema.REACHED_BY, number, by)
    return find_lost(np.where(left_out, 0, nearest[:, 0]), start)


def refuse(context: Context, receipts: dict[int, Receipt]) -> None:
    """Raise where a row cannot be placed, as the fit would; keep how many the metric is not defined on."""
    refuse_missing(context, count_missing(context) if context.params.missing == "refuse" else 0)
    refuse_bad_rows(context, receipts)
    refuse_lost(context, receipts)
    keep_undefined(context, receipts)


FIND_CELLS = Visitor(find_cells, _share_of_cells)

SCAN = Step(
    "transform.scan",
    plan_scan,
    reads=(schema.SOURCE, schema.REACH),
    writes=(schema.REACHED, schema.REACHED_BY, schema.UNDEFINED),
    model=(schema.CENTROIDS, schema.RADII, schema.MEMBERS),
)
# No step of a pipeline: it leaves no record. What it found is compared when a transform goes on.
REREAD = Step("transform.reread", plan_reread, reads=(schema.SOURCE,))
