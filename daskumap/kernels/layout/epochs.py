"""One epoch of the layout for a range of vertices: the edges that fire pull, negatives push back.

A vertex reads all others from the snapshot taken when the epoch began and moves only itself. What it does
depends on (key, epoch, vertex) and its own edges, so any split of the vertices into ranges gives the same
bits.

The inner loop is the negatives'. In Adam mode they are runs of 16 entries of a pool that is itself drawn at
random: one hash and two contiguous loads for 16 of them, and one gather, from the table of forces. Gathered
one by one from the pool they take twice as long.
"""

from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.jit import fast_kernel, inlined
from daskumap.kernels.layout.forces import Forces, clip, entry, forces, layout_loss
from daskumap.kernels.layout.sampling import (
    DRAW,
    PHASE,
    Array,
    Edges,
    below,
    edge_rates,
    fired_edges,
    firing_edges,
    longest_row,
    mix,
    negative_pool,
    readonly,
    stream_seed,
    vertex_hash,
)

__all__ = [
    "Edges",
    "Forces",
    "State",
    "adam_epoch",
    "edge_rates",
    "firing_edges",
    "forces",
    "layout_loss",
    "negative_pool",
    "sgd_epoch",
]

# Negatives come in runs of 16 float32: one AVX-512 register, two of AVX2, one cache line.
LANES = 16
# Adam averages the repulsion over more draws than count, at almost no cost: on Fashion-MNIST twice as many
# raise the kNN preservation from .135 to .138, four times to .139 (two seeds each, spread .001).
DRAWS = 2
# uwot's batch optimizer: short memories, because the gradients are resampled every epoch.
BETA1, BETA2, EPSILON = 0.5, 0.9, 1e-7

ZERO, TWO = np.float32(0.0), np.float32(2.0)
KEEP1, KEEP2 = np.float32(1 - BETA1), np.float32(1 - BETA2)


class State(NamedTuple):
    """Adam's moments of one vertex block, updated in place; SGD leaves them alone, (0, d) will do."""

    mean: Array  # (rows, d) float32
    variance: Array  # (rows, d) float32


def adam_epoch(
    snapshot: Array,
    out: Array,
    first: int,
    start: int,
    stop: int,
    edges: Edges,
    state: State,
    pool: Array,
    forces: Forces,
    key: int,
    epoch: int,
    n_epochs: int,
    learning_rate: float,
) -> None:
    """Move the rows [start, stop) of a block by one Adam step along their summed, clipped gradients.

    Parameters
    ----------
    snapshot
        (n, d) float32 positions of all vertices when the epoch began.
    out
        (rows, d) float32, the new positions of this block; must not overlap `snapshot`.
    first
        Global id of the block's row 0.
    start, stop
        Rows of the block to do. Any split gives the same bits.
    edges, state, pool, forces
        The block's graph and moments, `negative_pool` of this epoch, `forces` of this run.
    key, epoch, n_epochs
        64-bit key of the run; epoch in [0, n_epochs).
    learning_rate
        Step of epoch 0; falls linearly to 0.

    References
    ----------
    Kingma, Ba (2015), end of section 2; Melville, uwot, `optimize.h` (batch mode).
    """
    alpha = learning_rate * (1 - epoch / n_epochs)
    unbias = (1 - BETA2 ** (epoch + 1)) ** 0.5
    step = (np.float32(alpha * unbias / (1 - BETA1 ** (epoch + 1))), np.float32(EPSILON * unbias))
    move = _adam_2d if snapshot.shape[1] == 2 else _adam
    move(*_inputs(snapshot, edges, pool, forces), out, first, start, stop, state, _clock(key, epoch), step)


def sgd_epoch(
    snapshot: Array,
    out: Array,
    first: int,
    start: int,
    stop: int,
    edges: Edges,
    state: State,
    pool: Array,
    forces: Forces,
    key: int,
    epoch: int,
    n_epochs: int,
    learning_rate: float,
) -> None:
    """Walk the rows [start, stop) of a block along their fired edges, each step from where the last ended.

    Takes what `adam_epoch` takes; `state` is not used. As umap-learn, but the others stand still meanwhile.

    References
    ----------
    McInnes, Healy, Melville (2018), algorithm 5.
    """
    alpha = np.float32(learning_rate * (1 - epoch / n_epochs))
    move = _sgd_2d if snapshot.shape[1] == 2 else _sgd
    move(*_inputs(snapshot, edges, pool, forces), out, first, start, stop, _clock(key, epoch), alpha)


