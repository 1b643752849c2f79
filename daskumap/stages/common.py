"""What every task does first: open the run, the source and the metric, once a process."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np

from daskumap.kernels import metrics
from daskumap.kernels.random import stream_key, uniform
from daskumap.plan.job import Job
from daskumap.store.run import RunStore
from daskumap.store.source import Source, open_spec

Array = np.ndarray[Any, Any]


@lru_cache(maxsize=4)
def _run(url: str) -> RunStore:
    return RunStore.open(url)


@lru_cache(maxsize=4)
def _source(spec: str) -> Source:
    return open_spec(json.loads(spec))


# Stands in for a source that only this process can read: enough to plan, not to run.
_unwritten: dict[str, Source] = {}


def plan_with(source: Source) -> dict[str, Any]:
    """Return a spec for planning with a source that has not been written to the run store yet."""
    _unwritten["memory"] = source
    return {"kind": "memory"}


def run_of(job: Job) -> RunStore:
    """Return the job's run store."""
    return _run(job.url)


def source_of(job: Job) -> Source:
    """Return the job's source."""
    if job.source.get("kind") == "memory":
        return _unwritten["memory"]
    return _source(json.dumps(job.source, sort_keys=True))


def metric_of(job: Job) -> metrics.Metric:
    """Return the job's metric."""
    return metrics.resolve(job.params.metric, job.params.metric_kwds)


def read_rows(job: Job, start: int, stop: int) -> Array:
    """Read source rows in the type that the metric works on: (r, D) float32 or uint8."""
    return source_of(job).read(start, stop, np.dtype(metric_of(job).dtype))


def key_of(job: Job, stream: str, index: int = 0) -> int:
    """Return the key of a stream of random numbers."""
    return stream_key(int(job.params.random_state or 0), stream, index)


def sample_rows(job: Job) -> Array:
    """Return the sampled rows, (sample_rows,) int64 ascending: one hashed row of each equal stretch of rows.

    The seed plays no part: samples of the same data are the same.
    """
    count, rows = job.sizes.sample_rows, job.sizes.rows
    share = uniform(stream_key(0, "sample"), 0, count, 1)[:, 0]
    return np.minimum(((np.arange(count) + share) * (rows / count)).astype(np.int64), rows - 1)


def probe_places(job: Job) -> Array:
    """Return the places of the probe rows in the sample, evenly spread, (probe_rows,) int64 ascending."""
    count = job.sizes.probe_rows
    return ((np.arange(count) + 0.5) * (job.sizes.sample_rows / count)).astype(np.int64)


def tail_type(job: Job) -> str:
    """Return the type of vertex ids in graphs: int32 while they fit, half the memory and traffic."""
    return "int32" if job.sizes.rows < 2**31 else "int64"
