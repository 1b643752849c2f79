"""The layout in plain NumPy and float64: what `daskumap.kernels.layout` approximates, written to be read.

Independent of the kernels but for what is drawn at random, whose hashes are repeated here in Python integers.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MASK32, MASK64 = 2**32 - 1, 2**64 - 1
LANES = 16
DRAWS = 2
PHASE, DRAW, POOL = 1, 2, 3
LIMIT, STEP_LIMIT = 12, 4


def mix(x: int) -> int:
    """Mix 32 bits (lowbias32, Wellons 2018)."""
    x &= MASK32
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK32
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK32
    return x ^ (x >> 16)


def stream_seed(key: int, purpose: int, iteration: int) -> int:
    """Hash a 64-bit key, a purpose and an iteration to 32 bits."""
    x = (key + purpose * 0x9E3779B97F4A7C15 + iteration * 0xD1342543DE82EF95) & MASK64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK64
    return (x ^ (x >> 31)) >> 32


def vertex_hash(seed: int, vertex: int) -> int:
    """Hash a seed and a vertex id."""
    return mix(mix(seed ^ (vertex & MASK32)) + (vertex >> 32))


def fires(key: int, head: int, tail: int, rate: int, iteration: int) -> bool:
    """Tell whether an edge fires: floor(p (t + 1) + phase) > floor(p t + phase), in units of 2**-32."""
    phase = ((vertex_hash(stream_seed(key, PHASE, 0), head) ^ (tail & MASK32)) * 0x9E3779B1) & MASK32
    return (phase + rate * (iteration + 1)) >> 32 > (phase + rate * iteration) >> 32


def negative_pool(snapshot: Array, key: int, iteration: int) -> Array:
    """Return the pool (d, s): entry j is vertex floor(h n / 2**64) of 64 hashed bits h."""
    n, seed = len(snapshot), stream_seed(key, POOL, iteration)
    high = [mix(seed + j) for j in range(min(max(n, 1024), 8_192))]
    return snapshot[[((h << 32 | mix(~h)) * n) >> 64 for h in high]].T


def attraction(difference: Array, a: float, b: float, limit: float) -> Array:
    """Return the clipped pull on a point that lies `difference` (..., d) away from the other."""
    d2 = (difference**2).sum(-1, keepdims=True)
    safe = np.where(d2 > 0, d2, 1.0)
    pull = -2 * a * b * safe ** (b - 1) / (1 + a * safe**b)
    return np.where(d2 > 0, np.clip(pull * difference, -limit, limit), 0.0)


def repulsion(difference: Array, a: float, b: float, gamma: float, limit: float) -> Array:
    """Return the clipped push on a point that lies `difference` (..., d) away from a negative."""
    d2 = (difference**2).sum(-1, keepdims=True)
    push: Array = np.clip(2 * gamma * b / ((0.001 + d2) * (1 + a * d2**b)) * difference, -limit, limit)
    return push


def _fired(first: int, row: int, edges: Any, key: int, iteration: int) -> list[int]:
    span = range(edges.indptr[row], edges.indptr[row + 1])
    pairs = [(int(edges.tails[e]), int(edges.rates[e])) for e in span]
    return [tail for tail, rate in pairs if fires(key, first + row, tail, rate, iteration)]


def adam_iteration(
    snapshot: Array,
    first: int,
    edges: Any,
    mean: Array,
    variance: Array,
    pool: Array,
    curve: tuple[float, float, float],
    negatives: int,
    key: int,
    iteration: int,
    n_iterations: int,
    learning_rate: float,
) -> tuple[Array, Array, Array]:
    """Return positions, mean and variance of a block's rows after one Adam step; `curve` is (a, b, gamma)."""
    a, b, gamma = curve
    snapshot, pool = snapshot.astype(np.float64), pool.astype(np.float64)
    gradient = np.zeros_like(mean, dtype=np.float64)
    for row in range(len(gradient)):
        here = snapshot[first + row]
        fired = _fired(first, row, edges, key, iteration)
        gradient[row] = 2 * attraction(here - snapshot[fired], a, b, LIMIT).sum(0)
        draw, count = vertex_hash(stream_seed(key, DRAW, iteration), first + row), len(fired) * negatives
        blocks = -(-DRAWS * count // LANES)
        for block in range(blocks):
            at = (mix(draw + block) * (pool.shape[1] - LANES + 1)) >> 32
            pushes = repulsion(here - pool[:, at : at + LANES].T, a, b, gamma, LIMIT)
            gradient[row] += pushes.sum(0) * count / (blocks * LANES)
    mean, variance = 0.5 * mean + 0.5 * gradient, 0.99 * variance + 0.01 * gradient**2
    unbiased = mean / (1 - 0.5 ** (iteration + 1)), variance / (1 - 0.99 ** (iteration + 1))
    rise = min(1.0, (iteration + 1) / (0.05 * n_iterations))
    alpha = learning_rate * rise * 2 * (1 + np.cos(np.pi * iteration / n_iterations))
    moved = alpha * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-7)
    return snapshot[first : first + len(mean)] + moved, mean, variance


