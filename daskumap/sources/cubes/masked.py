"""Which points of a grid are rows: as many numbers as a few kilobytes hold, whatever the size of the grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# A run store and each worker have one number a unit: 2^14 of them are 100 KB.
MOST_UNITS = 1 << 14
LEAST_UNIT = 1024


@dataclass(frozen=True)
class Masked:
    """How many of each unit of consecutive points are rows.

    Attributes
    ----------
    points, unit
        Of the grid, and of a unit.
    counts
        (units,) int64.
    """

    points: int
    unit: int
    counts: Array
    ends: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", np.cumsum(self.counts))

    @property
    def rows(self) -> int:
        """Number of points that are rows."""
        return int(self.ends[-1])

    @property
    def nothing_missing(self) -> bool:
        """Whether all points are rows."""
        return self.rows == self.points

    def pieces(self, start: int, stop: int, most: int) -> Iterator[tuple[int, int, int, int]]:
        """Cut rows start to stop into pieces of at most so many points, or of one unit.

        Yields
        ------
        first, last, skip, count
            The points to read; of their rows the first `skip` are not asked for, the next `count` are.
            Units without a row are not read.
        """
        at_once = max(1, most // self.unit)
        while start < stop:
            unit = int(np.searchsorted(self.ends, start, side="right"))
            last = min(len(self.counts), unit + at_once)
            end = unit + 1
            while end < last and self.counts[end] and self.ends[end - 1] < stop:
                end += 1
            before = int(self.ends[unit] - self.counts[unit])
            count = min(stop, int(self.ends[end - 1])) - start
            yield unit * self.unit, min(end * self.unit, self.points), start - before, count
            start += count

    def known(self, first: int, last: int) -> bool | None:
        """Return whether all of some points are rows, or none is; None where only their values tell."""
        units = slice(first // self.unit, -(-last // self.unit))
        sizes = np.minimum(self.unit, self.points - np.arange(units.start, units.stop) * self.unit)
        if not self.counts[units].any():
            return False
        return True if (self.counts[units] == sizes).all() else None

    def rows_before(self, first: int) -> int:
        """Return how many rows come before the first point of a unit."""
        return int(self.ends[first // self.unit - 1]) if first else 0

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return {"points": self.points, "unit": self.unit, "counts": self.counts.tolist()}

    @classmethod
    def nothing(cls, points: int) -> Masked:
        """Return that all points are rows."""
        return cls(points, points, np.array([points]))

    @classmethod
    def from_json(cls, known: dict[str, Any]) -> Masked:
        """Return what `to_json` wrote."""
        return cls(int(known["points"]), int(known["unit"]), np.asarray(known["counts"], np.int64))


def count_whole(points: int, piece: int, is_whole: Callable[[int, int], Array]) -> Masked:
    """Count the rows of each unit, reading a piece of points at a time."""
    unit = max(LEAST_UNIT, -(-points // MOST_UNITS))
    counts = np.zeros(-(-points // unit), np.int64)
    for first in range(0, points, piece):
        last = min(points, first + piece)
        whole = np.flatnonzero(is_whole(first, last)) + first
        counts += np.bincount(whole // unit, minlength=len(counts))
    return Masked(points, unit, counts)