def _inputs(snapshot: Array, edges: Edges, pool: Array, forces: Forces) -> tuple[Any, ...]:
    if pool.shape[1] < LANES:  # compiled code would read beyond it
        has = f"The pool has {pool.shape[1]} columns, runs of negatives take {LANES}"
        raise ValueError(f"{has}: draw it with negative_pool.")
    indptr, tails, rates = edges
    rows = Edges(readonly(indptr, np.int64), readonly(tails), readonly(rates, np.uint32))
    tables = Forces(readonly(forces.attraction), readonly(forces.repulsion), forces.negatives)
    return readonly(snapshot, np.float32), rows, readonly(pool, np.float32), tables


def _clock(key: int, epoch: int) -> tuple[np.uint32, np.uint32, np.uint32]:
    """Return the phases' seed, which lasts for the run, the draws' seed, and the epoch."""
    return stream_seed(key, PHASE, 0), stream_seed(key, DRAW, epoch), np.uint32(epoch)


@inlined
def _attract_2d(snapshot, fired, count, x, y, table):  # type: ignore[no-untyped-def]
    gx, gy = ZERO, ZERO
    for k in range(count):
        tail = np.uint64(fired[k])
        dx, dy = x - snapshot[tail, 0], y - snapshot[tail, 1]
        coefficient = table[entry(dx * dx + dy * dy)]
        gx += clip(coefficient * dx)
        gy += clip(coefficient * dy)
    return gx, gy


@inlined
def _repel_2d(pool, count, x, y, draw_hash, table):  # type: ignore[no-untyped-def]
    """Estimate the repulsion of `count` negatives as their number times the mean of `DRAWS` times as many.

    All lanes of whole runs are used, so there is no scalar tail, and more draws make less noise.
    """
    gx, gy = ZERO, ZERO
    runs = pool.shape[1] - LANES + 1
    blocks = (DRAWS * count + LANES - 1) // LANES
    for block in range(blocks):
        at = np.int64(below(mix(np.uint32(draw_hash + np.uint32(block))), runs))
        xs, ys = pool[0, at : at + LANES], pool[1, at : at + LANES]
        for lane in range(LANES):
            dx, dy = x - xs[lane], y - ys[lane]
            coefficient = table[entry(dx * dx + dy * dy)]
            gx += clip(coefficient * dx)
            gy += clip(coefficient * dy)
    share = np.float32(count) / np.float32(max(1, blocks * LANES))
    return gx * share, gy * share


@inlined
def _step(state, row, c, gradient, step):  # type: ignore[no-untyped-def]
    """Update the moments of one coordinate, return its displacement."""
    mean, variance = state.mean[row, c], state.variance[row, c]
    mean += KEEP1 * (gradient - mean)
    variance += KEEP2 * (gradient * gradient - variance)
    state.mean[row, c], state.variance[row, c] = mean, variance
    return step[0] * mean / (np.sqrt(variance) + step[1])


@fast_kernel
def _adam_2d(snapshot, edges, pool, forces, out, first, start, stop, state, clock, step):  # type: ignore[no-untyped-def]
    fired = np.empty(longest_row(edges.indptr, start, stop), edges.tails.dtype)
    for row in range(start, stop):
        vertex = first + row
        x, y = snapshot[vertex, 0], snapshot[vertex, 1]
        count = fired_edges(edges, row, vertex_hash(clock[0], vertex), clock[2], fired)
        ax, ay = _attract_2d(snapshot, fired, count, x, y, forces.attraction)
        draw_hash = vertex_hash(clock[1], vertex)
        rx, ry = _repel_2d(pool, count * forces.negatives, x, y, draw_hash, forces.repulsion)
        out[row, 0] = x + _step(state, row, 0, TWO * ax + rx, step)
        out[row, 1] = y + _step(state, row, 1, TWO * ay + ry, step)


@inlined
def _attract(snapshot, fired, count, vertex, table, gradient):  # type: ignore[no-untyped-def]
    dims = gradient.size
    for k in range(count):
        d2 = ZERO
        for c in range(dims):
            difference = snapshot[vertex, c] - snapshot[fired[k], c]
            d2 += difference * difference
        coefficient = table[entry(d2)]
        for c in range(dims):
            gradient[c] += TWO * clip(coefficient * (snapshot[vertex, c] - snapshot[fired[k], c]))


