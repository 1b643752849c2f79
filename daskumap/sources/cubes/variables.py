"""The arrays of a cube, each with the names of its dimensions: Zarr's, and those of xarray's objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import zarr
from zarr.buffer import cpu

from daskumap.errors import DaskumapError, SourceError
from daskumap.secrets import hide_secrets, printable
from daskumap.sources.base import FLOATS_AND_MORE, Array, is_numeric
from daskumap.sources.codecs import refuse_codecs
from daskumap.sources.cubes.grid import Box
from daskumap.sources.objects import PACKED
from daskumap.sources.packing import find_packing


class Variable(ABC):
    """An array with named dimensions, of which windows can be read by any number of threads.

    Attributes
    ----------
    name
        What it is called in its cube.
    dims, shape, chunks
        By dimension: names, sizes, and what reads well together.
    dtype
        Of the numbers that reads return; packed values are unpacked, missing ones NaN.
    window_bytes
        One read is to return at most this much, or one chunk where a chunk is larger.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    window_bytes = 16 << 20

    def read(self, window: Box) -> Array:
        """Return the numbers in a window.

        Raises
        ------
        SourceError
            Naming the variable and the window, if they cannot be read.
        """
        try:
            return self._read(window)
        except (DaskumapError, MemoryError):
            raise
        except Exception as error:
            where = ", ".join(
                f"{dim} {part.start} to {part.stop}" for dim, part in zip(self.dims, window, strict=True)
            )
            raise SourceError(
                f"Variable {self.name!r} cannot be read at {where} ({type(error).__name__}: "
                f"{hide_secrets(str(error))}). Check the path, the permissions and the network; restore what "
                "is damaged from a copy."
            ) from printable(error)

    @abstractmethod
    def _read(self, window: Box) -> Array:
        """Return the numbers in a window, in `dtype`."""

    def check(self) -> None:
        """Refuse values that are no numbers, and a variable without values."""
        if not is_numeric(self.dtype):
            raise SourceError(
                f"Variable {self.name!r} holds {self.dtype}; allowed are {FLOATS_AND_MORE}. Leave it out "
                "with the option variables, or convert it with astype first."
            )
        if 0 in self.shape:
            sizes = dict(zip(self.dims, self.shape, strict=True))
            raise SourceError(f"Variable {self.name!r} is empty: its dimensions are {sizes}.")


class ZarrVariable(Variable):
    """A Zarr array with dimension names."""

    def __init__(self, array: zarr.Array[Any], name: str) -> None:
        dims = dimension_names(array)
        if dims is None:
            raise SourceError(
                f"{array.store_path} does not name its dimensions. xarray writes their names; write them as "
                "dimension_names, or in the format 2 as the attribute _ARRAY_DIMENSIONS."
            )
        self.name, self.dims, self.shape = name, dims, array.shape
        self.array = array
        self.dtype = array.dtype.newbyteorder("=")
        self.chunks = _chunks(array)
        self.check()
        refuse_codecs(array)
        self._packing = find_packing(array)
        if self._packing is not None:
            self.dtype = self._packing.dtype.newbyteorder("=")

    def _read(self, window: Box) -> Array:
        block = np.asarray(self.array.get_basic_selection(window, prototype=cpu.buffer_prototype))
        return block if self._packing is None else self._packing.decode(block)

    def fills_missing(self) -> bool:
        """Return whether a chunk that is not there is one whose values are all missing, as xarray has it."""
        value = np.full((1,), self.array.metadata.fill_value, self.array.dtype)
        seen = value if self._packing is None else self._packing.decode(value)
        return bool(np.isnan(seen.astype(np.float64)).all())


class XarrayVariable(Variable):
    """A DataArray: in memory, of dask, or lazily opened. No more of it is loaded than a window."""

    window_bytes = 64 << 20  # Several blocks of dask, so that all threads have some.

    def __init__(self, data: Any, name: str) -> None:
        self.name, self.dims = name, tuple(map(str, data.dims))
        self.shape, self.dtype = tuple(map(int, data.shape)), np.dtype(data.dtype).newbyteorder("=")
        if packed := [key for key in PACKED if key in data.attrs]:
            raise SourceError(
                f"Variable {name!r} is packed: it has the attribute {packed[0]}. Unpack it with "
                "xarray.decode_cf(dataset), or open it without mask_and_scale=False."
            )
        self.data = data
        self.chunks = _chunks_of_xarray(data)
        # Its values are NumPy's already; what is lazy would be decoded anew by each read.
        self.in_memory = bool(getattr(data.variable, "_in_memory", False))
        self.check()

    def _read(self, window: Box) -> Array:
        return np.asarray(self.data.variable[window].values)


def dimension_names(array: zarr.Array[Any]) -> tuple[str, ...] | None:
    """Return the names of an array's dimensions, as the format 3 or xarray writes them; None without."""
    names: Any = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    whole = isinstance(names, list | tuple) and len(names) == array.ndim and all(names)
    return tuple(map(str, names)) if whole else None


def _chunks(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return the shape of what decodes alone; a shard with a codec around it decodes as a whole."""
    try:
        inner, outer = array.chunks, array.shards or array.chunks
    except NotImplementedError as error:
        raise SourceError(
            f"{array.store_path} has chunks of varying size. Rewrite it with one chunk shape."
        ) from error
    whole = array.shards and len(getattr(array.metadata, "codecs", ())) > 1
    return tuple(max(1, int(size)) for size in (outer if whole else inner))


def _chunks_of_xarray(data: Any) -> tuple[int, ...]:
    """Return what reads well together: blocks of dask, or chunks as stored; 1 where nothing is known."""
    if data.chunks is not None:
        return tuple(max(1, *sizes) for sizes in data.chunks)
    known = data.encoding.get("preferred_chunks") or {}
    return tuple(int(known.get(dim) or 1) for dim in data.dims)
