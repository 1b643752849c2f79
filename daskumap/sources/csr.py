"""Sparse matrices by rows as AnnData writes them, in Zarr or HDF5: rows become dense as they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr

from daskumap.errors import SourceError
from daskumap.secrets import printable
from daskumap.sources.base import Array, Source, check_array
from daskumap.sources.codecs import refuse_codecs
from daskumap.sources.nodes import node_spec

PARTS = ("data", "indices", "indptr")
# What the store's library holds beside the entries that it returns: chunks on their way, and its threads'.
STORED_BYTES = 80 << 20


class _Shape:
    """What `Source` asks of an array."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype


class CsrSource(Source):
    """Compressed sparse rows in three arrays of one dimension, of Zarr or HDF5.

    Where each row starts is kept in memory: 8 bytes a row.

    Parameters
    ----------
    group
        A group with the arrays data, indices and indptr, and the attribute shape.
    name
        What messages call it.
    spec
        What opens the same in another process; None for what Zarr alone finds again.
    """

    def __init__(self, group: Mapping[str, Any], name: str, spec: dict[str, Any] | None = None) -> None:
        missing = [part for part in PARTS if part not in group]
        if missing:
            raise SourceError(f"{name} is a sparse matrix without its array {missing[0]}. Write it again.")
        self._parts = {part: group[part] for part in PARTS}
        for part in self._parts.values():
            if isinstance(part, zarr.Array):
                refuse_codecs(part)
        shape = tuple(int(size) for size in group.attrs["shape"])  # type: ignore[attr-defined]
        what = _Shape(shape, self._parts["data"].dtype)  # type: ignore[arg-type]
        check_array(what, name)
        super().__init__(what, name, block_rows=1)
        self._found = spec
        self._starts = self._read_starts()

    def _read_starts(self) -> Array:
        starts = np.asarray(self._load("indptr", 0, self.shape[0] + 1), np.int64)
        entries = min(self._parts["data"].shape[0], self._parts["indices"].shape[0])
        good = len(starts) == self.shape[0] + 1 and starts[0] == 0 and starts[-1] <= entries
        if not good or (np.diff(starts) < 0).any():
            raise SourceError(
                f"{self.name} is damaged: indptr does not say where {self.shape[0]:,} rows of {entries:,} "
                "entries start. Write it again."
            )
        return starts

    def _spec(self) -> dict[str, Any] | None:
        if self._found is not None:
            return self._found
        part = self._parts["data"]
        found = node_spec(part) if isinstance(part, zarr.Array) else None
        return found and {**found, "path": found["path"].removesuffix("/data")}

    def identity(self) -> dict[str, Any]:
        """Return the fingerprint of the rows, and where their entries lie."""
        where = hashlib.sha256(self._starts.tobytes()).hexdigest()
        return super().identity() | {"metadata": where}

    def read_bytes(self, rows: int) -> int:
        """Return the bytes of the dense rows, and of as many entries as so many rows have at most."""
        size = self.dtype.itemsize + self._parts["indices"].dtype.itemsize
        entries = self.most_entries(rows) * (size + 24)
        return int(rows * (self.shape[1] * 4 + 24) + entries + STORED_BYTES)

    def most_entries(self, rows: int) -> int:
        """Return how many entries so many consecutive rows have at most."""
        rows = min(rows, self.shape[0])
        return int((self._starts[rows:] - self._starts[: len(self._starts) - rows]).max())

    def entries(self, start: int, stop: int, dtype: Any = None) -> Any:
        """Return rows start to stop as a sparse array of SciPy's; repeated entries stay as they are.

        Raises
        ------
        SourceError
            If the matrix is damaged.
        """
        from scipy.sparse import csr_array

        first, last = int(self._starts[start]), int(self._starts[stop])
        columns = self._load("indices", first, last)
        if len(columns) and not 0 <= columns.min() <= columns.max() < self.shape[1]:
            raise SourceError(
                f"{self.name} is damaged: rows {start} to {stop} have an entry in column {columns.max()}, "
                f"and there are {self.shape[1]:,}. Write it again."
            )
        values = self._load("data", first, last)
        if dtype is not None:
            cast = np.empty(len(values), dtype)
            self._cast(values, cast, start, stop - start)
            values = cast
        starts = self._starts[start : stop + 1] - first
        return csr_array((values, columns, starts), shape=(stop - start, self.shape[1]))

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        block: Array = self.entries(start, stop, dtype).toarray()
        return block

    def _load(self, part: str, start: int, stop: int) -> Array:
        try:
            return np.asarray(self._parts[part][start:stop])
        except MemoryError:
            raise
        except Exception as error:
            raise SourceError(
                f"{part}, places {start} to {stop}, of {self.name} cannot be read "
                f"({type(error).__name__}: {error}). Restore it from a copy, or write it again."
            ) from printable(error)
