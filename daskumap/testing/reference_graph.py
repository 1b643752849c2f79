"""The fuzzy graph in plain NumPy and float64: what its kernels are compared with, written to be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MIN_SCALE = 1e-3


def nearest_distance(row: Array, local_connectivity: float) -> float:
    """Return rho: the distance of the `local_connectivity`-th neighbour that is not at zero, interpolated."""
    found = np.asarray(row, np.float64)
    found = found[(found > 0) & np.isfinite(found)]
    if not len(found):
        return 0.0
    if local_connectivity > len(found):
        return float(found[-1])
    places = np.arange(len(found) + 1)
    return float(np.interp(local_connectivity, places, np.concatenate([[0.0], found])))


def membership_sum(row: Array, rho: float, sigma: float) -> float:
    """Return the expected number of bits: the sum of a row's memberships at a bandwidth."""
    gaps = np.maximum(np.asarray(row, np.float64)[np.isfinite(row)] - rho, 0.0)
    return float(np.where(gaps > 0, np.exp(-gaps / max(sigma, 1e-300)), 1.0).sum())


def target(row: Array, n_neighbors: int) -> float:
    """Return what the memberships of a row should sum to."""
    return float(np.log2(min(np.isfinite(row).sum() + 1, n_neighbors)))


def smallest_sigma(row: Array, rho: float, mean_distance: float) -> float:
    """Return the floor of a row's bandwidth; the mean counts the row itself, at zero."""
    found = np.asarray(row, np.float64)[np.isfinite(row)]
    return MIN_SCALE * (found.sum() / (len(found) + 1) if rho > 0 else mean_distance)


def calibrate(
    distances: Array, n_neighbors: int, local_connectivity: float, mean_distance: float
) -> tuple[Array, Array]:
    """Return rho and sigma of each row, by root finding on a logarithmic scale."""
    rho, sigma = np.zeros(len(distances)), np.zeros(len(distances))
    for i, row in enumerate(distances):
        if not np.isfinite(row).any():
            continue
        rho[i] = nearest_distance(row, local_connectivity)
        wanted = target(row, n_neighbors)
        low, high = 1e-12, 1e12
        for _ in range(200):
            middle = np.sqrt(low * high)
            low, high = (low, middle) if membership_sum(row, rho[i], middle) > wanted else (middle, high)
        sigma[i] = max(low, smallest_sigma(row, rho[i], mean_distance))
    return rho, sigma


def calibrate_new(
    distances: Array, n_neighbors: int, local_connectivity: float, mean_distance: float
) -> tuple[Array, Array]:
    """Return rho and sigma of new rows: the nearest neighbour stands for the row itself."""
    rho, sigma = np.zeros(len(distances)), np.zeros(len(distances))
    for i, row in enumerate(distances):
        if not np.isfinite(row).any():
            continue
        others = np.array([*row[1:], np.inf])  # as long as the rows of a fit, for the target
        _, widths = calibrate(others[None], n_neighbors, 0.0, mean_distance)
        rho[i] = nearest_distance(row, max(0.0, local_connectivity - 1.0))
        if rho[i] > 0:
            _, widths = calibrate(np.maximum(others - rho[i], 0.0)[None], n_neighbors, 0.0, 0.0)
        found = row[np.isfinite(row)].astype(np.float64)
        sigma[i] = max(widths[0], MIN_SCALE * (found.mean() if rho[i] > 0 else mean_distance))
    return rho, sigma


def memberships(distances: Array, rho: Array, sigma: Array) -> Array:
    """Return p of each neighbour, 0 where it is missing."""
    gaps = np.asarray(distances, np.float64) - np.asarray(rho, np.float64)[:, None]
    width = np.where(sigma > 0, sigma, 1.0).astype(np.float64)[:, None]
    decayed = np.where(
        (gaps <= 0) | (np.asarray(sigma)[:, None] <= 0), 1.0, np.exp(-np.maximum(gaps, 0) / width)
    )
    return np.where(np.isfinite(distances), decayed, 0.0)


