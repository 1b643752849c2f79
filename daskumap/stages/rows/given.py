"""Check: one pass over neighbours that the user gives, which refuses what they cannot be."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from daskumap.errors import SourceError
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.checks import named, total
from daskumap.stages.shared.given import digest_of, given_bytes, read_given
from daskumap.store import schema

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

# What is mended, and said.
MENDED = {
    "unsorted": "whose distances do not ascend were sorted",
    "repeated": "that name a row twice count it once",
    "short": "that have fewer than n_neighbors count those that there are",
}


def plan_check(context: Context) -> Stage:
    """Plan one task a row block."""
    s = context.sizes
    columns = int(context.params.precomputed_knn["columns"])
    return Stage(
        task=check_task,
        tasks=s.row_blocks,
        memory={"given lists": s.row_block * given_bytes(context)},
        read_bytes=s.rows * columns * 16,
        work=costs.MERGE_NEIGHBOR * s.rows * columns,
        conclude=refuse_bad_lists,
    )


def check_task(context: Context, number: int) -> Receipt:
    """Find the rows of a block whose given neighbours are wrong, and those that have to be mended."""
    start, stop = context.sizes.block(number)
    indices, distances = read_given(context, start, stop)
    found: dict[str, Any] = {"crc32": digest_of(indices, distances)}
    for what, mask in find_wrong(context, indices, distances, start).items():
        found |= named(what, mask, start)
    return Receipt(stop - start, found)


def find_wrong(context: Context, indices: Array, distances: Array, start: int) -> dict[str, Array]:
    """Return by what is wrong the rows, (r,) bool; a missing neighbour, -1 or at inf, is not."""
    there = (indices != -1) & (distances != np.inf)
    near = np.where(there, distances, 0.0)
    with np.errstate(invalid="ignore", over="ignore"):
        broken = ~np.isfinite(near.astype(np.float32))
        falls = np.diff(np.where(there, distances, np.inf), axis=1) < 0
    others = there & (indices != np.arange(start, start + len(indices))[:, None])
    ids = np.sort(np.where(others, indices, -1), axis=1)
    again = (np.diff(ids, axis=1) == 0) & (ids[:, 1:] >= 0)
    signed = context.metric.name == "inner_product"
    return {
        "outside": (there & ((indices < 0) | (indices >= context.sizes.rows))).any(axis=1),
        "broken": broken.any(axis=1),
        "negative": np.zeros(len(near), bool) if signed else (near < 0).any(axis=1),
        "unsorted": falls.any(axis=1),
        "repeated": again.any(axis=1),
        "short": others.sum(axis=1) - again.sum(axis=1) < context.job.neighbors,
    }


def refuse_bad_lists(context: Context, receipts: dict[int, Receipt]) -> None:
    """Raise where lists cannot be neighbours, and say what of them is mended.

    Raises
    ------
    SourceError
        Naming the first such rows and their number.
    """
    last = context.sizes.rows - 1
    for what, wrong in (
        ("outside", f"row ids below -1 or above {last:,}, which is the last row"),
        ("broken", "distances that are NaN or beyond float32"),
        ("negative", "distances below 0"),
    ):
        count, first = total(receipts, what)
        if count:
            raise SourceError(
                f"precomputed_knn has {wrong}, in {count:,} of {context.sizes.rows:,} rows; the first: "
                f"{first}. Mend them, or leave precomputed_knn out."
            )
    for what, words in MENDED.items():
        count, first = total(receipts, what)
        if count:
            log.warning("precomputed_knn: %d rows %s; the first: %s.", count, words, first)


CHECK = Step("scan.given", plan_check, reads=(schema.GIVEN_INDICES, schema.GIVEN_DISTANCES))
