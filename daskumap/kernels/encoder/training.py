"""The loop of steps."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.encoder import adam
from daskumap.kernels.encoder.backend import Backend, Terms
from daskumap.kernels.encoder.batch import Batch, Settings

Array = NDArray[Any]


class Batches(Protocol):
    """What a training draws from."""

    def batch(self, step: int) -> Batch:
        """Return what a step is about."""


def start(backend: Backend, key: int) -> Array:
    """Return the state before the first step: weights, mean and variance of the gradient, (3, P) float32."""
    weights = backend.initial(key)
    return np.stack([weights, np.zeros_like(weights), np.zeros_like(weights)])


def run_steps(
    backend: Backend, state: Array, sampler: Batches, first: int, last: int, settings: Settings
) -> tuple[Array, Terms]:
    """Run steps first .. last - 1 of a training.

    One BLAS thread runs it, whoever calls it sees to that: two change the bits.

    Parameters
    ----------
    state
        Of `start` or of the steps before; left as it is.

    Returns
    -------
    state, sums
        The state after the steps, and each term of the loss summed over them.
    """
    state = state.copy()
    sums: Terms = {}
    for step in range(first, last):
        gradient, terms = backend.gradient(state[0], sampler.batch(step), settings)
        adam.update(state, gradient, step, settings.steps, settings.learning_rate)
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + value
    return state, sums
