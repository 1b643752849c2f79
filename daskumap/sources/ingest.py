"""The way of a source into the run store, so that every worker can read it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from daskumap.sources.axes import OnAxes, without_part
from daskumap.sources.base import Source
from daskumap.sources.distances import PARTS, SparseDistances
from daskumap.sources.find import find
from daskumap.sources.whole import whole_chunks
from daskumap.sources.zarr import ZarrSource
from daskumap.store import schema
from daskumap.store.arrays import ArrayStore, create_array
from daskumap.store.run import RunStore

# Large enough that a file costs little, small enough that a scattered row does.
CHUNK_BYTES = 4 << 20


def ingest(source: Source, store: ArrayStore, name: str, progress: Any = None) -> str:
    """Write all rows of a source into an array of a run store, and return their digest.

    The stored bytes depend on the values and the type only. Writing the same rows again gives the same bytes.

    Parameters
    ----------
    progress
        Hears of the passes in which rows are put on main axes, as `report.progress.Progress`.

    Returns
    -------
    str
        What `Source.digest` says of the source, and of the array that was written.
    """
    if isinstance(source, SparseDistances):
        source.write(store, name)
        return source.digest()
    watched = without_part(source)
    if isinstance(watched, OnAxes):
        watched.progress = progress
    target = _create(source.shape, source.dtype, store, name)
    digest, row = hashlib.sha256(), 0
    for part in whole_chunks(source.blocks(), target.chunks[0]):
        digest.update(part.data)
        target[row : row + len(part)] = part
        row += len(part)
    return digest.hexdigest()


def open_ingested(store: RunStore) -> Source:
    """Return the source that `ingest` left in a run store."""
    name = schema.SOURCE.name
    if "stored" in store.about["source"]:
        return SparseDistances.stored(store, name)
    return find(store.array(name))


def names_of_copy(store: RunStore) -> list[str]:
    """Return the names of the arrays that `ingest` left, or is to leave, in a run store."""
    name = schema.SOURCE.name
    return [f"{name}/{part}" for part in PARTS] if "stored" in store.about["source"] else [name]


def as_stored(shape: tuple[int, int], dtype: np.dtype[Any]) -> Source:
    """Return a source like what `ingest` makes of rows like these, without them: enough to plan with."""
    return ZarrSource(_create(shape, dtype, ArrayStore(MemoryStore(), ""), "rows"))


def _create(shape: tuple[int, int], dtype: np.dtype[Any], store: ArrayStore, name: str) -> zarr.Array[Any]:
    """Create the array in the run store: whole rows, of which a scattered one is read at little cost."""
    rows = max(1, CHUNK_BYTES // (shape[1] * dtype.itemsize))
    return create_array(store, name, shape, (rows, shape[1]), dtype.name)
