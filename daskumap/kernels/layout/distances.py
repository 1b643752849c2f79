"""Distances of two points of the map that are not Euclidean, each with its gradient.

Points are small arrays that whoever measures may write to. Sums are float64: on the hyperboloid and for the
energies of Gaussians large terms cancel.
"""

from typing import NamedTuple

import numpy as np

from daskumap.kernels.layout.sampling import Array
from daskumap.kernels.parts import part

# umap-learn's: keeps the gradient on the sphere finite at the antipode, where it points everywhere.
TINY = 1e-6
# Constant of umap-learn's energies: the logarithm of 2 pi.
LOG_TWO_PI = np.log(2.0 * np.pi)


class Manhattan(NamedTuple):
    """Sum of the differences."""


class Chebyshev(NamedTuple):
    """Largest difference."""


class Minkowski(NamedTuple):
    """Root of the sum of weighted powers of the differences."""

    w: Array  # (d,) float64
    p: float


class Mahalanobis(NamedTuple):
    """Root of the quadratic form of the difference."""

    vinv: Array  # (d, d) float64, symmetric


class Canberra(NamedTuple):
    """Sum of the differences, each by the size of its ends."""


class BrayCurtis(NamedTuple):
    """Sum of the differences by that of the sums."""


class Cosine(NamedTuple):
    """1 - cosine of the angle."""


class Correlation(NamedTuple):
    """1 - correlation of the coordinates."""


class SoftmaxHellinger(NamedTuple):
    """Hellinger distance of the distributions whose logits the coordinates are."""


class Haversine(NamedTuple):
    """Angle on the sphere; coordinates are the angle from the pole and the longitude."""


class Torus(NamedTuple):
    """Euclidean distance where each coordinate comes round after its own length."""

    torus_dimensions: Array  # (d,) float64


class Hyperboloid(NamedTuple):
    """Distance in hyperbolic space; the last coordinate of the hyperboloid, (1 + |x|^2)^.5, is left out."""


class SphericalGaussian(NamedTuple):
    """Energy of two Gaussians of the plane: centre, and variance."""


class DiagonalGaussian(NamedTuple):
    """Energy of two Gaussians of the plane: centre, and the variance along each axis."""


class Gaussian(NamedTuple):
    """Energy of two Gaussians of the plane: centre, the variances along two axes, and the angle of these."""


