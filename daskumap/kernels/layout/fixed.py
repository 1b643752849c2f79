"""The layout of new rows on a map that stands still: each row moves alone, through all epochs at once.

A row's draws are hashes of (key, epoch, digest of the row), and it meets nothing but the map, so where it
comes to lie depends neither on its number nor on the rows beside it.
"""

from typing import Any

import numpy as np

from daskumap.kernels.layout.components import (
    copy_of,
    distance_to,
    moved,
    store,
)
from daskumap.kernels.layout.firing import edge_rates
from daskumap.kernels.layout.forces import Forces, pull, push
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
    components = positions_on(metric, places.shape[1])
    classes = (type(components), type(forces), *(() if metric is None else (type(metric),)))
    # A mean of coordinates means nothing on a sphere or a torus.
    shares = weights if metric is None else np.eye(1, weights.shape[1], dtype=np.float32).repeat(len(ids), 0)
    kernel = build(_place, *classes)
    kernel(
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
        components,
        out,
    )
    return out


def _place(  # type: ignore[no-untyped-def]
    places, ids, distances, shares, rates, digests, pool, forces, phases, seeds, alphas, components, out
):
    near = np.empty((places.shape[1], ids.shape[1]), np.float32)
    for row in range(ids.shape[0]):
        count, total = 0, 0.0
        while count < ids.shape[1] and ids[row, count] >= 0:
            total += shares[row, count]
            count += 1
        if count == 0:
            continue
        if distances[row, 0] == 0.0:
            for c in range(places.shape[1]):
                out[row, c] = places[ids[row, 0], c]
            continue
        for c in range(places.shape[1]):
            mean = 0.0
            for e in range(count):
                near[c, e] = places[ids[row, e], c]
                mean += np.float64(shares[row, e]) * np.float64(near[c, e])
            out[row, c] = np.float32(mean / total)
        position = copy_of(components, out, row)
        phase = vertex_hash(phases, digests[row])
        for epoch in range(seeds.shape[0]):
            draw = vertex_hash(seeds[epoch], digests[row])
            for e in range(count):
                rate = rates[row, e]
                shift = np.uint32(np.uint32(phase ^ np.uint32(e)) * GOLDEN)
                before = np.uint32(shift + np.uint32(rate * np.uint32(epoch)))
                if rate <= np.uint32(~before):
                    continue
                pulled = pull(forces.attraction, distance_to(components, position, near, e), row, e)
                position = moved(components, position, near, e, pulled, alphas[epoch])
                for _ in range(forces.negatives):
                    draw = np.uint32(draw + np.uint32(1))
                    at = below(mix(draw), pool.shape[1])
                    pushed = push(forces.repulsion, distance_to(components, position, pool, at))
                    position = moved(components, position, pool, at, pushed, alphas[epoch])
        store(components, position, out, row)
