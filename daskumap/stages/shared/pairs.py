"""Sums over the pairs of vertices, of any map of a run's graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.layout.diagnostics import Sums, diagnostics, pair_sums
from daskumap.runtime.context import Context
from daskumap.stages.shared.graph_facts import strength_of
from daskumap.store import schema

Array = np.ndarray[Any, Any]
Edges = tuple[Array, Array, Array]


def on_the_map(context: Context, positions: Array) -> Array:
    """Return the positions of the distinct vertices, NaN for those without edges, whoever placed them."""
    distinct = positions[: context.distinct]
    distinct[context.read(schema.DEGREES, 0, len(distinct)) == 0] = np.nan
    return distinct


def sums_of(context: Context, positions: Array, start: int, edges: Edges, a: float, b: float) -> Sums:
    """Return the sums over the vertices from `start` on that these edges are of."""
    return pair_sums(positions, start, *edges, a, b, context.key("report"))


def diagnostics_of(context: Context, sums: Sums, entries: int) -> dict[str, float]:
    """Return what the sums over all vertices, whose rows have so many entries, say of a map."""
    draws = strength_of(context) * context.params.negative_sample_rate
    return diagnostics(sums, context.distinct, entries // 2, draws)
