"""Gradients of distances with respect to the first row: those of the metrics that umap-learn has them of.

Each is that of the distance as a fit measures it. Three are not umap-learn's, which are of other functions:
`haversine` there is shifted by a quarter of the globe, `symmetric_kl` forgets that rows are divided by their
sums, and `braycurtis` takes all sums of two values for positive.

No loop both sums and stores: LLVM vectorises such a one only where arrays are far enough from each other in
memory, and sums in another order elsewhere, so that bits would depend on where arrays lie (it was seen).
"""

from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.metrics.metric import Metric
from daskumap.kernels.metrics.names import DISTRIBUTIONS, OTHERS, SPACES
from daskumap.kernels.parts import part

Array = np.ndarray[Any, Any]

# pynndescent's: what keeps a bin without mass from being infinitely far.
KL_FLOOR = np.finfo(np.float32).eps


class Euclidean:
    """Chooses the version of this distance."""


class Manhattan:
    """Chooses the version of this distance."""


class Chebyshev:
    """Chooses the version of this distance."""


class Minkowski:
    """Chooses the version of this distance."""


class Seuclidean:
    """Chooses the version of this distance."""


class Mahalanobis:
    """Chooses the version of this distance."""


class Canberra:
    """Chooses the version of this distance."""


class Cosine:
    """Chooses the version of this distance."""


class Correlation:
    """Chooses the version of this distance."""


class Hellinger:
    """Chooses the version of this distance."""


class Haversine:
    """Chooses the version of this distance."""


class Braycurtis:
    """Chooses the version of this distance."""


class SymmetricKl:
    """Chooses the version of this distance."""


CLASSES = {
    "euclidean": Euclidean,
    "manhattan": Manhattan,
    "chebyshev": Chebyshev,
    "minkowski": Minkowski,
    "wminkowski": Minkowski,
    "seuclidean": Seuclidean,
    "mahalanobis": Mahalanobis,
    "canberra": Canberra,
    "cosine": Cosine,
    "correlation": Correlation,
    "hellinger": Hellinger,
    "haversine": Haversine,
    "braycurtis": Braycurtis,
    "symmetric_kl": SymmetricKl,
}


class Gradient(NamedTuple):
    """How a metric's gradient is evaluated.

    Attributes
    ----------
    kind
        Which version of `gradient` it is.
    power, weights
        Its keywords: a number, and (1, D) or (D, D) float64.
    least
        What no value may be below.
    """

    kind: type
    power: float
    weights: Array
    least: float


def gradient_of(metric: Metric, columns: int) -> Gradient:
    """Return the gradient of a metric between rows of so many columns.

    Raises
    ------
    ValueError
        For a metric that has none, with those that have one.
    """
    if metric.name not in CLASSES:
        spellings = {**{name: found[0] for name, found in SPACES.items()}, **OTHERS}
        allowed = ", ".join(sorted(name for name, known in spellings.items() if known in CLASSES))
        raise ValueError(f"Metric {metric.name!r} has no gradient. Allowed: {allowed}.")
    values = dict(metric.keywords)
    weights = next((values[name] for name in ("w", "V", "VI") if name in values), np.ones(columns))
    if metric.name == "mahalanobis":
        weights = (weights + weights.T) / 2
    least = 0.0 if metric.name in DISTRIBUTIONS else -np.inf
    return Gradient(CLASSES[metric.name], float(values.get("p", 2.0)), np.atleast_2d(weights), least)


