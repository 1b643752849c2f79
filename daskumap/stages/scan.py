"""Scan: one streaming pass over the source that validates it and takes the sample.

Reads the source. Writes the exchange `scan/sample`, one run a row block, for one destination; with `unique`
also `scan/hashes`, one run a row block, by bucket, and unique/block_first.
Memory: the block as read, and the sampled rows of it; the hashes of a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.errors import SourceError
from daskumap.kernels import metrics
from daskumap.kernels.metric_names import DISTRIBUTIONS
from daskumap.planning.job import Job
from daskumap.planning.stage import Output, Receipt, Stage
from daskumap.stages.common import Array, metric_of, read_rows, run_of, sample_rows, source_of
from daskumap.stages.unique import HASH_BYTES, hash_memory, write_hashes
from daskumap.store.exchange import RunReader, RunWriter

# How many rows an error names.
NAMED = 5


def plan_scan(job: Job) -> Stage:
    """Plan one task a row block."""
    s, unique = job.sizes, job.params.unique
    sampled = s.sample_rows * s.columns * 4
    return Stage(
        name="scan",
        task=scan_task,
        tasks=s.row_blocks,
        memory={
            "input block": source_of(job).projected_read_bytes(s.row_block),
            "sample": sampled // s.row_blocks * 2,
            **({"hashes": hash_memory(job)} if unique else {}),
        },
        outputs=(Output("unique/block_first", (s.rows,), (s.row_block,), "int64"),) if unique else (),
        read_bytes=s.rows * s.columns * source_of(job).dtype.itemsize,
        exchange="scan",
        exchange_bytes=sampled + (s.rows * HASH_BYTES if unique else 0),
        work=18e-9 * s.rows * s.columns,
        finish=refuse_bad_rows,
    )


def scan_task(job: Job, number: int) -> Receipt:
    """Check one row block and keep its sampled rows."""
    start, stop = job.sizes.block(number)
    X = read_rows(job, start, stop)
    broken = not_finite(X)
    undefined = metrics.invalid_rows(X, metric_of(job)) & ~broken
    wanted = sample_rows(job)
    rows = X[wanted[(wanted >= start) & (wanted < stop)] - start]
    writer = RunWriter(run_of(job), "scan/sample", number, len(rows), {"rows": (str(X.dtype), X.shape[1])})
    writer.write("rows", rows)
    writer.close(np.array([0, len(rows)], np.int64))
    if job.params.unique:
        write_hashes(job, number, X)
    return {"rows": stop - start, **_named("broken", broken, start), **_named("undefined", undefined, start)}


def not_finite(X: Array) -> Array:
    """Return (r,) bool: rows with NaN or inf. One sum clears a good block without a temporary of its size."""
    with np.errstate(over="ignore", invalid="ignore"):
        if X.dtype.kind != "f" or np.isfinite(X.sum(dtype=np.float64)):
            return np.zeros(len(X), bool)
    return np.asarray(~np.isfinite(X).all(axis=1))


def refuse_bad_rows(job: Job, receipts: dict[int, Receipt]) -> None:
    """Raise where a row cannot take part.

    Raises
    ------
    SourceError
        Naming the first such rows and their number.
    """
    count, first = _total(receipts, "broken")
    if count:
        raise SourceError(
            f"{count:,} of {job.sizes.rows:,} rows hold NaN or infinity (or values beyond float32); "
            f"the first: {first}. Remove or impute these rows and fit again."
        )
    count, first = _total(receipts, "undefined")
    if count:
        name = metric_of(job).name
        raise SourceError(
            f"The metric {name!r} is not defined on {count:,} of {job.sizes.rows:,} rows; "
            f"the first: {first}. It needs {_needs(name)}. Remove these rows, or use another metric "
            "such as 'euclidean'."
        )


def _needs(name: str) -> str:
    if name in ("correlation", "spearmanr"):
        return "rows that are not constant"
    return (
        "rows that are not all zero"
        if name not in DISTRIBUTIONS
        else "rows without negative values and with a positive sum"
    )


def _named(what: str, mask: Array, start: int) -> dict[str, Any]:
    return {what: int(mask.sum()), f"first_{what}": (np.flatnonzero(mask)[:NAMED] + start).tolist()}


def _total(receipts: dict[int, Receipt], what: str) -> tuple[int, str]:
    first = [row for number in sorted(receipts) for row in receipts[number][f"first_{what}"]][:NAMED]
    names = ("row " if len(first) == 1 else "rows ") + ", ".join(map(str, first))
    return sum(receipt[what] for receipt in receipts.values()), names


def read_sample(job: Job) -> Array:
    """Return the sampled rows, (sample_rows, D), in row order."""
    (rows,) = RunReader(run_of(job), "scan/sample", job.sizes.row_blocks, ("rows",), 0, 1).read(0, 1)
    return rows
