"""The neighbours of some rows in the data and on the map, and how far each side keeps the other's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskumap.errors import SourceError
from daskumap.evaluation.pair import Pair
from daskumap.kernels.metrics.metric import Metric
from daskumap.kernels.neighbors import knn
from daskumap.kernels.quality import figures, sampled
from daskumap.kernels.quality.sampled import Estimate

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Neighborhoods:
    """The k nearest rows of some probes, by number.

    Attributes
    ----------
    probes
        (q,) ascending.
    near
        (q, k) in the data, and (q, k) on the map, ascending by (distance, number).
    wanted
        The probes and all of these, ascending, each once.
    gathered
        Their rows, and their places.
    """

    probes: Array
    near: tuple[Array, Array]
    wanted: Array
    gathered: tuple[Array, Array]

    def of(self, side: int, numbers: Array) -> Array:
        """Return the rows of some numbers, or with side 1 their places; any shape, and the columns."""
        return self.gathered[side][np.searchsorted(self.wanted, numbers)]


def find_neighborhoods(pair: Pair, probes: Array, k: int) -> Neighborhoods:
    """Find the neighbours of some probes among all rows, on both sides, in one pass."""
    queries = pair.gather(probes)
    lists = [_empty(len(probes), k) for _ in pair.sides]
    for first, *both in pair.blocks():
        for side, found in enumerate(lists):
            lists[side] = _enter(found, queries[side], both[side], k, pair.sides[side].metric, probes, first)
    near = lists[0][0], lists[1][0]
    _refuse_missing(pair, near[0])
    wanted = np.unique(np.concatenate([probes, *(ids.ravel() for ids in near)]))
    return Neighborhoods(probes, near, wanted, pair.gather(wanted))


def neighbors_on_map(pair: Pair, probes: Array, k: int) -> Array:
    """Return the k nearest rows of some probes on the map, (q, k), without a look at the data."""
    queries, metric = pair.gather_places(probes), pair.sides[1].metric
    found = _empty(len(probes), k)
    for first, places in pair.places():
        found = _enter(found, queries, places, k, metric, probes, first)
    return found[0]


def compare(pair: Pair, found: Neighborhoods, whole: bool) -> dict[str, Estimate]:
    """Return how far neighbours on the map are such in the data, and the other way round."""
    n, k = pair.rows, found.near[0].shape[1]
    in_data, on_map = _ranks(pair, found)
    kept = np.array([np.isin(a, b).mean() for a, b in zip(*found.near, strict=True)])
    return {
        "trustworthiness": _of_ranks(in_data, n, k, whole),
        "continuity": _of_ranks(on_map, n, k, whole),
        "knn_preservation": sampled.of_mean(kept, whole),
    }


def _empty(queries: int, k: int) -> tuple[Array, Array]:
    return np.full((queries, k), -1), np.full((queries, k), np.inf, np.float32)


def _enter(
    found: tuple[Array, Array], queries: Array, rows: Array, k: int, metric: Metric, ids: Array, first: int
) -> tuple[Array, Array]:
    return knn.merge_nearest(*found, *knn.nearest(queries, rows, k, metric, ids, first), k)


def _refuse_missing(pair: Pair, near: Array) -> None:
    if (near < 0).any():
        metric = pair.sides[0].metric
        raise SourceError(
            f"Under the metric {metric.name!r} some rows of {pair.sides[0].source.name} are at no finite "
            "distance from others, so that they have too few neighbours. Mend the metric or the rows."
        )


def _ranks(pair: Pair, found: Neighborhoods) -> list[Array]:
    """Return the ranks in the data of the map's neighbours, and on the map of the data's neighbours.

    Among rows at one distance the lower number comes first, as in the lists of neighbours: so copies of rows
    cost a faithful map nothing, and a map whose rows all lie at one place gains nothing by them.
    """
    queries = [found.of(side, found.probes) for side in (0, 1)]
    asked = found.near[1], found.near[0]
    limits = [_limits(queries[side], found.of(side, asked[side]), pair.sides[side].metric) for side in (0, 1)]
    before = [np.zeros(ids.shape, np.int64) for ids in asked]
    for first, *both in pair.blocks():
        for side in (0, 1):
            before[side] += _count_before(
                queries[side],
                both[side],
                limits[side],
                asked[side],
                pair.sides[side].metric,
                found.probes,
                first,
            )
    return [counts + 1 for counts in before]


def _limits(queries: Array, near: Array, metric: Metric) -> Array:
    """Return (q, k) distances of k rows (q, k, D) to each query, to the bits of `knn.count_closer`."""
    found = np.empty(near.shape[:2], np.float32)
    for i, rows in enumerate(near):
        order, distances = knn.nearest(queries[i : i + 1], rows, len(rows), metric, np.array([-1]), 0)
        found[i, order[0]] = distances[0]
    return found


def _count_before(
    queries: Array, rows: Array, limits: Array, asked: Array, metric: Metric, probes: Array, first: int
) -> Array:
    """Count the rows of a block that come before each of some rows (q, k), by (distance, number)."""
    k = limits.shape[1]
    both = np.concatenate([limits, np.nextafter(limits, np.float32(np.inf))], axis=1)
    counts = knn.count_closer(queries, rows, both, metric, probes, first)
    closer, equal = counts[:, :k], counts[:, k:] - counts[:, :k]
    places = asked - first
    before: Array = closer + np.where(places >= len(rows), equal, 0)
    # In its own block a row equals itself: where it is not alone, those with lower numbers are counted.
    for i, c in np.argwhere((places > 0) & (places < len(rows)) & (equal > 1)).tolist():
        lower = knn.count_closer(
            queries[i : i + 1],
            rows[: places[i, c]],
            both[i : i + 1, [c, k + c]],
            metric,
            probes[i : i + 1],
            first,
        )
        before[i, c] += lower[0, 1] - lower[0, 0]
    return before


def _of_ranks(ranks: Array, n: int, k: int, whole: bool) -> Estimate:
    """Return trustworthiness, or of ranks on the map continuity."""
    return sampled.of_mean(
        np.array([figures.trustworthiness_from_ranks(row[None], n, k) for row in ranks]), whole
    )
