"""Where rows lie for float32: less a centre, times a power of two. Neither changes who is near whom."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from daskumap.sources.base import Array

# Differences of integers of 64 bits wrap beyond 2^63; below this they surely do not.
SURE = 2.0**62


class Move(NamedTuple):
    """How stored values become those that the metric works on.

    Attributes
    ----------
    exponent
        The values are multiplied by 2 to this power, which is exact.
    centre
        What is subtracted before, (D,) in the stored type; None for nothing.
    """

    exponent: int = 0
    centre: Array | None = None

    @property
    def is_still(self) -> bool:
        """Whether rows stay where they are."""
        return self.exponent == 0 and self.centre is None

    def values(self, block: Array) -> Array:
        """Return rows as stored as float64: exact, or nearly so after the centre was subtracted."""
        moved = block.astype(np.float64) if self.centre is None else _subtract(block, self.centre)
        return np.ldexp(moved, self.exponent) if self.exponent else moved

    def apply(self, block: Array) -> Array:
        """Return rows as stored as the metric sees them, float32; what is too large becomes inf."""
        with np.errstate(over="ignore", invalid="ignore"):
            return self.values(block).astype(np.float32)

    def undo(self, rows: Array) -> Array:
        """Return rows of float32 as the user has them: float64 where they were moved."""
        if self.is_still:
            return rows
        back = np.ldexp(rows.astype(np.float64), -self.exponent)
        return back if self.centre is None else back + self.centre

    def to(self, other: Move) -> tuple[float, Array]:
        """Return scale and shift by which rows that were moved so become those that the other moves.

        >>> Move(1, np.array([3.0])).to(Move(0, np.array([1.0])))
        (0.5, array([2.]))
        """
        here, there = (np.zeros(1) if one.centre is None else one.centre for one in (self, other))
        return float(np.ldexp(1.0, other.exponent - self.exponent)), np.ldexp(
            _subtract(here, there), other.exponent
        )

    def as_dict(self) -> dict[str, Any]:
        """Return JSON types: numbers of Python are as exact as those of any type here."""
        return {"exponent": self.exponent, "centre": None if self.centre is None else self.centre.tolist()}

    @classmethod
    def from_dict(cls, known: dict[str, Any], dtype: np.dtype[Any]) -> Move:
        """Return what `as_dict` wrote down."""
        centre = known["centre"]
        return cls(int(known["exponent"]), None if centre is None else np.array(centre, dtype))


def _subtract(block: Array, centre: Array) -> Array:
    """Return the differences as float64; of 64-bit integers too, whose digits float64 cannot hold."""
    rough: Array = block.astype(np.float64) - centre.astype(np.float64)
    if block.dtype != centre.dtype or block.dtype.kind not in "iu" or block.dtype.itemsize < 8:
        return rough
    exact = (block - centre).view(np.int64)
    return np.where(np.abs(rough) < SURE, exact, rough)
