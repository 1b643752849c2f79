"""Scan: one pass over the points, which checks and digests them, and finds their neighbours on the map."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.layout.inverse import map_weights
from daskumap.planning import memory
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.checks import (
    DIGEST,
    count_missing,
    find_broken,
    not_finite,
    refuse_broken,
    refuse_missing,
)
from daskumap.stages.shared.fitted import places_by_vertex
from daskumap.stages.shared.visitors import Share, Visitor, plan_pass, read_rows
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# Leaves of the tree: with 16, as by default, it takes 6 bytes a row more and answers no sooner (measured).
LEAF = 32
# A neighbour that is found (13 us for 15 of a million points in two dimensions, measured).
FOUND = 1e-6


def plan_scan(context: Context) -> Stage:
    """Plan one task a row block."""
    s, d = context.model.sizes, context.model.params.n_components
    shared = s.rows * memory.map_row(d) + s.row_block * (d * 4 + 8)
    return plan_pass(context, (DIGEST, FIND_NEAREST), read_rows, shared=shared, conclude=refuse)


def plan_reread(context: Context) -> Stage:
    """Plan the digests of all row blocks once more, to compare them with those of the scan."""
    return plan_pass(context, (DIGEST,), read_rows)


def _share_of_nearest(context: Context) -> Share:
    s, k = context.sizes, context.extent("nearest")
    return Share(
        outputs=(context.output(schema.NEAREST_VERTICES), context.output(schema.MAP_WEIGHTS)),
        memory={"points": s.row_block * s.columns * 12, "neighbours": s.row_block * k * 64},
        work=FOUND * s.rows * k * s.columns / 2,
    )


class Map(NamedTuple):
    """The map of the model, to be searched.

    Attributes
    ----------
    tree
        A `scipy.spatial.cKDTree` of all places.
    vertices
        (p + 1,) int64: whose they are, and -1 for a neighbour that is missing.
    """

    tree: Any
    vertices: Array

    @classmethod
    def of(cls, context: Context) -> Map:
        """Read it; copies of a row count once, and vertices without a place not at all."""
        from scipy.spatial import cKDTree

        places = places_by_vertex(context, np.float64)[: context.model.distinct]
        there = np.flatnonzero(~np.isnan(places[:, 0]))
        places = places if len(there) == len(places) else places[there]
        tree = cKDTree(places, LEAF, compact_nodes=False, balanced_tree=False)
        return cls(tree, np.append(there, -1))


def find_nearest(context: Context, number: int, X: Array) -> dict[str, Any]:
    """Write the neighbours of each point on the map, nearest first, and their weights."""
    start, _ = context.sizes.block(number)
    tree, vertices = context.held("map", lambda: Map.of(context))
    points = np.where(not_finite(X)[:, None], np.float32(0.0), X)
    ranks = np.arange(1, context.extent("nearest") + 1)
    distances, found = tree.query(points, ranks)
    context.write(schema.NEAREST_VERTICES, start, vertices[found])
    context.write(schema.MAP_WEIGHTS, start, map_weights(distances, *context.params.curve()))
    return find_broken(X, start)


def refuse(context: Context, receipts: dict[int, Receipt]) -> None:
    """Raise where a point is none."""
    refuse_missing(context, count_missing(context) if context.params.missing == "refuse" else 0)
    refuse_broken(context, receipts)


FIND_NEAREST = Visitor(find_nearest, _share_of_nearest)

SCAN = Step(
    "inverse.scan",
    plan_scan,
    reads=(schema.SOURCE,),
    writes=(schema.NEAREST_VERTICES, schema.MAP_WEIGHTS),
    model=(schema.VERTEX, schema.EMBEDDING),
)
# No step of a pipeline: it leaves no record. What it found is compared when an inverse goes on.
REREAD = Step("inverse.reread", plan_reread, reads=(schema.SOURCE,))
