"""Cubes as rows: points of the sample dimensions, as xarray stacks them, without those that miss a value."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import zarr

from daskumap.errors import SourceError
from daskumap.sources import base
from daskumap.sources.base import Array, Source
from daskumap.sources.cubes.coordinates import Coordinate, fitting
from daskumap.sources.cubes.grid import boxes, window_shape, windows
from daskumap.sources.cubes.layout import Layout
from daskumap.sources.cubes.masked import Masked, count_whole
from daskumap.sources.cubes.variables import Variable, XarrayVariable, ZarrVariable
from daskumap.sources.missing import count_missing
from daskumap.sources.nodes import node_spec
from daskumap.sources.packing import NAMES
from daskumap.store.labels import Column, Read, dtype_of

# Points that are read at a time where some are left out: a strip of chunks, if it is no larger.
PIECE_BYTES = 64 << 20
# What the C allocator keeps of freed chunks, as of arrays of Zarr's.
ALLOCATOR_BYTES = 40 << 20
# A fingerprint decodes at most this much.
FINGERPRINT_BYTES = 256 << 20


@dataclass(frozen=True)
class Opened:
    """Where a cube comes from.

    Attributes
    ----------
    name
        For messages.
    group
        The Zarr group that holds it; None for an object of xarray's.
    options
        The names of variables and dimensions with which it was opened, all of them, as JSON types.
    """

    name: str
    group: zarr.Group | None
    options: dict[str, Any]


class CubeSource(Source):
    """Variables of a cube, point by point.

    Rows are the points of the sample dimensions in the order in which `xarray.DataArray.stack` has them, but
    for points with a missing value, which are left out. They are so whatever the chunks are. Columns are the
    variables, one after the other, each by its feature dimensions.

    Attributes
    ----------
    coordinates
        Those along the sample dimensions, by name.
    masked
        How many points of each unit have all values; None where no value is missing.
    """

    def __init__(
        self,
        opened: Opened,
        variables: Sequence[Variable],
        layout: Layout,
        coordinates: Mapping[str, Coordinate],
        masked: Masked | None = None,
    ) -> None:
        self.variables, self.layout, self._opened = tuple(variables), layout, opened
        dtype = np.result_type(*(variable.dtype for variable in variables))
        whole = SimpleNamespace(shape=(layout.points, layout.columns), dtype=dtype)
        super().__init__(whole, opened.name, block_rows=1)
        self._strip = max(self._strip_of(variable) for variable in variables)
        may_miss = any(variable.dtype.kind == "f" for variable in variables)
        self.masked = (masked or self._count()) if may_miss else None
        if self.masked is not None and self.masked.nothing_missing:
            self.masked = None
        rows = layout.points if self.masked is None else self.masked.rows
        if not rows:
            raise SourceError(
                f"Each of the {layout.points:,} points of {self.name} misses a value. Choose variables and "
                "times that have values, with the option variables, or fill them first: data.fillna(value)."
            )
        self.shape = (rows, layout.columns)
        self.block_rows = max(1, min(rows, -(-self._strip * rows // layout.points)))
        self.coordinates = fitting(coordinates, layout)
        self.labels = {name: self._label(name) for name in self._label_names()}

    # Read by whoever asks for rows: the values of objects in memory, and chunks, lie as they are.
    @property
    def in_place(self) -> bool:  # type: ignore[override]
        """Whether this process reads rows at no more cost than from a store."""
        return all(getattr(variable, "in_memory", True) for variable in self.variables)

    def _spec(self) -> dict[str, Any] | None:
        """Return path or URL, options, and how many points are rows; None for objects of xarray's."""
        known = None if self._opened.group is None else node_spec(self._opened.group)
        if known is None:
            return None
        counts = Masked.nothing(self.layout.points) if self.masked is None else self.masked
        return {**known, "kind": "cube", "options": {**self._opened.options, "masked": counts.to_json()}}

    def identity(self) -> dict[str, Any]:
        """Return the fingerprint of the rows, and that of how the cube is stored."""
        stored = [_metadata(one) for one in self.variables if isinstance(one, ZarrVariable)]
        text = json.dumps([stored, self._opened.options], sort_keys=True)
        layout = {"metadata": hashlib.sha256(text.encode()).hexdigest()} if stored else {}
        return super().identity() | layout | {"options": self._opened.options}

    def count_missing(self) -> int | None:
        """Return how many chunks are not stored whose values would be made up; None if unknown.

        Of a chunk whose values would all be missing, the points are left out, as xarray means it.
        """
        found = 0
        for variable in self.variables:
            if isinstance(variable, ZarrVariable) and not variable.fills_missing():
                count = count_missing(variable.array)
                if count is None:
                    return None
                found += count
        return found

    def read_bytes(self, rows: int) -> int:
        """Return an upper bound, in bytes, of what `read` of that many rows holds at its peak.

        The output; a window and its transposed copy, decoded; the chunks that zarr works on meanwhile; and
        where points are left out, a piece of the cube with those of its rows that stay.
        """
        size = self.dtype.itemsize
        piece = 0 if self.masked is None else 2 * self._piece() * self.shape[1] * size
        window = max(self._window_bytes(variable) for variable in self.variables)
        return rows * self.shape[1] * 4 + piece + 4 * window + ALLOCATOR_BYTES

    def fingerprint_rows(self) -> int:
        """Return how many scattered rows can be read at little cost: fewer where chunks are large."""
        affordable = FINGERPRINT_BYTES // (self._piece() * self.shape[1] * self.dtype.itemsize)
        return min(super().fingerprint_rows(), max(2, affordable))

    def blocks(self) -> Iterator[Array]:
        """Return all rows in `self.dtype` as consecutive blocks."""
        row = self.shape[1] * self.dtype.itemsize
        most = max(1, base.BLOCK_BYTES // row)
        step = self.block_rows if self.block_rows * row <= 4 * base.BLOCK_BYTES else most
        step = max(step, most // step * step)
        for start in range(0, self.shape[0], step):
            yield self._read(start, min(start + step, self.shape[0]), self.dtype)

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        out = np.empty((stop - start, self.shape[1]), dtype)
        if self.masked is None:
            self.read_points(start, stop, out)
            return out
        done = 0
        for first, last, skip, count in self.masked.pieces(start, stop, self._piece()):
            self._fill(first, last, skip, out[done : done + count], start + done)
            done += count
        return out

    def _fill(self, first: int, last: int, skip: int, out: Array, row: int) -> None:
        """Fill `out` with the rows among some points, but for the first `skip` of them."""
        done, piece = 0, self._piece()
        for begin in range(first, last, piece):
            rows = self.whole_rows(begin, min(last, begin + piece))
            skipped = min(skip, len(rows))
            rows, skip = rows[skipped : skipped + len(out) - done], skip - skipped
            self._cast(rows, out[done : done + len(rows)], row + done)
            done += len(rows)
            if done == len(out):
                return
        raise SourceError(
            f"{self.name} has other missing values than when it was opened: points {first:,} to "
            f"{last:,} have fewer whole rows. Leave the input as it is while a run reads it."
        )

    def whole_rows(self, first: int, last: int) -> Array:
        """Return the rows of points first to last that have all values, in `self.dtype`."""
        rows = np.empty((last - first, self.shape[1]), self.dtype)
        self.read_points(first, last, rows)
        whole = ~np.isnan(rows).any(axis=1)
        return rows if whole.all() else rows[whole]

    def read_points(self, first: int, last: int, out: Array) -> None:
        """Read points first to last of the sample dimensions, those that miss values too, into `out`."""
        for box in boxes(self.layout.shape, first, last):
            shape = tuple(part.stop - part.start for part in box)
            count = int(np.prod(shape))
            part, out = out[:count], out[count:]
            for number, variable in enumerate(self.variables):
                self._read_box(number, variable, box, part, first)
            first += count

    def _read_box(
        self, number: int, variable: Variable, box: tuple[slice, ...], out: Array, first: int
    ) -> None:
        """Read a variable's columns of a box, window by window."""
        layout, dims = self.layout, layout_dims(self.layout, number)
        sizes = dict(zip(variable.dims, variable.shape, strict=True))
        samples = dict(zip(layout.sample_dims, box, strict=True))
        whole = tuple(samples.get(dim, slice(0, sizes[dim])) for dim in variable.dims)
        columns = out[:, layout.offsets[number] : layout.offsets[number + 1]]
        shape = tuple(part.stop - part.start for part in box)
        # Splits axes of a view, which copies nothing.
        target = columns.reshape(*shape, *(sizes[dim] for dim in dims[len(shape) :]))
        order = tuple(variable.dims.index(dim) for dim in dims)
        begin = dict(zip(variable.dims, (part.start for part in whole), strict=True))
        for window in windows(whole, variable.chunks, variable.window_bytes // variable.dtype.itemsize):
            by_dim = dict(zip(variable.dims, window, strict=True))
            place = tuple(slice(by_dim[d].start - begin[d], by_dim[d].stop - begin[d]) for d in dims)
            block = variable.read(window).transpose(order)
            self._cast(block, target[place], first, len(out))

    def _count(self) -> Masked:
        """Read all values once, and count the points of each unit that have all of theirs."""
        return count_whole(self.layout.points, self._piece(), self._is_whole)

    def _is_whole(self, first: int, last: int) -> Array:
        rows = np.empty((last - first, self.layout.columns), self.dtype)
        self.read_points(first, last, rows)
        return np.asarray(~np.isnan(rows).any(axis=1))

    def rows_among(self, first: int, last: int) -> tuple[int, Array]:
        """Return how many rows come before a point, and which of points first to last are rows.

        Values are read only where a unit has some points that are rows and some that are not.
        """
        if self.masked is None:
            return first, np.ones(last - first, bool)
        unit = self.masked.unit
        begin = first // unit * unit
        parts = []
        for start in range(begin, last, unit):
            stop = min(start + unit, last)
            known = self.masked.known(start, min(start + unit, self.layout.points))
            parts.append(self._is_whole(start, stop) if known is None else np.full(stop - start, known))
        whole = np.concatenate(parts)
        skipped = whole[: first - begin]
        return self.masked.rows_before(begin) + int(skipped.sum()), whole[first - begin :]

    def points_of(self, start: int, stop: int) -> Iterator[tuple[int, int, Array]]:
        """Yield parts of the points in which rows start to stop lie, each with which of its points they are.

        Yields
        ------
        first, last, chosen
            (last - first,) bool
        """
        if self.masked is None:
            if start < stop:
                yield start, stop, np.ones(stop - start, bool)
            return
        for first, last, skip, count in self.masked.pieces(start, stop, self._piece()):
            _, whole = self.rows_among(first, last)
            number = np.cumsum(whole)
            yield first, last, whole & (number > skip) & (number <= skip + count)

    def _label_names(self) -> list[str]:
        """Return what a row is called by: its dimensions, and what lies along them."""
        return list(dict.fromkeys((*self.layout.sample_dims, *self.coordinates)))

    def _label(self, name: str) -> Column:
        known = self.coordinates.get(name)
        example = np.empty(0, np.int64) if known is None else known.of_points(self.layout, 0, 1)
        return Read(self.shape[0], dtype_of(example), partial(self._read_label, name))

    def _read_label(self, name: str, start: int, stop: int) -> Array:
        known, layout = self.coordinates.get(name), self.layout
        parts = []
        for first, last, chosen in self.points_of(start, stop):
            if known is None:
                axis = layout.sample_dims.index(name)
                values = np.unravel_index(np.arange(first, last), layout.shape)[axis]
            else:
                values = known.of_points(layout, first, last)
            parts.append(values[chosen])
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _strip_of(self, variable: Variable) -> int:
        """Return the points of whole chunks across all sample dimensions but the first."""
        chunk = dict(zip(variable.dims, variable.chunks, strict=True))[self.layout.sample_dims[0]]
        return min(chunk, self.layout.shape[0]) * self.layout.line

    def _piece(self) -> int:
        """Return how many points are read at a time where some may be left out."""
        most = max(1, PIECE_BYTES // (self.layout.columns * self.dtype.itemsize))
        strip = min(self._strip, most)
        return max(1, most // strip * strip)

    def _window_bytes(self, variable: Variable) -> int:
        size = variable.dtype.itemsize
        shape = window_shape(variable.shape, variable.chunks, variable.window_bytes // size)
        lengths = (min(one, other) for one, other in zip(shape, variable.shape, strict=True))
        return int(np.prod([*lengths], dtype=np.int64)) * size


def layout_dims(layout: Layout, number: int) -> tuple[str, ...]:
    """Return the dimensions of a variable as its columns need them: samples first."""
    return (*layout.sample_dims, *layout.feature_dims[number])


def all_xarray(variables: Sequence[Variable]) -> bool:
    """Return whether all variables are of an object of xarray's."""
    return all(isinstance(variable, XarrayVariable) for variable in variables)


def _metadata(variable: ZarrVariable) -> dict[str, Any]:
    """Return what of a variable's metadata decides its values; other attributes may change."""
    array = variable.array
    packed = {name: str(value) for name, value in array.attrs.items() if name in NAMES}
    return {
        "name": variable.name,
        "dims": list(variable.dims),
        "shape": list(array.shape),
        "chunks": list(variable.chunks),
        "dtype": str(array.dtype),
        "packed": packed,
    }
