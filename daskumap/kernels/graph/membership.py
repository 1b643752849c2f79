"""How a gap becomes a membership, and a row gets its bandwidth: the kernels by name.

`KERNELS` is the one table. An entry is a pair of functions: `weight(x, y)`, the membership of a neighbour at
the gap x, which is how much farther than the nearest one it is, for a row of bandwidth y, both above 0; and
`solve(gaps, target, least)`, the bandwidth at which a row's memberships sum to a target. Where x or y is 0 a
membership is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskumap.kernels.parts import exact_element_part, exact_part

# McInnes, Healy, Melville (2018) as implemented in umap-learn: 64 halvings reach float64's limit; a bandwidth
# is at least a thousandth of the mean distance, so that one very close neighbour does not cut a row off from
# the others.
STEPS = 64
TOLERANCE = 1e-5
MIN_SCALE = 1e-3
# Sums below it would need a bandwidth beyond float32, whose largest number is 3.4e38.
VANISHED = 1e-37


@exact_element_part
def weight(x, y):  # type: ignore[no-untyped-def]
    """Return the membership of a neighbour at a gap x, for a bandwidth y; both are above 0."""


@exact_part
def solve(gaps, target, least):  # type: ignore[no-untyped-def]
    """Return the bandwidth at which the memberships of a row sum to a target.

    `gaps` is (m,) float64, ascending, of the neighbours that are there; those at 0 and below count 1. A
    bandwidth that is a length is `least` at least.
    """


def _exponential(x, y):  # type: ignore[no-untyped-def]
    return np.exp(-x / y)


def _gaussian(x, y):  # type: ignore[no-untyped-def]
    ratio = x / y
    return np.exp(-0.5 * ratio * ratio)


def _quadratic(x, y):  # type: ignore[no-untyped-def]
    # y^2 / (x^2 + y^2), by the ratio: squares would leave float32. 1 - x^2 / (x^2 + y^2) loses all bits.
    ratio = x / y
    return 1.0 / (1.0 + ratio * ratio)


def _morse(x, y):  # type: ignore[no-untyped-def]
    decayed = np.exp(-x)
    return y * decayed * (2.0 - decayed)


def _harmonic(x, y):  # type: ignore[no-untyped-def]
    return 1.0 + 0.5 * y * x * x


def _constant(x, y):  # type: ignore[no-untyped-def]
    return 1.0


def bisected(gaps, target, least):  # type: ignore[no-untyped-def]
    """Solve for memberships that grow with the bandwidth, which is a length."""
    low, high, y = 0.0, np.inf, 1.0
    for _ in range(STEPS):
        total = 0.0
        for j in range(gaps.shape[0]):
            total += weight(gaps[j], y) if gaps[j] > 0.0 else 1.0
        if abs(total - target) < TOLERANCE:
            break
        if total > target:
            high = y
            y = (low + high) / 2.0
        else:
            low = y
            y = y * 2.0 if high == np.inf else (low + high) / 2.0
    return max(y, least)


def _divided(gaps, target, least):  # type: ignore[no-untyped-def]
    """Solve for memberships that are the bandwidth times what it is for 1: a factor, which has no unit."""
    joined, total = 0.0, 0.0
    for j in range(gaps.shape[0]):
        if gaps[j] > 0.0:
            total += weight(gaps[j], 1.0)
        else:
            joined += 1.0
    # Where all others are too far to count, only the nearest are joined, whatever the factor.
    return max((target - joined) / total, MIN_SCALE) if total > VANISHED else 1.0


def _one(gaps, target, least):  # type: ignore[no-untyped-def]
    """Have no bandwidth."""
    return 1.0


@dataclass(frozen=True, eq=False)
class Kernel:
    """One entry of the table.

    Attributes
    ----------
    weight, solve
        The pair; without `solve` no bandwidth makes a row's memberships sum to what they should.
    bounded
        Whether memberships lie in [0, 1].
    in_units
        Whether they compare gaps with 1, so that other units of the data give another graph.
    versioned
        The class for which kernels with this pair are built.
    """

    weight: Callable[..., Any]
    solve: Callable[..., Any] | None
    bounded: bool = True
    in_units: bool = False
    versioned: type = field(init=False)

    def __post_init__(self) -> None:
        named = {"__module__": self.weight.__module__}
        class_ = type(f"{self.weight.__name__.strip('_').title()}", (), named)
        weight.version(class_)(self.weight)
        if self.solve is not None:
            solve.version(class_)(self.solve)
        object.__setattr__(self, "versioned", class_)

    @property
    def has_bandwidth(self) -> bool:
        """Whether memberships depend on a bandwidth at all."""
        return self.solve is not _one

    @property
    def has_length(self) -> bool:
        """Whether the bandwidth that it solves for is a length, as of the distances, and not a factor."""
        return self.solve is not _divided

    @property
    def cap(self) -> float:
        """The largest weight that an edge may have."""
        return 1.0 if self.bounded else np.inf


KERNELS = {
    "exponential": Kernel(_exponential, bisected),
    "gaussian": Kernel(_gaussian, bisected),
    "quadratic": Kernel(_quadratic, bisected),
    "morse": Kernel(_morse, _divided, bounded=False, in_units=True),
    "harmonic": Kernel(_harmonic, None, bounded=False, in_units=True),
    "constant": Kernel(_constant, _one),
}
EXPONENTIAL = KERNELS["exponential"]
