"""Which kernels make the memberships of a run: one by name, or one of a user's pair of functions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, NamedTuple

import numba
import numpy as np

from daskumap.kernels.functions import shortened
from daskumap.kernels.graph.membership import EXPONENTIAL, KERNELS, Kernel, bisected
from daskumap.kernels.jit import uncached

# Gaps and bandwidths on which a user's function is tried, from a millionth to a million.
TRIED = np.logspace(-6.0, 6.0, 25)
FLOAT = numba.float64


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
                f"membership is {membership!r}; allowed are {', '.join(KERNELS)}, or a pair of numba "
                "functions."
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
            f"calibration is 'kernel' and membership is {membership!r}, whose memberships are all 1 or more: "
            "no bandwidth makes them sum to log2(n_neighbors). Use calibration='exponential'."
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
            bounded, solve_ = _try_weight(own_weight, tried), bisected
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
    wanted = f"Pass a function {wanted} of float64 that returns a number."
    try:
        tried.compile(signature)
    except Exception as error:
        raise ValueError(
            f"membership {name_of(source)} cannot be compiled by numba. {wanted} It says: {shortened(error)}."
        ) from error
    if (kind := tried.nopython_signatures[0].return_type) != FLOAT:
        raise ValueError(f"membership {name_of(source)} returns {kind}. {wanted}")
    return version, tried


@contextmanager
def _trying(source: Any, given: str) -> Iterator[None]:
    """Refuse a function of the user's that raises."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"membership {name_of(source)} raises {error!r} for {given}. It has to return a number for these."
        ) from error


def name_of(membership: Any) -> str:
    """Return what messages call a membership: a name, or a function of the user's, of a pair the first."""
    if isinstance(membership, str):
        return repr(membership)
    source: Any = membership[0] if isinstance(membership, tuple) else membership
    source = getattr(source, "py_func", source)
    return f"{source.__module__}.{source.__qualname__}"


def _try_weight(source: Any, function: Any) -> bool:
    """Return whether all memberships that were tried are at most 1; refuse what are none."""
    with _trying(source, f"x and y from {TRIED[0]:g} to {TRIED[-1]:g}"):
        values = np.array([[function(x, y) for x in TRIED.tolist()] for y in TRIED.tolist()])
    wrong = np.argwhere(~(np.isfinite(values) & (values >= 0.0)))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"membership {name_of(source)} returns {values[row, column]} for x={TRIED[column]:g}, "
            f"y={TRIED[row]:g}. A membership is finite and at least 0 for all x and y above 0."
        )
    return bool((values <= 1.0).all())


def _try_solve(source: Any, solver: Any) -> None:
    """Refuse a function that finds no bandwidth for gaps 0 to 13 of 15 neighbours."""
    with _trying(source, "gaps 0, 1, ... 13 and the target log2(15)"):
        y = solver(np.arange(14.0), np.log2(15.0), 0.0)
    if not (np.isfinite(y) and y >= 0.0):
        raise ValueError(
            f"membership {name_of(source)} returns {y} for gaps 0, 1, ... 13 and the target log2(15). A "
            "bandwidth is finite and at least 0."
        )


# What `_compiled` gives to each copy of the next two functions.
_function: Any = None


def _own_weight(x, y):  # type: ignore[no-untyped-def]
    return np.float64(_function(np.float64(x), np.float64(y)))


def _own_solve(gaps, target, least):  # type: ignore[no-untyped-def]
    return np.float64(_function(gaps, np.float64(target)))
