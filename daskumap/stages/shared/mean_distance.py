"""The mean distance of all rows to their neighbours, which is the floor's scale for bandwidths."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from daskumap.planning.stage import Receipt
from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def sums_of(context: Context, ids: Array, distances: Array) -> dict[str, Any]:
    """Return what the mean is made of, from the lists of a vertex partition.

    One exact sum a vertex chunk: chunks do not depend on the partitions, and fsum does not depend on their
    order.
    """
    finite = np.where(np.isfinite(distances), distances, 0.0).astype(np.float64)
    step = context.sizes.vertex_chunk
    sums = [float(finite[at : at + step].sum()) for at in range(0, len(finite), step)]
    return {"sums": sums, "edges": int((ids >= 0).sum())}


def save_mean_distance(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep the mean distance over all rows but twins, each row itself counted at 0, as umap-learn does."""
    edges = Receipt.total(receipts, "edges") + context.distinct
    total = math.fsum(value for receipt in receipts.values() for value in receipt.found["sums"])
    context.save_fact(schema.MEAN_DISTANCE, total / edges)
