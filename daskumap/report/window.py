"""Which part of a map a picture shows: all but fly-away rows, read in blocks.

The limits are exact percentiles by radix selection, in two passes, so 10^9 rows need as much memory as few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Limits = tuple[tuple[float, float], ...]

READ_ROWS = 1_048_576
# Rows beyond these shares of a column may be fly-aways ...
ROBUST = (0.0005, 0.9995)
# ... and are, unless the limits reach them by growing by this share of the width.
GENEROUS = 0.2
MARGIN = 0.04


@dataclass(frozen=True)
class View:
    """The window of the plane that the picture shows; one scale for both axes."""

    width: int
    height: int
    centre: Floats
    scale: float

    @classmethod
    def fit(cls, limits: Limits, size: int, flat: bool) -> View:
        """Return a view of some limits, `size` pixels on its longer side; `flat` ones are one pixel high."""
        low, high = np.array(limits).T
        spans = high - low
        longest = spans[0] if flat else spans.max()
        # At least half as high as wide: a thread is hard to look at.
        width, height = (max(size // 2, round(size * span / longest)) for span in spans)
        scale = float(size * (1 - 2 * MARGIN) / longest)
        return cls(size, 1, (low + high) / 2, scale) if flat else cls(width, height, (low + high) / 2, scale)

    def pixels(self, points: Floats) -> tuple[Floats, Floats]:
        """Return x to the right and y down, in pixels; the centre of the first pixel is at one half."""
        x, y = ((points - self.centre) * self.scale).T
        return x + self.width / 2, self.height / 2 - y

    @property
    def limits(self) -> Limits:
        """What of each column is in view."""
        half = np.array([self.width, self.height]) / 2 / self.scale
        return tuple((float(c - h), float(c + h)) for c, h in zip(self.centre, half, strict=True))


def points_of(embedding: Any) -> Iterator[tuple[slice, NDArray[np.bool_], NDArray[np.float32]]]:
    """Yield (rows, which of them have a position, (m, 2) float32 of those), block by block."""
    for start in range(0, embedding.shape[0], READ_ROWS):
        rows = slice(start, min(start + READ_ROWS, embedding.shape[0]))
        points = np.asarray(embedding[rows])[:, :2].astype(np.float32)
        if points.shape[1] == 1:
            points = np.concatenate([points, np.zeros_like(points)], axis=1)
        known: NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=1))
        yield rows, known, points[known]


def _sortable(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return integers of 32 bits that sort like the floats: flip the sign bit, or all bits of negatives."""
    bits = np.ascontiguousarray(values).view(np.uint32).astype(np.int64)
    return np.where(bits >> 31, 0xFFFFFFFF - bits, bits + 0x80000000)


def _unsorted(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the floats of `_sortable`."""
    bits = np.where(keys >> 31, keys - 0x80000000, 0xFFFFFFFF - keys)
    return bits.astype(np.uint32).view(np.float32)


def find_limits(embedding: Any) -> tuple[Limits, int]:
    """Return the robust limits of both columns, and how many rows have a position.

    Radix selection: count the upper halves of the keys, then the lower halves of those that the ranks hit.
    """
    upper = np.zeros((2, 65_536), dtype=np.int64)
    for _, _, points in points_of(embedding):
        for j in range(2):
            upper[j] += np.bincount(_sortable(points[:, j]) >> 16, minlength=65_536)
    count = int(upper[0].sum())
    if not count:
        return ((-1.0, 1.0), (-1.0, 1.0)), 0
    last = count - 1
    ranks = np.array([0, np.ceil(ROBUST[0] * last), np.floor(ROBUST[1] * last), last], dtype=np.int64)
    totals = np.cumsum(upper, axis=1)
    heads = np.array([np.searchsorted(totals[j], ranks, side="right") for j in range(2)])
    before = np.take_along_axis(totals - upper, heads, axis=1)
    lower = np.zeros((2, 4, 65_536), dtype=np.int64)
    for _, _, points in points_of(embedding):
        for j in range(2):
            keys = _sortable(points[:, j])
            for r in range(4):
                lower[j, r] += np.bincount(keys[keys >> 16 == heads[j, r]] & 0xFFFF, minlength=65_536)
    tails = (np.cumsum(lower, axis=2) <= (ranks - before)[:, :, None]).sum(axis=2)
    return tuple(_stretch(*row) for row in _unsorted(heads * 65_536 + tails).tolist()), count


def _stretch(least: float, low: float, high: float, most: float) -> tuple[float, float]:
    """Move robust limits outwards to the outermost rows, as far as is cheap."""
    room = GENEROUS * (high - low)
    low, high = max(least, low - room), min(most, high + room)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
