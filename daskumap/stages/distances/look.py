"""Look: a few rows of distances decide how all are scaled for float32. Vertices are rows, all in one cell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.sources.move import Move
from daskumap.stages.shared.checks import count_missing, refuse_missing
from daskumap.stages.shared.sample import probe_places
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# A usual distance between these stays as it is: differences of 2^-24 of it are normal numbers of float32.
SMALL, LARGE = 2.0**-30, 2.0**30


def plan_look(context: Context) -> Stage:
    """Plan the one task."""
    columns = context.sizes.columns
    return Stage(
        task=look_task,
        tasks=1,
        memory={"input block": context.input_bytes(1), "rows": columns * 24},
        made=(schema.CELL_STARTS.name, schema.PROBE_ROWS.name),
        made_bytes=context.sizes.probe_rows * 8,
        read_bytes=context.source.fingerprint_rows() * columns * context.source.dtype.itemsize,
        conclude=keep_look,
    )


def look_task(context: Context, number: int) -> Receipt:
    """Choose the probes, and the power of two that brings a usual distance near 1 if it is far from it."""
    s, source = context.sizes, context.rows.source
    rows = np.linspace(0, s.rows - 1, source.fingerprint_rows()).astype(np.int64)
    usual = [_median(source.read_stored(row, row + 1)) for row in rows.tolist()]
    size = float(np.median([one for one in usual if one > 0] or [1.0]))
    move = Move(0 if SMALL <= size <= LARGE else -math.floor(math.log2(size)))
    context.put(schema.CELL_STARTS, np.array([0, s.rows]))
    context.put(schema.PROBE_ROWS, probe_places(context, s.rows))
    return Receipt(len(rows), {**move.as_dict(), "degree": 1, "missing_chunks": count_missing(context)})


def _median(row: Array) -> float:
    """Return the median of the finite distances above 0; 0 for none."""
    there = row[(row > 0) & (row < np.inf)]
    return float(np.median(there)) if len(there) else 0.0


def keep_look(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep the scale, and that all is one cell."""
    found = receipts[0].found
    refuse_missing(context, found["missing_chunks"])
    context.save_fact(schema.CAST, found)
    probes = min(context.sizes.probe_rows, context.sizes.rows)
    context.save_fact(schema.CELLS, {"cells": 1, "probes": probes})


LOOK = Step(
    "scan.look",
    plan_look,
    reads=(schema.SOURCE,),
    writes=(schema.CAST, schema.CELLS, schema.CELL_STARTS, schema.PROBE_ROWS),
)