@part
def measure(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    """Return the distance of two points; write its gradient by the coordinates of the first one."""


@measure.version(Manhattan)
def _manhattan(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    distance = 0.0
    for c in range(x.size):
        difference = np.float64(x[c]) - np.float64(y[c])
        distance += abs(difference)
        gradient[c] = np.sign(difference)
    return distance


@measure.version(Chebyshev)
def _chebyshev(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    distance, farthest = 0.0, 0
    for c in range(x.size):
        gradient[c] = 0.0
        difference = abs(np.float64(x[c]) - np.float64(y[c]))
        if difference > distance:
            distance, farthest = difference, c
    gradient[farthest] = np.sign(np.float64(x[farthest]) - np.float64(y[farthest]))
    return distance


@measure.version(Minkowski)
def _minkowski(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    total = 0.0
    for c in range(x.size):
        total += metric.w[c] * abs(np.float64(x[c]) - np.float64(y[c])) ** metric.p
    distance = total ** (1.0 / metric.p)
    for c in range(x.size):
        difference = np.float64(x[c]) - np.float64(y[c])
        share = (abs(difference) / distance) ** (metric.p - 1.0) if distance > 0.0 else 0.0
        gradient[c] = metric.w[c] * share * np.sign(difference)
    return distance


@measure.version(Mahalanobis)
def _mahalanobis(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    total = 0.0
    for c in range(x.size):
        gradient[c] = 0.0
        for j in range(x.size):
            gradient[c] += metric.vinv[c, j] * (np.float64(x[j]) - np.float64(y[j]))
        total += gradient[c] * (np.float64(x[c]) - np.float64(y[c]))
    distance = np.sqrt(max(total, 0.0))
    for c in range(x.size):
        gradient[c] /= max(distance, TINY)
    return distance


@measure.version(Canberra)
def _canberra(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    distance = 0.0
    for c in range(x.size):
        difference = np.float64(x[c]) - np.float64(y[c])
        size = abs(np.float64(x[c])) + abs(np.float64(y[c]))
        gradient[c] = 0.0
        if size > 0.0:
            share = abs(difference) / size
            distance += share
            gradient[c] = (np.sign(difference) - share * np.sign(x[c])) / size
    return distance


@measure.version(BrayCurtis)
def _bray_curtis(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    apart, size = 0.0, 0.0
    for c in range(x.size):
        apart += abs(np.float64(x[c]) - np.float64(y[c]))
        size += abs(np.float64(x[c]) + np.float64(y[c]))
    distance = apart / size if size > 0.0 else 0.0
    for c in range(x.size):
        # umap-learn leaves out the sign of the sum.
        together = np.sign(np.float64(x[c]) + np.float64(y[c]))
        gradient[c] = (np.sign(np.float64(x[c]) - np.float64(y[c])) - distance * together) / max(size, TINY)
    return distance


@measure.version(Cosine)
def _cosine(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    product, xx, yy = 0.0, 0.0, 0.0
    for c in range(x.size):
        product += np.float64(x[c]) * np.float64(y[c])
        xx += np.float64(x[c]) ** 2
        yy += np.float64(y[c]) ** 2
    if xx == 0.0 or yy == 0.0:
        for c in range(x.size):
            gradient[c] = 0.0
        return 0.0 if xx == yy else 1.0
    lengths = np.sqrt(xx * yy)
    for c in range(x.size):
        gradient[c] = (np.float64(x[c]) * product / xx - np.float64(y[c])) / lengths
    return 1.0 - product / lengths


@measure.version(Correlation)
def _correlation(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    x_mean, y_mean = 0.0, 0.0
    for c in range(x.size):
        x_mean += np.float64(x[c]) / x.size
        y_mean += np.float64(y[c]) / x.size
    product, xx, yy = 0.0, 0.0, 0.0
    for c in range(x.size):
        product += (x[c] - x_mean) * (y[c] - y_mean)
        xx += (x[c] - x_mean) ** 2
        yy += (y[c] - y_mean) ** 2
    if xx == 0.0 or yy == 0.0:
        for c in range(x.size):
            gradient[c] = 0.0
        return 0.0 if xx == yy else 1.0
    lengths = np.sqrt(xx * yy)
    for c in range(x.size):
        gradient[c] = ((x[c] - x_mean) * product / xx - (y[c] - y_mean)) / lengths
    return 1.0 - product / lengths


@measure.version(SoftmaxHellinger)
def _softmax_hellinger(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    x_most, y_most = np.float64(x[0]), np.float64(y[0])
    for c in range(x.size):
        x_most, y_most = max(x_most, x[c]), max(y_most, y[c])
    x_sum, y_sum, common = 0.0, 0.0, 0.0
    for c in range(x.size):
        x_sum += np.exp(x[c] - x_most)
        y_sum += np.exp(y[c] - y_most)
        common += np.exp(0.5 * ((x[c] - x_most) + (y[c] - y_most)))
    common /= np.sqrt(x_sum * y_sum)
    distance = np.sqrt(max(0.0, 1.0 - common))
    for c in range(x.size):
        share = np.exp(x[c] - x_most) / x_sum
        both = np.exp(0.5 * ((x[c] - x_most) + (y[c] - y_most))) / np.sqrt(x_sum * y_sum)
        gradient[c] = (share * common - both) / (4.0 * max(distance, TINY))
    return distance


@measure.version(Haversine)
def _haversine(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    x_angle, y_angle = np.float64(x[0]), np.float64(y[0])
    half, turn = 0.5 * (x_angle - y_angle), 0.5 * (np.float64(x[1]) - np.float64(y[1]))
    sine = np.sin(turn)
    # Right for all numbers: beyond a pole the meridian goes on on the other side.
    share = np.sin(half) ** 2 + np.sin(x_angle) * np.sin(y_angle) * sine**2
    share = min(max(share, 0.0), 1.0)
    slope = 1.0 / (np.sqrt(share * (1.0 - share)) + TINY)
    gradient[0] = slope * (np.sin(half) * np.cos(half) + np.cos(x_angle) * np.sin(y_angle) * sine**2)
    gradient[1] = slope * np.sin(x_angle) * np.sin(y_angle) * sine * np.cos(turn)
    return 2.0 * np.arcsin(np.sqrt(share))


@measure.version(Torus)
def _torus(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    total = 0.0
    for c in range(x.size):
        difference = np.float64(x[c]) - np.float64(y[c])
        gradient[c] = difference - metric.torus_dimensions[c] * np.rint(
            difference / metric.torus_dimensions[c]
        )
        total += gradient[c] ** 2
    distance = np.sqrt(total)
    for c in range(x.size):
        gradient[c] /= max(distance, TINY)
    return distance


@measure.version(Hyperboloid)
def _hyperboloid(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    xx, yy, product = 1.0, 1.0, 0.0
    for c in range(x.size):
        xx += np.float64(x[c]) ** 2
        yy += np.float64(y[c]) ** 2
        product += np.float64(x[c]) * np.float64(y[c])
    across = np.sqrt(yy / xx)
    cosh = max(np.sqrt(xx * yy) - product, 1.0)
    sinh = max(np.sqrt((cosh - 1.0) * (cosh + 1.0)), TINY)
    for c in range(x.size):
        gradient[c] = (np.float64(x[c]) * across - np.float64(y[c])) / sinh
    return np.arccosh(cosh)


@measure.version(SphericalGaussian)
def _spherical_gaussian(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    first, second = np.float64(x[0]) - np.float64(y[0]), np.float64(x[1]) - np.float64(y[1])
    variance = max(abs(np.float64(x[2])) + abs(np.float64(y[2])), TINY)
    squared = first**2 + second**2
    gradient[0], gradient[1] = first / variance, second / variance
    gradient[2] = np.sign(x[2]) * (1.0 / variance - squared / (2.0 * variance**2))
    return squared / (2.0 * variance) + np.log(variance) + LOG_TWO_PI


@measure.version(DiagonalGaussian)
def _diagonal_gaussian(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    energy = LOG_TWO_PI
    for c in range(2):
        difference = np.float64(x[c]) - np.float64(y[c])
        variance = max(abs(np.float64(x[c + 2])) + abs(np.float64(y[c + 2])), TINY)
        gradient[c] = difference / variance
        gradient[c + 2] = np.sign(x[c + 2]) * (1.0 / variance - difference**2 / variance**2) / 2.0
        energy += (difference**2 / variance + np.log(variance)) / 2.0
    return energy


@measure.version(Gaussian)
def _gaussian(metric, x, y, gradient):  # type: ignore[no-untyped-def]
    first, second = np.float64(x[0]) - np.float64(y[0]), np.float64(x[1]) - np.float64(y[1])
    wide, high, angle = abs(np.float64(x[2])), abs(np.float64(x[3])), np.float64(x[4])
    y_wide, y_high, y_angle = abs(np.float64(y[2])), abs(np.float64(y[3])), np.float64(y[4])
    cosine, sine = np.cos(angle), np.sin(angle)
    s11 = wide * cosine**2 + high * sine**2 + y_wide * np.cos(y_angle) ** 2 + y_high * np.sin(y_angle) ** 2
    s22 = wide * sine**2 + high * cosine**2 + y_wide * np.sin(y_angle) ** 2 + y_high * np.cos(y_angle) ** 2
    s12 = (wide - high) * sine * cosine + (y_wide - y_high) * np.sin(y_angle) * np.cos(y_angle)
    det = max(s11 * s22 - s12**2, TINY**2)
    # What the inverse makes of the difference: the form's gradient by an entry of the matrix is its product.
    u, v = (s22 * first - s12 * second) / det, (s11 * second - s12 * first) / det
    gradient[0], gradient[1] = 2.0 * u, 2.0 * v
    along, across = u * cosine + v * sine, v * cosine - u * sine
    # The determinant's part, which umap-learn leaves out: without it Gaussians grow without end.
    by_wide = (s22 * cosine**2 + s11 * sine**2 - 2.0 * s12 * sine * cosine) / det
    by_high = (s22 * sine**2 + s11 * cosine**2 + 2.0 * s12 * sine * cosine) / det
    gradient[2] = np.sign(x[2]) * (by_wide - along**2)
    gradient[3] = np.sign(x[3]) * (by_high - across**2)
    turned = (s11 - s22) * np.sin(2.0 * angle) - 2.0 * s12 * np.cos(2.0 * angle)
    gradient[4] = (wide - high) * (turned / det - 2.0 * along * across)
    return first * u + second * v + np.log(det) + LOG_TWO_PI
