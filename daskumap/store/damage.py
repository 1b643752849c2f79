"""What is wrong with the arrays of a run store: chunks that are missing, damaged, or not in their place."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import zarr

from daskumap.errors import StoreError
from daskumap.store import schema
from daskumap.store.arrays import GROUP, groups_around, read_json
from daskumap.store.exchange import batch_name
from daskumap.store.run import RunStore
from daskumap.store.trouble import speaking

EXCHANGES = {item.name: item for item in vars(schema).values() if isinstance(item, schema.Exchange)}


def find_damage(store: RunStore, name: str, read: bool, batches: int = 0) -> list[str]:
    """Return what is wrong with an array or an exchange.

    Parameters
    ----------
    read
        Read every chunk against its checksum, and the metadata of groups; chunks are only counted otherwise.
    batches
        How many batches an exchange must have, as far as that is known.
    """
    if name not in EXCHANGES:
        return _array_damage(store, name, read)
    exchange = EXCHANGES[name]
    there = {batch: _members(store, f"{name}/{batch}") for batch in _members(store, name)}
    wanted = {batch_name(exchange, task).rpartition("/")[2] for task in range(batches)}
    if not there.keys() | wanted:
        return [f"{name} is missing"]
    found = [f"{name}/{batch} is missing" for batch in sorted(wanted - there.keys())]
    columns = {exchange.offsets}.union(*there.values())  # a run leaves the same ones out of all batches
    for batch in sorted(there):
        found += _batch_damage(store, exchange, f"{name}/{batch}", sorted(columns), read)
    return found


def _batch_damage(
    store: RunStore, exchange: schema.Exchange, batch: str, columns: list[str], read: bool
) -> list[str]:
    """Return what is wrong with a batch, whose columns must have as many records as its offsets say."""
    found = [text for column in columns for text in _array_damage(store, f"{batch}/{column}", read)]
    if found or not read:
        return found
    records = {column: store.array(f"{batch}/{column}").shape[0] for column in columns}
    wanted = store.read(f"{batch}/{exchange.offsets}")[-1]
    del records[exchange.offsets]
    return [f"{batch}/{name} has {n} records for {wanted}" for name, n in records.items() if n != wanted]


def _members(store: RunStore, name: str) -> set[str]:
    return set(store.documents.members(name)) - {"zarr.json"}


def _array_damage(store: RunStore, name: str, read: bool) -> list[str]:
    try:
        array = store.array(name)
    except StoreError as error:
        return [_reason(name, error)]
    missing = array.nchunks - array.nchunks_initialized if array.size else 0
    found = [f"{name}: {missing} of {array.nchunks} chunks are missing"] if missing else []
    return found + _read_through(store, array) if read else found


def _read_through(store: RunStore, array: zarr.Array[Any]) -> list[str]:
    """Read all chunks of an array, and what lies around it."""
    name, step = array.path, array.chunks[0]
    found = [text for group in groups_around(name) for text in _group_damage(store, group)]
    sums = store.documents.load(schema.EMBEDDING_SUMS.name) if name == schema.EMBEDDING.name else None
    if name == schema.EMBEDDING.name and sums is None:
        found.append(f"{schema.EMBEDDING_SUMS.name} is missing")
    for number, start in enumerate(range(0, array.shape[0], step)):
        where = f"{name}, rows {start} to {min(start + step, array.shape[0]) - 1}"
        try:
            values = np.asarray(array[start : start + step])
        except StoreError:
            continue  # a chunk that is missing, and was counted
        except Exception as error:  # A codec raises whatever it likes on bytes that are not its own.
            found.append(f"{where}: {error}")
        else:
            if sums is not None and sums[number] != zlib.crc32(values.tobytes()):
                found.append(f"{where}: these are not the values that were written there")
    return found


def _group_damage(store: RunStore, name: str) -> list[str]:
    try:
        with speaking(f"{name} in {store.url}"):
            whole = read_json(store.arrays, name) == GROUP
    except StoreError as error:
        return [_reason(name, error)]
    return [] if whole else [f"the metadata of the group {name} are not as they were written"]


def _reason(name: str, error: StoreError) -> str:
    """Say what is wrong with metadata; what is out of reach is not damaged."""
    cause = error.__cause__
    if isinstance(cause, StoreError):
        return f"{name} is missing"
    if isinstance(cause, OSError):
        raise error
    return f"the metadata of {name} are damaged ({cause})"
