"""The probes' nearest rows, merged from what several tasks found."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def merge_probes(context: Context, items: tuple[schema.Array, ...], places: range) -> tuple[Array, ...]:
    """Return the probes' nearest of what tasks found: (p, k) ids, distances, (p, k, m) cells and levels."""
    best: tuple[Array, ...] = ()
    for place in places:
        new = tuple(context.read(item, place, place + 1)[0] for item in items)
        both = tuple(map(np.concatenate, zip(best, new, strict=True), [1] * len(new))) if best else new
        order = np.lexsort((both[0], both[1]), axis=1)[:, : context.job.neighbors]
        best = tuple(
            np.take_along_axis(part, order if part.ndim == 2 else order[..., None], 1) for part in both
        )
    return best
