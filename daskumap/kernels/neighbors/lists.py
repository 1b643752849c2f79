"""Neighbour lists: merging what several cells found for the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.jit import kernel


@kernel
def merge_lists(
    rows: np.ndarray[Any, Any],
    ids: np.ndarray[Any, Any],
    distances: np.ndarray[Any, Any],
    out_ids: np.ndarray[Any, Any],
    out_distances: np.ndarray[Any, Any],
) -> None:
    """Merge lists into the best k of their rows, in place: each id once, by (distance, id).

    The smaller of two distances of the same pair counts, so the outcome does not depend on the order of the
    lists.

    Parameters
    ----------
    rows
        (r,) int64: row of `out_ids` that each list is for.
    ids, distances
        (r, k) int64 and float32; id -1 or distance inf is missing.
    out_ids, out_distances
        (n, k), ascending by (distance, id); -1 and inf where nothing is known yet.
    """
    k = out_ids.shape[1]
    for r in range(rows.shape[0]):
        best, best_d = out_ids[rows[r]], out_distances[rows[r]]
        for j in range(ids.shape[1]):
            new, d = ids[r, j], distances[r, j]
            if new < 0 or d == np.inf or not _before(d, new, best_d[k - 1], best[k - 1]):
                continue
            end = k - 1
            known = False
            for t in range(k):
                if best[t] == new:
                    known = True
                    end = t
                    break
            if known and best_d[end] <= d:
                continue
            at = end
            while at > 0 and _before(d, new, best_d[at - 1], best[at - 1]):
                best[at] = best[at - 1]
                best_d[at] = best_d[at - 1]
                at -= 1
            best[at] = new
            best_d[at] = d


@kernel
def _before(d: float, i: int, other_d: float, other_i: int) -> bool:
    return bool(d < other_d or (d == other_d and (i < other_i or other_i < 0)))


@kernel
def cut_off(ids: np.ndarray[Any, Any], distances: np.ndarray[Any, Any], limit: float) -> None:
    """Forget neighbours at `limit` or beyond, in place."""
    for i in range(ids.shape[0]):
        for j in range(ids.shape[1]):
            if distances[i, j] >= limit:
                ids[i, j] = -1
                distances[i, j] = np.inf


@kernel
def drop(ids: np.ndarray[Any, Any], distances: np.ndarray[Any, Any], gone: np.ndarray[Any, Any]) -> None:
    """Forget the neighbours that `gone`, (n,) bool by id, names, in place; the others move up."""
    for i in range(ids.shape[0]):
        at = 0
        for j in range(ids.shape[1]):
            if ids[i, j] >= 0 and not gone[ids[i, j]]:
                ids[i, at], distances[i, at] = ids[i, j], distances[i, j]
                at += 1
        for j in range(at, ids.shape[1]):
            ids[i, j], distances[i, j] = -1, np.inf


@kernel
def mean_distances(distances: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    """Return (n,) float32: the mean of each list's first k distances, those that are there; inf for none."""
    out = np.full(distances.shape[0], np.inf, np.float32)
    for i in range(distances.shape[0]):
        found, total = 0, 0.0
        for j in range(min(k, distances.shape[1])):
            if distances[i, j] < np.inf:
                found += 1
                total += np.float64(distances[i, j])
        if found > 0:
            out[i] = np.float32(total / found)
    return out
