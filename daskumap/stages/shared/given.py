"""The neighbours that the user gives, by row, from where they are: as named, or in the run store."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from daskumap.errors import RunMismatchError
from daskumap.runtime.context import Context
from daskumap.sources.find import open_spec
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def read_given(context: Context, start: int, stop: int) -> tuple[Array, Array]:
    """Return row ids and distances, (r, m), of the rows start to stop - 1, as they were given."""
    specs = context.job.given
    if specs is None:
        items = (schema.GIVEN_INDICES, schema.GIVEN_DISTANCES)
        indices, distances = (context.read(item, start, stop) for item in items)
    else:
        tables = context.held("given", lambda: [open_spec(spec) for spec in specs])
        indices, distances = (table.read_stored(start, stop) for table in tables)
    return indices, distances


def given_bytes(context: Context) -> int:
    """Return what a row's given neighbours take: as read, decoded, and as they are worked on."""
    return int(context.params.precomputed_knn["columns"]) * 16 * 3


def digest_of(indices: Array, distances: Array) -> int:
    """Return what a block of given neighbours is known by."""
    return zlib.crc32(np.ascontiguousarray(distances).data, zlib.crc32(np.ascontiguousarray(indices).data))


def refuse_changed(context: Context, check: str, number: int, digest: int) -> None:
    """Refuse given neighbours that are not those that were checked.

    Raises
    ------
    RunMismatchError
        Naming the rows.
    """
    known = context.store.ledger.receipt(check, number)
    if known is not None and known.found["crc32"] != digest:
        start, stop = context.sizes.block(number)
        raise RunMismatchError(
            f"The given neighbours of rows {start} to {stop - 1} changed since they were checked. Start over "
            "with restart (--restart)."
        )
