"""The user's input, read-only: whole rows as float32, out of whatever Zarr array they lie in."""

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.buffer import cpu

from daskumap.errors import ParameterError, SourceError
from daskumap.store.ingest import REOPENABLE, check_array, find_array, node_spec, open_node

# One zarr call decodes at most this much, or one chunk where a chunk is larger. It bounds what zarr's
# concurrent decoding holds beside the output.
WINDOW_BYTES = 16 << 20
# What the C allocator keeps of freed chunks in the arenas of zarr's threads. Measured: up to 25 MB with the 6
# threads of two cores, 40 MB with 20 threads; twice that in a take, where large and small arrays alternate.
ALLOCATOR_BYTES = 40 << 20
FINGERPRINT_ROWS = 16
FINGERPRINT_BYTES = 256 << 20

Tile = tuple[slice, slice]


class Source:
    """A two-dimensional numeric array of which rows can be read, by any number of threads.

    Cheap to make and to pickle: what travels is `spec()`, and the array is opened again where it arrives.

    Attributes
    ----------
    shape, dtype
        As stored; `dtype` in native byte order.
    chunks
        Rows and columns of a shard, or of a chunk where there are no shards.
    inner_chunks
        Rows and columns of the smallest piece that can be decoded alone. Where it spans many rows, blocks
        should be multiples of it: nothing is cached between reads.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self._stored = isinstance(array, zarr.Array)
        self.shape: tuple[int, int] = (int(array.shape[0]), int(array.shape[1]))
        self.dtype: np.dtype[Any] = array.dtype.newbyteorder("=")
        self.inner_chunks, self.chunks = _chunking(array) if self._stored else (self.shape, self.shape)

    def __repr__(self) -> str:
        return f"<Source {self.name}: {self.shape[0]} x {self.shape[1]} {self.dtype}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return open_spec, (self.spec(),)

    @property
    def name(self) -> str:
        """Where the rows lie, for messages."""
        return str(self._array.store_path) if self._stored else f"the {type(self._array).__name__} in memory"

    def read(self, start: int, stop: int, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Return rows start to stop, C-contiguous.

        Parameters
        ----------
        start, stop
            0 <= start <= stop <= rows; nothing wraps and nothing is clipped.
        dtype
            float32: all types are cast, and what is too large becomes inf. uint8, for bit metrics: values
            that uint8 cannot hold are an error.

        Raises
        ------
        SourceError
            If a chunk is damaged or out of reach; it names the chunk and the rows.
        """
        if not 0 <= start <= stop <= self.shape[0]:
            raise ParameterError(
                f"Rows {start} to {stop} were asked for; {self.name} has {self.shape[0]} rows."
            )
        out = np.empty((stop - start, self.shape[1]), _output_type(dtype))
        for rows, columns in self._tiles(start, stop):
            self._read_tile((rows, columns), out[rows.start - start : rows.stop - start, columns])
        return out

    def take(self, rows: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Return scattered rows, in ascending order of `rows`; see `read` for types and errors.

        Rows are read as ranges of neighbouring chunks and gathered in NumPy: Zarr's own fancy indexing takes
        many times the memory on sharded arrays.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if wanted.ndim != 1 or (np.diff(wanted) < 0).any():
            raise ParameterError("take() needs a one-dimensional, ascending list of rows. Sort it first.")
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < self.shape[0]:
            raise ParameterError(
                f"Rows {wanted[0]} to {wanted[-1]} were asked for; {self.name} has {self.shape[0]} rows."
            )
        out = np.empty((len(wanted), self.shape[1]), _output_type(dtype))
        for first, last in self._runs(wanted):
            self._gather(wanted[first:last], out[first:last])
        return out

    def spec(self) -> dict[str, Any]:
        """Return what `open_spec` needs to open the same array in another process, as JSON types."""
        return node_spec(self._array)

    def identity(self) -> dict[str, Any]:
        """Return a cheap fingerprint, as JSON types, that tells whether a resumed run has the same input.

        `rows` depends on the values and the type only: data in memory has the same one after its ingestion.
        """
        return {
            "shape": list(self.shape),
            "dtype": self.dtype.str,
            "chunks": list(self.chunks),
            "path": self.spec()["path"] if not needs_ingest(self._array) else None,
            "metadata": _metadata_digest(self._array) if self._stored else None,
            "rows": self._row_digest(),
        }

    def projected_read_bytes(self, rows: int) -> int:
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
        out = rows * self.shape[1] * 4
        if not self._stored:
            return out
        window, in_flight = self._window_bytes(rows)
        # Thrice, since the place of a freed window cannot always serve for the next one (measured).
        return out + in_flight + (0 if self._array.dtype == np.float32 else 3 * window)

    def projected_take_bytes(self, rows: int) -> int:
        """Return an upper bound, in bytes, of what `take` of that many rows holds at its peak.

        Wherever they lie: the output, one window of rows as stored, the rows gathered from it, and what zarr
        has in flight.
        """
        window, in_flight = self._window_bytes(self.shape[0])
        gathered = min(window, rows * self.shape[1] * self.dtype.itemsize)
        reading = in_flight + ALLOCATOR_BYTES if self._stored else 0
        return rows * self.shape[1] * 4 + window + gathered + reading

    def _window_bytes(self, rows: int) -> tuple[int, int]:
        """Bound one window of at most `rows` rows as stored, and what zarr holds while it reads it."""
        height, width = self._tile_shape()
        size, step = self.dtype.itemsize, self.inner_chunks[0]
        window = min(rows, height) * width * size
        # Windows end at chunk borders, so only a read of few rows decodes chunks of which it needs a part.
        pieces = min(height // step or 1, rows // step + 2) * -(-width // self.inner_chunks[1])
        concurrency = int(zarr.config.get("async.concurrency"))
        copies = 2 + bool(self._array.filters) + (self._array.order == "F") if self._stored else 0
        in_flight = copies * _bytes(self.inner_chunks, self.dtype) * min(pieces, concurrency)
        if self.chunks != self.inner_chunks:
            # A shard arrives encoded, and is put together in an array of its own; measured: three windows.
            in_flight += 3 * window
        return window, in_flight + ALLOCATOR_BYTES

    def _tile_shape(self) -> tuple[int, int]:
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

    def _runs(self, wanted: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
        """Cut ascending rows into runs that lie in one window and in neighbouring chunks."""
        if len(wanted) == 0:
            return
        apart = np.diff(wanted // self.inner_chunks[0]) > 1
        apart |= np.diff(wanted // self._tile_shape()[0]) > 0
        cuts = [0, *(np.flatnonzero(apart) + 1).tolist(), len(wanted)]
        yield from pairwise(cuts)

    def _gather(self, wanted: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
        """Read the range that one run of rows spans, and keep the rows."""
        low, high = int(wanted[0]), int(wanted[-1]) + 1
        for _, columns in self._tiles(low, high):
            # No name holds the range, so that it is gone before the next one is read.
            self._cast(self._load((slice(low, high), columns))[wanted - low], out[:, columns], low, high)

    def _read_tile(self, tile: Tile, out: npt.NDArray[Any]) -> None:
        """Read one window into its place in the output, directly where the types agree."""
        if self._stored and self._array.dtype == out.dtype:
            self._load(tile, cpu.NDBuffer.from_numpy_array(out))
        else:
            self._cast(self._load(tile), out, tile[0].start, tile[0].stop)

    def _load(self, tile: Tile, out: Any = None) -> npt.NDArray[Any]:
        """Return one window as stored."""
        if not self._stored:
            return np.asarray(self._array[tile])
        try:
            return np.asarray(self._array.get_basic_selection(tile, out=out, prototype=cpu.buffer_prototype))
        except MemoryError:
            raise
        except Exception as error:
            raise self._damage(tile, error) from error

    def _cast(self, block: npt.NDArray[Any], out: npt.NDArray[Any], start: int, stop: int) -> None:
        # Casts run here, in the caller's thread: zarr copies in its one event-loop thread.
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(out, block, casting="unsafe")
        if out.dtype == np.uint8 and block.dtype not in (np.bool_, np.uint8) and (out != block).any():
            raise SourceError(
                f"Rows {start} to {stop} of {self.name} hold {self.dtype} values other than integers in 0 to "
                "255. A metric on bits needs 0 and 1: threshold the data first, or choose another metric."
            )

    def _damage(self, tile: Tile, error: Exception) -> SourceError:
        """Find the first chunk of a window that cannot be read, and say so."""
        rows, columns = tile
        step, across = self.inner_chunks
        for top in range(rows.start - rows.start % step, rows.stop, step):
            for left in range(columns.start - columns.start % across, columns.stop, across):
                end = min(top + step, self.shape[0])
                try:
                    self._array.get_basic_selection((slice(top, end), slice(left, left + 1)))
                except Exception as cause:
                    at = (top // self.chunks[0], left // self.chunks[1])
                    return SourceError(
                        f"Rows {top} to {end} of {self.name} cannot be read: chunk "
                        f"'{self._array.metadata.encode_chunk_key(at)}' fails with {_reason(cause)}"
                    )
        return SourceError(
            f"Rows {rows.start} to {rows.stop} of {self.name} could not be read, but a second attempt "
            f"succeeded: the store is unreliable. The first one failed with {_reason(error)}"
        )

    def _row_digest(self) -> str:
        """Hash rows spread evenly over the array; fewer where chunks are so large that each costs much."""
        affordable = FINGERPRINT_BYTES // _bytes((self.inner_chunks[0], self.shape[1]), self.dtype)
        count = min(self.shape[0], FINGERPRINT_ROWS, max(2, affordable) if self._stored else FINGERPRINT_ROWS)
        digest = hashlib.sha256(f"{self.shape} {self.dtype.str}".encode())
        for row in np.linspace(0, self.shape[0] - 1, count).astype(np.int64).tolist():
            for tile in self._tiles(row, row + 1):
                digest.update(np.ascontiguousarray(self._load(tile), dtype=self.dtype).tobytes())
        return digest.hexdigest()


def open_source(data: Any) -> Source:
    """Return the source that a path, a URL, a Zarr array or group, or an array in memory stands for.

    Data in memory is read where it is; `needs_ingest` tells that workers cannot reach it.

    Raises
    ------
    SourceNotFoundError
        If there is nothing at the path.
    SourceError
        If it is no two-dimensional numeric array, or several are possible.
    DependencyError
        If a URL needs a package that is missing.
    """
    array = find_array(data)
    check_array(array)
    return Source(array)


def open_spec(spec: dict[str, Any]) -> Source:
    """Open what `Source.spec` describes."""
    return open_source(open_node(spec["path"], spec.get("storage_options")))


def needs_ingest(data: Any) -> bool:
    """Tell whether the data has to be written into the run store, since no other process can open it.

    So it is with arrays in memory, dask arrays, and Zarr stores that are neither a folder nor an fsspec URL.
    """
    if isinstance(data, zarr.Array | zarr.Group):
        return not isinstance(data.store, REOPENABLE)
    return not isinstance(data, (str, os.PathLike, *REOPENABLE))


def _chunking(array: zarr.Array[Any]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the shapes of what decodes alone, and of what is stored as one object."""
    shards = array.shards
    inner, outer = array.chunks, shards or array.chunks
    if (
        shards and len(getattr(array.metadata, "codecs", ())) > 1
    ):  # a codec around the shards: they decode as a whole
        inner = outer
    return (int(inner[0]), int(inner[1])), (int(outer[0]), int(outer[1]))


def _reason(error: Exception) -> str:
    """Name an error and what to do: a store out of reach is not a damaged one."""
    if isinstance(error, OSError):
        return f"{type(error).__name__}: {error}. Check the path, the permissions and the network."
    return f"{type(error).__name__}: {error}. Restore it from a copy, or write these rows again."


def _output_type(dtype: npt.DTypeLike) -> np.dtype[Any]:
    wanted = np.dtype(dtype)
    if wanted not in (np.float32, np.uint8):
        raise ParameterError(f"Rows are read as float32 or uint8, not as {wanted}.")
    return wanted


def _bytes(shape: tuple[int, int], dtype: np.dtype[Any]) -> int:
    return shape[0] * shape[1] * dtype.itemsize


def _metadata_digest(array: zarr.Array[Any]) -> str:
    """Hash the metadata without the user's attributes: those may change between a run and its resumption."""
    documents = array.metadata.to_buffer_dict(cpu.buffer_prototype)
    document = json.loads(documents["zarr.json" if array.metadata.zarr_format == 3 else ".zarray"].to_bytes())
    document.pop("attributes", None)
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
