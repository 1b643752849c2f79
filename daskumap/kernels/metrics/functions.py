"""Distances that umap-learn has and pynndescent has not, as functions of two rows, evaluated in float64."""

import math

import numpy as np

from daskumap.kernels.jit import kernel

# From here on umap-learn counts an event; and below it the logarithm of a beta function is a short sum.
ONE, FEW = 0.9, 5.0
LOG_2, LOG_2_PI = math.log(2.0), math.log(2.0 * math.pi)


@kernel
def _arcosh_1p(excess):  # type: ignore[no-untyped-def]
    """Return arcosh(1 + excess), exact for small ones; 0 where rounding made it negative."""
    excess = max(excess, 0.0)
    return math.log1p(excess + math.sqrt(excess * (excess + 2.0)))


@kernel
def poincare(x, y):  # type: ignore[no-untyped-def]
    """Return the hyperbolic distance of two points of the open unit ball."""
    apart, room_x, room_y = 0.0, 1.0, 1.0
    for c in range(x.shape[0]):
        a, b = np.float64(x[c]), np.float64(y[c])
        apart += (a - b) * (a - b)
        room_x -= a * a
        room_y -= b * b
    return _arcosh_1p(2.0 * apart / (room_x * room_y))


@kernel
def hyperboloid(x, y):  # type: ignore[no-untyped-def]
    """Return the hyperbolic distance of two points of the hyperboloid, given without their first coordinate.

    That is sqrt(1 + |x|^2). The Minkowski product less 1 is taken from differences, so that near points keep
    their digits: umap-learn puts equal ones 1.4e-4 apart.
    """
    apart, size_x, size_y = 0.0, 0.0, 0.0
    for c in range(x.shape[0]):
        a, b = np.float64(x[c]), np.float64(y[c])
        apart += (a - b) * (a - b)
        size_x += a * a
        size_y += b * b
    rise = (size_x - size_y) / (math.sqrt(1.0 + size_x) + math.sqrt(1.0 + size_y))
    return _arcosh_1p(0.5 * (apart - rise * rise))


@kernel
def ll_dirichlet(x, y):  # type: ignore[no-untyped-def]
    """Return the symmetric relative log likelihood of two rows of counts under a Dirichlet multinomial.

    With umap-learn's approximations of the beta function. Where these fall below 0, as they may for nearly
    equal rows, the root is 0 and not NaN.
    """
    total_x, total_y, both, own_x, own_y = 0.0, 0.0, 0.0, 0.0, 0.0
    for c in range(x.shape[0]):
        a, b = np.float64(x[c]), np.float64(y[c])
        total_x += a
        total_y += b
        if a * b > ONE:
            both += _log_beta(a, b)
            own_x += _log_single_beta(a)
            own_y += _log_single_beta(b)
        else:
            if a > ONE:
                own_x += _log_single_beta(a)
            if b > ONE:
                own_y += _log_single_beta(b)
    both -= _log_beta(total_x, total_y)
    own_x -= _log_single_beta(total_x)
    own_y -= _log_single_beta(total_y)
    return math.sqrt(max(0.0, (both - own_y) / total_y + (both - own_x) / total_x))


@kernel
def _log_beta(x, y):  # type: ignore[no-untyped-def]
    a, b = min(x, y), max(x, y)
    if b >= FEW:
        return _log_gamma(x) + _log_gamma(y) - _log_gamma(x + y)
    value = -math.log(b)
    for i in range(1, int(a)):
        value += math.log(i) - math.log(b + i)
    return value


@kernel
def _log_gamma(x):  # type: ignore[no-untyped-def]
    """Return Stirling's approximation."""
    if x == 1.0:
        return 0.0
    return x * math.log(x) - x + 0.5 * (LOG_2_PI - math.log(x)) + 1.0 / (12.0 * x)


@kernel
def _log_single_beta(x):  # type: ignore[no-untyped-def]
    """Return the same of the beta function of x and x."""
    return LOG_2 * (0.5 - 2.0 * x) + 0.5 * (LOG_2_PI - math.log(x)) + 0.125 / x


FUNCTIONS = {"poincare": poincare, "hyperboloid": hyperboloid, "ll_dirichlet": ll_dirichlet}
