"""What is read of a model: its rows, as they were fitted, and its map by vertex."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.errors import RunMismatchError
from daskumap.planning.stage import Receipt
from daskumap.runtime.context import Context
from daskumap.stages.shared.checks import digest_block
from daskumap.stages.shared.pieces import gathered_column
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def read_fitted(context: Context, number: int) -> Array:
    """Return the rows of a block of the model.

    Raises
    ------
    RunMismatchError
        If they are not those that were fitted.
    """
    model = context.model
    start, stop = model.sizes.block(number)
    X = model.rows.read(start, stop)
    known = model.store.ledger.receipt("scan", number)
    if known is not None and known.found["crc32"] != digest_block(model, number, X)["crc32"]:
        raise RunMismatchError(
            f"Rows {start} to {stop - 1} of {model.source.name} are not those that the run in {model.url} "
            "was fitted to: values differ, and the result would be that of other ones. Restore them, or fit "
            "again."
        )
    return X


def send_fitted(
    context: Context, item: schema.Exchange, number: int, vertices: Array, wanted: Array, bounds: Array
) -> Receipt:
    """Send rows of a block of the model by vertex: themselves, or their ids where they are held.

    Parameters
    ----------
    vertices, wanted
        (r,) int64 and bool, of the rows of the block.
    bounds
        Where the vertices of each destination begin, and where those of the last one end.
    """
    model = context.model
    start, _ = model.sizes.block(number)
    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(vertices[rows])]
    column = gathered_column(context)
    X = read_fitted(context, number) if len(rows) else np.empty((0, model.sizes.columns), model.metric.dtype)
    sent = {"vertices": vertices[rows], column: start + rows if column == "ids" else X[rows]}
    context.send(item, number, np.searchsorted(vertices[rows], bounds), **sent)
    return Receipt(len(rows))


def places_by_vertex(context: Context, dtype: type = np.float32) -> Array:
    """Return (n, d) the map of the model in vertex order; NaN for vertices that have no place."""
    model, s = context.model, context.model.sizes
    places: Array = np.empty((s.rows, model.params.n_components), dtype)
    for start, stop in map(s.block, range(s.row_blocks)):
        places[model.read(schema.VERTEX, start, stop)] = model.read(schema.EMBEDDING, start, stop)
    return places
