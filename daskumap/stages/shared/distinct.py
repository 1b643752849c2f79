"""The rows that take part: without `unique` all, but for those that `undefined="isolate"` leaves out."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# What says which rows take part.
READS = (schema.FIRST, schema.LEFT_OUT)


def leaves_out(context: Context) -> bool:
    """Tell whether rows may be left out: copies, or those on which the metric is not defined."""
    return context.params.unique or context.params.undefined == "isolate"


def distinct_places(context: Context, start: int, stop: int) -> Array:
    """Return the places, in a range of rows, of the rows that take part and are first of their kind."""
    rows = np.arange(start, stop)
    taken = np.ones(len(rows), bool)
    if context.params.unique:
        taken &= context.read(schema.FIRST, start, stop) == rows
    if context.params.undefined == "isolate":
        taken &= context.read(schema.LEFT_OUT, start, stop) == 0
    return np.flatnonzero(taken)


def read_distinct(context: Context, start: int, stop: int) -> tuple[Array, Array]:
    """Return the rows of a range that take part, not to be changed, and their places in the range."""
    X, places = context.rows.read(start, stop), distinct_places(context, start, stop)
    return (X if len(places) == len(X) else X[places]), places


def distinct_memory(context: Context) -> dict[str, int]:
    """Return the term of memory that leaving out some of a row block takes."""
    rows = context.sizes.row_block
    return {"distinct rows": rows * (context.row_bytes + 24)} if leaves_out(context) else {}