def sgd_iteration(
    snapshot: Array,
    first: int,
    edges: Any,
    pool: Array,
    curve: tuple[float, float, float],
    negatives: int,
    key: int,
    iteration: int,
    n_iterations: int,
    learning_rate: float,
) -> Array:
    """Return the positions of a block's rows after walking along their fired edges."""
    a, b, gamma = curve
    snapshot, pool = snapshot.astype(np.float64), pool.astype(np.float64)
    alpha = learning_rate * (1 - iteration / n_iterations)
    out = snapshot[first : first + len(edges.indptr) - 1].copy()
    for row, here in enumerate(out):
        draw = vertex_hash(stream_seed(key, DRAW, iteration), first + row)
        for tail in _fired(first, row, edges, key, iteration):
            here += 2 * alpha * attraction(here - snapshot[tail], a, b, STEP_LIMIT)
            for _ in range(negatives):
                draw += 1
                at = (mix(draw) * pool.shape[1]) >> 32
                here += alpha * repulsion(here - pool[:, at], a, b, gamma, STEP_LIMIT)
    return out


def place_rows(
    places: Array,
    ids: Array,
    distances: Array,
    weights: Array,
    digests: Array,
    pool: Array,
    curve: tuple[float, float, float],
    negatives: int,
    key: int,
    n_epochs: int,
    learning_rate: float,
) -> Array:
    """Return the places of new rows on a fixed map."""
    a, b, gamma = curve
    places, pool = places.astype(np.float64), pool.astype(np.float64)
    out = np.full((len(ids), places.shape[1]), np.nan)
    for row, here in enumerate(out):
        there = ids[row] >= 0
        if not there.any():
            continue
        near, digest, p = places[ids[row][there]], int(digests[row]), weights[row][there].astype(np.float64)
        here[:] = near[0] if distances[row, 0] == 0 else p @ near / p.sum()
        if distances[row, 0] == 0:
            continue
        rates = np.minimum(p * 2.0**32, 2**32 - 1).astype(np.uint64) * (p * n_epochs >= 1)
        phase = vertex_hash(stream_seed(key, PHASE, 0), digest)
        for epoch in range(n_epochs):
            alpha = 0.25 * learning_rate * (1 - epoch / n_epochs)
            draw = vertex_hash(stream_seed(key, DRAW, epoch), digest)
            for e, rate in enumerate(rates.tolist()):
                shift = ((phase ^ e) * 0x9E3779B1) & MASK32
                if (shift + rate * (epoch + 1)) >> 32 == (shift + rate * epoch) >> 32:
                    continue
                here += alpha * attraction(here - near[e], a, b, STEP_LIMIT)
                for _ in range(negatives):
                    draw += 1
                    at = (mix(draw) * pool.shape[1]) >> 32
                    here += alpha * repulsion(here - pool[:, at], a, b, gamma, STEP_LIMIT)
    return out


def diagnostics(positions: Array, weights: Array, a: float, b: float, draws: float) -> dict[str, float]:
    """Return what `kernels.layout.diagnostics` does, from all unordered pairs; `weights` is dense (n, n).

    Parameters
    ----------
    draws
        Negatives that a fired edge draws, times the strength of the repulsion.
    """
    n, p = len(positions), positions.astype(np.float64)
    squares = (p**2).sum(1)
    pairs = np.triu_indices(n, 1)
    d2 = np.maximum(squares[:, None] + squares - 2 * p @ p.T, 0)[pairs]
    power, w = a * d2**b, np.clip(weights.astype(np.float64), 0, 1)
    degrees = w.sum(1)
    shares = draws * (degrees[pairs[0]] + degrees[pairs[1]]) / (4 * n)
    w = w[pairs]
    joined = w > 0
    pull, push = np.log1p(power), -np.log(np.maximum(power / (1 + power), 1e-4))
    on = w[joined]
    # 0 log 0 is 0.
    entropy = -np.sum(on * np.log(on) + (1 - on) * np.log(np.where(on < 1, 1 - on, 1)))
    attraction, edge_repulsion = np.sum(on * pull[joined]), np.sum((1 - on) * push[joined])
    return {
        "attraction": float(attraction),
        "edge_repulsion": float(edge_repulsion),
        "cross_entropy": float(attraction + edge_repulsion),
        "graph_entropy": float(entropy),
        "kl_divergence": float(attraction + edge_repulsion - entropy),
        "non_edge_repulsion": float(push[~joined].sum()),
        "effective_loss": float(attraction + np.sum(shares * push)),
        "bits_per_edge": float(entropy / joined.sum() / np.log(2)),
    }
