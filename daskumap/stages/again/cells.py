"""Cells: what small things a run found out, copied from the model: its cells, its probes, and facts.

What is copied makes the new run whole: new rows are placed into its map and its map is measured without the
run that it was made from, which may go.
"""

from __future__ import annotations

from typing import Any

from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.store import schema

# Copied as they are; of the probes' neighbours as many as the new run has.
ARRAYS = (
    schema.CENTROIDS,
    schema.RADII,
    schema.MEMBERS,
    schema.CELL_STARTS,
    schema.PROBES,
    schema.PROBE_ROWS,
    schema.DOUBTED,
)
FACTS = (schema.CAST, schema.CELLS, schema.ORDER, schema.UNDEFINED)


def plan_cells(context: Context) -> Stage:
    """Plan the one task."""
    probes = context.probes * (context.row_bytes + context.job.neighbors * 8 + 9)
    cells = context.cells * (context.row_bytes + 24)
    return Stage(
        task=cells_task,
        tasks=1,
        memory={"cells and probes": 2 * (cells + probes)},
        read_bytes=cells + probes,
        made=tuple(item.name for item in (*ARRAYS, schema.PROBE_IDS)),
        made_bytes=cells + probes,
        conclude=keep_facts,
    )


def cells_task(context: Context, number: int) -> Receipt:
    """Copy the arrays, and find the facts."""
    model = context.model
    for item in ARRAYS:
        context.put(item, model.read(item))
    context.put(schema.PROBE_IDS, model.read(schema.PROBE_IDS)[:, : context.job.neighbors].copy())
    found = {item.name: model.fact(item) for item in FACTS}
    return Receipt(model.cells, found)


def keep_facts(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep what the model found out."""
    found: dict[str, Any] = receipts[0].found
    for item in FACTS:
        context.save_fact(item, found[item.name])


CELLS = Step(
    "taken.cells",
    plan_cells,
    writes=(*ARRAYS, schema.PROBE_IDS, *FACTS),
    model=(*ARRAYS, schema.PROBE_IDS, *FACTS),
)
