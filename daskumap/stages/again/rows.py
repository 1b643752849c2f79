"""Rows: the numbers of the vertices, and where each row starts, copied from the model block by block.

The row blocks are the model's, so that what its scan digested of them holds for the new run, and nothing of
the input is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from daskumap.errors import StoreError
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.micro import has_micro_cells
from daskumap.stages.shared.start import has_axes
from daskumap.store import schema


def taken(context: Context) -> tuple[schema.Array, ...]:
    """Return the arrays by row that a run has, whatever its start is."""
    first = (schema.FIRST,) if context.params.unique else ()
    left_out = (schema.LEFT_OUT,) if context.params.undefined == "isolate" else ()
    return (schema.VERTEX, *first, *left_out)


def plan_rows(context: Context) -> Stage:
    """Plan one task a row block."""
    return _plan_copies(context, rows_task, taken(context))


def _plan_copies(context: Context, task: Callable[..., Receipt], items: tuple[schema.Array, ...]) -> Stage:
    s, outputs = context.sizes, tuple(map(context.output, items))
    total = sum(output.nbytes for output in outputs)
    return Stage(
        task=task,
        tasks=s.row_blocks,
        memory={"row block": 2 * (total // s.row_blocks + s.row_block * 8)},
        outputs=outputs,
        read_bytes=total,
    )


def rows_task(context: Context, number: int) -> Receipt:
    """Copy what is known of the rows of a block, its digest with it.

    Raises
    ------
    StoreError
        If the model has lost the digest.
    """
    start, stop = _copy(context, number, taken(context))
    known = context.model.store.ledger.receipt(SCAN, number)
    if known is None:
        raise StoreError(
            f"The record of {SCAN} {number} in {context.model.url} is damaged. Run `daskumap verify --repair "
            f"{context.model.url}`, then `daskumap resume` on it."
        )
    return Receipt(stop - start, {"crc32": known.found["crc32"]})


def taken_start(context: Context) -> tuple[schema.Array, ...]:
    """Return the arrays by row that the start needs."""
    axes = (schema.ON_AXES,) if has_axes(context) else ()
    return (*axes, schema.IN_MICRO) if has_micro_cells(context) else axes


def plan_start(context: Context) -> Stage:
    """Plan one task a row block."""
    stage = _plan_copies(context, start_task, taken_start(context))
    return replace(stage, made=(schema.LIMITS.name,)) if has_axes(context) else stage


def start_task(context: Context, number: int) -> Receipt:
    """Copy where the rows of a block start; the first task, how far out that is on the axes."""
    if number == 0 and has_axes(context):
        context.put(schema.LIMITS, context.model.read(schema.LIMITS))
    start, stop = _copy(context, number, taken_start(context))
    return Receipt(stop - start)


def _copy(context: Context, number: int, items: tuple[schema.Array, ...]) -> tuple[int, int]:
    """Copy a row block of some arrays, and return its rows."""
    start, stop = context.sizes.block(number)
    for item in items:
        context.write(item, start, context.model.read(item, start, stop))
    return start, stop


# What digests the input's row blocks is called the same in every run that has fitted rows.
SCAN = "scan"
ROWS = Step(
    SCAN,
    plan_rows,
    writes=(schema.VERTEX, schema.FIRST, schema.LEFT_OUT),
    model=(schema.VERTEX, schema.FIRST, schema.LEFT_OUT),
)
START = Step(
    "taken.start",
    plan_start,
    writes=(schema.ON_AXES, schema.IN_MICRO, schema.LIMITS),
    model=(schema.ON_AXES, schema.IN_MICRO, schema.LIMITS),
)
