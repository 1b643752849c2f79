"""The layout of new rows on a map that stands still: each row moves alone.

A row's draws are hashes of (key, epoch, digest of the row), and it meets nothing but the map, so where it
comes to lie depends neither on its number nor on the rows beside it. On a plane map rows move side by side;
on one with a metric of its own one after the other, through all epochs at once.
"""

from typing import Any

import numpy as np

from daskumap.kernels.jit import fast_kernel, inlined
from daskumap.kernels.layout.components import (
    ZERO,
    copy_of,
    distance_to,
    moved,
    store,
)
from daskumap.kernels.layout.firing import edge_rates
from daskumap.kernels.layout.forces import Forces, pull, push
from daskumap.kernels.layout.lanes import LANES, draw, fetch, look_up, measure, step
from daskumap.kernels.layout.measured import positions_on
from daskumap.kernels.layout.optimizers import MEASURED_SHARE
from daskumap.kernels.layout.sampling import (
    DRAW,
    GOLDEN,
    PHASE,
    Array,
    below,
    mix,
    readonly,
    stream_seed,
    vertex_hash,
)
from daskumap.kernels.parts import build

# umap-learn's: steps of new rows are a quarter of those of the fit.
SHARE_OF_RATE = 0.25


def place_rows(
    places: Array,
    ids: Array,
    distances: Array,
    weights: Array,
    digests: Array,
    pool: Array,
    forces: Forces,
    key: int,
    n_epochs: int,
    learning_rate: float,
    metric: Any = None,
) -> Array:
    """Place new rows on a fixed map.

    Parameters
    ----------
    places
        (n, d) float32 positions of the map.
    ids, distances, weights
        (r, k) int64 and float32: the neighbours of each row on the map, ascending, -1, inf and 0 where
        missing; all that are there have a place. An edge fires with its weight as probability an epoch; those
        that would fire less than once never do, as in umap-learn, where weights count relative to the largest
        of the batch.
    digests
        (r,) uint64: what randomness is keyed by.
    pool
        (d, s) float32: places of the map, of which negatives are drawn.
    forces, key
        `forces` of the model, and 64-bit key.
    n_epochs, learning_rate
        0 epochs leave rows where they start. The fit's rate; a quarter of it counts, falling to 0.
    metric
        Of the map, as of `iterations.adam_iteration`.

    Returns
    -------
    :
        (r, d) float32. A row at distance 0 from its nearest has that one's place, to the bit; the others
        start from the mean of their neighbours' places, weighted, and where the map has a metric of its own
        from the nearest one's; those without neighbours are NaN.

    References
    ----------
    McInnes, Healy, Melville (2018), algorithm 5; umap-learn `UMAP.transform`, `init_graph_transform`.
    """
    out = np.full((len(ids), places.shape[1]), np.nan, np.float32)
    epochs = range(n_epochs)
    rate = SHARE_OF_RATE * learning_rate * (1.0 if metric is None else MEASURED_SHARE)
    alphas = np.array([rate * (1 - t / n_epochs) for t in epochs], np.float32)
    seeds = np.array([stream_seed(key, DRAW, epoch) for epoch in epochs], np.uint32)
    rates = edge_rates(weights.ravel(), 1.0, max(1, n_epochs)).reshape(weights.shape)
    # A mean of coordinates means nothing on a sphere or a torus.
    shares = weights if metric is None else np.eye(1, weights.shape[1], dtype=np.float32).repeat(len(ids), 0)
    arrays = (
        readonly(places, np.float32),
        readonly(ids, np.int64),
        readonly(distances, np.float32),
        readonly(shares, np.float32),
        readonly(rates, np.uint32),
        readonly(digests, np.uint64),
        readonly(pool, np.float32),
        forces._replace(attraction=readonly(forces.attraction), repulsion=readonly(forces.repulsion)),
        stream_seed(key, PHASE, 0),
        seeds,
        alphas,
        out,
    )
    if metric is None:
        _place_side_by_side(*arrays)
    else:
        components = positions_on(metric, places.shape[1])
        build(_place, type(components), type(forces), type(metric))(*arrays, components)
    return out


@fast_kernel
def _start(places, ids, distances, shares, row, near, out):  # type: ignore[no-untyped-def]
    """Write where a row starts, and the places of its neighbours, (d, k); return how many will move it.

    None moves a row that equals its nearest, and has that one's place.
    """
    count, total = 0, 0.0
    while count < ids.shape[1] and ids[row, count] >= 0:
        total += shares[row, count]
        count += 1
    if count == 0:
        return 0
    if distances[row, 0] == 0.0:
        for c in range(places.shape[1]):
            out[row, c] = places[ids[row, 0], c]
        return 0
    for c in range(places.shape[1]):
        mean = 0.0
        for e in range(count):
            near[c, e] = places[ids[row, e], c]
            mean += np.float64(shares[row, e]) * np.float64(near[c, e])
        out[row, c] = np.float32(mean / total)
    return count


