"""Chunks of a Zarr array that are not there, and that a read makes up from the fill value."""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import RangeByteRequest, Store, SuffixByteRequest
from zarr.buffer import cpu
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.sync import sync
from zarr.storage import LocalStore

from daskumap.store.trouble import is_unreachable

Array = np.ndarray[Any, Any]
Place = tuple[int, ...]

# The key of a chunk below its array, in any format and with any separator.
KEY = re.compile(r"(?:c[./])?(\d+(?:[./]\d+)*)")
# What the index of a shard holds in place of a chunk that is not there.
ABSENT = np.uint64(2**64 - 1)
# Indexes of shards that are asked for at a time.
AT_ONCE = 64


def count_missing(array: zarr.Array[Any]) -> int | None:
    """Return how many chunks are not there; None where the store cannot list them.

    Chunks in shards count one by one where the index of a shard is stored as is usual, else shards count.
    Listing took 25 us a chunk on a busy local disk, each in a folder of its own (measured), and a request
    for each 1,000 in a bucket; the index of a shard took 120 us, and is a request.
    """
    store: Store = array.store
    if not store.supports_listing:
        return None
    try:
        return sync(_count(array))
    except Exception as error:  # of listing: a read that fails is told by the read
        if isinstance(error, NotImplementedError) or is_unreachable(error):
            return None
        raise


async def _count(array: zarr.Array[Any]) -> int:
    grid = _blocks(array.shape, array.shards or array.chunks)
    shards = _index_of(array)
    if shards is None:
        found = 0
        async for _ in _stored(array, grid):
            found += 1
        return math.prod(grid) - found
    missing, asked = math.prod(_blocks(array.shape, array.chunks)), []
    async for place, key in _stored(array, grid):
        asked.append(_chunks_in(array, place, key, shards))
        if len(asked) == AT_ONCE:
            missing -= sum(await asyncio.gather(*asked))
            asked = []
    return missing - sum(await asyncio.gather(*asked))


def _blocks(shape: tuple[int, ...], chunk: tuple[int, ...]) -> Place:
    """Return how many chunks there are along each dimension."""
    return tuple(-(-size // piece) for size, piece in zip(shape, chunk, strict=True))


async def _stored(array: zarr.Array[Any], grid: Place) -> AsyncIterator[tuple[Place, str]]:
    """Yield the place and the key of each chunk, or shard, that is stored."""
    prefix = f"{array.path}/" if array.path else ""
    async for key in _keys(array.store, prefix):
        match = KEY.fullmatch(key[len(prefix) :])
        if match is None:
            continue
        place = tuple(map(int, re.split("[./]", match[1])))
        if len(place) == len(grid) and all(at < end for at, end in zip(place, grid, strict=True)):
            yield place, key


async def _keys(store: Store, prefix: str) -> AsyncIterator[str]:
    """Yield all keys below a prefix; in a folder in a third of the time that zarr's own listing takes."""
    if not isinstance(store, LocalStore):
        async for key in store.list_prefix(prefix):
            yield key
        return
    root = str(store.root)
    for folder, _, names in os.walk(os.path.join(root, prefix)):
        above = os.path.relpath(folder, root).replace(os.sep, "/")
        for name in names:
            yield name if above == "." else f"{above}/{name}"


def _index_of(array: zarr.Array[Any]) -> ShardingCodec | None:
    """Return the codec of shards whose index can be read as it lies: the usual one."""
    codecs: Any = getattr(array.metadata, "codecs", ())
    if len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec):
        return None
    kinds = [type(codec) for codec in codecs[0].index_codecs]
    return codecs[0] if kinds == [BytesCodec, Crc32cCodec] else None


async def _chunks_in(array: zarr.Array[Any], place: Place, key: str, codec: ShardingCodec) -> int:
    """Return how many chunks of the array a shard holds."""
    assert array.shards is not None
    inside = _blocks(array.shards, array.chunks)
    length = 16 * math.prod(inside)
    location = codec.index_location  # a text since zarr 3.4
    at_end = getattr(location, "value", location) == "end"
    where = SuffixByteRequest(length + 4) if at_end else RangeByteRequest(0, length)
    found = await array.store.get(key, cpu.buffer_prototype, where)
    if found is None or len(found) < length:
        return 0
    index = np.frombuffer(found.to_bytes()[:length], "<u8").reshape(*inside, 2)
    total = _blocks(array.shape, array.chunks)
    there: Any = tuple(slice(min(n, most - at * n)) for n, most, at in zip(inside, total, place, strict=True))
    return int((index[(*there, 0)] != ABSENT).sum())
