"""One chunk at a time, without the event loop of zarr.

zarr takes more than a millisecond for what takes a tenth of that, and a small fit does it a hundred times.
What is not one whole, sound chunk is left to zarr, which knows what to say of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype

from daskumap.store.calls import call

try:
    from google_crc32c import value as crc32c  # what zarr's own codec takes
except ImportError:
    crc32c = None

Array = np.ndarray[Any, Any]
CHECKSUM = 4


def read_rows(array: zarr.Array[Any], start: int, stop: int | None) -> Array:
    """Return the places start to stop along the first dimension of an array of a run store."""
    found = _read_chunk(array, start, array.shape[0] if stop is None else stop) if crc32c else None
    return np.asarray(array[start:stop]) if found is None else found


def write_rows(array: zarr.Array[Any], start: tuple[int, ...], values: Array) -> None:
    """Write values from places along the first dimensions of an array of a run store on."""
    if crc32c and not any(start[1:]) and _is_chunk(array, start[0], values):
        _write_chunk(array, start[0] // array.chunks[0], values)
    else:
        places = zip(start, values.shape, strict=False)
        array[tuple(slice(at, at + size) for at, size in places)] = values


def _read_chunk(array: zarr.Array[Any], start: int, stop: int) -> Array | None:
    """Return rows of one sound chunk, or None."""
    rows, kind = array.chunks[0], array.dtype.newbyteorder("<")
    if array.chunks[1:] != array.shape[1:] or not 0 <= start < stop <= array.shape[0]:
        return None
    number = start // rows
    if stop > (number + 1) * rows:
        return None
    store = array.store_path.store
    content = call(store, store.get(_key(array, number), default_buffer_prototype()))
    if content is None:
        return None
    data = content.as_numpy_array()
    size = int(np.prod(array.chunks)) * kind.itemsize
    if data.size != size + CHECKSUM or crc32c(data[:-CHECKSUM]) != int.from_bytes(data[-CHECKSUM:], "little"):
        return None
    found = data[:size].view(kind).reshape(array.chunks)[start - number * rows : stop - number * rows]
    # The caller's own, and no more of it than was asked for.
    whole = found.size * kind.itemsize == size and data.flags.writeable
    return np.asarray(found if whole else found.copy(), array.dtype)


def _is_chunk(array: zarr.Array[Any], start: int, values: Array) -> bool:
    """Return whether values that begin at a row are one chunk, of the array's type."""
    whole = values.shape == array.chunks and array.chunks[1:] == array.shape[1:]
    return bool(whole and values.size and start % array.chunks[0] == 0 and values.dtype == array.dtype)


def _write_chunk(array: zarr.Array[Any], number: int, values: Array) -> None:
    body = np.ascontiguousarray(values, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
    data = np.empty(body.size + CHECKSUM, np.uint8)
    data[:-CHECKSUM] = body
    data[-CHECKSUM:] = np.frombuffer(crc32c(body).to_bytes(CHECKSUM, "little"), np.uint8)
    store, buffer = array.store_path.store, default_buffer_prototype().buffer
    call(store, store.set(_key(array, number), buffer.from_array_like(data)))


def _key(array: zarr.Array[Any], number: int) -> str:
    return "/".join([array.path, "c", str(number), *"0" * (array.ndim - 1)])
