"""Positions of two and three components, kept in registers, and of any number, kept in arrays.

Each class has a version of each part, so that an optimizer, or a force, is written once for all of them.
"""

from typing import NamedTuple

import numpy as np

from daskumap.kernels.layout.forces import clip, pull, push
from daskumap.kernels.layout.optimizers import step
from daskumap.kernels.layout.sampling import Array, below, mix
from daskumap.kernels.parts import part

# Negatives come in runs of 16 float32: one AVX-512 register, two of AVX2, one cache line.
LANES = 16
# Adam averages the repulsion over more draws than count, at almost no cost: on Fashion-MNIST twice as many
# raise the kNN preservation from .135 to .138, four times to .139 (two seeds each, spread .001).
DRAWS = 2
# Limits of a force's components. A force near distance d is about 1 / d: 4, which is umap-learn's and fits
# steps along one force after the other, lets axes thinner than .25 collapse where steps go along the sum of
# forces, since noise does not blur them; 12 keeps small clusters round (docs/decisions/0017).
LIMIT, STEP_LIMIT = np.float32(12.0), np.float32(4.0)

ZERO, TWO = np.float32(0.0), np.float32(2.0)


class TwoComponents(NamedTuple):
    """Positions and gradients are pairs of numbers."""


class ThreeComponents(NamedTuple):
    """Positions and gradients are triples of numbers."""


class AnyComponents(NamedTuple):
    """Positions and gradients are arrays, and each overwrites the one before."""

    position: Array  # (d,) float32
    gradient: Array  # (d,) float32
    lanes: Array  # (LANES,) float32: distances, then coefficients


def components_of(dims: int) -> TwoComponents | ThreeComponents | AnyComponents:
    """Return the class of positions of so many components, with room where they are arrays."""
    if dims == 2:
        return TwoComponents()
    if dims == 3:
        return ThreeComponents()
    position, gradient, lanes = (np.empty(size, np.float32) for size in (dims, dims, LANES))
    return AnyComponents(position, gradient, lanes)


@part
def position_of(components, snapshot, vertex):  # type: ignore[no-untyped-def]
    """Return a vertex' position in the snapshot."""


@part
def copy_of(components, snapshot, vertex):  # type: ignore[no-untyped-def]
    """Return a vertex' position as one that can be moved."""


@part
def attract(components, position, snapshot, vertex, fired, count, attraction):  # type: ignore[no-untyped-def]
    """Return the gradient of a vertex' first `count` fired edges, each of which counts for both its ends."""


@part
def repel(components, position, pool, count, draw_hash, repulsion, gradient):  # type: ignore[no-untyped-def]
    """Add the gradient of `count` negatives: their number times the mean of `DRAWS` times as many.

    All lanes of whole runs are used, so there is no scalar tail, and more draws make less noise.
    """


@part
def displace(components, position, gradient, optimizer, out, row):  # type: ignore[no-untyped-def]
    """Write where the optimizer's step along the gradient leads."""


@part
def distance_to(components, position, others, at):  # type: ignore[no-untyped-def]
    """Return the squared distance to column `at` of (d, m) others."""


@part
def moved(components, position, others, at, coefficient, alpha):  # type: ignore[no-untyped-def]
    """Return the position after one clipped force from column `at` of (d, m) others."""


@part
def store(components, position, out, row):  # type: ignore[no-untyped-def]
    """Write a position."""


@copy_of.version(TwoComponents)
@position_of.version(TwoComponents)
def _position_of_two(components, snapshot, vertex):  # type: ignore[no-untyped-def]
    return snapshot[vertex, 0], snapshot[vertex, 1]


@attract.version(TwoComponents)
def _attract_two(components, position, snapshot, vertex, fired, count, attraction):  # type: ignore[no-untyped-def]
    x, y = position
    gx, gy = ZERO, ZERO
    for k in range(count):
        tail = np.uint64(fired[k])
        dx, dy = x - snapshot[tail, 0], y - snapshot[tail, 1]
        coefficient = pull(attraction, dx * dx + dy * dy, vertex, tail)
        gx += clip(coefficient * dx, LIMIT)
        gy += clip(coefficient * dy, LIMIT)
    return TWO * gx, TWO * gy


