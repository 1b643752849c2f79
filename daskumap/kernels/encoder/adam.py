"""Adam over a flat vector."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.jit import fast_kernel

Array = NDArray[Any]
# Decay of the mean and of the variance, and what keeps a quotient finite: umap-learn's, which are Keras'.
MEAN, VARIANCE, EPSILON = 0.9, 0.999, 1e-7
# Components of the gradient are clipped, as umap-learn does: two rows at one place push without limit.
CLIP = 4.0
# The rate falls linearly to this share of its start.
LAST_RATE = 0.01


def update(state: Array, gradient: Array, step: int, steps: int, learning_rate: float) -> None:
    """Move the weights by one step against the gradient.

    Parameters
    ----------
    state
        (3, P): weights, mean and variance of the gradient; overwritten.
    step, steps
        The number of this step, from 0, of all that there will be.

    References
    ----------
    Kingma, Ba (2015).
    """
    rate = learning_rate * (1.0 - (1.0 - LAST_RATE) * step / steps)
    rate *= np.sqrt(1.0 - VARIANCE ** (step + 1)) / (1.0 - MEAN ** (step + 1))
    number = state.dtype.type
    constants = [number(value) for value in (rate, MEAN, 1.0 - MEAN, VARIANCE, 1.0 - VARIANCE, EPSILON, CLIP)]
    _update(state[0], state[1], state[2], gradient, *constants)


@fast_kernel
def _update(weights, mean, variance, gradient, rate, keep, add, keep2, add2, epsilon, limit):  # type: ignore[no-untyped-def]
    for k in range(len(weights)):
        g = gradient[k]
        g = limit if g > limit else (-limit if g < -limit else g)  # and NaN stays
        mean[k] = keep * mean[k] + add * g
        variance[k] = keep2 * variance[k] + add2 * g * g
        weights[k] -= rate * mean[k] / (np.sqrt(variance[k]) + epsilon)
