"""A pass over distances that are given: what may be wrong with rows of them, and the nearest of each row."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from daskumap.errors import SourceError
from daskumap.kernels.neighbors import distances as kernels
from daskumap.kernels.neighbors.distances import Distances
from daskumap.planning.stage import Receipt
from daskumap.runtime.context import Context

Array = np.ndarray[Any, Any]

# How many rows an error names.
NAMED = 5
# A value that is read, checked and compared with the nearest ones so far (measured: 1.4 to 2.1 ns).
GIVEN_VALUE = 2e-9
FAULTS = {
    kernels.NOT_A_NUMBER: "hold NaN: a distance is a number, or infinity for rows that are no neighbours",
    kernels.NEGATIVE: "hold a negative number: a distance is at least 0. Clip what is rounding to 0",
    kernels.FAR_FROM_ITSELF: "are far from themselves: the diagonal is 0. Give distances, not similarities",
}


def given_memory(context: Context) -> dict[str, int]:
    """Return the terms of memory of a row block while it is looked at."""
    rows, k = context.sizes.row_block, context.params.n_neighbors
    return {"input block": context.distances_bytes(rows), "lists": rows * (k * 12 * 3 + 64)}


def digest_distances(rows: Distances) -> int:
    """Return what a block is known by: a crc32 of what is stored."""
    known = 0
    for part in rows:
        known = zlib.crc32(np.ascontiguousarray(part).view(np.uint8).data, known)
    return known


def reread_task(context: Context, number: int) -> Receipt:
    """Digest a block once more."""
    start, stop = context.sizes.block(number)
    return Receipt(stop - start, {"crc32": digest_distances(context.rows.distances(start, stop))})


def look_at(rows: Distances, own: Array, start: int, k: int) -> tuple[Array, Array, dict[str, Any]]:
    """Return the nearest k of each row of a block, and what its receipt says.

    Parameters
    ----------
    own
        (r,) int64: each row's own column, -1 for none.
    """
    faults = kernels.find_faults(*rows, own)
    found: dict[str, Any] = {"crc32": digest_distances(rows)}
    for fault in FAULTS:
        wrong = np.flatnonzero(faults & fault)
        found[f"fault_{fault}"] = len(wrong)
        found[f"first_{fault}"] = (wrong[:NAMED] + start).tolist()
    ids, distances = kernels.nearest_given(*rows, own, k)
    return ids, distances, {**found, "few": int(np.count_nonzero(ids[:, -1] < 0))}


def refuse_faults(context: Context, receipts: dict[int, Receipt]) -> None:
    """Raise where rows are no distances.

    Raises
    ------
    SourceError
        Naming the first such rows and their number.
    """
    for fault, says in FAULTS.items():
        count = Receipt.total(receipts, f"fault_{fault}")
        first = [row for number in sorted(receipts) for row in receipts[number].found[f"first_{fault}"]]
        if count:
            raise SourceError(
                f"{count:,} of {context.sizes.rows:,} rows of distances {says}. The first: "
                f"{', '.join(map(str, first[:NAMED]))}."
            )
