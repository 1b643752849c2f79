"""Nearest neighbours in a wide cell: brute force in its small cells, then neighbours of neighbours.

The small cells find most neighbours at the speed of a matrix product. What lies across their borders is found
by the local joins of NN-descent, which here only have to look at pairs that no small cell has compared.
Serial and without random numbers: the same rows in the same order give the same lists.

References
----------
Dong, Moses, Li (2011), Efficient k-nearest neighbor graph construction for generic similarity measures.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.jit import kernel
from daskumap.kernels.neighbors import products
from daskumap.kernels.neighbors.lists import merge_lists
from daskumap.kernels.neighbors.scores import SQUARE, finished, insert, squared_distance

Array = np.ndarray[Any, Any]

# Lists are longer than asked for while they are joined, and each row meets so many candidates. 152,000 rows
# of 64 columns, a hard group, two thirds of which have one small cell here: 64 candidates give a recall of
# .965 in 29 us a row, 96 .976 in 31, 128 .979 in 33; pynndescent takes 55. An easier group of 115,000: 14
# kept .85, 24 .99, 30 .995 (measured).
KEPT = 24
CANDIDATES = 96
# The joins end when fewer than this share of all entries changed, and after so many at the latest.
CHANGES = 0.001
ROUNDS = 8
# Small cells that each row brings: those nearest to it. `join` spells both out, since a call for each pair
# costs more than the comparison.
SEEDS = 2


def wide_neighbors(
    points: NDArray[np.float32], cells: NDArray[np.int32], k: int, finish: int, max_rows: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find most of the nearest other rows of each row of a wide cell.

    Parameters
    ----------
    points
        (r, D) float32 C array in a Euclidean space, near rows near each other in memory for speed.
    cells
        (r, 2) int32: the small cells that each row is compared in, -1 for none.
    finish
        What turns a squared distance into the metric's.
    max_rows
        Larger small cells are compared in parts.

    Returns
    -------
    ids, distances
        (r, k) int32 and float32, ascending by (distance, id); -1 and inf where missing.

    Notes
    -----
    Works in `bytes_per_row(k)` for each row beside the points.
    """
    rows, kept = len(points), kept_neighbors(k)
    ids, squares = compare_small_cells(points, cells, kept, max_rows)
    fresh = (ids >= 0).astype(np.uint8)
    met = np.empty((rows, candidates(k)), np.int32)
    new, old = np.empty(rows, np.int32), np.empty(rows, np.int32)
    for _ in range(ROUNDS):
        meet(ids, fresh, met, new, old)
        fresh[:] = 0
        if join(points, cells, met, new, old, ids, squares, fresh) < CHANGES * ids.size:
            break
    out, distances = np.full((rows, k), -1, np.int32), np.full((rows, k), np.inf, np.float32)
    write_lists(ids, squares, finish, out, distances)
    return out, distances


def kept_neighbors(k: int) -> int:
    """Return how many neighbours a list holds while lists are joined."""
    return max(KEPT, k + k // 2)


def candidates(k: int) -> int:
    """Return how many rows meet at a row in one round."""
    return CANDIDATES * kept_neighbors(k) // KEPT


def bytes_per_row(k: int) -> int:
    """Return what the search holds for each row, in bytes: lists, candidates, results."""
    return kept_neighbors(k) * 9 + candidates(k) * 4 + 16 + k * 8


def compare_small_cells(
    points: NDArray[np.float32], cells: NDArray[np.int32], k: int, max_rows: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the k nearest of each row among those that share a small cell with it, and squared distances."""
    ids = np.full((len(points), k), -1, np.int32)
    squares = np.full((len(points), k), np.inf, np.float32)
    flat = cells.ravel()
    order = np.argsort(flat, kind="stable")[np.count_nonzero(flat < 0) :]
    ends = np.cumsum(np.unique(flat[order], return_counts=True)[1])
    for members in np.split(order // cells.shape[1], ends[:-1]) if len(order) else ():
        parts = -(-len(members) // max_rows)
        for part in range(parts):  # strided: a part is a sample of the cell
            here = members[part::parts]
            found, distances = products.nearest_others(points[here], k, SQUARE)
            merge_lists(here, np.where(found >= 0, here[found], -1).astype(np.int32), distances, ids, squares)
    return ids, squares


@kernel
def meet(ids, fresh, met, new, old):  # type: ignore[no-untyped-def]
    """Gather at each row the rows that it lists and that list it: new ones in front, others from the back.

    Rows listed come first, then those that list it, nearest places first, while there is room.
    """
    room, k = met.shape[1], ids.shape[1]
    new[:] = 0
    old[:] = 0
    for t in range(2 * k):
        place = t if t < k else t - k
        for i in range(ids.shape[0]):
            host, guest = i, ids[i, place]
            if guest < 0:
                continue
            if t >= k:
                host, guest = guest, np.int32(i)
                if new[host] + old[host] >= room:
                    continue
                known = False
                for s in range(k):
                    known |= ids[host, s] == guest
                if known:
                    continue
            if fresh[i, place]:
                met[host, new[host]] = guest
                new[host] += 1
            else:
                old[host] += 1
                met[host, room - old[host]] = guest


@kernel
def _holds(row, i):  # type: ignore[no-untyped-def]
    known = False
    for t in range(row.shape[0]):
        known |= row[t] == i
    return known


@kernel
def join(points, cells, met, new, old, ids, squares, fresh):  # type: ignore[no-untyped-def]
    """Compare the rows that met, at least one of two being new; returns how many entries changed."""
    changes, room, last = 0, met.shape[1], ids.shape[1] - 1
    for host in range(points.shape[0]):
        for s in range(new[host]):
            p = met[host, s]
            a, b = cells[p, 0], cells[p, 1]  # who shares one of them was compared there
            for t in range(s + 1, new[host] + old[host]):
                q = met[host, t] if t < new[host] else met[host, room - 1 - (t - new[host])]
                if p == q or (a >= 0 and (a == cells[q, 0] or a == cells[q, 1])):
                    continue
                if b >= 0 and (b == cells[q, 0] or b == cells[q, 1]):
                    continue
                d = squared_distance(points[p], points[q])
                if d <= squares[p, last]:
                    changes += _enter(ids[p], squares[p], fresh[p], q, d)
                if d <= squares[q, last]:
                    changes += _enter(ids[q], squares[q], fresh[q], p, d)
    return changes


@kernel
def _enter(ids, squares, fresh, j, d):  # type: ignore[no-untyped-def]
    """Insert one row into a list by (distance, id), marked as new; returns 1 if it was not there."""
    if _holds(ids, j):
        return 0
    at = ids.shape[0] - 1
    if d == squares[at] and (ids[at] < 0 or j > ids[at]):  # at infinity, nobody enters
        return 0
    while at > 0 and (d < squares[at - 1] or (d == squares[at - 1] and (j < ids[at - 1] or ids[at - 1] < 0))):
        ids[at], squares[at], fresh[at] = ids[at - 1], squares[at - 1], fresh[at - 1]
        at -= 1
    ids[at], squares[at], fresh[at] = j, d, 1
    return 1


@kernel
def write_lists(ids, squares, finish, out, distances):  # type: ignore[no-untyped-def]
    """Keep the nearest k with the metric's distances: two squares may become one, then ids decide."""
    for i in range(ids.shape[0]):
        for t in range(ids.shape[1]):
            if ids[i, t] >= 0:
                insert(out[i], distances[i], ids[i, t], finished(squares[i, t], finish))
