"""What is known of the whole symmetrised graph, from what its partitions are, and the repulsion it sets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from daskumap.errors import ParameterError
from daskumap.params import MOST_REPULSION
from daskumap.planning.stage import Receipt
from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def facts_of(weights: Array, degrees: Array, chunk: int) -> dict[str, Any]:
    """Return what counts of the edges of a partition, whose vertices have these degrees.

    The weights are summed by vertex chunk, which does not depend on the partitions.
    """
    largest = float(weights.max(initial=0.0))
    ends = np.cumsum(np.add.reduceat(degrees, np.arange(0, len(degrees), chunk), dtype=np.int64))
    parts = zip([0, *ends[:-1]], ends, strict=True)
    return {
        "edges": len(weights),
        "largest_weight": largest,
        "largest_degree": int(degrees.max()),
        "isolated": int((degrees == 0).sum()),
        "weights": [float(weights[first:last].sum(dtype=np.float64)) for first, last in parts],
        "weights_above_1": int(np.count_nonzero(weights > 1.0)) if largest > 1.0 else 0,
    }


def keep_graph(context: Context, receipts: dict[int, Receipt], dropped: int) -> None:
    """Keep what is known of the whole graph; the sampling of edges is relative to its largest weight.

    Parameters
    ----------
    dropped
        Edges that were left out since nothing of them is above 0.
    """
    found = [receipt.found for receipt in receipts.values()]
    weight = math.fsum(one for part in found for one in part["weights"])
    context.save_fact(
        schema.GRAPH_FACTS,
        {
            "edges": sum(one["edges"] for one in found),
            "isolated": sum(one["isolated"] for one in found),
            "largest_weight": max(one["largest_weight"] for one in found),
            "largest_degree": max(one["largest_degree"] for one in found),
            "weight": weight,
            "weights_above_1": sum(one["weights_above_1"] for one in found),
            "edges_dropped_negative": dropped,
        },
    )
    context.save_fact(schema.REPULSION, repulsion_by(context, weight))


def repulsion_by(context: Context, weight: float) -> dict[str, float]:
    """Return the strength of the repulsion, and the alpha that it amounts to, for a graph of some weight.

    What the layout descends is about H(X, Y) + alpha H(not X, Y), with alpha = strength m d / (2 n): m
    negatives for each edge that fires, and d the mean sum of a row's weights (docs/decisions/0029).

    Raises
    ------
    ParameterError
        If `alpha` asks for more than forces can show, with the largest one that does not.
    """
    p, rows = context.params, context.distinct
    share = p.negative_sample_rate * weight / (2.0 * rows * rows)
    if p.alpha is None:
        return {"strength": p.repulsion_strength, "alpha": p.repulsion_strength * share}
    most = MOST_REPULSION * share
    if p.alpha > most:
        raise ParameterError(
            f"alpha is {p.alpha:g}, and the graph of {rows:,} rows takes at most {most:.3g}: above it "
            f"repulsion_strength would be more than {MOST_REPULSION:g}, which clipped forces do not show. "
            "Lower alpha, or raise negative_sample_rate."
        )
    return {"strength": p.alpha / share if share else 0.0, "alpha": p.alpha}
