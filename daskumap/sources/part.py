"""Consecutive rows of a source, as a source: what a store had before it grew, or what came since."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from daskumap.errors import ParameterError
from daskumap.sources.base import Array, Source
from daskumap.store.labels import Column, Read

# The option that every kind has: first row, and the row after the last.
ROWS = "rows"


class Part(Source):
    """Rows start to stop of a source.

    Its identity is that of its rows alone, so that it is the same when the source has grown.
    """

    def __init__(self, source: Source, start: int, stop: int) -> None:
        self.source, self.start = source, start
        super().__init__(_Shape(stop - start, source), f"{source.name}, rows {start} to {stop - 1}", 1)
        self.block_rows = source.block_rows
        self.in_place = source.in_place  # type: ignore[misc]
        self.gathers = source.gathers  # type: ignore[misc]
        self.storage_options, self.origin = source.storage_options, source.origin
        self.labels = {name: column_of_part(column, start, stop) for name, column in source.labels.items()}

    def read_bytes(self, rows: int) -> int:
        """Return an upper bound, in bytes: rows that begin within a block need a part of two more."""
        within = 2 * self.block_rows if self.start % self.block_rows else 0
        return self.source.read_bytes(min(rows + within, self.source.shape[0]))

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        return self.source._read(self.start + start, self.start + stop, dtype)

    def take(self, rows: Array, dtype: np.dtype[Any]) -> Array:
        """Return scattered rows."""
        return self.source.take(rows + self.start, dtype)

    def spec(self) -> dict[str, Any] | None:
        """Return that of the source, and which rows."""
        spec = self.source.spec()
        if spec is None:
            return None
        rows = [self.start, self.start + self.shape[0]]
        return {**spec, "options": {**spec.get("options", {}), ROWS: rows}}

    def count_missing(self) -> int | None:
        """Return None, unknown, unless the source lacks none."""
        return 0 if self.source.count_missing() == 0 else None


class _Shape:
    """What a source is made from: shape and type."""

    def __init__(self, rows: int, source: Source) -> None:
        self.shape, self.dtype = (rows, source.shape[1]), source.dtype


def column_of_part(column: Column, start: int, stop: int) -> Column:
    """Return the labels of rows start to stop."""
    return Read(stop - start, column.dtype, partial(_read_part, column, start))


def _read_part(column: Column, first: int, start: int, stop: int) -> Any:
    return column.read(first + start, first + stop)


def part_of(source: Source, rows: Any) -> Source:
    """Return the rows of a source that the option `rows` names: [first, the one after the last].

    Raises
    ------
    ParameterError
        If these are no two numbers, or the source has no such rows.
    """
    whole = isinstance(rows, list | tuple) and len(rows) == 2 and all(type(one) is int for one in rows)
    if not whole or not 0 <= rows[0] < rows[1] <= source.shape[0]:
        raise ParameterError(
            f"rows is {rows!r}; give two numbers, the first row and the one after the last, as [0, 1000], "
            f"within the {source.shape[0]} rows of {source.name}."
        )
    return Part(source, *rows)
