"""What is known of the whole symmetrised graph, from what its partitions are."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.planning.stage import Receipt
from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def facts_of(weights: Array, degrees: Array) -> dict[str, Any]:
    """Return what counts of the edges of a partition, whose vertices have these degrees."""
    return {
        "edges": len(weights),
        "largest_weight": float(weights.max(initial=0.0)),
        "largest_degree": int(degrees.max()),
        "isolated": int((degrees == 0).sum()),
    }


def keep_graph(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep what is known of the whole graph; the sampling of edges is relative to its largest weight."""
    found = [receipt.found for receipt in receipts.values()]
    context.save_fact(
        schema.GRAPH_FACTS,
        {
            "edges": sum(one["edges"] for one in found),
            "isolated": sum(one["isolated"] for one in found),
            "largest_weight": max(one["largest_weight"] for one in found),
            "largest_degree": max(one["largest_degree"] for one in found),
        },
    )