@part
def gradient(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    """Write the gradient of the distance of x and y, (D,) float32, at x into `out`; 0 where it has none."""


@gradient.version(Euclidean)
def _euclidean(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    total = np.float32(0.0)
    for c in range(x.size):
        out[c] = x[c] - y[c]
    for c in range(x.size):
        total += out[c] * out[c]
    scale = np.float32(1.0) / np.sqrt(total) if total > 0 else np.float32(0.0)
    for c in range(x.size):
        out[c] *= scale


@gradient.version(Seuclidean)
def _seuclidean(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    total = 0.0
    for c in range(x.size):
        out[c] = (np.float64(x[c]) - np.float64(y[c])) / weights[0, c]
    for c in range(x.size):
        total += np.float64(out[c]) * (np.float64(x[c]) - np.float64(y[c]))
    scale = 1.0 / np.sqrt(total) if total > 0 else 0.0
    for c in range(x.size):
        out[c] *= scale


@gradient.version(Mahalanobis)
def _mahalanobis(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    total = 0.0
    for c in range(x.size):
        part_ = 0.0
        for j in range(x.size):
            part_ += weights[c, j] * (np.float64(x[j]) - np.float64(y[j]))
        out[c] = part_
    for c in range(x.size):
        total += np.float64(out[c]) * (np.float64(x[c]) - np.float64(y[c]))
    scale = 1.0 / np.sqrt(total) if total > 0 else 0.0
    for c in range(x.size):
        out[c] *= scale


@gradient.version(Manhattan)
def _manhattan(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    for c in range(x.size):
        out[c] = np.sign(x[c] - y[c])


@gradient.version(Chebyshev)
def _chebyshev(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    at, largest = 0, np.float32(0.0)
    for c in range(x.size):
        out[c] = 0.0
        if abs(x[c] - y[c]) > largest:
            at, largest = c, abs(x[c] - y[c])
    out[at] = np.sign(x[at] - y[at])


@gradient.version(Minkowski)
def _minkowski(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    total = 0.0
    for c in range(x.size):
        total += weights[0, c] * abs(np.float64(x[c]) - np.float64(y[c])) ** power
    scale = total ** ((1.0 - power) / power) if total > 0 else 0.0
    for c in range(x.size):
        difference = np.float64(x[c]) - np.float64(y[c])
        out[c] = scale * weights[0, c] * abs(difference) ** (power - 1.0) * np.sign(difference)


@gradient.version(Canberra)
def _canberra(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    for c in range(x.size):
        first, second = np.float64(x[c]), np.float64(y[c])
        size = abs(first) + abs(second)
        out[c] = 0.0
        if size > 0:
            out[c] = np.sign(first - second) / size - abs(first - second) * np.sign(first) / size**2


@gradient.version(Cosine)
def _cosine(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    product, own, other = 0.0, 0.0, 0.0
    for c in range(x.size):
        product += np.float64(x[c]) * np.float64(y[c])
        own += np.float64(x[c]) ** 2
        other += np.float64(y[c]) ** 2
    scale = 1.0 / np.sqrt(own * other) if own > 0 and other > 0 else 0.0
    along = product / own if own > 0 else 0.0
    for c in range(x.size):
        out[c] = scale * (along * np.float64(x[c]) - np.float64(y[c]))


@gradient.version(Correlation)
def _correlation(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    first, second = 0.0, 0.0
    for c in range(x.size):
        first += np.float64(x[c])
        second += np.float64(y[c])
    first, second = first / x.size, second / x.size
    product, own, other = 0.0, 0.0, 0.0
    for c in range(x.size):
        product += (x[c] - first) * (y[c] - second)
        own += (x[c] - first) ** 2
        other += (y[c] - second) ** 2
    scale = 1.0 / np.sqrt(own * other) if own > 0 and other > 0 else 0.0
    along = product / own if own > 0 else 0.0
    for c in range(x.size):
        out[c] = scale * (along * (x[c] - first) - (y[c] - second))


@gradient.version(Hellinger)
def _hellinger(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    shared, own, other = 0.0, 0.0, 0.0
    for c in range(x.size):
        shared += np.sqrt(np.float64(x[c]) * np.float64(y[c]))
        own += np.float64(x[c])
        other += np.float64(y[c])
    norm = np.sqrt(own * other)
    gap = 1.0 - shared / norm if norm > 0 else 0.0
    scale = 0.25 / (np.sqrt(gap) * norm) if gap > 0 else 0.0
    along = shared / own if own > 0 else 0.0
    for c in range(x.size):
        root = np.sqrt(np.float64(y[c]) / np.float64(x[c])) if x[c] > 0 else 0.0
        out[c] = scale * (along - root)


@gradient.version(Haversine)
def _haversine(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    here, there = np.float64(x[0]), np.float64(y[0])
    north, east = 0.5 * (here - there), 0.5 * (np.float64(x[1]) - np.float64(y[1]))
    a = np.sin(north) ** 2 + np.cos(here) * np.cos(there) * np.sin(east) ** 2
    scale = 1.0 / np.sqrt(a * (1.0 - a)) if 0 < a < 1 else 0.0
    out[0] = scale * (np.sin(north) * np.cos(north) - np.sin(here) * np.cos(there) * np.sin(east) ** 2)
    out[1] = scale * np.cos(here) * np.cos(there) * np.sin(east) * np.cos(east)


@gradient.version(Braycurtis)
def _braycurtis(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    apart, together = 0.0, 0.0
    for c in range(x.size):
        apart += abs(np.float64(x[c]) - np.float64(y[c]))
        together += abs(np.float64(x[c]) + np.float64(y[c]))
    scale = 1.0 / together if together > 0 else 0.0
    for c in range(x.size):
        out[c] = scale * (np.sign(x[c] - y[c]) - apart * scale * np.sign(x[c] + y[c]))


@gradient.version(SymmetricKl)
def _symmetric_kl(x, y, power, weights, out):  # type: ignore[no-untyped-def]
    own, other = KL_FLOOR * x.size, KL_FLOOR * x.size
    for c in range(x.size):
        own += np.float64(x[c])
        other += np.float64(y[c])
    mean = 0.0
    for c in range(x.size):
        p, q = (np.float64(x[c]) + KL_FLOOR) / own, (np.float64(y[c]) + KL_FLOOR) / other
        out[c] = np.log(p / q) + 1.0 - q / p
    for c in range(x.size):
        mean += (np.float64(x[c]) + KL_FLOOR) / own * np.float64(out[c])
    for c in range(x.size):
        out[c] = (out[c] - mean) / own
