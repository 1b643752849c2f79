"""The mean of the replicas of a network."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def mean_of(states: list[Array]) -> Array:
    """Return the mean of some states, float32; the sums are float64 and in the order of the replicas."""
    total = states[0].astype(np.float64)
    for state in states[1:]:
        total += state
    mean: Array = (total / len(states)).astype(np.float32)
    return mean
