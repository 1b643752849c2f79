"""Unique: which rows are copies of an earlier one. Only with the parameter `unique`.

The scan hashes the rows, and of equal ones in its block it sends on the first alone, so that no row, however
often it comes, fills a bucket. Then two steps, each a stage of its own in the ledger:

`twins`  a bucket of hashes a task: the first of each kind among the blocks.    writes exchange `unique/twins`
`rows`   a row block a task.    writes rows/first, (n,) int64: the first row equal to each, or the row itself
Memory: a bucket of about a million hashes; the row ids of a block.
"""

from __future__ import annotations

import math

import numpy as np

from daskumap.errors import SourceError
from daskumap.kernels.equal import first_of_equal, hash_rows
from daskumap.planning.job import Job
from daskumap.planning.stage import Output, Receipt, Stage
from daskumap.stages.common import Array, run_of
from daskumap.store.exchange import RunReader, RunWriter

# Hashes that a task compares: 24 MB of them.
BUCKET_ROWS = 1 << 20
HASH_BYTES = 24  # two words and the row id


def buckets(job: Job) -> int:
    """Return the number of ranges that the hashes are divided into."""
    return math.ceil(job.sizes.rows / BUCKET_ROWS)


def hash_memory(job: Job) -> int:
    """Return the bytes that the scan needs to hash a row block: hashes and ids, their order, copies."""
    return job.sizes.row_block * HASH_BYTES * 4


def write_hashes(job: Job, number: int, X: Array) -> None:
    """Write the hash of each kind of row in a block, by bucket, and each row's first in the block."""
    start, stop = job.sizes.block(number)
    rows = np.arange(start, stop)
    high, low = hash_rows(X)
    first = first_of_equal(high, low, rows)
    run_of(job).array("unique/block_first")[start:stop] = first
    kinds = np.flatnonzero(first == rows)
    kinds = kinds[np.argsort(high[kinds], kind="stable")]
    columns = {"high": ("uint64", 0), "low": ("uint64", 0), "rows": ("int64", 0)}
    writer = RunWriter(run_of(job), "scan/hashes", number, len(kinds), columns)
    for name, values in (("high", high), ("low", low), ("rows", rows)):
        writer.write(name, values[kinds])
    edges = np.array([bucket * 2**64 // buckets(job) for bucket in range(buckets(job))], np.uint64)
    writer.close(np.append(np.searchsorted(high[kinds], edges), len(kinds)))


def plan_twins(job: Job) -> Stage:
    """Plan one task a bucket."""
    s = job.sizes
    # Hashes spread evenly but for chance; a row that is in every block counts once for each.
    records = min(s.rows, BUCKET_ROWS + BUCKET_ROWS // 16 + 16 * s.row_blocks)
    return Stage(
        name="unique.twins",
        task=twins_task,
        tasks=buckets(job),
        memory={"hashes": records * HASH_BYTES * 4, "offsets": s.row_blocks * 40},
        read_bytes=s.rows * HASH_BYTES,
        exchange="unique/twins",
        exchange_bytes=s.rows * 16,
        work=0.3e-6 * s.rows,
    )


def twins_task(job: Job, number: int) -> Receipt:
    """Find the rows of one bucket that an earlier block holds already; send each to its block."""
    run, s = run_of(job), job.sizes
    bucket = (number, number + 1)
    reader = RunReader(run, "scan/hashes", s.row_blocks, ("high", "low", "rows"), *bucket)
    high, low, rows = reader.read(*bucket)
    first = first_of_equal(high, low, rows)
    twins = np.flatnonzero(first != rows)
    twins = twins[np.argsort(rows[twins])]
    columns = {"rows": ("int64", 0), "firsts": ("int64", 0)}
    writer = RunWriter(run, "unique/twins", number, len(twins), columns)
    writer.write("rows", rows[twins])
    writer.write("firsts", first[twins])
    writer.close(np.searchsorted(rows[twins], np.arange(s.row_blocks + 1) * s.row_block))
    return {"rows": len(rows), "twins": len(twins)}


def plan_rows(job: Job) -> Stage:
    """Plan one task a row block."""
    s = job.sizes
    return Stage(
        name="unique.rows",
        task=rows_task,
        tasks=s.row_blocks,
        memory={"row ids": s.row_block * 96, "offsets": buckets(job) * 40},
        outputs=(Output("rows/first", (s.rows,), (s.row_block,), "int64"),),
        read_bytes=s.rows * 24,
        work=0.1e-6 * s.rows,
        finish=refuse_too_few,
    )


def rows_task(job: Job, number: int) -> Receipt:
    """Write the first row equal to each row of a block."""
    run = run_of(job)
    start, stop = job.sizes.block(number)
    first = run.read("unique/block_first", start, stop)
    reader = RunReader(run, "unique/twins", buckets(job), ("rows", "firsts"), number, number + 1)
    twins, firsts = reader.read(number, number + 1)
    moved = np.arange(start, stop)
    moved[twins - start] = firsts
    first = moved[first - start]
    run.array("rows/first")[start:stop] = first
    return {"rows": stop - start, "twins": int(np.count_nonzero(first != np.arange(start, stop)))}


def refuse_too_few(job: Job, receipts: dict[int, Receipt]) -> None:
    """Keep the number of distinct rows; raise where there are too few of them.

    Raises
    ------
    SourceError
        With the number of distinct rows and the largest n_neighbors allowed.
    """
    rows, k = job.sizes.rows, job.params.n_neighbors
    distinct = rows - sum(receipt["twins"] for receipt in receipts.values())
    if distinct <= k:
        raise SourceError(
            f"n_neighbors is {k} and {distinct:,} of the {rows:,} rows are distinct; unique=True needs more "
            f"distinct rows than n_neighbors. Lower n_neighbors to at most {distinct - 1}."
            if distinct > 2
            else f"{distinct:,} of the {rows:,} rows are distinct; unique=True needs at least 3 of them."
        )
    run_of(job).save_json("facts/distinct_rows", distinct)
