"""Which rows are sampled, and which of them are probes."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.random import stream_key, uniform
from daskumap.runtime.context import Context
from daskumap.stages.shared.visitors import Share, Visitor
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def sample_rows(context: Context) -> Array:
    """Return the sampled rows, (sample_rows,) int64 ascending: one hashed row of each equal stretch of rows.

    The seed plays no part: samples of the same data are the same.
    """
    count, rows = context.sizes.sample_rows, context.sizes.rows
    share = uniform(stream_key(0, "sample"), 0, count, 1)[:, 0]
    ids = ((np.arange(count) + share) * (rows / count)).astype(np.int64)
    return np.minimum(ids, rows - 1)  # type: ignore[no-any-return]


def probe_places(context: Context, sampled: int) -> Array:
    """Return the places of the probe rows in a sample of so many rows, evenly spread, (p,) ascending."""
    count = min(context.sizes.probe_rows, sampled)
    return ((np.arange(count) + 0.5) * (sampled / count)).astype(np.int64)


def probe_rows(context: Context) -> Array:
    """Return the row ids of the probes, (p,) int64 ascending; with `unique` no two are equal rows."""
    return context.held("probe rows", lambda: context.read(schema.PROBE_ROWS))


def places_of(rows: Array, ids: Array) -> Array:
    """Return the place of each id among ascending row ids, -1 where it is not there."""
    if not len(rows):
        return np.full(len(ids), -1)
    place = np.minimum(np.searchsorted(rows, ids), len(rows) - 1)
    return np.where(rows[place] == ids, place, -1)


def _share_of_sample(context: Context) -> Share:
    s = context.sizes
    sampled = s.sample_rows * s.columns * 4
    memory = {"sample": sampled // s.row_blocks * 2}
    return Share(memory=memory, made=(schema.SAMPLE.name,), made_bytes=sampled)


def take_sample(context: Context, number: int, X: Array) -> dict[str, Any]:
    """Keep the sampled rows of a block."""
    start, stop = context.sizes.block(number)
    wanted = context.held("sample rows", lambda: sample_rows(context))
    rows = X[wanted[(wanted >= start) & (wanted < stop)] - start]
    context.send(schema.SAMPLE, number, np.array([0, len(rows)]), rows=rows)
    return {}


TAKE_SAMPLE = Visitor(take_sample, _share_of_sample)
