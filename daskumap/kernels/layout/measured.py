"""Positions on a map with a metric of its own: forces act along the gradient of half the squared distance.

On a plane that is the difference of the two positions, so that the tables of forces and all that is added to
them hold here as they do there.
"""

from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.layout.components import (
    LIMIT,
    STEP_LIMIT,
    TWO,
    ZERO,
    AnyComponents,
    attract,
    components_of,
    copy_of,
    displace,
    distance_to,
    moved,
    position_of,
    repel,
    store,
)
from daskumap.kernels.layout.distances import measure
from daskumap.kernels.layout.forces import clip, pull, push
from daskumap.kernels.layout.sampling import Array, below, mix


class MeasuredComponents(NamedTuple):
    """Positions and gradients are arrays, and a metric says how far two of them are."""

    metric: Any
    position: Array  # (d,) float32
    gradient: Array  # (d,) float32
    x: Array  # (d,) float32, what the metric is given, and may write to
    y: Array  # (d,) float32
    away: Array  # (d,) float64, the gradient of half the squared distance


def positions_on(metric: Any, dims: int) -> Any:
    """Return the class of positions of so many components, with room; None is the Euclidean metric."""
    if metric is None:
        return components_of(dims)
    position, gradient, x, y = (np.empty(dims, np.float32) for _ in range(4))
    return MeasuredComponents(metric, position, gradient, x, y, np.empty(dims))


@copy_of.version(MeasuredComponents)
@position_of.version(MeasuredComponents)
def _position_of(components, snapshot, vertex):  # type: ignore[no-untyped-def]
    for c in range(np.uint64(components.position.size)):
        components.position[c] = snapshot[vertex, c]
    return components.position


@distance_to.version(MeasuredComponents)
def _distance_to(components, position, others, at):  # type: ignore[no-untyped-def]
    x, y, away = components.x, components.y, components.away
    for c in range(np.uint64(away.size)):
        x[c], y[c] = position[c], others[c, at]
    distance = measure(components.metric, x, y, away)
    # In one place, of an energy below 0, or nowhere that can be told: nothing acts.
    factor = distance if distance > 0.0 else 0.0
    for c in range(np.uint64(away.size)):
        away[c] = away[c] * factor if abs(away[c]) < np.inf else 0.0
    return np.float32(factor * factor)


@moved.version(MeasuredComponents)
def _moved(components, position, others, at, coefficient, alpha):  # type: ignore[no-untyped-def]
    for c in range(np.uint64(position.size)):
        position[c] += alpha * clip(coefficient * np.float32(components.away[c]), STEP_LIMIT)
    return position


@attract.version(MeasuredComponents)
def _attract(components, position, snapshot, vertex, fired, count, attraction):  # type: ignore[no-untyped-def]
    gradient, everyone = components.gradient, snapshot.T
    gradient[:] = ZERO
    for k in range(count):
        tail = np.uint64(fired[k])
        coefficient = pull(attraction, distance_to(components, position, everyone, tail), vertex, tail)
        for c in range(np.uint64(gradient.size)):
            gradient[c] += TWO * clip(coefficient * np.float32(components.away[c]), LIMIT)
    return gradient


@repel.version(MeasuredComponents)
def _repel(components, position, pool, count, draw_hash, repulsion, gradient):  # type: ignore[no-untyped-def]
    # Not in runs, of which a part would be thrown away: a distance costs far more than a draw.
    for k in range(count):
        at = below(mix(np.uint32(draw_hash + np.uint32(k))), pool.shape[1])
        coefficient = push(repulsion, distance_to(components, position, pool, at))
        for c in range(np.uint64(gradient.size)):
            gradient[c] += clip(coefficient * np.float32(components.away[c]), LIMIT)
    return gradient


displace.version(MeasuredComponents)(displace.versions[AnyComponents])
store.version(MeasuredComponents)(store.versions[AnyComponents])