@inlined
def _fires(rate, phase, e, epoch):  # type: ignore[no-untyped-def]
    """Tell whether edge `e` of a row fires in an epoch: whether one more rate overflows 32 bits."""
    shift = np.uint32(np.uint32(phase ^ np.uint32(e)) * GOLDEN)
    before = np.uint32(shift + np.uint32(rate * np.uint32(epoch)))
    return rate > np.uint32(~before)


@fast_kernel
def _place_side_by_side(  # type: ignore[no-untyped-def]
    places, ids, distances, shares, rates, digests, pool, forces, phases, seeds, alphas, out
):
    d, k = places.shape[1], ids.shape[1]
    attraction, repulsion = forces.attraction, forces.repulsion
    near, nearby = np.empty((d, k), np.float32), np.zeros((k, d, LANES), np.float32)
    position, other = np.zeros((d, LANES), np.float32), np.zeros((d, LANES), np.float32)
    # Each alone: of parts of one array nobody knows that they do not overlap, and no loop becomes vectors.
    squares, coefficients = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    alpha, phase = np.zeros(LANES, np.float32), np.zeros(LANES, np.uint32)
    draws, at = np.zeros(LANES, np.uint32), np.zeros(LANES, np.uint32)
    counts, fired = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    chosen = np.zeros((k, LANES), np.int64)
    for first in range(0, ids.shape[0], LANES):
        rows = min(LANES, ids.shape[0] - first)
        fired[:] = 0
        for lane in range(rows):
            row = first + lane
            counts[lane] = _start(places, ids, distances, shares, row, near, out)
            phase[lane] = vertex_hash(phases, digests[row])
            for c in range(d):
                position[c, lane] = out[row, c]
                for e in range(counts[lane]):
                    nearby[e, c, lane] = near[c, e]
        for epoch in range(seeds.shape[0]):
            for lane in range(rows):
                number = np.uint64(0)
                for e in range(np.uint64(counts[lane])):  # Each is written, and the cursor moves if it fires.
                    chosen[number, lane] = e
                    number += np.uint64(_fires(rates[first + lane, e], phase[lane], e, epoch))
                fired[lane] = number
                draws[lane] = vertex_hash(seeds[epoch], digests[first + lane])
            for turn in range(fired.max()):
                for lane in range(LANES):
                    alpha[lane] = alphas[epoch] if turn < fired[lane] else ZERO
                for lane in range(LANES):
                    for c in range(d):
                        other[c, lane] = nearby[chosen[turn, lane], c, lane]
                measure(position, other, squares)
                look_up(attraction, squares, coefficients)
                step(position, other, coefficients, alpha)
                for _ in range(forces.negatives):
                    draw(draws, pool.shape[1], at)
                    fetch(pool, at, other)
                    measure(position, other, squares)
                    look_up(repulsion, squares, coefficients)
                    step(position, other, coefficients, alpha)
        for lane in range(rows):
            if counts[lane] > 0:
                for c in range(d):
                    out[first + lane, c] = position[c, lane]


def _place(  # type: ignore[no-untyped-def]
    places, ids, distances, shares, rates, digests, pool, forces, phases, seeds, alphas, out, components
):
    near = np.empty((places.shape[1], ids.shape[1]), np.float32)
    for row in range(ids.shape[0]):
        count = _start(places, ids, distances, shares, row, near, out)
        if count == 0:
            continue
        position = copy_of(components, out, row)
        phase = vertex_hash(phases, digests[row])
        for epoch in range(seeds.shape[0]):
            drawn = vertex_hash(seeds[epoch], digests[row])
            for e in range(count):
                if not _fires(rates[row, e], phase, e, epoch):
                    continue
                pulled = pull(forces.attraction, distance_to(components, position, near, e), row, e)
                position = moved(components, position, near, e, pulled, alphas[epoch])
                for _ in range(forces.negatives):
                    drawn = np.uint32(drawn + np.uint32(1))
                    at = below(mix(drawn), pool.shape[1])
                    pushed = push(forces.repulsion, distance_to(components, position, pool, at))
                    position = moved(components, position, pool, at, pushed, alphas[epoch])
        store(components, position, out, row)
