"""The windows in which gathered rows of a model are read: so many consecutive vertices each."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.runtime.context import Context

Array = np.ndarray[Any, Any]


def window_starts(context: Context) -> Array:
    """Return (w + 1,) int64: the first vertex of each window, and one past the last vertex."""
    rows, step = context.model.sizes.rows, context.sizes.window_rows
    return np.append(np.arange(0, rows, step), rows)


def wanted_rows(context: Context) -> int:
    """Return how many rows of the model the points need, at most."""
    return min(context.model.sizes.rows, context.sizes.rows * context.extent("nearest"))
