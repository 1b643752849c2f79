"""Islands of a map: rows that short edges of the graph join, and how long each island is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.graph.union import find_root, join
from daskumap.kernels.jit import kernel

Array = np.ndarray[Any, Any]

# An axis that a float32 position cannot tell from none.
FLAT = 1e-6


@kernel
def unite_near(parents, positions, first, indptr, tails, reach):  # type: ignore[no-untyped-def]
    """Merge the islands that a block's short edges join, in `parents`, (n,) int64, in place.

    A root is the smallest vertex of its island, so the outcome does not depend on the order of the edges.

    Parameters
    ----------
    positions
        (n, d) float32, the map in the order of vertices.
    first, indptr, tails
        Edges of the vertices first, first + 1, ... of a symmetric graph, as CSR rows.
    reach
        Edges that are longer on the map join nothing.
    """
    limit = reach * reach
    for i in range(indptr.shape[0] - 1):
        for e in range(indptr[i], indptr[i + 1]):
            # The other end has the same edge.
            if tails[e] < first + i:
                squared = 0.0
                for j in range(positions.shape[1]):
                    difference = np.float64(positions[first + i, j]) - positions[tails[e], j]
                    squared += difference * difference
                if squared <= limit:
                    join(parents, first + i, tails[e])


@kernel
def number_islands(parents, least):  # type: ignore[no-untyped-def]
    """Give each island of at least so many rows a number, at its root.

    Returns
    -------
    number, count
        (n,) int64, an island's number at its root, -1 elsewhere; and how many islands there are.
    """
    number = np.zeros(parents.shape[0], np.int64)
    for vertex in range(parents.shape[0]):
        number[find_root(parents, vertex)] += 1
    count = 0
    for vertex in range(parents.shape[0]):
        if number[vertex] >= least:
            number[vertex] = count
            count += 1
        else:
            number[vertex] = -1
    return number, count


@kernel
def sum_moments(parents, number, count, positions):  # type: ignore[no-untyped-def]
    """Sum each island's rows, offsets from its root and products of offsets, vertex by vertex.

    Returns
    -------
    sizes, sums, products
        (m,) int64, (m, d) and (m, d, d) float64.
    """
    d = positions.shape[1]
    sizes, sums, products = np.zeros(count, np.int64), np.zeros((count, d)), np.zeros((count, d, d))
    for vertex in range(parents.shape[0]):
        root = find_root(parents, vertex)
        island = number[root]
        if island >= 0:
            sizes[island] += 1
            for j in range(d):
                offset = np.float64(positions[vertex, j]) - positions[root, j]
                sums[island, j] += offset
                for c in range(j + 1):
                    products[island, j, c] += offset * (np.float64(positions[vertex, c]) - positions[root, c])
    return sizes, sums, products


def islands(parents: Array, positions: Array, least: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the rows and the aspect of each island of at least so many rows.

    The aspect is the standard deviation along the longest axis over that along the next one: 1 for a disc, 10
    and more for a needle.

    Parameters
    ----------
    parents
        (n,) int64, as `unite_near` leaves it once it has seen all edges.
    positions
        (n, d) float32 with d of 2 or more.

    Returns
    -------
    sizes, aspects
        (m,) each, in the order of the islands' first vertices.
    """
    number, count = number_islands(parents, least)
    sizes, sums, products = sum_moments(parents, number, count, positions)
    rows = sizes[:, None, None]
    # The lower triangles, which is all that eigvalsh reads.
    covariances = products / rows - sums[:, :, None] * sums[:, None, :] / rows**2
    axes = np.sqrt(np.maximum(np.linalg.eigvalsh(covariances), 0.0))
    longest, following = axes[:, -1], axes[:, -2]
    aspects = longest / np.maximum(following, np.maximum(FLAT * longest, np.finfo(float).tiny))
    return sizes, np.where(longest > 0, aspects, 1.0)
