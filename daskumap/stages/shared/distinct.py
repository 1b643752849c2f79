"""The rows that are the first of their kind; without `unique` these are all rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def distinct_places(context: Context, start: int, stop: int) -> Array:
    """Return the places, in a range of rows, of the rows that are the first of their kind, ascending."""
    rows = np.arange(start, stop)
    if not context.params.unique:
        return rows - start
    return np.flatnonzero(context.read(schema.FIRST, start, stop) == rows)


def read_distinct(context: Context, start: int, stop: int) -> tuple[Array, Array]:
    """Return the rows of a range without twins, not to be changed, and their places in the range."""
    X, places = context.rows.read(start, stop), distinct_places(context, start, stop)
    return (X if len(places) == len(X) else X[places]), places


def distinct_memory(context: Context) -> dict[str, int]:
    """Return the term of memory that leaving out the twins of a row block takes."""
    rows = context.sizes.row_block
    return {"distinct rows": rows * (context.row_bytes + 24)} if context.params.unique else {}
