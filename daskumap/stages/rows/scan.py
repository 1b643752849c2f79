"""Scan: one pass that checks and digests the source and samples it; with `unique` it hashes the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.neighbors.equal import first_of_equal, hash_rows
from daskumap.planning.stage import Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.checks import CHECK, DIGEST, refuse_bad_rows
from daskumap.stages.shared.sample import TAKE_SAMPLE
from daskumap.stages.shared.visitors import Share, Visitor, plan_pass, read_rows
from daskumap.store import schema

Array = np.ndarray[Any, Any]

HASH_BYTES = 24  # Two words and the row id.


def plan_scan(context: Context) -> Stage:
    """Plan one task a row block."""
    return plan_pass(context, (CHECK, DIGEST, TAKE_SAMPLE, HASH), read_rows, conclude=refuse_bad_rows)


def plan_reread(context: Context) -> Stage:
    """Plan the digests of all row blocks once more, to compare them with those of the scan."""
    return plan_pass(context, (DIGEST,), read_rows)


def _share_of_hash(context: Context) -> Share:
    s = context.sizes
    return Share(
        outputs=(context.output(schema.BLOCK_FIRST),),
        # Hashes and ids, their order, and copies.
        memory={"hashes": s.row_block * HASH_BYTES * 4},
        made=(schema.HASHES.name,),
        made_bytes=s.rows * HASH_BYTES,
    )


def write_hashes(context: Context, number: int, X: Array) -> dict[str, Any]:
    """Write the hash of each kind of row in a block, by bucket, and each row's first in the block.

    Of equal rows the first alone is sent on, so that no row, however often it comes, fills a bucket.
    """
    (start, stop), buckets = context.sizes.block(number), context.sizes.buckets
    rows = np.arange(start, stop)
    high, low = hash_rows(X)
    first = first_of_equal(high, low, rows)
    context.write(schema.BLOCK_FIRST, start, first)
    kinds = np.flatnonzero(first == rows)
    kinds = kinds[np.argsort(high[kinds], kind="stable")]
    edges = np.array([bucket * 2**64 // buckets for bucket in range(buckets)], np.uint64)
    offsets = np.append(np.searchsorted(high[kinds], edges), len(kinds))
    context.send(schema.HASHES, number, offsets, high=high[kinds], low=low[kinds], rows=rows[kinds])
    return {}


HASH = Visitor(write_hashes, _share_of_hash, when=lambda context: context.params.unique)

SCAN = Step(
    "scan",
    plan_scan,
    reads=(schema.SOURCE,),
    writes=(schema.SAMPLE, schema.HASHES, schema.BLOCK_FIRST),
)
# No step of a pipeline: it leaves no record. What it found is compared when a run goes on.
REREAD = Step("scan.reread", plan_reread, reads=(schema.SOURCE,))
