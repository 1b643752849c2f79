"""How a vertex moves: one step along its summed gradient, or many small ones, one for each force."""

import math
from typing import NamedTuple

import numpy as np

from daskumap.kernels.layout.sampling import Array
from daskumap.kernels.parts import part

# uwot's batch optimizer: short memories, because the gradients are resampled every iteration.
BETA1, BETA2, EPSILON = 0.5, 0.99, 1e-7
# Adam divides by the size of the gradient, so its step is one of the map whatever the forces are: four times
# as long a step grows the map to the size of umap-learn's in as many iterations (docs/decisions/0017).
STEPS = 4.0
# Share of it, and of new rows' steps, on a map with a metric of its own, which may be no larger than such a
# step: on the sphere 100 epochs bring digits to a kNN accuracy of .974 for .946 (docs/decisions/0026).
MEASURED_SHARE = 0.3
# Share of the iterations in which steps grow to their size. At full size the first ones throw small
# components far out of the map (largest fly-away ratio 1.94 of ten maps, 1.38 with it).
RISE = 0.05
KEEP1, KEEP2 = np.float32(1 - BETA1), np.float32(1 - BETA2)


class Adam(NamedTuple):
    """One step an iteration along the gradient, measured by its mean and variance over the iterations."""

    mean: Array  # (rows, d) float32, updated in place
    variance: Array  # (rows, d) float32, updated in place
    rate: np.float32
    epsilon: np.float32


class Sgd(NamedTuple):
    """A step for each force, from where the last one ended."""

    alpha: np.float32


def adam_rate(iteration: int, n_iterations: int) -> float:
    """Return the length of a step along a gradient that does not change: it rises, and falls as a cosine."""
    rise = min(1.0, (iteration + 1) / (RISE * n_iterations))
    return rise * STEPS / 2 * (1 + math.cos(math.pi * iteration / n_iterations))


@part
def step(optimizer, row, c, gradient):  # type: ignore[no-untyped-def]
    """Return the displacement of one coordinate along its gradient."""


@step.version(Adam)
def _adam_step(adam, row, c, gradient):  # type: ignore[no-untyped-def]
    mean, variance = adam.mean[row, c], adam.variance[row, c]
    mean += KEEP1 * (gradient - mean)
    variance += KEEP2 * (gradient * gradient - variance)
    adam.mean[row, c], adam.variance[row, c] = mean, variance
    return adam.rate * mean / (np.sqrt(variance) + adam.epsilon)
