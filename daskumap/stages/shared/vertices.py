"""The vertices of all rows, where any row may be asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def all_vertices(context: Context) -> Array:
    """Return the vertex of every row, (n,), block by block."""
    s = context.sizes
    vertices = np.empty(s.rows, context.dtype("vertex"))
    for start, stop in map(s.block, range(s.row_blocks)):
        vertices[start:stop] = context.read(schema.VERTEX, start, stop)
    return vertices
