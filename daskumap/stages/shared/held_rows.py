"""The rows and edges that a process trains on: all of them, or a window that changes as the steps go on.

Vertices are numbered cell after cell, so a run of consecutive ones is read as a slice and holds many of its
own edges. A window is so many runs that a hash of its number chooses, with the edges between its rows alone.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.encoder.draw import Edges
from daskumap.kernels.random import uniform
from daskumap.planning.training import RUN_ROWS
from daskumap.runtime.context import Context
from daskumap.stages.shared.encoding import known_items
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# Steps between two windows. With 250 edges a step 10,000 edges are drawn from each.
WINDOW_STEPS = 40


class Part(NamedTuple):
    """Rows as the network sees them, the edges between them, and by column what is known of them."""

    rows: Array
    edges: Edges
    known: dict[str, Array]


def is_windowed(context: Context) -> bool:
    """Tell whether the rows in memory change as the steps go on."""
    e, rows = context.params.encoder, context.sizes.rows
    return bool(e.held_rows(rows) < e.trained_rows(rows))


def held_part(context: Context, step: int) -> Part:
    """Return the rows that a step is about."""
    if is_windowed(context):
        return context.held("windows", lambda: Windows(context)).at(step // WINDOW_STEPS)
    return context.held("rows", lambda: read_part(context, trained_runs(context)))


class Windows:
    """Windows one after the other; a thread reads the next one while the steps use the last one."""

    def __init__(self, context: Context) -> None:
        e, rows = context.params.encoder, context.sizes.rows
        self.context, self._last = context, (e.all_steps(rows) - 1) // WINDOW_STEPS
        self._lock, self._pool = threading.Lock(), ThreadPoolExecutor(1, "daskumap-windows")
        self._read: dict[int, Future[Part]] = {}

    def at(self, window: int) -> Part:
        """Return a window, and let the next one be read."""
        with self._lock:
            wanted = [number for number in (window, window + 1) if number <= self._last]
            self._read = {number: self._read.get(number) or self._begin(number) for number in wanted}
            return self._read[window].result()

    def _begin(self, window: int) -> Future[Part]:
        return self._pool.submit(read_part, self.context, window_runs(self.context, window))


def trained_runs(context: Context) -> Array | None:
    """Return the runs of vertices that take part, ascending; None for all."""
    e, rows = context.params.encoder, context.sizes.rows
    every = np.arange(-(-rows // RUN_ROWS))
    return None if e.trained_rows(rows) == rows else _chosen(context, every, e.trained_rows(rows), 0)


def window_runs(context: Context, window: int) -> Array:
    """Return the runs of vertices of a window, ascending."""
    e, rows = context.params.encoder, context.sizes.rows
    taken = trained_runs(context)
    runs = np.arange(-(-rows // RUN_ROWS)) if taken is None else taken
    return _chosen(context, runs, e.held_rows(rows), 1 + window)


def _chosen(context: Context, runs: Array, rows: int, number: int) -> Array:
    """Return as many of some runs as hold so many rows: those whose hash is least."""
    count = max(1, rows // RUN_ROWS)
    hashes = uniform(context.key("windows", number), 0, int(runs[-1]) + 1, 1)[runs, 0]
    return np.asarray(np.sort(runs[np.argsort(hashes, kind="stable")[:count]]))


def read_part(context: Context, runs: Array | None) -> Part:
    """Read some runs of vertices, None for all, and the edges between them, a vertex chunk at a time."""
    s = context.sizes
    places = _places(s.rows, runs)
    items = {"rows": schema.ENCODER_ROWS}
    items |= {name: item for name, (item, _) in known_items(context).items()}
    total = (
        s.rows if runs is None else int((np.minimum((runs + 1) * RUN_ROWS, s.rows) - runs * RUN_ROWS).sum())
    )
    outputs = {name: context.output(item) for name, item in items.items()}
    found = {name: np.empty((total, *one.shape[1:]), one.dtype) for name, one in outputs.items()}
    parts: list[tuple[Array, Array, Array]] = []
    at = 0
    for start in range(0, s.rows, s.vertex_chunk):
        stop = min(start + s.vertex_chunk, s.rows)
        taken = np.flatnonzero(_local(places, np.arange(start, stop)) >= 0)
        if not len(taken):
            continue
        for name, item in items.items():
            found[name][at : at + len(taken)] = context.read(item, start, stop)[taken]
        parts.append(_edges_between(context, places, start, stop, taken))
        at += len(taken)
    return Part(found.pop("rows"), _joined(parts), found)


def _places(rows: int, runs: Array | None) -> Array:
    """Return for each run of vertices which one it is of those that are taken, -1 for none."""
    places = np.full(-(-rows // RUN_ROWS), -1, np.int32)
    taken = np.arange(len(places)) if runs is None else runs
    places[taken] = np.arange(len(taken))
    return places


def _local(places: Array, vertices: Array) -> Array:
    """Return the places of vertices among those that are taken, below 0 for none."""
    own: Array = (vertices % RUN_ROWS).astype(np.int32)
    return np.asarray(places[vertices // RUN_ROWS] * np.int32(RUN_ROWS) + own)


def _edges_between(
    context: Context, places: Array, start: int, stop: int, taken: Array
) -> tuple[Array, Array, Array]:
    """Return degrees, tails and weights of the edges of taken vertices of a range to other taken ones."""
    indptr, tails, weights = context.edges(start, stop)
    heads = np.full(stop - start, -1, np.int32)
    heads[taken] = np.arange(len(taken))
    heads = np.repeat(heads, np.diff(indptr))
    others = _local(places, tails)
    inside = (heads >= 0) & (others >= 0)
    degrees = np.bincount(heads[inside], minlength=len(taken))
    return degrees, others[inside], weights[inside]


def _joined(parts: list[tuple[Array, Array, Array]]) -> Edges:
    """Return the edges of consecutive ranges as one; a column after the other, which holds less at a time."""
    degrees, tails, weights = (list(column) for column in zip(*parts, strict=True))
    parts.clear()
    indptr = np.append(0, np.cumsum(np.concatenate(degrees)))
    joined = np.concatenate(tails)
    tails.clear()
    return Edges.of(indptr, joined, np.concatenate(weights))
