"""What every task does first: open the run, the source and the metric, once a process."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from daskumap.kernels import metrics
from daskumap.kernels.random import stream_key, uniform
from daskumap.planning.job import Job
from daskumap.store.run import RunStore
from daskumap.store.source import Source, open_spec

Array = np.ndarray[Any, Any]


@lru_cache(maxsize=4)
def _run(url: str, id_: str) -> RunStore:
    return RunStore.open(url)


@lru_cache(maxsize=4)
def _source(spec: str, run_id: str) -> Source:  # by run: the place may hold another array by the next one
    return open_spec(json.loads(spec))


# Stands in for a source that only this process can read: enough to plan, not to run.
_unwritten: dict[str, Source] = {}


def plan_with(source: Source) -> dict[str, Any]:
    """Return a spec for planning with a source that has not been written to the run store yet."""
    _unwritten["memory"] = source
    return {"kind": "memory"}


def run_of(job: Job) -> RunStore:
    """Return the job's run store."""
    return _run(job.url, job.id)


@lru_cache(maxsize=64)
def _fact(run: RunStore, stage: str, name: str) -> Any:
    return run.records(stage)[0][name]


Number = TypeVar("Number", int, float)


def fact(job: Job, stage: str, name: str, expected: Number) -> Number:
    """Return a number that a one-task stage found, or what to expect of it while it has not run."""
    try:
        return type(expected)(_fact(run_of(job), stage, name)) if job.url else expected
    except KeyError:
        return expected


def source_of(job: Job) -> Source:
    """Return the job's source."""
    if job.source.get("kind") == "memory":
        return _unwritten["memory"]
    return _source(json.dumps(job.source, sort_keys=True), job.id)


def metric_of(job: Job) -> metrics.Metric:
    """Return the job's metric."""
    return metrics.resolve(job.params.metric, job.params.metric_kwds)


def holds_rows(job: Job) -> bool:
    """Return whether the one worker keeps all rows in memory once they are read."""
    return job.sizes.cache_bytes > 0


def read_rows(job: Job, start: int, stop: int) -> Array:
    """Read source rows in the type that the metric works on: (r, D) float32 or uint8, not to be changed."""
    if not holds_rows(job):
        return source_of(job).read(start, stop, np.dtype(metric_of(job).dtype))
    place = (job.id, start, stop)
    block = _blocks.get(place)
    if block is None:  # another run in this process may evict it at any time: return what is held here
        for other in [other for other in list(_blocks) if other[0] != job.id]:
            _blocks.pop(other, None)
        block = _blocks[place] = source_of(job).read(start, stop, np.dtype(metric_of(job).dtype))
    return block


def gather_rows(job: Job, ids: Array) -> Array:
    """Return scattered source rows in the order asked for, (len(ids), D), as `read_rows` has them."""
    out = np.empty((len(ids), job.sizes.columns), metric_of(job).dtype)
    return _by_block(job, ids, out, lambda start, stop: read_rows(job, start, stop))


def _by_block(job: Job, rows: Array, out: Array, read: Callable[[int, int], Array]) -> Array:
    """Fill `out` with scattered rows, each row block that holds one read once."""
    blocks = rows // job.sizes.row_block
    for block in np.unique(blocks).tolist():
        here, (start, stop) = np.flatnonzero(blocks == block), job.sizes.block(block)
        out[here] = read(start, stop)[rows[here] - start]
    return out


# Blocks of the source that this process holds, by run and rows; `Sizes.cache_bytes` says whether they fit.
_blocks: dict[tuple[str, int, int], Array] = {}


def forget_rows() -> None:
    """Free the blocks of the source that this process holds."""
    _blocks.clear()


def key_of(job: Job, stream: str, index: int = 0) -> int:
    """Return the key of a stream of random numbers."""
    return stream_key(int(job.params.random_state or 0), stream, index)


def sample_rows(job: Job) -> Array:
    """Return the sampled rows, (sample_rows,) int64 ascending: one hashed row of each equal stretch of rows.

    The seed plays no part: samples of the same data are the same.
    """
    count, rows = job.sizes.sample_rows, job.sizes.rows
    share = uniform(stream_key(0, "sample"), 0, count, 1)[:, 0]
    ids = ((np.arange(count) + share) * (rows / count)).astype(np.int64)
    return np.minimum(ids, rows - 1)  # type: ignore[no-any-return]


def probe_places(job: Job, sampled: int) -> Array:
    """Return the places of the probe rows in a sample of so many rows, evenly spread, (p,) ascending."""
    count = min(job.sizes.probe_rows, sampled)
    return ((np.arange(count) + 0.5) * (sampled / count)).astype(np.int64)


def probe_rows(job: Job) -> Array:
    """Return the row ids of the probes, (p,) int64 ascending; with `unique` no two are equal rows."""
    if job.params.unique:
        return run_of(job).read("cells/probe_rows")
    return sample_rows(job)[probe_places(job, job.sizes.sample_rows)]


def probe_count(job: Job) -> int:
    """Return the number of probes: as chosen, or before the run the most there may be."""
    return fact(job, "partition.cells", "probes", job.sizes.probe_rows)


def small_cells(job: Job) -> int:
    """Return the number of cells: as found, or before the run as planned."""
    return fact(job, "partition.cells", "cells", job.sizes.cells)


def distinct_of(job: Job) -> int:
    """Return the number of rows on the map, twins not counted; before the run all."""
    rows = job.sizes.rows
    return fact(job, "partition.order", "distinct", rows) if job.params.unique else rows


def distinct_places(job: Job, start: int, stop: int) -> Array:
    """Return the places, in a range of rows, of the rows that are the first of their kind, ascending."""
    rows = np.arange(start, stop)
    if not job.params.unique:
        return rows - start
    return np.flatnonzero(run_of(job).read("rows/first", start, stop) == rows)


def read_distinct(job: Job, start: int, stop: int) -> tuple[Array, Array]:
    """Return the rows of a range without twins, not to be changed, and their places in the range."""
    X, places = read_rows(job, start, stop), distinct_places(job, start, stop)
    return (X if len(places) == len(X) else X[places]), places


def places_of(rows: Array, ids: Array) -> Array:
    """Return the place of each id among ascending row ids, -1 where it is not there."""
    if not len(rows):
        return np.full(len(ids), -1)
    place = np.minimum(np.searchsorted(rows, ids), len(rows) - 1)
    return np.where(rows[place] == ids, place, -1)


def take_rows(job: Job, name: str, rows: Array) -> Array:
    """Return the values of scattered rows from an array in row order, block by block."""
    array = run_of(job).array(name)
    out = np.empty((len(rows), *array.shape[1:]), array.dtype)
    return _by_block(job, rows, out, lambda start, stop: run_of(job).read(name, start, stop))


def tail_type(job: Job) -> str:
    """Return the type of vertex ids in graphs: int32 while they fit, half the memory and traffic."""
    return "int32" if job.sizes.rows < 2**31 else "int64"


def row_bytes(job: Job) -> int:
    """Return the bytes of a row as the metric sees it."""
    return job.sizes.columns * np.dtype(metric_of(job).dtype).itemsize
