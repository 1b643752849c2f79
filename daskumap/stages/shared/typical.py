"""How far training rows usually are from their neighbours: quantiles, for the score of new rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.neighbors.lists import mean_distances
from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# So many training rows tell what distances are usual, in vertex chunks spread over all; and so many numbers
# are kept of them: a tenth of a percent is told apart.
TYPICAL_ROWS = 1 << 21
QUANTILES = 1 << 12


def typical_memory(context: Context) -> dict[str, int]:
    """Return the term of memory that the quantiles take."""
    chunk, k = context.model.sizes.vertex_chunk, context.model.job.neighbors
    return {"distances": len(typical_chunks(context)) * chunk * 8 + chunk * k * 8}


def typical_bytes(context: Context) -> int:
    """Return the bytes that are read for the quantiles."""
    return len(typical_chunks(context)) * context.model.sizes.vertex_chunk * context.model.job.neighbors * 4


def typical_chunks(context: Context) -> list[int]:
    """Return the vertex chunks whose rows tell what distances are usual."""
    s = context.model.sizes
    count = min(s.vertex_chunks, max(1, TYPICAL_ROWS // s.vertex_chunk))
    return np.unique(np.linspace(0, s.vertex_chunks - 1, count).astype(int)).tolist()  # type: ignore[no-any-return]


def typical_distances(context: Context) -> Array:
    """Return quantiles, ascending, of the training rows' mean distances to their neighbours."""
    model, s = context.model, context.model.sizes
    means = []
    for chunk in typical_chunks(context):
        start = chunk * s.vertex_chunk
        stop = min(start + s.vertex_chunk, model.distinct)
        if stop > start:
            means.append(mean_distances(model.read(schema.DISTANCES, start, stop), model.job.neighbors))
    found = np.sort(np.concatenate(means))
    found = found[np.isfinite(found)]
    places = np.linspace(0, max(0, len(found) - 1), min(QUANTILES, len(found))).astype(np.int64)
    return np.append(found, np.float32(0.0))[:1] if not len(found) else found[places]
