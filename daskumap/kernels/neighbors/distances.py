"""Rows of a matrix of distances that the user gives: what is wrong with them, and the nearest of each row."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.jit import kernel

Array = np.ndarray[Any, Any]

# A row is at this share of its mean distance from itself, at most: differences of float32 products leave a
# thousandth (measured on rows ten deviations from the origin).
NEAR_ITSELF = 1e-2
# What may be wrong with a row, as bits.
NOT_A_NUMBER, NEGATIVE, FAR_FROM_ITSELF = 1, 2, 4


class Distances(NamedTuple):
    """Some rows of a matrix of distances.

    Attributes
    ----------
    indptr
        (r + 1,) int64: where each row begins among the others.
    columns
        (e,) int64, ascending within a row; empty where rows are whole.
    values
        (e,) float32; what is missing or inf is no neighbour.
    """

    indptr: Array
    columns: Array
    values: Array

    @classmethod
    def whole(cls, X: Array) -> Distances:
        """Return whole rows, (r, n) float32."""
        indptr = np.arange(len(X) + 1, dtype=np.int64) * X.shape[1]
        return cls(indptr, np.empty(0, np.int64), X.reshape(-1))


@kernel
def find_faults(indptr: Array, columns: Array, values: Array, own: Array) -> Array:
    """Return (r,) uint8: what is wrong with each row; `own`, (r,) int64, is its own column, -1 for none."""
    out = np.zeros(own.shape[0], np.uint8)
    for i in range(own.shape[0]):
        itself, total, count = 0.0, 0.0, 0
        for e in range(indptr[i], indptr[i + 1]):
            column = columns[e] if columns.shape[0] > 0 else e - indptr[i]
            value = values[e]
            if np.isnan(value):
                out[i] |= NOT_A_NUMBER
            elif column == own[i]:
                itself = abs(value)
            elif value < 0.0:
                out[i] |= NEGATIVE
            elif value < np.inf:
                total += value
                count += 1
        if count > 0 and itself * count > NEAR_ITSELF * total:
            out[i] |= FAR_FROM_ITSELF
    return out


@kernel
def nearest_given(indptr: Array, columns: Array, values: Array, own: Array, k: int) -> tuple[Array, Array]:
    """Return the nearest k columns of each row but its own one, by (distance, column).

    Returns
    -------
    ids, distances
        (r, k) int64 and float32; -1 and inf where there are fewer.
    """
    ids = np.full((own.shape[0], k), -1, np.int64)
    distances = np.full((own.shape[0], k), np.inf, np.float32)
    for i in range(own.shape[0]):
        best, best_d = ids[i], distances[i]
        for e in range(indptr[i], indptr[i + 1]):
            value = values[e]
            if not value < best_d[k - 1]:  # Columns ascend, so that of equal distances the first one stays.
                continue
            column = columns[e] if columns.shape[0] > 0 else e - indptr[i]
            if column == own[i]:
                continue
            at = k - 1
            while at > 0 and value < best_d[at - 1]:
                best[at], best_d[at] = best[at - 1], best_d[at - 1]
                at -= 1
            best[at], best_d[at] = column, value
    return ids, distances
