"""Coordinates of a cube's points: what rows are called, and what a result has along its dimensions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from daskumap.sources.cubes.grid import Box, boxes
from daskumap.sources.cubes.layout import Layout

Array = np.ndarray[Any, Any]

SINCE = re.compile(
    r"(second|minute|hour|day)s? since (\d{4})-(\d{1,2})-(\d{1,2})"
    r"(?:[T ](\d{1,2}):(\d{2})(?::(\d{2})(?:\.0+)?)?)?"
)
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
CALENDARS = ("standard", "gregorian", "proleptic_gregorian")


@dataclass(frozen=True)
class Coordinate:
    """Values along some sample dimensions.

    Attributes
    ----------
    dims
        One dimension, or all sample dimensions in any order.
    read
        Returns the values in a window, as stored.
    shape
        By dimension.
    attrs
        What is said of them: units, calendar, long_name.
    """

    name: str
    dims: tuple[str, ...]
    read: Callable[[Box], Array]
    shape: tuple[int, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def values(self) -> Array:
        """All values, with dates as such where they are numbers since one."""
        whole = tuple(slice(0, size) for size in self.shape)
        return decode_dates(self.read(whole), self.attrs)

    def of_points(self, layout: Layout, first: int, last: int) -> Array:
        """Return the values at consecutive points, (last - first,)."""
        if len(self.dims) == 1:
            index = np.unravel_index(np.arange(first, last), layout.shape)
            return self.values[index[layout.sample_dims.index(self.dims[0])]]
        parts, order = [], tuple(self.dims.index(dim) for dim in layout.sample_dims)
        for box in boxes(layout.shape, first, last):
            by_dim = dict(zip(layout.sample_dims, box, strict=True))
            block = self.read(tuple(by_dim[dim] for dim in self.dims))
            parts.append(block.transpose(order).ravel())
        return decode_dates(np.concatenate(parts), self.attrs)


def fitting(coordinates: Mapping[str, Coordinate], layout: Layout) -> dict[str, Coordinate]:
    """Return the coordinates of single sample dimensions, and those of all of them."""
    wanted = [set(layout.sample_dims), *({dim} for dim in layout.sample_dims)]
    return {name: one for name, one in coordinates.items() if set(one.dims) in wanted}


def decode_dates(values: Array, attrs: Mapping[str, Any]) -> Array:
    """Return numbers since a date as dates, by CF; other calendars than ours and other numbers as they are.

    >>> decode_dates(np.array([0, 1.5]), {"units": "days since 2000-02-28"}).tolist()
    [datetime.datetime(2000, 2, 28, 0, 0), datetime.datetime(2000, 2, 29, 12, 0)]
    """
    found = SINCE.fullmatch(str(attrs.get("units", "")).strip().removesuffix(" UTC").removesuffix("Z"))
    known = str(attrs.get("calendar", "standard")) in CALENDARS and values.dtype.kind in "iuf"
    if found is None or not known:
        return values
    year, month, day, *clock = (int(part or 0) for part in found.groups()[1:])
    hour, minute, second = clock
    origin = np.datetime64(f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", "ms")
    missing = np.isnan(values.astype(np.float64))
    steps = np.rint(np.where(missing, 0, values).astype(np.float64) * SECONDS[found[1]] * 1000)
    dates: Array = origin + steps.astype("timedelta64[ms]")
    dates[missing] = np.datetime64("NaT")
    return dates


def encode_dates(values: Array) -> tuple[Array, dict[str, Any]]:
    """Return dates, and spans of time, as numbers, with the attributes that say what they are."""
    if values.dtype.kind == "M":
        return values.astype("datetime64[us]").astype(np.int64), {
            "units": "microseconds since 1970-01-01",
            "calendar": "proleptic_gregorian",
        }
    if values.dtype.kind == "m":
        return values.astype("timedelta64[us]").astype(np.int64), {"units": "microseconds"}
    return values, {}
