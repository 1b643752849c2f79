"""From points of the map back to rows: each row descends alone, towards the rows of its neighbours.

What is descended is the sum of w d / sigma over the neighbours: minus the logarithm of the memberships that
the row has in them, exp(-(d - rho) / sigma), each with the weight w that it has on the map.
"""

from typing import Any

import numpy as np

from daskumap.kernels.layout.fixed import SHARE_OF_RATE
from daskumap.kernels.layout.sampling import Array, readonly
from daskumap.kernels.metrics.gradients import Gradient, gradient
from daskumap.kernels.parts import build

# umap-learn's limit of a pull. There it is one of each component in the unit of the data, here one of the
# length, in the unit of the distance to the neighbours.
LIMIT = 4.0
# Bandwidths are positive but where all neighbours of a row equal it.
SMALLEST = np.float32(1e-30)


def map_weights(distances: Array, a: float, b: float) -> Array:
    """Return the weights of neighbours on the map, 1 / (1 + a d^2b), divided by their sum.

    Parameters
    ----------
    distances
        (r, k) float64, ascending; inf marks a missing neighbour.

    Returns
    -------
    :
        (r, k) float32; 0 where missing. Relative to the nearest, so that far points keep their digits.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = -np.logaddexp(0.0, np.log(a) + 2 * b * np.log(distances))
        weights = np.where(np.isfinite(distances), np.exp(logs - logs[:, :1]), 0.0)
        shares: Array = np.nan_to_num(weights / weights.sum(axis=1, keepdims=True))
    return shares.astype(np.float32)


def invert(
    rows: Array,
    places: Array,
    weights: Array,
    sigmas: Array,
    metric: Gradient,
    n_epochs: int,
    learning_rate: float,
) -> Array:
    """Return the row of each point of the map.

    Parameters
    ----------
    rows, sigmas
        (u, D) and (u,) float32: training rows, and their bandwidths.
    places, weights
        (r, k) int64 and float32: the neighbours of each point among them, ascending, -1 where missing; and
        their weights of `map_weights`.
    metric
        Of `gradient_of`.
    n_epochs, learning_rate
        0 epochs leave rows where they start. The fit's rate; a quarter of it counts, falling to 0.

    Returns
    -------
    :
        (r, D) float32; NaN for points without neighbours.

    References
    ----------
    umap-learn `UMAP.inverse_transform`, `optimize_layout_inverse`; docs/decisions/0021.
    """
    out = np.full((len(places), rows.shape[1]), np.nan, np.float32)
    alphas = SHARE_OF_RATE * learning_rate * (1 - np.arange(n_epochs) / max(1, n_epochs))
    kernel: Any = build(_invert, metric.kind)
    kernel(
        readonly(rows, np.float32),
        readonly(places, np.int64),
        readonly(weights, np.float32),
        readonly(sigmas, np.float32),
        metric.power,
        readonly(metric.weights, np.float64),
        np.float32(metric.least),
        readonly(alphas, np.float64),
        out,
    )
    return out


def _invert(rows, places, weights, sigmas, power, by_column, least, alphas, out):  # type: ignore[no-untyped-def]
    columns = rows.shape[1]
    mean, pull, total = np.empty(columns), np.empty(columns, np.float32), np.empty(columns, np.float32)
    for row in range(places.shape[0]):
        count = 0
        while count < places.shape[1] and places[row, count] >= 0:
            count += 1
        if count == 0:
            continue
        x = out[row]
        mean[:] = 0.0
        for e in range(count):
            for c in range(columns):
                mean[c] += np.float64(weights[row, e]) * np.float64(rows[places[row, e], c])
        spread = 0.0
        for c in range(columns):
            x[c] = mean[c]
        for e in range(count):
            for c in range(columns):
                spread += np.float64(weights[row, e]) * (rows[places[row, e], c] - mean[c]) ** 2
        spread = np.sqrt(spread)
        if spread == 0.0:
            continue
        for epoch in range(alphas.size):
            total[:] = np.float32(0.0)
            for e in range(count):
                at = places[row, e]
                gradient(x, rows[at], power, by_column, pull)
                squared = np.float32(0.0)
                for c in range(columns):
                    squared += pull[c] * pull[c]
                length = np.sqrt(np.float64(squared))
                if length > 0.0:
                    share = min(spread / max(sigmas[at], SMALLEST), LIMIT / length)
                    step = np.float32(alphas[epoch] * spread * weights[row, e] * share)
                    for c in range(columns):
                        total[c] += step * pull[c]
            for c in range(columns):
                x[c] = max(x[c] - total[c], least)
