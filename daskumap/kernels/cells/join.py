"""Which cells a row joins besides its nearest, and what share of neighbours then share a cell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from daskumap.kernels.jit import kernel
from daskumap.kernels.neighbors.scores import squared_distance

Array = np.ndarray[Any, Any]

# How near to the border with another cell a row joins that one as well, in radii of its own cell. Where it
# has its neighbours depends on that, not on how many cells are near: at equal recall, cells joined by margin
# have 10 to 75 % fewer pairs than those joined by rank (docs/decisions/0009-join-by-margin.md).
MARGINS = np.array([0.0, 0.06, 0.08, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25, 0.3, 0.4, np.inf])
LEVELS = len(MARGINS) + 1


@kernel
def _rank_margins(nearest, distances, centres, radii, members, enough, margins, out):  # type: ignore[no-untyped-def]
    last = margins.shape[0] - 1
    for i in range(nearest.shape[0]):
        own = nearest[i, 0]
        held = 0.0
        for j in range(nearest.shape[1]):
            cell = nearest[i, j]
            if cell < 0:
                continue
            few = held < enough
            held += members[cell]
            if j == 0 or few:
                out[i, j] = j > 0
                continue
            near, far = np.float64(distances[i, 0]), np.float64(distances[i, j])
            reach = np.float64(radii[own])
            # By the triangle inequality the border is at least so far; in a space it is known how far.
            margin = 0.5 * (far - near)
            if centres.shape[0] > 0 and margin <= margins[last - 1] * reach:
                apart = math.sqrt(squared_distance(centres[own], centres[cell]))
                if apart > 0.0:
                    margin = (far * far - near * near) / (2.0 * apart)
            level = 0
            while level < last and margin > margins[level] * reach:
                level += 1
            out[i, j] = level + 1


def rank_margins(
    nearest: Array, distances: Array, radii: Array, members: Array, enough: float, centres: Array | None
) -> Array:
    """Return (r, m) uint8: the level from which on each row joins each of its nearest cells.

    At level 0 a row joins its nearest cell only. At level 1 it joins more where those before are small, so
    that no row is alone; at level l also those whose border with the nearest one is not farther than
    `MARGINS[l - 1]` radii, at the last all.

    Parameters
    ----------
    nearest, distances
        (r, m) int32 and float32: the nearest cells, -1 for none, and the distances of their centres.
    radii, members
        (c,) float32 and float64: radii as of `measure_cells`, and about how many rows each cell has.
    enough
        So many rows are not too few.
    centres
        (c, D) float32 in a Euclidean space; None where there is no such space.
    """
    out = np.zeros(nearest.shape, np.uint8)
    points = np.empty((0, 1), np.float32) if centres is None else np.ascontiguousarray(centres, np.float32)
    _rank_margins(nearest, distances, points, radii, members, float(enough), MARGINS, out)
    return out


def joined(nearest: Array, levels: Array, level: int) -> Array:
    """Return the cells that rows join at a level, shaped as `nearest`; -1 for those that they do not."""
    return np.where(levels <= level, nearest, -1)


def shared_recall(probe_cells: Array, neighbor_cells: Array, neighbor_ids: Array) -> tuple[float, float]:
    """Return the share of the probes' neighbours that share a cell with them, and its standard error.

    Parameters
    ----------
    probe_cells
        (p, m) int: the cells, or slices of cells, that the probes join; -1 for none.
    neighbor_cells
        (p, k, m) int: those that their exact neighbours join.
    neighbor_ids
        (p, k) int64; -1 marks a missing neighbour.
    """
    there = neighbor_ids >= 0
    if not there.any():
        return 1.0, 0.0
    known = np.where(neighbor_cells < 0, -2, neighbor_cells)
    shared = (probe_cells[:, None, :, None] == known[:, :, None, :]).any(axis=(2, 3))
    share = (shared & there).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    return float(shared[there].mean()), float(share.std() / np.sqrt(len(share)))


@kernel
def _widen(nearest, wide_of, out, small):  # type: ignore[no-untyped-def]
    for i in range(nearest.shape[0]):
        found = 0
        for j in range(nearest.shape[1]):
            cell = nearest[i, j]
            if cell < 0:
                continue
            place = 0
            while place < found and out[i, place] != wide_of[cell]:
                place += 1
            if place == found:
                out[i, found] = wide_of[cell]
                found += 1
            for s in range(small.shape[2]):
                if small[i, place, s] < 0:
                    small[i, place, s] = cell
                    break


def widen(nearest: Array, wide_of: Array, seeds: int = 0) -> tuple[Array, Array]:
    """Return the wide cells that hold the nearest small ones: nearest first, each once, -1 for none left.

    Parameters
    ----------
    nearest
        (..., m) int32: nearest small cells, -1 for none.
    wide_of
        (c,) int32: the wide cell of each small one.
    seeds
        How many of its nearest small cells to return for each wide one.

    Returns
    -------
    wide, small
        (..., m) int32, and (..., m, seeds) int32, -1 where there are fewer.
    """
    flat = np.ascontiguousarray(nearest.reshape(-1, nearest.shape[-1]))
    out, small = np.full_like(flat, -1), np.full((*flat.shape, seeds), -1, np.int32)
    _widen(flat, wide_of, out, small)
    return out.reshape(nearest.shape), small.reshape(*nearest.shape, seeds)
