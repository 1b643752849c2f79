"""How a vertex moves: one step along its summed gradient, or many small ones, one for each force."""

from typing import NamedTuple

import numpy as np

from daskumap.kernels.layout.sampling import Array
from daskumap.kernels.parts import part

# uwot's batch optimizer: short memories, because the gradients are resampled every epoch.
BETA1, BETA2, EPSILON = 0.5, 0.9, 1e-7
KEEP1, KEEP2 = np.float32(1 - BETA1), np.float32(1 - BETA2)


class Adam(NamedTuple):
    """One step an epoch along the gradient, measured by its mean and variance over the epochs."""

    mean: Array  # (rows, d) float32, updated in place
    variance: Array  # (rows, d) float32, updated in place
    rate: np.float32
    epsilon: np.float32


class Sgd(NamedTuple):
    """A step for each force, from where the last one ended."""

    alpha: np.float32


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
