"""Descend: the row of each point, from those of its neighbours on the map.

A task holds a block of points and the training rows that these need, which it reads a window at a time. What
becomes of a point depends on the point and the model alone: nothing is drawn at random.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from daskumap.kernels.layout.inverse import invert
from daskumap.kernels.metrics.gradients import gradient_of
from daskumap.planning.stage import ITEM_BYTES, Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.runtime.listen import tell
from daskumap.stages.shared.pieces import gathered_column
from daskumap.stages.shared.windows import wanted_rows, window_starts
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# umap-learn's epochs for up to 10,000 points, and its share of the fit's where those are given. It takes 30
# for more points; here a row must not depend on how many there are.
EPOCHS, SHARE_OF_EPOCHS = 100, 3
# Offsets of windows that are read at a time.
OFFSETS = 1 << 18
# A neighbour in an epoch, without and for each of its values (measured: 13 ns at D = 8, 150 at 784).
PULL, PULLED = 12e-9, 0.18e-9


def plan_descend(context: Context) -> Stage:
    """Plan one task a row block."""
    s, model, k = context.sizes, context.model, context.extent("nearest")
    columns, own = model.sizes.columns, min(s.row_block * k, model.sizes.rows)
    window = min(s.window_rows, wanted_rows(context))
    item = ITEM_BYTES[context.dtype("value")]
    return Stage(
        task=descend_task,
        tasks=s.row_blocks,
        memory={
            "lists": s.row_block * k * 64,
            "neighbours": own * (model.row_bytes + 24),
            "input window": 2 * window * (model.row_bytes + 24),
            "bandwidths": 2 * model.sizes.vertex_chunk * 4,
            "rows": s.row_block * columns * (4 + 3 * item),
            "offsets": 2 * OFFSETS * 8 + len(window_starts(context)) * 16,
        },
        outputs=(context.output(schema.ROWS),),
        read_bytes=s.row_blocks * wanted_rows(context) * (model.row_bytes + 8),
        work=s.rows * k * epochs(context) * (PULL + PULLED * columns),
        conclude=keep_inverted,
    )


def descend_task(context: Context, number: int) -> Receipt:
    """Find the rows of one block of points."""
    start, stop = context.sizes.block(number)
    nearest = context.read(schema.NEAREST_VERTICES, start, stop)
    vertices, places = np.unique(nearest, return_inverse=True)
    missing = int(np.count_nonzero(vertices < 0))
    vertices, places = vertices[missing:], places.reshape(nearest.shape) - missing
    found = invert(
        read_rows(context, vertices),
        places,
        context.read(schema.MAP_WEIGHTS, start, stop),
        read_bandwidths(context, vertices),
        gradient_of(context.metric, context.model.sizes.columns),
        epochs(context),
        float(context.params.learning_rate),
    )
    rows = context.model.moved_back(found)
    context.write(schema.ROWS, start, rows)
    alone = int(np.count_nonzero(nearest[:, 0] < 0))
    return Receipt(stop - start, {"crc32": zlib.crc32(rows.tobytes()), "alone": alone})


def keep_inverted(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep how many points there were, how many of them have no neighbour, and by what rows were found."""
    context.save_fact(
        schema.INVERTED,
        {
            "points": context.sizes.rows,
            "neighbors": context.extent("nearest"),
            "epochs": epochs(context),
            "alone": Receipt.total(receipts, "alone"),
        },
    )


def epochs(context: Context) -> int:
    """Return the epochs of the descent: none where memberships are the same wherever the row is."""
    if not context.memberships.weights.has_bandwidth:
        return 0
    given = context.params.given_epochs
    return EPOCHS if given is None else given // SHARE_OF_EPOCHS


def read_bandwidths(context: Context, vertices: Array) -> Array:
    """Return (u,) float32: the bandwidths of some vertices, ascending, chunk by chunk.

    Those that are factors and no lengths belong to a kernel that falls by e in a unit of the data: 1.
    """
    model, chunk = context.model, context.model.sizes.vertex_chunk
    out = np.ones(len(vertices), np.float32)
    if not context.memberships.bandwidths.has_length:
        return out
    for start in np.unique(vertices // chunk).tolist():
        here = slice(*np.searchsorted(vertices, [start * chunk, (start + 1) * chunk]))
        stop = min((start + 1) * chunk, model.sizes.rows)
        out[here] = model.read(schema.SIGMA, start * chunk, stop)[vertices[here] - start * chunk]
    return out


def read_rows(context: Context, vertices: Array) -> Array:
    """Return (u, D) the training rows of some vertices, ascending, as the metric works on them."""
    model, column = context.model, gathered_column(context)
    out = np.empty((len(vertices), model.sizes.columns), model.metric.dtype)
    bounds = np.searchsorted(vertices, window_starts(context))
    step = max(1, OFFSETS // model.sizes.row_blocks)
    for first in range(0, len(bounds) - 1, step):
        last = min(first + step, len(bounds) - 1)
        wanted = first + np.flatnonzero(np.diff(bounds[first : last + 1]))
        if not len(wanted):
            continue
        reader = context.reader(schema.NEEDED, first, last, "vertices", column)
        for window in wanted.tolist():
            records = reader.read(window, window + 1)
            order = np.argsort(records["vertices"])
            here = slice(bounds[window], bounds[window + 1])
            found = order[np.searchsorted(records["vertices"], vertices[here], sorter=order)]
            rows = records[column][found]
            out[here] = model.rows.gather(rows) if column == "ids" else rows
            tell((window + 1) / (2 * len(bounds)))
    return out


DESCEND = Step(
    "inverse.descend",
    plan_descend,
    # No task reads the points; they stay until the last one, since whoever goes on opens them.
    reads=(schema.SOURCE, schema.NEAREST_VERTICES, schema.MAP_WEIGHTS, schema.NEEDED),
    writes=(schema.ROWS, schema.INVERTED),
    model=(schema.SOURCE, schema.SIGMA),
)
