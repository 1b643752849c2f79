"""How a gap becomes a membership, and a row gets its bandwidth: the kernels by name, and a user's own.

`KERNELS` is the one table. An entry is a pair of functions: `weight(x, y)`, the membership of a neighbour that
is x farther away than the nearest one, for a row of bandwidth y, both above 0; and `solve(gaps, target,
least)`, the bandwidth at which a row's memberships sum to a target. Where x or y is 0 a membership is 1.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, NamedTuple

import numba
import numpy as np

from daskumap.kernels.functions import shortened
from daskumap.kernels.jit import uncached
from daskumap.kernels.parts import exact_element_part, exact_part

# McInnes, Healy, Melville (2018) as implemented in umap-learn: 64 halvings reach float64's limit; a bandwidth
# is at least a thousandth of the mean distance, so that one very close neighbour does not cut a row off from
# the others.
STEPS = 64
TOLERANCE = 1e-5
MIN_SCALE = 1e-3
# Sums below it would need a bandwidth beyond float32, whose largest number is 3.4e38.
VANISHED = 1e-37
# Gaps and bandwidths on which a user's function is tried, from a millionth to a million.
TRIED = np.logspace(-6.0, 6.0, 25)
FLOAT = numba.float64


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


def _bisected(gaps, target, least):  # type: ignore[no-untyped-def]
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
    "exponential": Kernel(_exponential, _bisected),
    "gaussian": Kernel(_gaussian, _bisected),
    "quadratic": Kernel(_quadratic, _bisected),
    "morse": Kernel(_morse, _divided, bounded=False, in_units=True),
    "harmonic": Kernel(_harmonic, None, bounded=False, in_units=True),
    "constant": Kernel(_constant, _one),
}
EXPONENTIAL = KERNELS["exponential"]


class Memberships(NamedTuple):
    """What the memberships of a run are made by.

    Attributes
    ----------
    weights
        The kernel that turns gaps into memberships.
    bandwidths
        The kernel whose memberships sum to log2(n_neighbors).
    """

    weights: Kernel
    bandwidths: Kernel


def resolve(membership: Any, calibration: str) -> Memberships:
    """Find the kernel behind a name or a pair of functions, and the one that sets its bandwidths.

    Parameters
    ----------
    membership
        A name, or (weight, solve): functions that numba can compile, `weight(x, y)` and `solve(gaps,
        target)`; None in place of the second for memberships that grow with y.
    calibration
        "exponential" or "kernel".

    Raises
    ------
    ValueError
        For an unknown name, a function that numba cannot compile or that returns no membership, and a kernel
        whose equation has no solution.
    """
    if isinstance(membership, str):
        if membership not in KERNELS:
            raise ValueError(
                f"membership is {membership!r}; allowed are {', '.join(KERNELS)}, or a pair of numba functions."
            )
        kernel = KERNELS[membership]
    else:
        kernel = _own(*membership)
    if not kernel.has_bandwidth:
        return Memberships(kernel, kernel)
    if calibration == "exponential":
        return Memberships(kernel, EXPONENTIAL)
    if kernel.solve is None:
        raise ValueError(
            f"calibration is 'kernel' and membership is {membership!r}, whose memberships are all 1 or more: no "
            "bandwidth makes them sum to log2(n_neighbors). Use calibration='exponential'."
        )
    return Memberships(kernel, kernel)


_kernels: dict[tuple[Any, Any], Kernel] = {}
_lock = threading.RLock()


def _own(own_weight: Any, own_solve: Any) -> Kernel:
    """Return the kernel of a pair of functions of the user's, compiled and tried once a process."""
    with _lock:
        pair = (own_weight, own_solve)
        if pair not in _kernels:
            weight_, tried = _compiled(own_weight, _own_weight, "weight(x, y)", FLOAT, FLOAT)
            bounded, solve_ = _try_weight(own_weight, tried), _bisected
            if own_solve is not None:
                solve_, tried = _compiled(
                    own_solve, _own_solve, "solve(gaps, target)", FLOAT[::1], FLOAT, FLOAT
                )
                _try_solve(own_solve, tried)
            _kernels[pair] = Kernel(weight_, solve_, bounded)
        return _kernels[pair]


def _compiled(source: Any, template: Any, wanted: str, *signature: Any) -> tuple[Any, Any]:
    """Return a version of a part that calls a function of the user's, as it stands and compiled."""
    function = source if hasattr(source, "py_func") else uncached(source)
    given = {"_function": function, "np": np, "__name__": "membership"}  # no module of ours: not cached
    version = FunctionType(template.__code__, given, template.__name__)
    tried = uncached(version)
    try:
        tried.compile(signature)
    except Exception as error:
        raise ValueError(
            f"membership {_name(source)} cannot be compiled by numba. Pass a function {wanted} of float64 that "
            f"returns a number. It says: {shortened(error)}."
        ) from error
    return version, tried


def _name(source: Any) -> str:
    source = getattr(source, "py_func", source)
    return f"{source.__module__}.{source.__qualname__}"


def _try_weight(source: Any, function: Any) -> bool:
    """Return whether all memberships that were tried are at most 1; refuse what are none."""
    values = np.array([[function(x, y) for x in TRIED.tolist()] for y in TRIED.tolist()])
    wrong = np.argwhere(~(np.isfinite(values) & (values >= 0.0)))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"membership {_name(source)} returns {values[row, column]} for x={TRIED[column]:g}, "
            f"y={TRIED[row]:g}. A membership is finite and at least 0 for all x and y above 0."
        )
    return bool((values <= 1.0).all())


def _try_solve(source: Any, solver: Any) -> None:
    """Refuse a function that finds no bandwidth for gaps 0 to 13 of 15 neighbours."""
    y = solver(np.arange(14.0), np.log2(15.0), 0.0)
    if not (np.isfinite(y) and y >= 0.0):
        raise ValueError(
            f"membership {_name(source)} returns {y} for gaps 0, 1, ... 13 and the target log2(15). A bandwidth "
            "is finite and at least 0."
        )


# What `_compiled` gives to each copy of the next two functions.
_function: Any = None


def _own_weight(x, y):  # type: ignore[no-untyped-def]
    return np.float64(_function(np.float64(x), np.float64(y)))


def _own_solve(gaps, target, least):  # type: ignore[no-untyped-def]
    return np.float64(_function(gaps, np.float64(target)))
