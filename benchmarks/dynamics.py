"""The two dynamical systems of *The Information Geometry of UMAP*, figures 1 and 2: curves in 5 dimensions.

Both are replicators of five species, dx_i/dt = 5 x_i (W x)_i, W skew-symmetric with 1 where one species gains
by another. The matrices are those of the authors' notebook (github.com/sashakolpakov/info-geometry-umap), as
its code has them; the matrix that is printed beside the code is the first one with its species in another
order.

The curve of each winds around a torus: three quantities stay as they are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
SPEED = 5.0
STEP = 0.1


class System(NamedTuple):
    """A replicator, where its curve starts, and what stays constant along it."""

    name: str
    matrix: Array  # (5, 5)
    start: Array  # (5,)
    constants: Callable[[Array], Array]  # of (n, 5) points, (n, 3)


def _veselov_shabat_constants(x: Array) -> Array:
    following = np.roll(x, -1, axis=1)
    third = (x * following * np.roll(x, -3, axis=1)).sum(axis=1)
    return np.stack([x.sum(axis=1), third, x.prod(axis=1)], axis=1)


def _paik_griffin_constants(x: Array) -> Array:
    inner, total = x[:, :3], x[:, :3].sum(axis=1)
    outer = total * x[:, 3] * x[:, 4]
    return np.stack([x.sum(axis=1), inner.prod(axis=1) / total**3, outer], axis=1)


# Discrete KdV: each species loses to the next two and gains by the two before. Its flow keeps volumes.
VESELOV_SHABAT = System(
    "discrete Veselov-Shabat KdV",
    np.array(
        [[0, -1, -1, 1, 1], [1, 0, -1, -1, 1], [1, 1, 0, -1, -1], [-1, 1, 1, 0, -1], [-1, -1, 1, 1, 0]], float
    ),
    np.array([0.25, 0.15, 0.1, 0.2, 0.3]),
    _veselov_shabat_constants,
)
# Rock, paper and scissors, in the place of the rock of another such game. Its flow does not keep volumes.
PAIK_GRIFFIN = System(
    "Paik-Griffin replicator",
    np.array(
        [[0, -1, 1, -1, 1], [1, 0, -1, -1, 1], [-1, 1, 0, -1, 1], [1, 1, 1, 0, -1], [-1, -1, -1, 1, 0]], float
    ),
    np.array([0.25, 0.15, 0.1, 0.5, 0.3]),
    _paik_griffin_constants,
)


def curve(system: System, points: int) -> Array:
    """Return (points, 5) of a system's curve, at the times 0, .1, .2, ..."""
    from scipy.integrate import solve_ivp

    def velocity(_: float, x: Array) -> Array:
        return SPEED * x * (system.matrix @ x)

    times = STEP * np.arange(points)
    found = solve_ivp(velocity, (0.0, times[-1]), system.start, "DOP853", times, rtol=1e-10, atol=1e-12)
    return np.asarray(found.y.T)
