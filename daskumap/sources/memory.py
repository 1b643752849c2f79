"""Arrays in memory: NumPy's, those that NumPy maps from a file, and what NumPy can convert."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.errors import SourceError
from daskumap.sources.base import Array, Source, check_array
from daskumap.sources.mapping import find_mapping


class MemorySource(Source):
    """A NumPy array, which this process alone can read.

    Blocks of the wanted type are views, so that a fit copies no input. Blocks are copied where the array is
    read-only, since numba compiles each kernel anew for arrays that it may not write; and where it is mapped
    from a file, since pages that were read would stay with the process.
    """

    def __init__(self, array: Array) -> None:
        check_array(array, "The ndarray")
        super().__init__(array, "the ndarray in memory", block_rows=1)
        self._array = array
        self._mapping = find_mapping(array)

    def read_bytes(self, rows: int) -> int:
        """Return the bytes of the rows as float32, and of what is mapped of the file meanwhile."""
        mapped = self._mapping.touched_bytes(self._array, rows) if self._mapping else 0
        return rows * self.shape[1] * 4 + mapped

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        block = self._array[start:stop]
        if self._mapping is None and block.dtype == dtype and block.flags.carray:
            return block
        out = np.empty(block.shape, dtype)
        self._cast(block, out, start)
        if self._mapping is not None:
            self._mapping.give_back(block)
        return out


def is_object(data: Any) -> bool:
    """Return True: what no other opener takes may be something that NumPy can convert."""
    return True


def open_object(data: Any) -> MemorySource:
    """Return the source of an array, or of what NumPy can convert to one."""
    return MemorySource(as_numpy(data))


def as_numpy(data: Any) -> Array:
    """Return an array in memory; refuse what NumPy would take apart or change in silence."""
    kind = type(data).__name__
    if hasattr(data, "tocsr") or hasattr(data, "todense"):
        raise SourceError(f"The input is sparse ({kind}); dense is needed for now. Pass data.toarray().")
    if isinstance(data, np.ma.MaskedArray):
        raise SourceError("The input is a masked array, and rows must be complete. Pass data.filled(value).")
    try:
        return np.asarray(data)
    except (ValueError, TypeError) as error:
        raise SourceError(
            f"The {kind} is no two-dimensional array ({error}). Pass a path, a Zarr, NumPy or dask array."
        ) from error
