"""Per-row calibration: the distance to the nearest neighbour, the bandwidth, and the memberships."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.graph.membership import (
    EXPONENTIAL,
    MIN_SCALE,
    TOLERANCE,
    VANISHED,
    Kernel,
    solve,
    weight,
)
from daskumap.kernels.jit import kernel
from daskumap.kernels.parts import build

Array = np.ndarray[Any, Any]

# A sum of memberships that is as near to its target is on it: ten times the tolerance of the bisection.
ON_TARGET = 1e-4


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
def find_gaps(row: np.ndarray[Any, Any], rho: float, gaps: np.ndarray[Any, Any]) -> int:
    """Write how much farther than rho the neighbours of a row are, float64; return how many are there."""
    found = 0
    for j in range(row.shape[0]):
        if row[j] < np.inf:
            gaps[found] = row[j] - rho
            found += 1
    return found


@kernel
def found_neighbors(row: np.ndarray[Any, Any]) -> tuple[int, float]:
    """Return how many neighbours of a row are there, and the sum of their distances."""
    found, total = 0, 0.0
    for distance in row:
        if distance < np.inf:
            found += 1
            total += distance
    return found, total


def calibrate(
    distances: Array,
    n_neighbors: int,
    local_connectivity: float,
    mean_distance: float,
    bandwidths: Kernel = EXPONENTIAL,
) -> tuple[Array, Array]:
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
    bandwidths
        The kernel whose memberships have that sum.

    Returns
    -------
    rho, sigma
        (n,) float32 each: distance to the nearest neighbour at a non-zero distance, and bandwidth.

    References
    ----------
    McInnes, Healy, Melville (2018), section 3.1.
    """
    run: Any = build(_calibrate, bandwidths.versioned, exact=True)
    return run(distances, int(n_neighbors), float(local_connectivity), float(mean_distance))  # type: ignore[no-any-return]


def _calibrate(distances, n_neighbors, local_connectivity, mean_distance):  # type: ignore[no-untyped-def]
    rows = distances.shape[0]
    rho = np.zeros(rows, np.float32)
    sigma = np.zeros(rows, np.float32)
    gaps = np.empty(distances.shape[1])
    for i in range(rows):
        found, total = found_neighbors(distances[i])
        if found == 0:
            continue
        # As memberships have it: between two distances rho is not a float32 by itself.
        rho[i] = nearest_distance(distances[i], local_connectivity)
        find_gaps(distances[i], float(rho[i]), gaps)
        mean = total / (found + 1) if rho[i] > 0.0 else mean_distance
        sigma[i] = solve(gaps[:found], np.log2(min(found + 1, n_neighbors)), MIN_SCALE * mean)
    return rho, sigma


def memberships(distances: Array, rho: Array, sigma: Array, weights: Kernel = EXPONENTIAL) -> Array:
    """Return p of the gap d - rho, (n, k) float32: 1 for gaps of 0 and below, 0 for missing neighbours."""
    run: Any = build(_memberships, weights.versioned, exact=True)
    return run(distances, rho, sigma)  # type: ignore[no-any-return]


def _memberships(distances, rho, sigma):  # type: ignore[no-untyped-def]
    out = np.zeros(distances.shape, np.float32)
    for i in range(distances.shape[0]):
        for j in range(distances.shape[1]):
            gap = distances[i, j] - rho[i]
            if distances[i, j] == np.inf:
                continue
            if gap <= 0.0 or sigma[i] <= 0.0:
                out[i, j] = 1.0
            else:
                out[i, j] = weight(gap, sigma[i])
    return out


@kernel
def tally(
    distances: np.ndarray[Any, Any], rho: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], target: float
) -> tuple[float, int, int, np.ndarray[Any, Any]]:
    """Sum up what the memberships of some rows are; rows without neighbours do not count.

    Returns
    -------
    bits
        The sum of all memberships.
    on_target
        Rows whose memberships sum to the target, within `ON_TARGET`.
    vanished
        Rows that have no membership but in neighbours that are no farther than rho.
    gaps
        (m,) float32: how much farther than rho the farthest neighbour of each row is.
    """
    gaps = np.empty(distances.shape[0], np.float32)
    bits, on_target, vanished, rows = 0.0, 0, 0, 0
    for i in range(distances.shape[0]):
        total, beyond, kept = 0.0, 0, 0
        for j in range(distances.shape[1]):
            if distances[i, j] < np.inf:
                gaps[rows] = distances[i, j] - rho[i]
                beyond += gaps[rows] > 0.0
                kept += gaps[rows] > 0.0 and weights[i, j] > VANISHED
                total += weights[i, j]
        bits += total
        on_target += abs(total - target) <= ON_TARGET
        vanished += beyond > 0 and kept == 0
        rows += distances[i, 0] < np.inf
    return bits, on_target, vanished, gaps[:rows]


def calibrate_new(
    distances: Array,
    n_neighbors: int,
    local_connectivity: float,
    mean_distance: float,
    bandwidths: Kernel = EXPONENTIAL,
) -> tuple[Array, Array]:
    """Find the bandwidths of new rows, whose neighbours are rows of a map and not one another.

    As umap-learn's transform: one neighbour fewer is fully connected, and the nearest one stands where the
    row itself would, left out of the sum. But the floor of rows whose rho is 0 rests on the mean distance of
    the fit and not on that of the batch.

    Parameters
    ----------
    distances
        (n, n_neighbors) float32, ascending; inf marks a missing neighbour.
    n_neighbors, local_connectivity, mean_distance, bandwidths
        Of the fit, as in `calibrate`.

    Returns
    -------
    rho, sigma
        (n,) float32 each.
    """
    run: Any = build(_calibrate_new, bandwidths.versioned, exact=True)
    return run(distances, int(n_neighbors), float(local_connectivity), float(mean_distance))  # type: ignore[no-any-return]


def _calibrate_new(distances, n_neighbors, local_connectivity, mean_distance):  # type: ignore[no-untyped-def]
    rows = distances.shape[0]
    rho = np.zeros(rows, np.float32)
    sigma = np.zeros(rows, np.float32)
    gaps = np.empty(distances.shape[1])
    for i in range(rows):
        found, total = found_neighbors(distances[i])
        if found == 0:
            continue
        near = nearest_distance(distances[i], max(0.0, local_connectivity - 1.0))
        find_gaps(distances[i, 1:], near, gaps)
        mean = total / found if near > 0.0 else mean_distance
        rho[i] = near
        sigma[i] = solve(gaps[: found - 1], np.log2(min(found, n_neighbors)), MIN_SCALE * mean)
    return rho, sigma
