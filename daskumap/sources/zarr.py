"""Zarr arrays, of whatever chunks: whole rows out of windows that zarr decodes one at a time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import zarr
from zarr.buffer import cpu
from zarr.storage import LocalStore

from daskumap.errors import SourceError
from daskumap.secrets import printable
from daskumap.sources.base import Array, Source, check_array
from daskumap.sources.codecs import refuse_codecs
from daskumap.sources.missing import count_missing
from daskumap.sources.nodes import node_spec
from daskumap.sources.packing import NAMES, find_packing
from daskumap.store.trouble import is_refusal, is_unreachable

# One zarr call decodes at most this much, or one chunk where a chunk is larger. It bounds what zarr's
# concurrent decoding holds beside the output.
WINDOW_BYTES = 16 << 20
# What the C allocator keeps of freed chunks in the arenas of zarr's threads. Measured: up to 25 MB with the 6
# threads of two cores, 40 MB with 20 threads.
ALLOCATOR_BYTES = 40 << 20
# A fingerprint decodes at most this much: fewer rows where chunks are so large that each costs much.
FINGERPRINT_BYTES = 256 << 20

# A network is asked again after these: web servers refuse at times, and fsspec asks them once.
PAUSES = (0.1, 0.5, 2.0)

Tile = tuple[slice, slice]
Shape = tuple[int, int]


class ZarrSource(Source):
    """A Zarr array; packed values are unpacked, and `dtype` is that of the numbers then.

    Attributes
    ----------
    chunks
        Rows and columns of a shard, or of a chunk where there are no shards.
    inner_chunks
        Rows and columns of the smallest piece that can be decoded alone.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        check_array(array, str(array.store_path))
        _check_stored(array)
        self.inner_chunks, self.chunks = _chunking(array)
        super().__init__(array, str(array.store_path), block_rows=self.inner_chunks[0])
        self._array, self._packing = array, find_packing(array)
        if self._packing is not None:
            self.dtype = self._packing.dtype

    def _spec(self) -> dict[str, Any] | None:
        """Return path or URL, and options; None for other stores than folders and fsspec's."""
        return node_spec(self._array)

    def identity(self) -> dict[str, Any]:
        """Return the fingerprint of the rows, and that of the layout."""
        layout = {"chunks": list(self.chunks), "metadata": _metadata_digest(self._array)}
        return super().identity() | layout

    def count_missing(self) -> int | None:
        """Return how many chunks, or shards, are not stored and read as the fill value; None if unknown."""
        return count_missing(self._array)

    def read_bytes(self, rows: int) -> int:
        """Return an upper bound, in bytes, of what `read` of that many rows holds at its peak.

        The output; windows as stored, if they have to be cast; and what zarr has in flight: the encoded and
        the decoded chunks that it works on at a time (`async.concurrency`, 10), within one window unless a
        chunk is larger. Each thread that reads at the same time needs as much.

        Notes
        -----
        Growth of VmHWM in a fresh process on two cores (zarr 3.1.6, zstd), in MB, for two sizes of zarr's
        thread pool; 6 is its default there:

        ================================== ====== ========== =========== =========
        array, rows a chunk (a shard)      output measured,  20 threads  projected
                                                  6 threads
        ================================== ====== ========== =========== =========
        70,000 x 784 uint8, 1,000          220    256        268         326
        70,000 x 784 float32, 1,000        220    243        243         293
        70,000 x 784 float64, 1,000        220    268        256         324
        110,000 x 128 float32, 1,000       56     66         69          108
        the same, 1,000 (20,000)           56     108        112         139
        the same, 20,000, of 16 columns    56     63         69          119
        the same, float64, 500 (8,000)     56     138        163         206
        60,000 x 256 float64, 500          61     115 to 137 129 to 155  173
        ================================== ====== ========== =========== =========

        For blocks above 50 MB the bound was 1.0 to 2.0 times what was measured; once 2.3 times, for 61 MB of
        float64 on a machine under load.
        """
        height, width = self._tile_shape()
        window = min(rows, height) * width * self.dtype.itemsize
        # Thrice, since the place of a freed window cannot always serve for the next one (measured).
        casting = 0 if self._is_plain(np.float32) else 3 * window
        return rows * self.shape[1] * 4 + self._in_flight_bytes(rows, window) + casting

    def _in_flight_bytes(self, rows: int, window: int) -> int:
        """Bound what zarr holds while it reads a window of that many bytes."""
        height, width = self._tile_shape()
        step, across = self.inner_chunks
        # Windows end at chunk borders, so only a read of few rows decodes chunks of which it needs a part.
        pieces = min(height // step or 1, rows // step + 2) * -(-width // across)
        concurrency = int(zarr.config.get("async.concurrency"))
        copies = 2 + bool(self._array.filters) + (self._array.order == "F")
        in_flight = copies * _bytes(self.inner_chunks, self.dtype) * min(pieces, concurrency)
        if self.chunks != self.inner_chunks:
            # A shard arrives encoded, and is put together in an array of its own; measured: three windows.
            in_flight += 3 * window
        return in_flight + ALLOCATOR_BYTES

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        out = np.empty((stop - start, self.shape[1]), dtype)
        for rows, columns in self._tiles(start, stop):
            self._read_tile((rows, columns), out[rows.start - start : rows.stop - start, columns])
        return out

    def fingerprint_rows(self) -> int:
        """Return how many scattered rows can be read at little cost: fewer where chunks are large."""
        affordable = FINGERPRINT_BYTES // _bytes((self.block_rows, self.shape[1]), self.dtype)
        return min(super().fingerprint_rows(), max(2, affordable))

    def _tile_shape(self) -> Shape:
        """Return rows and columns of the largest window that one zarr call reads."""
        unit = self.chunks if _bytes(self.chunks, self.dtype) <= WINDOW_BYTES else self.inner_chunks
        units = max(1, WINDOW_BYTES // _bytes(unit, self.dtype))
        across = -(-self.shape[1] // unit[1])
        width = min(self.shape[1], min(units, across) * unit[1])
        return min(self.shape[0], max(1, units // across) * unit[0]), width

    def _tiles(self, start: int, stop: int) -> Iterator[Tile]:
        """Cut rows start to stop into windows that begin and end at chunk borders where they can."""
        height, width = self._tile_shape()
        while start < stop:
            end = min(stop, (start // height + 1) * height)
            for column in range(0, self.shape[1], width):
                yield slice(start, end), slice(column, min(column + width, self.shape[1]))
            start = end

    def _read_tile(self, tile: Tile, out: Array) -> None:
        """Read one window into its place in the output, directly where the types agree."""
        if self._is_plain(out.dtype):
            self._load(tile, cpu.NDBuffer.from_numpy_array(out))
        else:
            # The cast runs here, in the caller's thread: zarr copies in its one event-loop thread.
            block = self._load(tile)
            block = block if self._packing is None else self._packing.decode(block)
            self._cast(block, out, tile[0].start)

    def _is_plain(self, dtype: Any) -> bool:
        """Tell whether stored values are numbers of that type as they stand."""
        return self._packing is None and self._array.dtype == dtype

    def _load(self, tile: Tile, out: Any = None) -> Array:
        """Return one window as stored."""
        for pause in (*PAUSES, None):
            try:
                return np.asarray(
                    self._array.get_basic_selection(tile, out=out, prototype=cpu.buffer_prototype)
                )
            except MemoryError:
                raise
            except Exception as error:
                if pause is None or not self._may_pass(error):
                    raise self._damage(tile, error) from printable(error)
                time.sleep(pause)
        raise AssertionError("The last attempt returns or raises.")

    def _may_pass(self, error: Exception) -> bool:
        """Return whether an error may be one of the moment: of a network, and no refusal."""
        near = isinstance(self._array.store, LocalStore)
        return not near and is_unreachable(error) and not is_refusal(error)

    def _damage(self, tile: Tile, error: Exception) -> SourceError:
        """Find the first chunk of a window that cannot be read, and say so."""
        for top, left in self._pieces(tile):
            end = min(top + self.inner_chunks[0], self.shape[0])
            try:
                self._array.get_basic_selection((slice(top, end), slice(left, left + 1)))
            except Exception as cause:
                at = (top // self.chunks[0], left // self.chunks[1])
                return SourceError(
                    f"Rows {top} to {end} of {self.name} cannot be read: chunk "
                    f"'{self._array.metadata.encode_chunk_key(at)}' fails with {_reason(cause)}"
                )
        return SourceError(
            f"Rows {tile[0].start} to {tile[0].stop} of {self.name} could not be read, but a second attempt "
            f"succeeded: the store is unreliable. The first one failed with {_reason(error)}"
        )

    def _pieces(self, tile: Tile) -> Iterator[tuple[int, int]]:
        """Yield the corners of all pieces in a window that are decoded alone."""
        rows, columns = tile
        step, across = self.inner_chunks
        for top in range(rows.start - rows.start % step, rows.stop, step):
            for left in range(columns.start - columns.start % across, columns.stop, across):
                yield top, left


def is_array(data: Any) -> bool:
    """Return whether it is a Zarr array."""
    return isinstance(data, zarr.Array)


def _check_stored(array: zarr.Array[Any]) -> None:
    """Refuse chunks of varying size, and codecs that may do more than make numbers."""
    name = str(array.store_path)
    try:
        _ = array.chunks
    except NotImplementedError as error:
        raise SourceError(f"{name} has chunks of varying size. Rewrite it with one chunk shape.") from error
    if min(*array.chunks, *(array.shards or array.chunks)) < 1:
        raise SourceError(f"{name} has chunks of {array.chunks}. Rewrite it with chunks of at least (1, 1).")
    refuse_codecs(array)


def _chunking(array: zarr.Array[Any]) -> tuple[Shape, Shape]:
    """Return the shapes of what decodes alone, and of what is stored as one object."""
    inner, outer = array.chunks, array.shards or array.chunks
    # With a codec around them, shards decode as a whole.
    if array.shards and len(getattr(array.metadata, "codecs", ())) > 1:
        inner = outer
    return (int(inner[0]), int(inner[1])), (int(outer[0]), int(outer[1]))


def _reason(error: Exception) -> str:
    """Name an error and what to do: a store out of reach is not a damaged one."""
    if isinstance(error, OSError):
        return f"{type(error).__name__}: {error}. Check the path, the permissions and the network."
    return f"{type(error).__name__}: {error}. Restore it from a copy, or write these rows again."


def _bytes(shape: Shape, dtype: np.dtype[Any]) -> int:
    return shape[0] * shape[1] * dtype.itemsize


def _metadata_digest(array: zarr.Array[Any]) -> str:
    """Hash the metadata and how values are packed; other attributes may change before a resumption."""
    documents = array.metadata.to_buffer_dict(cpu.buffer_prototype)
    document = json.loads(documents["zarr.json" if array.metadata.zarr_format == 3 else ".zarray"].to_bytes())
    document["attributes"] = {name: value for name, value in array.attrs.items() if name in NAMES}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
