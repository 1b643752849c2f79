"""Which distances to their neighbours are usual among the rows of a model: quantiles of their means."""

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


def typical_of(model: Context) -> Array:
    """Return what is usual in a model: as it keeps that, or from the distances that it keeps."""
    return model.read(schema.TYPICAL) if model.params.keep == "model" else typical(model)


def typical(context: Context) -> Array:
    """Return quantiles, ascending, of the rows' mean distances to their neighbours."""
    s, k, means = context.sizes, context.job.neighbors, []
    for chunk in typical_chunks(context):
        start = chunk * s.vertex_chunk
        stop = min(start + s.vertex_chunk, context.distinct)
        if stop > start:
            means.append(mean_distances(context.read(schema.DISTANCES, start, stop), k))
    found = np.sort(np.concatenate(means))
    found = found[np.isfinite(found)]
    places = np.linspace(0, max(0, len(found) - 1), min(QUANTILES, len(found))).astype(np.int64)
    return np.append(found, np.float32(0.0))[:1] if not len(found) else found[places]


def typical_chunks(context: Context) -> list[int]:
    """Return the vertex chunks whose rows tell what distances are usual."""
    s = context.sizes
    count = min(s.vertex_chunks, max(1, TYPICAL_ROWS // s.vertex_chunk))
    return np.unique(np.linspace(0, s.vertex_chunks - 1, count).astype(int)).tolist()  # type: ignore[no-any-return]


def typical_bytes(context: Context) -> int:
    """Return what finding them holds."""
    chunk = context.sizes.vertex_chunk
    return len(typical_chunks(context)) * chunk * 8 + chunk * context.job.neighbors * 8


def typical_read_bytes(context: Context) -> int:
    """Return what finding them reads."""
    return len(typical_chunks(context)) * context.sizes.vertex_chunk * context.job.neighbors * 4
