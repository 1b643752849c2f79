"""The arrays of a run store: metadata as we write them and no other, and chunks that say what they are.

A chunk ends with the crc32c of its values, masked with a hash of its run, its array and its place in it: the
chunk of another place, array or run fails its check like one with a flipped bit. Writing costs nothing more,
reading a copy of the chunk (record 14). The name of the codec says so to other tools, which would take such
chunks for damaged. What other tools read, such as the embedding, has a plain crc32c; what its chunks must
hold is in the records of the tasks that wrote them.

Metadata are compared, not obeyed: they have to be what this run writes for an array of that name, shape, type
and chunks, down to a checksum over all of it. So nothing is decoded by codecs that somebody else chose.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.array import AsyncArray
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import StorePath, WrapperStore

from daskumap.errors import StoreError
from daskumap.store import schema
from daskumap.store.calls import call, read
from daskumap.store.documents import as_text
from daskumap.store.trouble import speaking

KEY = "daskumap"
CHUNK = re.compile(r"(?P<array>.+)/c(/\d+)+")
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
PLAIN: list[Any] = [BYTES, {"name": "crc32c"}]
SEALED: list[Any] = [BYTES, {"name": "daskumap.seal"}]
GROUP = {"attributes": {}, "zarr_format": 3, "node_type": "group"}


class ArrayStore(WrapperStore[Store]):
    """A Zarr store that seals chunks on their way in and opens them on their way out.

    A chunk that is missing is an error: all are written, also those that hold the filling alone.

    Attributes
    ----------
    run
        The id of the run whose arrays these are.
    """

    def __init__(self, store: Store, run: str) -> None:
        super().__init__(store)
        self.run = run

    def __str__(self) -> str:
        return str(self._store)

    def _with_store(self, store: Store) -> ArrayStore:
        return ArrayStore(store, self.run)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return what lies under a key; of a chunk, with the plain checksum that zarr looks for."""
        value = await super().get(key, prototype, byte_range)
        chunk = CHUNK.fullmatch(key)
        if chunk is None:
            return value
        if value is None:
            raise StoreError(
                f"The chunk {key} is missing in {self}. Run `daskumap verify --repair`, then `daskumap "
                "resume`."
            )
        if _is_public(chunk["array"]):
            return value
        return prototype.buffer.from_array_like(self._masked(key, value.as_numpy_array().copy()))

    async def set(self, key: str, value: Buffer) -> None:
        """Write under a key; a chunk with its seal."""
        chunk = CHUNK.fullmatch(key)
        if chunk is not None and not _is_public(chunk["array"]):
            self._masked(key, value.as_numpy_array())  # in place: the codec made these bytes for this call
        await super().set(key, value)

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys below a node, where zarr's store in memory gives those that begin like it."""
        async for key in super().list_prefix(f"{prefix.rstrip('/')}/" if prefix else ""):
            yield key

    def _masked(self, key: str, data: Any) -> Any:
        """Mask the checksum at the end of a chunk, or take the mask off."""
        tail = data[-4:]
        tail ^= np.frombuffer(zlib.crc32(f"{self.run}/{key}".encode()).to_bytes(4, "little"), np.uint8)[
            : len(tail)
        ]
        return data


def create_array(
    store: ArrayStore, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str
) -> zarr.Array[Any]:
    """Create an array and the groups that it lies in, or take the one that is there if it is this very one.

    Nothing is deleted then: another attempt at the same task may be under way, or have written all of it, as
    of a worker that was thought dead. All attempts write the same.
    """
    # Chunks are stored whole: one that is larger than the array would be mostly padding.
    whole = [max(1, min(pair)) for pair in zip(chunks, shape, strict=True)]
    document = describe(store.run, name, list(shape), whole, dtype)
    with speaking(f"{name} in {store}"):
        call(store, _write(store, name, document))
        return _array(store, name, document)


def open_array(store: ArrayStore, name: str) -> zarr.Array[Any]:
    """Open an array that this run made.

    Raises
    ------
    KeyError
        If there is none.
    ValueError
        If its metadata are not what this run wrote.
    """
    found = read_json(store, name)
    if found is None:
        raise KeyError(name)
    try:
        shape, chunks = found["shape"], found["chunk_grid"]["configuration"]["chunk_shape"]
        document = describe(store.run, name, shape, chunks, found["data_type"])
        same = as_text(found) == as_text(document)
    except (KeyError, TypeError, ValueError):
        same = False
    if not same:
        raise ValueError(f"{name}/zarr.json is not what this run wrote")
    return _array(store, name, document)


def describe(run: str, name: str, shape: list[int], chunks: list[int], dtype: str) -> dict[str, Any]:
    """Return the metadata of an array of a run, with a checksum over all of it, its name and its run."""
    kind = np.dtype(dtype)
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": kind.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _filling(kind),
        "codecs": PLAIN if _is_public(name) else SEALED,
    }
    return {**document, "attributes": {KEY: {"crc32": zlib.crc32(as_text([run, name, document]))}}}


def read_json(store: Store, name: str) -> Any:
    """Return the metadata of an array or group as they are; None where there are none.

    Raises
    ------
    ValueError
        If they are no JSON.
    """
    content = read(store, _metadata_key(name))
    return None if content is None else json.loads(content)


def groups_around(name: str) -> list[str]:
    """Return the names of the groups of a run store that a node lies in, the outermost first.

    >>> groups_around("graph/00000001/tails")
    ['graph', 'graph/00000001']
    """
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _array(store: ArrayStore, name: str, document: dict[str, Any]) -> zarr.Array[Any]:
    shape, chunks = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
    metadata = _metadata(tuple(shape), tuple(chunks), document["data_type"])
    # A chunk that holds the filling alone is written like any other.
    return zarr.Array(AsyncArray(metadata, StorePath(store, name), config={"write_empty_chunks": True}))


@lru_cache(maxsize=1024)
def _metadata(shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str) -> ArrayV3Metadata:
    """Return what zarr makes of metadata: the same for all arrays of a shape, and slow to make."""
    document = describe("", "", list(shape), list(chunks), dtype)
    return ArrayV3Metadata.from_dict({**document, "codecs": PLAIN, "attributes": {}})


async def _write(store: ArrayStore, name: str, document: dict[str, Any]) -> None:
    key, content = _metadata_key(name), _as_buffer(document)
    there = await store.get(key, default_buffer_prototype())
    for node in groups_around(name):
        await store.set(_metadata_key(node), _as_buffer(GROUP))
    if there is not None and there.to_bytes() == content.to_bytes():
        return
    if there is not None:
        await store.delete_dir(name)
    await store.set(key, content)


def _as_buffer(document: dict[str, Any]) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(json.dumps(document, indent=1).encode())


def _metadata_key(name: str) -> str:
    return f"{name}/zarr.json" if name else "zarr.json"


def _filling(dtype: np.dtype[Any]) -> Any:
    """Return what a chunk that was never written would hold: nothing that passes for data, where there is."""
    if dtype.kind == "f":
        return "NaN"
    return False if dtype.kind == "b" else int(np.iinfo(dtype).max)


def _is_public(name: str) -> bool:
    """Return whether other tools read an array."""
    return name in schema.PUBLIC
