"""Arrays in memory: NumPy's, those that NumPy maps from a file, and what NumPy can convert."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.errors import SourceError
from daskumap.sources.base import Array, Source, check_array
from daskumap.sources.mapping import find_mapping
from daskumap.sources.objects import comes_from, is_sparse

# With which an object says what array it is; "typecode" is that of Python's own arrays.
PROTOCOLS = ("__array__", "__array_interface__", "__array_struct__", "typecode")
TORCH = ", such as data.detach().cpu().float().numpy()"


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
    if is_sparse(data):
        raise SourceError(
            f"The input is sparse ({kind}), and none of SciPy's. Pass it as a scipy.sparse.csr_array, or as "
            "a dense array."
        )
    if isinstance(data, np.ma.MaskedArray):
        raise SourceError("The input is a masked array, and rows must be complete. Pass data.filled(value).")
    if not _is_array_like(data):
        raise _no_numbers(data)
    try:
        array = np.asarray(data)
    except Exception as error:  # of any library: what it is, and not what it ran into, is the mistake
        raise SourceError(
            f"The {kind} is no two-dimensional array of numbers in memory ({error}). Pass a path, a Zarr, "
            f"NumPy or dask array{TORCH if comes_from(data, 'torch') else ''}."
        ) from error
    if array.dtype == object and hasattr(data, "columns"):
        raise SourceError(
            f"The {kind} holds columns that are not numbers, or missing values of their own. Pass "
            "data.select_dtypes('number').to_numpy(float, na_value=float('nan')) (pandas), or "
            "data.select(polars.selectors.numeric()).to_numpy() (Polars)."
        )
    if array.ndim == 0:
        raise _no_numbers(data)
    return array


def _is_array_like(data: Any) -> bool:
    """Return whether NumPy knows how to convert it at once; of other objects it would ask item by item."""
    if isinstance(data, list | tuple | memoryview | bytearray):
        return True
    return any(hasattr(type(data), name) for name in PROTOCOLS)


def _no_numbers(data: Any) -> SourceError:
    return SourceError(
        f"The input is a {type(data).__name__} and no two-dimensional array of numbers. Pass a path, a Zarr, "
        "NumPy or dask array."
    )
