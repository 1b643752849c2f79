"""What is wrong with the arrays of a run store: chunks that are missing, damaged, or not in their place."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr

from daskumap.errors import StoreError
from daskumap.planning.stage import Receipt
from daskumap.store import schema
from daskumap.store.arrays import GROUP, groups_around, read_json
from daskumap.store.exchange import batch_name
from daskumap.store.model import find_damaged_model, in_run
from daskumap.store.run import RunStore
from daskumap.store.trouble import is_out_of_reach, speaking

EXCHANGES = {item.name: item for item in vars(schema).values() if isinstance(item, schema.Exchange)}


def find_damage(store: RunStore, name: str, read: bool, receipts: Mapping[int, Receipt]) -> list[str]:
    """Return what is wrong with an array, an exchange, or the group of a model.

    Parameters
    ----------
    read
        Read every chunk against its checksum, and the metadata of groups; chunks are only counted otherwise.
    receipts
        Of the tasks that wrote it: each has a batch of an exchange, and says what its part of the map is.
    """
    if name == schema.ENCODER.name:
        return find_damaged_model(in_run(store.documents))
    if name not in EXCHANGES:
        return _array_damage(store, name, read, receipts)
    exchange = EXCHANGES[name]
    there = {batch: _members(store, f"{name}/{batch}") for batch in _members(store, name)}
    wanted = {batch_name(exchange, task).rpartition("/")[2] for task in receipts}
    if not there.keys() | wanted:
        return [f"{name} is missing"]
    found = [f"{name}/{batch} is gone" for batch in sorted(wanted - there.keys())]
    columns = {exchange.offsets}.union(*there.values())  # a run leaves the same ones out of all batches
    for batch in sorted(there):
        found += _batch_damage(store, exchange, f"{name}/{batch}", sorted(columns), read)
    return found


def _batch_damage(
    store: RunStore, exchange: schema.Exchange, batch: str, columns: list[str], read: bool
) -> list[str]:
    """Return what is wrong with a batch, whose columns must have as many records as its offsets say."""
    found = [text for column in columns for text in _array_damage(store, f"{batch}/{column}", read, {})]
    if found or not read:
        return found
    records = {column: store.array(f"{batch}/{column}").shape[0] for column in columns}
    wanted = store.read(f"{batch}/{exchange.offsets}")[-1]
    del records[exchange.offsets]
    return [f"{batch}/{name} has {n} records for {wanted}" for name, n in records.items() if n != wanted]


def _members(store: RunStore, name: str) -> set[str]:
    return set(store.documents.members(name)) - {"zarr.json"}


def _array_damage(store: RunStore, name: str, read: bool, receipts: Mapping[int, Receipt]) -> list[str]:
    try:
        array = store.array(name)
    except StoreError as error:
        return [_reason(name, error)]
    missing = array.nchunks - array.nchunks_initialized if array.size else 0
    found = [f"{name}: {missing} of {array.nchunks} chunks are missing"] if missing else []
    if not read:
        return found
    found += [text for group in groups_around(name) for text in _group_damage(store, group)]
    kept = schema.PUBLIC.get(name)
    sums = {task: receipt.found[kept] for task, receipt in receipts.items() if kept}
    return found + _read_through(array, sums)


def _read_through(array: zarr.Array[Any], sums: Mapping[int, int]) -> list[str]:
    """Read all chunks of an array, and compare those whose sums are known."""
    found = []
    for number, chunk in enumerate(np.ndindex(array.cdata_shape)):
        starts = [place * size for place, size in zip(chunk, array.chunks, strict=True)]
        within = tuple(slice(at, at + size) for at, size in zip(starts, array.chunks, strict=True))
        ends = [min(part.stop, size) - 1 for part, size in zip(within, array.shape, strict=True)]
        maps = f"map {starts[0]}, " if array.path.endswith(schema.EMBEDDING_LIST.name) else ""
        where = f"{array.path}, {maps}rows {starts[bool(maps)]} to {ends[bool(maps)]}"
        try:
            values = np.asarray(array[within])
        except StoreError:
            continue  # a chunk that is missing, and was counted
        except Exception as error:  # A codec raises whatever it likes on bytes that are not its own.
            found.append(f"{where}: {error}")
        else:
            if number in sums and sums[number] != zlib.crc32(values.tobytes()):
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
    if is_out_of_reach(error):
        raise error
    if isinstance(error.__cause__, StoreError):
        return f"{name} is missing"
    return f"the metadata of {name} are damaged ({error.__cause__})"


def find_damaged_fact(store: RunStore, name: str, finished: bool) -> list[str]:
    """Return what is wrong with a fact: damaged, or missing though the run is finished."""
    if store.documents.load(name) is not None:
        return []
    there = store.documents.load_bytes(f"{name}.json") is not None
    return [f"{name} is {'damaged' if there else 'missing'}"] if there or finished else []
