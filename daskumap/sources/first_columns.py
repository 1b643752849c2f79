"""The first columns of another source."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.sources.base import Array, Source


class FirstColumns(Source):
    """The first columns of each row of another source.

    Parameters
    ----------
    inner
        The rows.
    count
        Columns, at least 1 and no more than the rows have.
    spec
        What opens the same in another process; None where none can.
    """

    def __init__(self, inner: Source, count: int, spec: dict[str, Any] | None) -> None:
        super().__init__(_Like(inner, count), inner.name, inner.block_rows)
        self._inner, self._found = inner, spec
        self.in_place, self.gathers = inner.in_place, inner.gathers  # type: ignore[misc]

    def _spec(self) -> dict[str, Any] | None:
        return self._found

    def count_missing(self) -> int | None:
        """Return how many chunks are not stored."""
        return self._inner.count_missing()

    def fingerprint_rows(self) -> int:
        """Return how many scattered rows can be read at little cost."""
        return self._inner.fingerprint_rows()

    def read_bytes(self, rows: int) -> int:
        """Return the bytes of whole rows, and of those that are returned."""
        return self._inner.read_bytes(rows) + rows * self.shape[1] * max(4, self.dtype.itemsize)

    def take(self, rows: Array, dtype: np.dtype[Any]) -> Array:
        """Return scattered rows in the order asked for."""
        return np.ascontiguousarray(self._inner.take(rows, dtype)[:, : self.shape[1]])

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        if dtype == self.dtype:
            whole = self._inner.read_stored(start, stop)
        else:
            whole = self._inner.read(start, stop, dtype)
        return np.ascontiguousarray(whole[:, : self.shape[1]])


class _Like:
    def __init__(self, inner: Source, count: int) -> None:
        self.shape, self.dtype = (inner.shape[0], count), inner.dtype