@repel.version(TwoComponents)
def _repel_two(components, position, pool, count, draw_hash, repulsion, gradient):  # type: ignore[no-untyped-def]
    x, y = position
    gx, gy = ZERO, ZERO
    runs = pool.shape[1] - LANES + 1
    blocks = (DRAWS * count + LANES - 1) // LANES
    for block in range(blocks):
        at = np.int64(below(mix(np.uint32(draw_hash + np.uint32(block))), runs))
        xs, ys = pool[0, at : at + LANES], pool[1, at : at + LANES]
        for lane in range(LANES):
            dx, dy = x - xs[lane], y - ys[lane]
            coefficient = push(repulsion, dx * dx + dy * dy)
            gx += clip(coefficient * dx, LIMIT)
            gy += clip(coefficient * dy, LIMIT)
    share = np.float32(count) / np.float32(max(1, blocks * LANES))
    return gradient[0] + gx * share, gradient[1] + gy * share


@displace.version(TwoComponents)
def _displace_two(components, position, gradient, optimizer, out, row):  # type: ignore[no-untyped-def]
    out[row, 0] = position[0] + step(optimizer, row, 0, gradient[0])
    out[row, 1] = position[1] + step(optimizer, row, 1, gradient[1])


@distance_to.version(TwoComponents)
def _distance_to_two(components, position, others, at):  # type: ignore[no-untyped-def]
    dx, dy = position[0] - others[0, at], position[1] - others[1, at]
    return dx * dx + dy * dy


@moved.version(TwoComponents)
def _moved_two(components, position, others, at, coefficient, alpha):  # type: ignore[no-untyped-def]
    dx, dy = position[0] - others[0, at], position[1] - others[1, at]
    x = position[0] + alpha * clip(coefficient * dx, STEP_LIMIT)
    return x, position[1] + alpha * clip(coefficient * dy, STEP_LIMIT)


@store.version(TwoComponents)
def _store_two(components, position, out, row):  # type: ignore[no-untyped-def]
    out[row, 0], out[row, 1] = position


@copy_of.version(ThreeComponents)
@position_of.version(ThreeComponents)
def _position_of_three(components, snapshot, vertex):  # type: ignore[no-untyped-def]
    return snapshot[vertex, 0], snapshot[vertex, 1], snapshot[vertex, 2]


@attract.version(ThreeComponents)
def _attract_three(components, position, snapshot, vertex, fired, count, attraction):  # type: ignore[no-untyped-def]
    x, y, z = position
    gx, gy, gz = ZERO, ZERO, ZERO
    for k in range(count):
        tail = np.uint64(fired[k])
        dx, dy, dz = x - snapshot[tail, 0], y - snapshot[tail, 1], z - snapshot[tail, 2]
        coefficient = pull(attraction, dx * dx + dy * dy + dz * dz, vertex, tail)
        gx += clip(coefficient * dx, LIMIT)
        gy += clip(coefficient * dy, LIMIT)
        gz += clip(coefficient * dz, LIMIT)
    return TWO * gx, TWO * gy, TWO * gz


@repel.version(ThreeComponents)
def _repel_three(components, position, pool, count, draw_hash, repulsion, gradient):  # type: ignore[no-untyped-def]
    x, y, z = position
    gx, gy, gz = ZERO, ZERO, ZERO
    runs = pool.shape[1] - LANES + 1
    blocks = (DRAWS * count + LANES - 1) // LANES
    for block in range(blocks):
        at = np.int64(below(mix(np.uint32(draw_hash + np.uint32(block))), runs))
        xs, ys, zs = pool[0, at : at + LANES], pool[1, at : at + LANES], pool[2, at : at + LANES]
        for lane in range(LANES):
            dx, dy, dz = x - xs[lane], y - ys[lane], z - zs[lane]
            coefficient = push(repulsion, dx * dx + dy * dy + dz * dz)
            gx += clip(coefficient * dx, LIMIT)
            gy += clip(coefficient * dy, LIMIT)
            gz += clip(coefficient * dz, LIMIT)
    share = np.float32(count) / np.float32(max(1, blocks * LANES))
    return gradient[0] + gx * share, gradient[1] + gy * share, gradient[2] + gz * share


