"""Place: the neighbours of each new row among the training rows, and its place on their map.

A task holds a row block. What becomes of a row depends on the row, the model and the seed alone: what is
drawn at random is keyed by a digest of the row.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.layout.fixed import place_rows
from daskumap.kernels.layout.iterations import forces, negative_pool
from daskumap.kernels.layout.lanes import LANES
from daskumap.kernels.neighbors.lists import drop
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.fitted import places_by_vertex
from daskumap.stages.shared.graph_facts import strength_of
from daskumap.stages.shared.near import (
    count_rows,
    find_near,
    near_bytes,
    near_memory,
    near_seconds,
    rate_distance,
    total_counts,
    weigh,
)
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# umap-learn's epochs for up to 10,000 new rows, and its share of the fit's where those are given. It takes 30
# for more rows; here a row's place must not depend on how many there are.
EPOCHS, SHARE_OF_EPOCHS = 100, 3
# Places of the map of which negatives are drawn: a row draws a few thousand.
POOL = 1 << 16
# A row that is placed, in two dimensions (measured: 11 us with 15 neighbours).
PLACED = 11e-6


def plan_place(context: Context) -> Stage:
    """Plan one task a row block."""
    s, d = context.sizes, context.params.n_components
    return Stage(
        task=place_task,
        tasks=s.row_blocks,
        memory={
            **near_memory(context),
            "forces": 4 << 20,
            "places side by side": (context.params.n_neighbors + 2) * d * LANES * 4,
        },
        shared=held_bytes(context),
        outputs=(context.output(schema.EMBEDDING), context.output(schema.FIT_DISTANCE)),
        read_bytes=near_bytes(context),
        work=near_seconds(context) + s.rows * PLACED * d / 2,
        products=not context.metric.uses_descent,
        conclude=keep_placed,
    )


def held_bytes(context: Context) -> int:
    """Return what a worker holds of the model: the places of all rows by vertex."""
    s, d = context.model.sizes, context.params.n_components
    # Without those that have no place they are copied once.
    return s.rows * (2 * d * 4 + 1) + s.row_block * (d * 4 + 8) + 3 * POOL * d * 4


def place_task(context: Context, number: int) -> Receipt:
    """Place the rows of one block."""
    start, stop = context.sizes.block(number)
    ids, distances, digests = find_near(context, start, stop)
    fit_distance = rate_distance(context, distances)
    model = context.held("map", lambda: Map.of(context))
    drop(ids, distances, model.gone)
    p = context.params
    weights = weigh(context, distances)
    if not context.memberships.weights.bounded:
        # Relative to the largest, as in a fit; but to that of the row, on which alone its place depends.
        weights /= np.maximum(weights.max(axis=1, keepdims=True), 1.0)
    tables = context.held("forces", lambda: _forces(context))
    places = place_rows(
        model.places,
        ids,
        distances,
        weights,
        digests,
        model.pool,
        tables,
        context.key("transform"),
        epochs(context),
        float(p.learning_rate),
        context.output_metric,
    )
    context.write(schema.EMBEDDING, start, places)
    context.write(schema.FIT_DISTANCE, start, fit_distance)
    return Receipt(
        stop - start,
        {
            "crc32": zlib.crc32(places.tobytes()),
            **count_rows(ids, distances, fit_distance),
        },
    )


def keep_placed(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep how many rows equal a fitted one, have no neighbour, and are farther from theirs than any is."""
    context.save_fact(schema.PLACED, {"epochs": epochs(context), **total_counts(context, receipts)})


def epochs(context: Context) -> int:
    """Return the epochs of the short layout."""
    given = context.params.given_epochs
    return EPOCHS if given is None else given // SHARE_OF_EPOCHS


def _forces(context: Context) -> Any:
    p = context.params
    return forces(*p.curve(), strength_of(context.model), p.negative_sample_rate)


class Map(NamedTuple):
    """The map of the model in vertex order.

    Attributes
    ----------
    places
        (n, d) float32.
    gone
        (n,) bool: vertices that have no place.
    pool
        (d, s) float32: places of which negatives are drawn.
    """

    places: Array
    gone: Array
    pool: Array

    @classmethod
    def of(cls, context: Context) -> Map:
        """Read it."""
        places, distinct = places_by_vertex(context), context.model.distinct
        gone = np.isnan(places[:, 0])
        seen = places[:distinct]  # Twins count once, as in the fit.
        seen = seen[~gone[:distinct]] if gone.any() else seen
        pool = negative_pool(seen if len(seen) else places[:1] * 0, context.key("transform"), 0, POOL)
        return cls(places, gone, pool)


PLACE = Step(
    "transform.place",
    plan_place,
    reads=(schema.SOURCE, schema.REACH, schema.REACHED, schema.GATHERED, schema.TYPICAL),
    writes=(schema.EMBEDDING, schema.FIT_DISTANCE, schema.PLACED),
    model=(
        schema.SOURCE,
        schema.CELL_STARTS,
        schema.VERTEX,
        schema.EMBEDDING,
        schema.MEAN_DISTANCE,
        schema.REPULSION,
    ),
)
PLACE_GIVEN = Step(
    "transform.place",
    plan_place,
    reads=(schema.NEW_INDICES, schema.NEW_DISTANCES, schema.TYPICAL),
    writes=(schema.EMBEDDING, schema.FIT_DISTANCE, schema.PLACED),
    model=(schema.VERTEX, schema.EMBEDDING, schema.MEAN_DISTANCE, schema.REPULSION),
)
