"""Scan: one pass that checks and digests the source and samples it; with `unique` it hashes the rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.errors import SourceError
from daskumap.kernels.metrics import metric as metrics
from daskumap.kernels.neighbors.equal import first_of_equal, hash_rows
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.checks import CHECK, DIGEST, keep_undefined, refuse_bad_rows
from daskumap.stages.shared.sample import TAKE_SAMPLE, sample_rows
from daskumap.stages.shared.visitors import Share, Visitor, plan_pass, read_rows
from daskumap.store import schema

Array = np.ndarray[Any, Any]

HASH_BYTES = 24  # Two words and the row id.


def plan_scan(context: Context) -> Stage:
    """Plan one task a row block."""
    visitors = (CHECK, DIGEST, TAKE_SAMPLE, LEAVE_OUT, HASH)
    return plan_pass(context, visitors, read_rows, conclude=conclude_scan)


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


def leave_out(context: Context, number: int, X: Array) -> dict[str, Any]:
    """Mark the rows of a block on which the metric is not defined."""
    start, _ = context.sizes.block(number)
    left_out = metrics.invalid_rows(X, context.metric)
    context.write(schema.LEFT_OUT, start, left_out.astype(np.uint8))
    return {}


def conclude_scan(context: Context, receipts: dict[int, Receipt]) -> None:
    """Raise where a row cannot take part, or too few can; keep how many the metric is not defined on."""
    refuse_bad_rows(context, receipts)
    keep_undefined(context, receipts)
    if context.params.undefined == "isolate":
        _refuse_few(context)


def _refuse_few(context: Context) -> None:
    rows, k = context.sizes.rows, context.params.n_neighbors
    taken = rows - int(context.fact(schema.UNDEFINED))
    if taken <= k or context.take(schema.LEFT_OUT, sample_rows(context)).all():
        raise SourceError(
            f"n_neighbors is {k} and the metric {context.metric.name!r} is defined on {taken:,} of {rows:,} "
            "rows; it needs more such rows than n_neighbors, and some in a sample of all. Remove the others, "
            "or use another metric such as 'euclidean'."
        )


LEAVE_OUT = Visitor(
    leave_out,
    lambda context: Share(outputs=(context.output(schema.LEFT_OUT),)),
    when=lambda context: context.params.undefined == "isolate",
)
HASH = Visitor(write_hashes, _share_of_hash, when=lambda context: context.params.unique)

SCAN = Step(
    "scan",
    plan_scan,
    reads=(schema.SOURCE,),
    writes=(schema.SAMPLE, schema.LEFT_OUT, schema.HASHES, schema.BLOCK_FIRST, schema.UNDEFINED),
)
# No step of a pipeline: it leaves no record. What it found is compared when a run goes on.
REREAD = Step("scan.reread", plan_reread, reads=(schema.SOURCE,))
