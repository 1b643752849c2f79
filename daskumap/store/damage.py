"""What is wrong with the arrays of a run store: chunks that are missing or cannot be read."""

from __future__ import annotations

from typing import Any

import zarr

from daskumap.errors import StoreError
from daskumap.store.run import RunStore
from daskumap.store.trouble import speaking


def find_damage(store: RunStore, name: str, read: bool) -> list[str]:
    """Return what is wrong with an array, or with all arrays of a group.

    With `read` every chunk is read and its checksum compared; without, chunks are only counted.
    """
    try:
        with speaking(f"{name} in {store.url}"):
            if name not in store.group:
                return [f"{name} is missing"]
            node = store.group[name]
            nodes = [node] if isinstance(node, zarr.Array) else [part for _, part in node.members(None)]
            arrays = [node for node in nodes if isinstance(node, zarr.Array)]
            return [text for array in arrays for text in _array_damage(array, read)]
    except StoreError as error:
        if isinstance(error.__cause__, OSError):
            raise
        return [f"the metadata of {name} are damaged ({error.__cause__})"]


def _array_damage(array: zarr.Array[Any], read: bool) -> list[str]:
    missing = array.nchunks - array.nchunks_initialized if array.size else 0
    found = [f"{array.path}: {missing} of {array.nchunks} chunks are missing"] if missing else []
    step = array.chunks[0]
    for start in range(0, array.shape[0] if read else 0, step):
        try:
            array[start : start + step]
        except Exception as error:  # A codec raises whatever it likes on bytes that are not its own.
            found.append(f"{array.path}, rows {start} to {min(start + step, array.shape[0]) - 1}: {error}")
    return found


def find_damaged_fact(store: RunStore, name: str, finished: bool) -> list[str]:
    """Return what is wrong with a fact: damaged, or missing though the run is finished."""
    if store.documents.load(name) is not None:
        return []
    there = store.documents.load_bytes(f"{name}.json") is not None
    return [f"{name} is {'damaged' if there else 'missing'}"] if there or finished else []
