"""The terms of the loss, each with its gradient.

The arithmetic is that of the arrays' type, but for sums of values, which are float64.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.encoder.batch import Batch, Settings
from daskumap.kernels.jit import fast_kernel

Array = NDArray[Any]
# Squared distances below it count as this much: of twins, whose distance has no direction.
FLOOR = 1e-12
# Of Huber's loss, in units of the map: beyond it the loss is linear.
DELTA = 1.0


def of_places(Z: Array, batch: Batch, settings: Settings, gradient: Array) -> dict[str, float]:
    """Return the terms of the loss that depend on the places of rows alone, each with its weight in it.

    Parameters
    ----------
    Z
        (m, d) places of the rows of the batch.
    gradient
        (m, d) gradient by them, overwritten.
    """
    gradient[:] = 0
    attraction, repulsion = pairs(Z, batch.edges, batch.pushed, settings, gradient)
    wanted = slice(len(Z) - len(batch.targets), None)
    weight = settings.landmark_weight / max(len(batch.targets), 1)
    return {
        "attraction": attraction,
        "repulsion": repulsion,
        "map": huber(Z, batch.places, gradient),
        "global": correlation(batch.rows, Z, batch.far, settings.global_weight, gradient),
        "landmarks": squares(Z[wanted], batch.targets, weight, gradient[wanted]),
    }


def of_reconstruction(decoded: Array, batch: Batch, settings: Settings, gradient: Array) -> float:
    """Write the gradient of the reconstruction of the ends, and return its loss.

    A decoder that is trained alone has weight 1; its loss is no part of the encoder's.
    """
    weight = (settings.autoencoder_weight or 1.0) / max(decoded.size, 1)
    loss = entropy if settings.reconstruction == "bce" else squares
    return loss(decoded, batch.rows[: batch.ends], weight, gradient)


def pairs(Z: Array, edges: int, pushed: Array, settings: Settings, gradient: Array) -> tuple[float, float]:
    """Add the gradient of the pulled and the pushed pairs, and return the loss of either.

    With u = a r^2b: the exact loss is ln(1 + u) for a pulled pair and ln(1 + u) - ln(u) for a pushed one; the
    logistic loss is ln(2 + u) and ln(2 + u) - ln(1 + u). All are divided by the number of pairs.

    Parameters
    ----------
    Z
        (m, d) places; edge e joins row e and row edges + e.
    pushed
        (N, 2) int32 pairs of rows.
    gradient
        (m, d), added to.

    References
    ----------
    Sainburg, McInnes, Gentner (2021).
    """
    number = Z.dtype.type
    return _pairs(  # type: ignore[no-any-return]
        Z,
        edges,
        pushed,
        number(settings.a),
        number(settings.b),
        number(settings.repulsion),
        number(1.0 if settings.loss == "logistic" else 0.0),
        gradient,
    )


@fast_kernel
def _pairs(Z, edges, pushed, a, b, repulsion, more, gradient):  # type: ignore[no-untyped-def]
    number = Z.dtype.type
    floor, one, two = number(FLOOR), number(1), number(2)
    total = max(edges + len(pushed), 1)
    attraction, repelled = 0.0, 0.0
    scale = one / number(total)
    for k in range(edges + len(pushed)):
        pull = k < edges
        i, j = (k, edges + k) if pull else (pushed[k - edges, 0], pushed[k - edges, 1])
        d2 = number(0)
        for c in range(Z.shape[1]):
            d2 += (Z[i, c] - Z[j, c]) * (Z[i, c] - Z[j, c])
        near = d2 < floor
        d2 = max(d2, floor)
        u = a * d2**b
        # Of u by the squared distance it is b u / d2.
        if pull:
            attraction += np.log(one + more + u)
            slope = b * u / (d2 * (one + more + u))
        else:
            repelled += np.log((one + more + u) / (more + u))
            slope = -repulsion * b * u / (d2 * (one + more + u) * (more + u))
        if near:
            continue
        slope *= two * scale
        for c in range(Z.shape[1]):
            force = slope * (Z[i, c] - Z[j, c])
            gradient[i, c] += force
            gradient[j, c] -= force
    return attraction / total, repulsion * repelled / total


def correlation(X: Array, Z: Array, far: Array, weight: float, gradient: Array) -> float:
    """Add the gradient of minus the correlation of distances of rows and of places; return the loss.

    It is zero where either distances are all equal.
    """
    if not len(far):
        return 0.0
    return float(_correlation(X, Z, far, float(weight), gradient))


@fast_kernel
def _distances(X, far):  # type: ignore[no-untyped-def]
    out = np.empty(len(far))
    for k in range(len(far)):
        i, j = far[k, 0], far[k, 1]
        d2 = X.dtype.type(0)
        for c in range(X.shape[1]):
            d2 += (X[i, c] - X[j, c]) * (X[i, c] - X[j, c])
        out[k] = np.sqrt(np.float64(d2))
    return out


@fast_kernel
def _correlation(X, Z, far, weight, gradient):  # type: ignore[no-untyped-def]
    dx, dz = _distances(X, far), _distances(Z, far)
    x, z = dx - dx.mean(), dz - dz.mean()
    xx, zz, xz = (x * x).sum(), (z * z).sum(), (x * z).sum()
    # Rounding of equal distances is no variance.
    if xx <= 1e-12 * (dx * dx).sum() or zz <= 1e-12 * (dz * dz).sum():
        return 0.0
    scale = 1.0 / np.sqrt(xx * zz)
    r = xz * scale
    for k in range(len(far)):
        if dz[k] * dz[k] < FLOOR:
            continue
        slope = -weight * (x[k] * scale - r * z[k] / zz) / dz[k]
        i, j = far[k, 0], far[k, 1]
        for c in range(Z.shape[1]):
            force = Z.dtype.type(slope * (Z[i, c] - Z[j, c]))
            gradient[i, c] += force
            gradient[j, c] -= force
    return -weight * r


def squares(values: Array, targets: Array, weight: float, gradient: Array) -> float:
    """Write the gradient of the weighted sum of (value - target)^2, and return the sum."""
    return float(_squares(values, targets, float(weight), gradient))


@fast_kernel
def _squares(values, targets, weight, gradient):  # type: ignore[no-untyped-def]
    slope, total = values.dtype.type(2.0 * weight), 0.0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            difference = values[i, j] - targets[i, j]
            total += np.float64(difference) * np.float64(difference)
            gradient[i, j] = slope * difference
    return weight * total


def entropy(logits: Array, targets: Array, weight: float, gradient: Array) -> float:
    """Write the gradient of the weighted sum of cross-entropies of logits and targets, and return the sum."""
    return float(_entropy(logits, targets, float(weight), gradient))


@fast_kernel
def _entropy(logits, targets, weight, gradient):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(logits.shape[0]):
        for j in range(logits.shape[1]):
            x, y = np.float64(logits[i, j]), np.float64(targets[i, j])
            e = np.exp(-abs(x))  # never infinite
            total += max(x, 0.0) - x * y + np.log1p(e)
            gradient[i, j] = weight * ((1.0 if x >= 0.0 else e) / (1.0 + e) - y)
    return weight * total


def softmax(logits: Array, labels: Array, weight: float, gradient: Array) -> float:
    """Write the gradient of the weighted mean of -ln softmax(logits)[label], and return it."""
    return float(_softmax(logits, labels, float(weight), gradient))


@fast_kernel
def _softmax(logits, labels, weight, gradient):  # type: ignore[no-untyped-def]
    total, scale = 0.0, weight / max(len(labels), 1)
    for i in range(logits.shape[0]):
        most = logits[i].max()
        summed = 0.0
        for j in range(logits.shape[1]):
            e = np.exp(np.float64(logits[i, j] - most))
            summed += e
            gradient[i, j] = scale * e
        for j in range(logits.shape[1]):
            gradient[i, j] /= summed
        gradient[i, labels[i]] -= scale
        total += np.log(summed) - (logits[i, labels[i]] - most)
    return scale * total


def huber(Z: Array, places: Array, gradient: Array) -> float:
    """Add the gradient of Huber's loss of places, and return its mean over rows.

    A row's loss is half its squared distance up to `DELTA`, and linear beyond.
    """
    return float(_huber(Z, places, gradient)) if len(places) else 0.0


@fast_kernel
def _huber(Z, places, gradient):  # type: ignore[no-untyped-def]
    total, scale = 0.0, 1.0 / max(len(places), 1)
    for i in range(len(places)):
        d2 = 0.0
        for c in range(Z.shape[1]):
            d2 += np.float64(Z[i, c] - places[i, c]) ** 2
        distance = np.sqrt(d2)
        beyond = distance > DELTA
        total += DELTA * (distance - 0.5 * DELTA) if beyond else 0.5 * d2
        slope = Z.dtype.type(scale * (DELTA / distance if beyond else 1.0))
        for c in range(Z.shape[1]):
            gradient[i, c] += slope * (Z[i, c] - places[i, c])
    return scale * total
