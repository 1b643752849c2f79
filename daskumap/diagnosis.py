"""How well a map fits the graph of a run: its own, or one from elsewhere, so that maps can be compared."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

import numpy as np

from daskumap.errors import ParameterError, SourceError, SourceNotFoundError, StoreError
from daskumap.kernels.layout.diagnostics import Sums, add_sums
from daskumap.opening import context_of, open_to_look
from daskumap.params import Params
from daskumap.pipeline import purpose_in
from daskumap.planning.sizes import Resources
from daskumap.runtime.context import Context
from daskumap.sources.base import Source
from daskumap.sources.find import find
from daskumap.sources.ingest import as_stored
from daskumap.stages.shared.bits import bits_of
from daskumap.stages.shared.pairs import diagnostics_of, on_the_map, sums_of
from daskumap.store import schema
from daskumap.store.run import RunStore

Array = np.ndarray[Any, Any]

log = logging.getLogger(__name__)

# Where edges touch no more than so many times as random pairs do, rows may be in another order: those of
# digits do 29 times, in another order 1.02; those of 30 rows with 14 neighbours 2.9, in another order 1.2.
IN_ORDER = 1.3


def diagnose_map(
    store: RunStore, params: Params | None, embedding: Any, curve: tuple[float, float] | None, own: bool
) -> dict[str, float]:
    """Return how well a map fits the graph of a run, a vertex partition after the other.

    Parameters
    ----------
    params
        Where this process fitted the run.
    embedding
        (n, d) in the order of the run's rows, whatever `find` opens, or the path of a NumPy file.
    curve
        a and b of the map; None for those of the run.
    own
        Whether it is the run's own map, whose order is known.
    """
    with contextlib.closing(_context(store, params)) as context:
        positions = _positions(context, open_map(embedding, context.sizes.rows))
        sums, entries = list[Sums](), 0
        for start, stop in map(context.sizes.partition, range(context.sizes.partitions)):
            if start < len(positions):
                edges = context.edges(start, min(stop, len(positions)))
                sums.append(sums_of(context, positions, start, edges, *(curve or context.params.curve())))
                entries += len(edges[1])
        total = add_sums(sums)
        if not own and total.weight and total.touch <= IN_ORDER * total.felt:
            log.warning(
                "Rows that the graph joins are hardly nearer on this map than any two. See that its rows are "
                "in the order of the run's input."
            )
        return {**diagnostics_of(context, total, entries), **bits_of(context)}


def _context(store: RunStore, params: Params | None) -> Context:
    """Return the context of a run that is finished and has its graph; its input is not opened."""
    if purpose_in(store.about) != "fit":
        raise StoreError(f"{store.url} was made by a run. Give the run that the map is of.")
    if store.ledger.finished() is None:
        raise StoreError(f"The run in {store.url} is unfinished. Finish it: daskumap resume {store.url}")
    if params is None:
        return open_to_look(store)
    known = store.about["source"]
    return context_of(
        store, as_stored(tuple(known["shape"]), np.dtype(known["dtype"])), params, Resources(1), None
    )


def open_map(embedding: Any, rows: int | None, of: str = "run") -> Source:
    """Return the source of a map of so many rows, as a run or what else it is beside has."""
    if isinstance(embedding, str | os.PathLike) and os.fspath(embedding).endswith(".npy"):
        embedding = _map_file(os.fspath(embedding))
    source = find(embedding)
    if rows is not None and source.shape[0] != rows:
        raise ParameterError(
            f"embedding has {source.shape[0]:,} rows, the {of} {rows:,}. Give one place for each row of "
            f"the {'input of the run' if of == 'run' else 'data'}, in their order."
        )
    if missing := source.count_missing():
        raise SourceError(
            f"embedding lacks {missing:,} chunks, whose rows would all be at one place. Write them again."
        )
    return source


def _map_file(path: str) -> Array:
    try:
        found: Array = np.load(path, mmap_mode="r")
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"There is no file {path}. Name the NumPy file of the map.") from error
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{path} cannot be read as a NumPy file ({error}). Write it with numpy.save."
        ) from error
    return found


def _positions(context: Context, source: Source) -> Array:
    """Return the places of the distinct vertices; NaN for those without edges, which have none on some maps.

    Raises
    ------
    SourceError
        If a row that has edges has no finite place.
    """
    positions = np.empty((context.sizes.rows, source.shape[1]), np.float32)
    for start, stop in map(context.sizes.block, range(context.sizes.row_blocks)):
        positions[context.read(schema.VERTEX, start, stop)] = source.read(start, stop)
    found = on_the_map(context, positions)
    joined = context.read(schema.DEGREES, 0, len(found)) > 0
    lost = np.flatnonzero(joined & ~np.isfinite(found).all(axis=1))
    if len(lost):
        rows = sorted(_rows_of(context, lost))
        raise SourceError(
            f"embedding has no finite place, in float32, for {len(rows):,} rows that have neighbours, first "
            f"for row {rows[0]}. Only rows without neighbours may be NaN."
        )
    return found


def _rows_of(context: Context, vertices: Array) -> list[int]:
    """Return the rows of some vertices."""
    found = list[int]()
    for start, stop in map(context.sizes.block, range(context.sizes.row_blocks)):
        hit = np.isin(context.read(schema.VERTEX, start, stop), vertices)
        found += (start + np.flatnonzero(hit)).tolist()
    return found
