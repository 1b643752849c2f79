"""Neighbour lists that the user gives: in order, each row once, without the row itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.jit import kernel


@kernel
def take_nearest(
    indices: np.ndarray[Any, Any], distances: np.ndarray[Any, Any], first: int, k: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the nearest k of given lists; of equal distances the one that comes first in its list.

    Parameters
    ----------
    indices, distances
        (r, m) integers and floats, in any order, of the rows first, first + 1, ...: what is below 0, or at
        inf, is missing.

    Returns
    -------
    ids, distances
        (r, k) int64 and float32, ascending; -1 and inf where missing. Of a row that is named twice the nearer
        one counts.
    """
    ids = np.full((indices.shape[0], k), -1, np.int64)
    near = np.full((indices.shape[0], k), np.inf, np.float32)
    for i in range(indices.shape[0]):
        found = 0
        for j in range(indices.shape[1]):
            new, d = np.int64(indices[i, j]), np.float32(distances[i, j])
            if new < 0 or new == first + i or not d < np.inf:
                continue
            end = min(found, k - 1)
            for t in range(found):
                if ids[i, t] == new:
                    end = t
            if d >= near[i, end]:
                continue
            found = max(found, end + 1)
            while end > 0 and d < near[i, end - 1]:
                ids[i, end], near[i, end] = ids[i, end - 1], near[i, end - 1]
                end -= 1
            ids[i, end], near[i, end] = new, d
    return ids, near