@displace.version(ThreeComponents)
def _displace_three(components, position, gradient, optimizer, out, row):  # type: ignore[no-untyped-def]
    out[row, 0] = position[0] + step(optimizer, row, 0, gradient[0])
    out[row, 1] = position[1] + step(optimizer, row, 1, gradient[1])
    out[row, 2] = position[2] + step(optimizer, row, 2, gradient[2])


@distance_to.version(ThreeComponents)
def _distance_to_three(components, position, others, at):  # type: ignore[no-untyped-def]
    dx, dy, dz = position[0] - others[0, at], position[1] - others[1, at], position[2] - others[2, at]
    return dx * dx + dy * dy + dz * dz


@moved.version(ThreeComponents)
def _moved_three(components, position, others, at, coefficient, alpha):  # type: ignore[no-untyped-def]
    dx, dy, dz = position[0] - others[0, at], position[1] - others[1, at], position[2] - others[2, at]
    x = position[0] + alpha * clip(coefficient * dx, STEP_LIMIT)
    y = position[1] + alpha * clip(coefficient * dy, STEP_LIMIT)
    return x, y, position[2] + alpha * clip(coefficient * dz, STEP_LIMIT)


@store.version(ThreeComponents)
def _store_three(components, position, out, row):  # type: ignore[no-untyped-def]
    out[row, 0], out[row, 1], out[row, 2] = position


@position_of.version(AnyComponents)
def _position_of_any(components, snapshot, vertex):  # type: ignore[no-untyped-def]
    return snapshot[vertex]


@copy_of.version(AnyComponents)
def _copy_of_any(components, snapshot, vertex):  # type: ignore[no-untyped-def]
    components.position[:] = snapshot[vertex]
    return components.position


@attract.version(AnyComponents)
def _attract_any(components, position, snapshot, vertex, fired, count, attraction):  # type: ignore[no-untyped-def]
    gradient = components.gradient
    gradient[:] = ZERO
    for k in range(count):
        tail, d2 = np.uint64(fired[k]), ZERO
        for c in range(gradient.size):
            difference = position[c] - snapshot[tail, c]
            d2 += difference * difference
        coefficient = pull(attraction, d2, vertex, tail)
        for c in range(gradient.size):
            gradient[c] += TWO * clip(coefficient * (position[c] - snapshot[tail, c]), LIMIT)
    return gradient


@repel.version(AnyComponents)
def _repel_any(components, position, pool, count, draw_hash, repulsion, gradient):  # type: ignore[no-untyped-def]
    lanes = components.lanes
    runs = pool.shape[1] - LANES + 1
    blocks = (DRAWS * count + LANES - 1) // LANES
    share = np.float32(count) / np.float32(max(1, blocks * LANES))
    for block in range(blocks):
        at = np.int64(below(mix(np.uint32(draw_hash + np.uint32(block))), runs))
        lanes[:] = ZERO
        for c in range(gradient.size):
            x, xs = position[c], pool[c, at : at + LANES]
            for lane in range(LANES):
                lanes[lane] += (x - xs[lane]) * (x - xs[lane])
        for lane in range(LANES):
            lanes[lane] = push(repulsion, lanes[lane])
        for c in range(gradient.size):
            x, xs, total = position[c], pool[c, at : at + LANES], ZERO
            for lane in range(LANES):
                total += clip(lanes[lane] * (x - xs[lane]), LIMIT)
            gradient[c] += total * share
    return gradient


@displace.version(AnyComponents)
def _displace_any(components, position, gradient, optimizer, out, row):  # type: ignore[no-untyped-def]
    for c in range(gradient.size):
        out[row, c] = position[c] + step(optimizer, row, c, gradient[c])


@distance_to.version(AnyComponents)
def _distance_to_any(components, position, others, at):  # type: ignore[no-untyped-def]
    d2 = ZERO
    for c in range(np.uint64(position.size)):  # unsigned, or numba tests each index for being negative
        d2 += (position[c] - others[c, at]) * (position[c] - others[c, at])
    return d2


@moved.version(AnyComponents)
def _moved_any(components, position, others, at, coefficient, alpha):  # type: ignore[no-untyped-def]
    for c in range(np.uint64(position.size)):
        position[c] += alpha * clip(coefficient * (position[c] - others[c, at]), STEP_LIMIT)
    return position


@store.version(AnyComponents)
def _store_any(components, position, out, row):  # type: ignore[no-untyped-def]
    out[row] = position
