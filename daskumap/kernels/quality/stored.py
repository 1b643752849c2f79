"""The nearest rows of a few probes, and ranks, from values as stored, in float64.

Each pair is evaluated: products with bounds are faster, and cannot tell the pairs that this is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from daskumap.kernels.jit import kernel
from daskumap.kernels.metrics import exact
from daskumap.kernels.metrics.metric import Metric
from daskumap.kernels.quality.neighbors import TILE_ROWS, empty_lists, offer, square_tile

Array = np.ndarray[Any, Any]


class StoredProbes:
    """Probes as stored, and how far some rows are from each.

    Attributes
    ----------
    probes, ids
        (q, D) float64 in the metric's space, and (q,) int64.
    limits
        (q, k) float64, distances to k rows: in the metric's space, squared, where it has one.
    """

    def __init__(self, metric: Metric, probes: Array, ids: Array, near: Iterable[Array]) -> None:
        """Measure some rows.

        Parameters
        ----------
        metric
            With a Euclidean space, or one of `exact.NORMS`.
        probes, ids
            (q, D) float64 as stored, and (q,) int64: no probe is its own neighbour.
        near
            (k, D) float64 for each probe: rows whose ranks are asked for.
        """
        self.metric, self.ids = metric, ids
        self.probes = exact.to_space(probes, metric)
        pairs = zip(near, self.probes, strict=True)
        self.limits = np.array(
            [self._distances(exact.to_space(rows, metric), probe) for rows, probe in pairs]
        )

    def compare(self, blocks: Iterable[tuple[int, Array, Array]]) -> tuple[Array, Array, Array]:
        """Find the nearest of some rows, and count which are closer than the limits.

        Parameters
        ----------
        blocks
            The first id, rows (r, D) float64 as stored, and places (t,) of those that are left out.

        Returns
        -------
        nearest, distances
            (q, k) int64 and float64, ascending by (distance, id); -1 and inf where there are too few rows.
        closer
            (q, k) int64.
        """
        nearest, distances = empty_lists(*self.limits.shape)
        lists = (self.limits, nearest, distances, np.zeros(self.limits.shape, np.int64))
        for first, rows, left_out in blocks:
            flat = exact.to_space(rows, self.metric)
            if self.metric.space is None:
                self._add_norms(flat, first, left_out, lists)
                continue
            columns = flat.T.copy()
            columns[:, left_out] = np.nan
            _add_block(columns, first, self.probes, self.ids, *lists)
        return lists[1:]

    def _add_norms(self, rows: Array, first: int, left_out: Array, lists: tuple[Array, ...]) -> None:
        for q, own in enumerate((self.ids - first).tolist()):
            distances = self._distances(rows, self.probes[q])
            distances[left_out] = np.nan
            if 0 <= own < len(rows):
                distances[own] = np.nan
            _add(distances, first, *(values[q] for values in lists))

    def _distances(self, rows: Array, probe: Array) -> Array:
        """Return (r,) distances of rows in the space, to the bits of `compare`."""
        if self.metric.space is None:
            return exact.norms(rows - probe, self.metric)
        squared = np.empty(len(rows))
        square_tile(rows.T.copy(), 0, probe, squared)
        return squared


@kernel
def _add(distances, first, limits, ids, best, closer):  # type: ignore[no-untyped-def]
    """Add consecutive rows to what is known of one probe; those at NaN count for nothing."""
    offer(distances, len(distances), first, -1, ids, best)
    for t in range(len(limits)):
        nearer = 0
        for i in range(len(distances)):
            nearer += distances[i] < limits[t]
        closer[t] += nearer


@kernel
def _add_block(columns, first, probes, own, limits, ids, best, closer):  # type: ignore[no-untyped-def]
    """Add the rows of one block, given as (D, rows), to what is known of all probes."""
    squared = np.empty(TILE_ROWS)
    for tile in range(0, columns.shape[1], TILE_ROWS):
        distances = squared[: min(TILE_ROWS, columns.shape[1] - tile)]
        for q in range(len(probes)):
            square_tile(columns, tile, probes[q], distances)
            place = own[q] - first - tile
            if 0 <= place < len(distances):
                distances[place] = np.nan
            _add(distances, first + tile, limits[q], ids[q], best[q], closer[q])
