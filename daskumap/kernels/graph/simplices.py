"""Weights from simplices: each edge weighed anew by the triangles and tetrahedra that it is in."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.jit import kernel

Array = np.ndarray[Any, Any]

# Neighbours of a vertex among which simplices are looked for, the heaviest ones. The work is the sum of all
# degrees' squares, of which one hub of 50,000 neighbours would take as much as 5,000,000 usual vertices.
MAX_SIMPLEX_DEGREE = 512


class Lists(NamedTuple):
    """The lists of neighbours among which simplices are looked for.

    Attributes
    ----------
    indptr, tails, weights
        CSR rows with ascending tails: first those of consecutive vertices, then those of `heads`.
    first
        The first of the consecutive vertices.
    heads
        (h,) ascending: the vertices of the last h rows.
    """

    indptr: Array
    tails: Array
    weights: Array
    first: int
    heads: Array


@kernel
def heaviest(
    indptr: Array, tails: Array, weights: Array, least: float, most: int
) -> tuple[Array, Array, Array, int]:
    """Return the lists of some CSR rows: edges of weight `least` and more, the `most` heaviest of each row.

    Of equal weights the lower tail goes first.

    Returns
    -------
    indptr, tails, weights
        CSR rows with ascending tails.
    capped
        How many rows have more such edges than that.
    """
    rows, capped = indptr.shape[0] - 1, 0
    starts = np.zeros(rows + 1, np.int64)
    out_tails, out_weights = np.empty_like(tails), np.empty_like(weights)
    for i in range(rows):
        row = weights[indptr[i] : indptr[i + 1]]
        near = np.flatnonzero(row >= least)
        if near.shape[0] > most:
            capped += 1
            near = np.sort(near[np.argsort(-row[near], kind="mergesort")[:most]])
        for j in range(near.shape[0]):
            out_tails[starts[i] + j] = tails[indptr[i] + near[j]]
            out_weights[starts[i] + j] = row[near[j]]
        starts[i + 1] = starts[i] + near.shape[0]
    return starts, out_tails[: starts[-1]], out_weights[: starts[-1]], capped


@kernel
def count_halo(
    indptr: Array, tails: Array, sizes: Array, own: int, partition_rows: int, partitions: int
) -> Array:
    """Return where the records for each partition begin, (partitions + 1,) int64, if each gets its halo.

    The halo of a partition is the lists of those vertices of others that are neighbours of its own.

    Parameters
    ----------
    indptr, tails
        CSR rows of the vertices of partition `own`.
    sizes
        (r,) lengths of their lists.
    """
    offsets = np.zeros(partitions + 1, np.int64)
    for i in range(indptr.shape[0] - 1):
        last = own
        for e in range(indptr[i], indptr[i + 1]):
            other = tails[e] // partition_rows  # Tails ascend, and so do their partitions.
            if other != last and other != own:
                offsets[other + 1] += sizes[i]
            last = other
    return np.cumsum(offsets)


@kernel
def fill_halo(
    indptr: Array,
    tails: Array,
    lists: Lists,
    own: int,
    partition_rows: int,
    offsets: Array,
    begin: int,
    heads: Array,
    out_tails: Array,
    out_weights: Array,
) -> None:
    """Fill in the records of all halos from `begin` on, as many as `heads` has room for.

    Parameters
    ----------
    indptr, tails, own, partition_rows
        As of `count_halo`, and `offsets` what it returned.
    heads, out_tails, out_weights
        The records: an edge each, of a list that its partition gets.
    """
    at, end = offsets[:-1].copy(), begin + heads.shape[0]
    for i in range(indptr.shape[0] - 1):
        last = own
        for e in range(indptr[i], indptr[i + 1]):
            other = tails[e] // partition_rows
            if other != last and other != own:
                for j in range(lists.indptr[i], lists.indptr[i + 1]):
                    if begin <= at[other] < end:
                        heads[at[other] - begin] = lists.first + i
                        out_tails[at[other] - begin] = lists.tails[j]
                        out_weights[at[other] - begin] = lists.weights[j]
                    at[other] += 1
            last = other


@kernel
def mark_needed(
    tails: Array, begin: int, end: int, first: int, last: int, heads: Array, needed: Array
) -> None:
    """Mark in `needed`, (h,) bool, which of `heads` are among the tails of the edges `begin` to `end` - 1.

    `heads` ascend. Tails from `first` to `last` - 1 are not looked for.
    """
    for e in range(begin, end):
        if first <= tails[e] < last:
            continue
        place = np.searchsorted(heads, tails[e])
        if place < heads.shape[0] and heads[place] == tails[e]:
            needed[place] = True


@kernel
def weigh(
    indptr: Array,
    tails: Array,
    weights: Array,
    begin: int,
    end: int,
    lists: Lists,
    least: float,
    tetrahedra: bool,
    out: Array,
) -> tuple[int, int]:
    """Weigh the edges `begin` to `end` - 1 of some CSR rows by the simplices that each is in.

    The weight of a simplex is the probabilistic sum of those of its edges, 1 - prod(1 - w); that of an edge
    is the geometric mean over its triangles and, if wanted, its tetrahedra. An edge of less weight than
    `least`, or in no simplex, keeps its own. A row with a capped list sees the simplices of that list alone.

    Parameters
    ----------
    indptr, tails, weights
        CSR rows of the vertices lists.first, lists.first + 1, ...
    lists
        Of those vertices, and of all others that are tails of these edges or in the lists of their heads:
        with least > 0 of those that have any.
    out
        (e,) float32: filled in from `begin` to `end` - 1.

    Returns
    -------
    triangles, tetrahedra
        How many there are among these edges, each counted at the edge of its two lowest vertices.

    References
    ----------
    Kolpakov, Rocke (2024), The Information Geometry of UMAP.
    """
    triangles, found = 0, 0
    near = np.empty(MAX_SIMPLEX_DEGREE, np.int64)
    here, there = np.empty(MAX_SIMPLEX_DEGREE), np.empty(MAX_SIMPLEX_DEGREE)
    i = np.searchsorted(indptr, begin, side="right") - 1
    for e in range(begin, end):
        while indptr[i + 1] <= e:
            i += 1
        out[e] = weights[e]
        if weights[e] < least:
            continue
        one, other, weight = lists.first + i, tails[e], float(weights[e])
        count = _common(lists, i, _row_of(lists, other), near, here, there)
        total, simplices = 0.0, count
        for c in range(count):
            total += np.log(either(weight, either(here[c], there[c])))
            triangles += one < other < near[c]
        if tetrahedra:
            for c in range(count - 1):
                more, logs = _tetrahedra(lists, c, count, near, here, there, weight)
                total += logs
                simplices += more
                if one < other < near[c]:
                    found += more
        if simplices > 0:
            out[e] = np.exp(total / simplices)
    return triangles, found


@kernel
def either(one: float, other: float) -> float:
    """Return the probabilistic sum of two weights: all digits of small ones, and the same either way."""
    return one + other - one * other


@kernel
def _row_of(lists: Lists, vertex: int) -> int:
    """Return in which row the list of a vertex is, which has to be there."""
    row, consecutive = vertex - lists.first, lists.indptr.shape[0] - 1 - lists.heads.shape[0]
    if 0 <= row < consecutive:
        return int(row)
    return int(consecutive + np.searchsorted(lists.heads, vertex))


@kernel
def _common(lists: Lists, one: int, other: int, near: Array, here: Array, there: Array) -> int:
    """Return how many vertices are in two rows; fill them in, with their weights in either."""
    a, b, count = lists.indptr[one], lists.indptr[other], 0
    a_end, b_end = lists.indptr[one + 1], lists.indptr[other + 1]
    while a < a_end and b < b_end:
        if lists.tails[a] < lists.tails[b]:
            a += 1
        elif lists.tails[b] < lists.tails[a]:
            b += 1
        else:
            near[count], here[count], there[count] = lists.tails[a], lists.weights[a], lists.weights[b]
            count += 1
            a += 1
            b += 1
    return count


@kernel
def _tetrahedra(
    lists: Lists, third: int, count: int, near: Array, here: Array, there: Array, weight: float
) -> tuple[int, float]:
    """Return how many tetrahedra an edge of some weight has with a common neighbour and later ones.

    Parameters
    ----------
    third, count, near, here, there
        Which of the common neighbours it is, and these as `_common` filled them in.

    Returns
    -------
    found, logs
        And the sum of the logarithms of their weights.
    """
    found, logs, fourth = 0, 0.0, third + 1
    row = _row_of(lists, near[third])
    side = either(here[third], there[third])
    for e in range(lists.indptr[row], lists.indptr[row + 1]):
        while fourth < count and near[fourth] < lists.tails[e]:
            fourth += 1
        if fourth == count:
            break
        if near[fourth] == lists.tails[e]:
            # In an order in which both ends of the edge find the same digits.
            across = either(weight, lists.weights[e])
            logs += np.log(either(across, either(side, either(here[fourth], there[fourth]))))
            found += 1
    return found, logs