@inlined
def _repel(snapshot, pool, count, vertex, draw_hash, table, lanes, gradient):  # type: ignore[no-untyped-def]
    """Do as `_repel_2d`, coordinates outside; `lanes` (16,) float32 holds distances, then coefficients."""
    runs = pool.shape[1] - LANES + 1
    blocks = (DRAWS * count + LANES - 1) // LANES
    share = np.float32(count) / np.float32(max(1, blocks * LANES))
    for block in range(blocks):
        at = np.int64(below(mix(np.uint32(draw_hash + np.uint32(block))), runs))
        lanes[:] = ZERO
        for c in range(gradient.size):
            x, xs = snapshot[vertex, c], pool[c, at : at + LANES]
            for lane in range(LANES):
                lanes[lane] += (x - xs[lane]) * (x - xs[lane])
        for lane in range(LANES):
            lanes[lane] = table[entry(lanes[lane])]
        for c in range(gradient.size):
            x, xs, total = snapshot[vertex, c], pool[c, at : at + LANES], ZERO
            for lane in range(LANES):
                total += clip(lanes[lane] * (x - xs[lane]))
            gradient[c] += total * share


@fast_kernel
def _adam(snapshot, edges, pool, forces, out, first, start, stop, state, clock, step):  # type: ignore[no-untyped-def]
    fired = np.empty(longest_row(edges.indptr, start, stop), edges.tails.dtype)
    gradient, lanes = np.empty(snapshot.shape[1], np.float32), np.empty(LANES, np.float32)
    for row in range(start, stop):
        vertex = first + row
        gradient[:] = ZERO
        count = fired_edges(edges, row, vertex_hash(clock[0], vertex), clock[2], fired)
        _attract(snapshot, fired, count, vertex, forces.attraction, gradient)
        draw_hash, negatives = vertex_hash(clock[1], vertex), count * forces.negatives
        _repel(snapshot, pool, negatives, vertex, draw_hash, forces.repulsion, lanes, gradient)
        for c in range(gradient.size):
            out[row, c] = snapshot[vertex, c] + _step(state, row, c, gradient[c], step)


@inlined
def _pushed_2d(x, y, ox, oy, table, alpha):  # type: ignore[no-untyped-def]
    """Return (x, y) after one force from (ox, oy)."""
    dx, dy = x - ox, y - oy
    coefficient = table[entry(dx * dx + dy * dy)]
    return x + alpha * clip(coefficient * dx), y + alpha * clip(coefficient * dy)


@fast_kernel
def _sgd_2d(snapshot, edges, pool, forces, out, first, start, stop, clock, alpha):  # type: ignore[no-untyped-def]
    fired = np.empty(longest_row(edges.indptr, start, stop), edges.tails.dtype)
    for row in range(start, stop):
        vertex = first + row
        x, y = snapshot[vertex, 0], snapshot[vertex, 1]
        count = fired_edges(edges, row, vertex_hash(clock[0], vertex), clock[2], fired)
        draw = vertex_hash(clock[1], vertex)
        for k in range(count):
            tail = np.uint64(fired[k])
            x, y = _pushed_2d(x, y, snapshot[tail, 0], snapshot[tail, 1], forces.attraction, TWO * alpha)
            for _ in range(forces.negatives):
                draw = np.uint32(draw + np.uint32(1))
                at = below(mix(draw), pool.shape[1])
                x, y = _pushed_2d(x, y, pool[0, at], pool[1, at], forces.repulsion, alpha)
        out[row, 0], out[row, 1] = x, y


@inlined
def _push(position, others, at, stride, table, alpha):  # type: ignore[no-untyped-def]
    """Apply one force to `position` (d,), from others[at], others[at + stride], ... of a flat array."""
    d2, k = ZERO, at
    for c in range(position.size):
        d2 += (position[c] - others[k]) * (position[c] - others[k])
        k += stride
    coefficient, k = table[entry(d2)], at
    for c in range(position.size):
        position[c] += alpha * clip(coefficient * (position[c] - others[k]))
        k += stride


@fast_kernel
def _sgd(snapshot, edges, pool, forces, out, first, start, stop, clock, alpha):  # type: ignore[no-untyped-def]
    fired = np.empty(longest_row(edges.indptr, start, stop), edges.tails.dtype)
    dims, size = np.uint64(snapshot.shape[1]), np.uint64(pool.shape[1])
    position, everyone, candidates = np.empty(dims, np.float32), snapshot.ravel(), pool.ravel()
    for row in range(start, stop):
        vertex = first + row
        position[:] = snapshot[vertex]
        count = fired_edges(edges, row, vertex_hash(clock[0], vertex), clock[2], fired)
        draw = vertex_hash(clock[1], vertex)
        for k in range(count):
            at = np.uint64(fired[k]) * dims
            _push(position, everyone, at, np.uint64(1), forces.attraction, TWO * alpha)
            for _ in range(forces.negatives):
                draw = np.uint32(draw + np.uint32(1))
                _push(position, candidates, below(mix(draw), size), size, forces.repulsion, alpha)
        out[row] = position
