"""The pieces in which cells of a model are read: consecutive vertices of one cell, as many as fit."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def pieces_of(context: Context) -> Array:
    """Return (p + 1,) int64: where each piece of the model's cells begins, and where the last one ends."""
    starts, most = context.model.store.read(schema.CELL_STARTS.name), context.sizes.window_rows
    parts = [np.arange(start, stop, most) for start, stop in itertools.pairwise(starts)]
    return np.append(np.concatenate(parts), starts[-1]).astype(np.int64)


def gathered_column(context: Context) -> str:
    """Return what is gathered of the model's rows: themselves, or their ids where they are held."""
    return "ids" if context.model.rows.held else "rows"


def largest_piece(context: Context) -> int:
    """Return the most rows of a piece."""
    return int(np.diff(pieces_of(context)).max())


def gathered_rows(context: Context) -> int:
    """Return how many rows of the model are gathered, at most: few new rows reach few cells."""
    cells = np.sort(np.diff(context.model.store.read(schema.CELL_STARTS.name)))[::-1]
    return int(cells[: context.sizes.rows * context.extent("reach")].sum())
