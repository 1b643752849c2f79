"""Per-row calibration: the distance to the nearest neighbour, the bandwidth, and the memberships."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.jit import kernel

# McInnes, Healy, Melville (2018) as implemented in umap-learn: 64 halvings reach float64's limit; a bandwidth
# is at least a thousandth of the mean distance, so that one very close neighbour does not cut a row off from
# the others.
STEPS = 64
TOLERANCE = 1e-5
MIN_SCALE = 1e-3


@kernel
def nearest_distance(row: np.ndarray[Any, Any], local_connectivity: float) -> float:
    """Return rho: the distance at which `local_connectivity` neighbours are fully connected.

    `row` is (k,) float32, ascending; zeros and inf do not count. Between whole numbers it interpolates.
    """
    first, last = 0, 0
    for j in range(row.shape[0]):
        if row[j] <= 0.0:
            first = j + 1
        if row[j] < np.inf:
            last = j + 1
    found = last - first
    if found <= 0:
        return 0.0
    whole = int(np.floor(local_connectivity))
    part = local_connectivity - whole
    if found < local_connectivity:
        return float(row[last - 1])
    if whole == 0:
        return part * float(row[first])
    rho = float(row[first + whole - 1])
    if part > TOLERANCE:
        rho += part * (row[first + whole] - row[first + whole - 1])
    return rho


@kernel
def bandwidth(row: np.ndarray[Any, Any], rho: float, target: float) -> float:
    """Return sigma by bisection so that sum_j exp(-max(0, d_j - rho) / sigma) = target."""
    low, high, sigma = 0.0, np.inf, 1.0
    for _ in range(STEPS):
        total = 0.0
        for j in range(row.shape[0]):
            gap = row[j] - rho
            if gap <= 0.0:
                total += 1.0
            elif gap < np.inf:
                total += np.exp(-gap / sigma)
        if abs(total - target) < TOLERANCE:
            break
        if total > target:
            high = sigma
            sigma = (low + high) / 2.0
        else:
            low = sigma
            sigma = sigma * 2.0 if high == np.inf else (low + high) / 2.0
    return sigma


@kernel
def found_neighbors(row: np.ndarray[Any, Any]) -> tuple[int, float]:
    """Return how many neighbours of a row are there, and the sum of their distances."""
    found, total = 0, 0.0
    for distance in row:
        if distance < np.inf:
            found += 1
            total += distance
    return found, total


@kernel
def calibrate(
    distances: np.ndarray[Any, Any], n_neighbors: int, local_connectivity: float, mean_distance: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Find each row's bandwidth so that its memberships sum to log2(n_neighbors).

    A row with fewer than n_neighbors - 1 neighbours, m, is calibrated to log2(m + 1): umap-learn's target is
    then out of reach and makes all its weights 1.

    Parameters
    ----------
    distances
        (n, n_neighbors - 1) float32, ascending, without the row itself; inf marks a missing neighbour.
    n_neighbors
        Counts the row itself, as in umap-learn.
    local_connectivity
        How many nearest neighbours are fully connected; may be fractional.
    mean_distance
        Mean over all rows, the row itself counted at 0: the floor's scale for rows whose rho is 0.

    Returns
    -------
    rho, sigma
        (n,) float32 each: distance to the nearest neighbour at a non-zero distance, and bandwidth.

    References
    ----------
    McInnes, Healy, Melville (2018), section 3.1.
    """
    rows = distances.shape[0]
    rho = np.zeros(rows, np.float32)
    sigma = np.zeros(rows, np.float32)
    for i in range(rows):
        found, total = found_neighbors(distances[i])
        if found == 0:
            continue
        # As memberships have it: between two distances rho is not a float32 by itself.
        rho[i] = nearest_distance(distances[i], local_connectivity)
        width = bandwidth(distances[i], float(rho[i]), np.log2(min(found + 1, n_neighbors)))
        mean = total / (found + 1) if rho[i] > 0.0 else mean_distance
        sigma[i] = max(width, MIN_SCALE * mean)
    return rho, sigma


@kernel
def memberships(
    distances: np.ndarray[Any, Any], rho: np.ndarray[Any, Any], sigma: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return p = exp(-max(0, d - rho) / sigma), (n, k) float32; 0 where the neighbour is missing."""
    out = np.zeros(distances.shape, np.float32)
    for i in range(distances.shape[0]):
        for j in range(distances.shape[1]):
            gap = distances[i, j] - rho[i]
            if distances[i, j] == np.inf:
                continue
            if gap <= 0.0 or sigma[i] <= 0.0:
                out[i, j] = 1.0
            else:
                out[i, j] = np.exp(-gap / sigma[i])
    return out


@kernel
def calibrate_new(
    distances: np.ndarray[Any, Any], n_neighbors: int, local_connectivity: float, mean_distance: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Find the bandwidths of new rows, whose neighbours are rows of a map and not one another.

    As umap-learn's transform: one neighbour fewer is fully connected, and the nearest one stands where the
    row itself would, left out of the sum. But the floor of rows whose rho is 0 rests on the mean distance of
    the fit and not on that of the batch.

    Parameters
    ----------
    distances
        (n, n_neighbors) float32, ascending; inf marks a missing neighbour.
    n_neighbors, local_connectivity, mean_distance
        Of the fit, as in `calibrate`.

    Returns
    -------
    rho, sigma
        (n,) float32 each.
    """
    rows = distances.shape[0]
    rho = np.zeros(rows, np.float32)
    sigma = np.zeros(rows, np.float32)
    for i in range(rows):
        found, total = found_neighbors(distances[i])
        if found == 0:
            continue
        near = nearest_distance(distances[i], max(0.0, local_connectivity - 1.0))
        width = bandwidth(distances[i, 1:], near, np.log2(min(found, n_neighbors)))
        rho[i] = near
        sigma[i] = max(width, MIN_SCALE * (total / found if near > 0.0 else mean_distance))
    return rho, sigma