def dense(indices: Array, weights: Array, vertices: int) -> Array:
    """Return the (r, vertices) matrix of some kNN rows."""
    out = np.zeros((len(indices), vertices))
    for i, (row, p) in enumerate(zip(indices, weights, strict=True)):
        out[i, row[p > 0]] = p[p > 0]
    return out


def fuzzy_union(p: Array, mix: float) -> Array:
    """Return the symmetric weights of a dense matrix of memberships."""
    q = p.T
    joined: Array = mix * (p + q - p * q) + (1 - mix) * p * q
    return joined


def sort_by_tail(indices: Array, weights: Array, first: int, unit: int, ranges: int) -> tuple[Array, ...]:
    """Return tails, heads, weights and offsets of the edges, stably sorted by the range of their tail."""
    heads, places = np.nonzero(weights > 0)
    tails = indices[heads, places]
    order = np.argsort(tails // unit, kind="stable")
    offsets = np.searchsorted((tails // unit)[order], np.arange(ranges + 1))
    return tails[order], heads[order] + first, weights[heads, places][order], offsets


def merge_lists(lists: Iterable[tuple[int, int, float]], rows: int, k: int) -> tuple[Array, Array]:
    """Return the best k of each row from (row, id, distance) in any order, each id once at its smallest."""
    best: list[dict[int, float]] = [{} for _ in range(rows)]
    for row, other, distance in lists:
        if other >= 0 and np.isfinite(distance):
            best[row][other] = min(distance, best[row].get(other, np.inf))
    ids, distances = np.full((rows, k), -1), np.full((rows, k), np.inf, np.float32)
    for row, known in enumerate(best):
        for place, (other, distance) in enumerate(sorted(known.items(), key=lambda item: item[::-1])[:k]):
            ids[row, place], distances[row, place] = other, distance
    return ids, distances


def coarsen(groups: Array, weights: Array, size: int) -> Array:
    """Return the total weight between groups of a dense graph; group -1 takes no part."""
    member = (groups[:, None] == np.arange(size)).astype(np.float64)
    return member.T @ weights @ member  # type: ignore[no-any-return]


def smooth(positions: Array, weights: Array) -> Array:
    """Return the weighted mean of each vertex, which counts 1, and its neighbours."""
    return (positions + weights @ positions) / (1.0 + weights.sum(axis=1, keepdims=True))  # type: ignore[no-any-return]


def cliques(near: Array, size: int) -> Iterator[tuple[int, ...]]:
    """Yield all cliques of 3 to `size` vertices of a graph, (n, n) bool, each with ascending vertices."""
    later = np.triu(near, 1)

    def grow(clique: tuple[int, ...], further: Array) -> Iterator[tuple[int, ...]]:
        for vertex in np.flatnonzero(further).tolist():
            larger = (*clique, vertex)
            if len(larger) > 2:
                yield larger
            if len(larger) < size:
                yield from grow(larger, further & later[vertex])

    return grow((), np.ones(len(near), bool))


def simplex_weights(weights: Array, simplices: int, vr_delta: float = np.inf) -> tuple[Array, list[int]]:
    """Return a dense graph's weights by simplices, and how many of these have 3 and 4 vertices.

    The complex has the cliques of edges with -log(w) <= vr_delta. Each weighs 1 - prod(1 - w) over its edges,
    and an edge the geometric mean over its cliques.
    """
    with np.errstate(divide="ignore"):
        near = (-np.log(weights) <= vr_delta) & (weights > 0)
    logs, counts, sizes = np.zeros(weights.shape), np.zeros(weights.shape), [0, 0]
    for clique in cliques(near, simplices + 1):
        sizes[len(clique) - 3] += 1
        edges = tuple(np.array(list(permutations(clique, 2))).T)
        once = edges[0] < edges[1]
        logs[edges] += np.log(1.0 - np.prod(1.0 - weights[edges][once]))
        counts[edges] += 1
    return np.where(counts > 0, np.exp(logs / np.maximum(counts, 1)), weights), sizes
