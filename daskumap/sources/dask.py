"""dask arrays, whose blocks have to be computed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from daskumap.errors import DaskumapError, SourceError
from daskumap.sources import base
from daskumap.sources.base import Array, Source, check_array, is_numeric
from daskumap.sources.memory import as_numpy
from daskumap.sources.objects import comes_from, is_sparse
from daskumap.store.labels import InMemory

log = logging.getLogger(__name__)


class DaskSource(Source):
    """A dask array; each read computes the blocks that it touches, by dask's current scheduler.

    `blocks` computes each block once, and no more than 64 MB of them, or one row of blocks, are held. A graph
    that reduces over all rows, such as `X - X.mean(axis=0)`, is evaluated again for each batch: compute the
    reduction first.
    """

    in_place: ClassVar[bool] = False

    def __init__(self, array: Any) -> None:
        check_array(array, "The dask array")
        _refuse_kind(array)
        super().__init__(array, "the dask array", block_rows=int(max(array.chunks[0])))
        self._array = array

    def read_bytes(self, rows: int) -> int:
        """Return a bound of the rows and of the blocks they lie in; what the graph holds is not known.

        A block is counted twice, since the rows are put together from blocks of several columns.
        """
        columns, size = self.shape[1], self.dtype.itemsize
        spanned = min(self.shape[0], rows + 2 * self.block_rows)
        return rows * columns * 4 + 2 * spanned * columns * size

    def blocks(self) -> Iterator[Array]:
        """Return all rows as blocks that end where dask's do."""
        most = max(1, base.BLOCK_BYTES // (self.shape[1] * self.dtype.itemsize))
        for start, stop in _batches(np.cumsum(self._array.chunks[0]).tolist(), most):
            yield self._read(start, stop, self.dtype)

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        block = _compute(self._array, start, stop)
        if block.dtype == dtype and block.flags.carray:
            return block
        out = np.empty(block.shape, dtype)
        self._cast(block, out, start)
        return out


def is_dask(data: Any) -> bool:
    """Return whether it is one of dask's collections."""
    # By name, since importing dask takes longer than most runs on small data.
    return type(data).__module__.partition(".")[0] == "dask"


def open_dask(data: Any) -> DaskSource:
    """Return the source of a dask array, or of a frame whose columns are numbers.

    Chunks of unknown size are computed once, to learn their sizes. Sparse blocks become dense one at a time.
    """
    if comes_from(data, "dask", "DataFrame") and hasattr(data, "to_dask_array"):
        return _of_frame(data)
    if not type(data).__module__.startswith("dask.array"):
        raise SourceError(f"The input is a dask {type(data).__name__}; pass a dask array or DataFrame.")
    if any(size != size for sizes in data.chunks for size in sizes):
        log.info("The dask array has chunks of unknown size: they are computed once, to be counted.")
        data = _counted(data)
    if is_sparse(getattr(data, "_meta", None)):
        data = data.map_blocks(_dense, dtype=data.dtype, meta=np.empty((0, 0), data.dtype))
    return DaskSource(data)


def _of_frame(frame: Any) -> DaskSource:
    """Return the source of a frame, with its index as labels if that has a name."""
    wrong = [f"{name} ({kind})" for name, kind in frame.dtypes.items() if not is_numeric(kind)]
    if wrong:
        raise SourceError(
            f"The dask DataFrame has columns that are not numbers: {', '.join(wrong[:12])}. Choose the "
            "vectors: data[['a', 'b']]."
        )
    source = DaskSource(_counted(frame.to_dask_array()))
    if frame.index.name is not None:
        source.labels = {str(frame.index.name): InMemory(frame.index.compute().array)}
    return source


def _counted(array: Any) -> Any:
    """Return an array whose chunks have known sizes; the caller's stays as it is."""
    copy = type(array)(array.dask, array.name, array.chunks, meta=array._meta)
    try:
        return copy.compute_chunk_sizes()
    except (DaskumapError, OSError, MemoryError):
        raise
    except Exception as error:
        raise SourceError(
            f"The chunks of the dask array cannot be computed ({type(error).__name__}: {error}). Look at "
            "data.compute_chunk_sizes()."
        ) from error


def _dense(block: Any) -> Array:
    """Return a sparse block as an array."""
    dense = block.toarray() if hasattr(block, "toarray") else block.todense()
    return np.asarray(dense)


def _batches(ends: list[int], rows: int) -> Iterator[tuple[int, int]]:
    """Group consecutive blocks, given by their ends, into batches of at most `rows`, or of one block."""
    start = end = 0
    for stop in ends:
        if stop - start > rows and end > start:
            yield start, end
            start = end
        end = stop
    yield start, end


def _refuse_kind(array: Any) -> None:
    """Refuse blocks that are no plain arrays, before any is computed."""
    meta = getattr(array, "_meta", None)
    if isinstance(meta, np.ma.MaskedArray):
        raise SourceError(
            "The blocks of the dask array are masked, and rows must be complete. Pass "
            "dask.array.ma.filled(data, value)."
        )


def _compute(array: Any, start: int, stop: int) -> Array:
    try:
        block = array[start:stop].compute()
    except (DaskumapError, OSError, MemoryError):
        raise
    except Exception as error:  # of the caller's graph, or of blocks that do not fit together
        raise SourceError(
            f"Rows {start} to {stop} of the dask array cannot be computed ({type(error).__name__}: {error}). "
            f"Look at data[{start}:{stop}].compute()."
        ) from error
    block = as_numpy(block)
    if block.shape != (stop - start, array.shape[1]):
        raise SourceError(
            f"Rows {start} to {stop} of the dask array came out as {block.shape}, not as its chunks promise. "
            "Call compute_chunk_sizes() on it first."
        )
    if not is_numeric(block.dtype):
        raise SourceError(
            f"Rows {start} to {stop} of the dask array came out as {block.dtype}, not as {array.dtype}. "
            f"Pass data.astype('{array.dtype}')."
        )
    return block
