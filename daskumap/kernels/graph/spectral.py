"""The spectral start: eigenvectors of a graph of vertices or of micro-cells, smoothed over the graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.jit import kernel

Array = np.ndarray[Any, Any]

# Up to so many groups a dense eigenproblem takes less than the iterations (measured: 7 ms at 500).
DENSE = 500
# Of eigenvalues: those of clusters that are tied by weak edges differ by 1e-6 (measured).
TOLERANCE = 1e-8
# Products with the graph before what has converged is taken as it is.
MOST_ITERATIONS = 5_000


def embed(graph: Any, sizes: Array, n_components: int) -> Array:
    """Return the normalised Laplacian's first eigenvectors but the trivial one, (g, n_components) float64.

    Components would each be an eigenvector of its own and hide the structure within them, so they are tied
    together by weak edges (a thousandth of a mean edge) between every group and every other.

    Parameters
    ----------
    graph
        (g, g) float64, sparse of SciPy's or dense: total edge weight between groups, symmetric.
    sizes
        (g,) vertices in each group.

    References
    ----------
    Galerkin projection of the Laplacian eigenmap of Belkin and Niyogi (2003).
    """
    from scipy.sparse import csr_array, diags_array

    mass = np.maximum(sizes, 0).astype(np.float64)
    weights = csr_array((graph + graph.T) / 2.0)
    tie = 1e-3 * max(weights.sum(), 1e-12) / mass.sum() ** 2
    degrees = np.asarray(weights.sum(axis=1)).ravel() + tie * mass * mass.sum()
    root = np.sqrt(np.maximum(degrees, 1e-300))
    scale = diags_array(1.0 / root)
    wanted = min(n_components + 1, len(root))
    vectors = _largest(csr_array(scale @ weights @ scale), tie, mass / root, root, wanted)[:, 1:]
    vectors = vectors / root[:, None] * root.max()
    signs = np.sign(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])])
    vectors = vectors * np.where(signs == 0, 1.0, signs)
    return np.pad(vectors, ((0, 0), (0, n_components - vectors.shape[1])))


def _largest(affinity: Any, tie: float, tied: Array, first: Array, wanted: int) -> Array:
    """Return the eigenvectors of the largest eigenvalues of affinity + tie tied tied', descending.

    Parameters
    ----------
    first
        (g,): the first of them, but for its length.
    """
    from scipy.linalg import eigh
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    rows = len(first)
    if rows <= DENSE:
        dense = affinity.toarray() + tie * np.outer(tied, tied)
        return np.asarray(eigh(dense, subset_by_index=[rows - wanted, rows - 1])[1][:, ::-1])
    product = LinearOperator(
        (rows, rows), matvec=lambda x: affinity @ x + tie * tied * (tied @ x), dtype=np.float64
    )
    # A start that no other eigenvector is missing from, the same in every run.
    start = first / np.linalg.norm(first) + 1e-3 * np.cos(np.arange(rows))
    try:
        values, vectors = eigsh(product, wanted, which="LA", v0=start, tol=TOLERANCE, maxiter=MOST_ITERATIONS)
    except ArpackNoConvergence as error:
        values, vectors = error.eigenvalues, error.eigenvectors
    return np.asarray(vectors[:, np.argsort(-values, kind="stable")])


@kernel
def smooth(
    positions: np.ndarray[Any, Any],
    first: int,
    indptr: np.ndarray[Any, Any],
    tails: np.ndarray[Any, Any],
    weights: np.ndarray[Any, Any],
    out: np.ndarray[Any, Any],
) -> None:
    """Move each vertex of a block to the weighted mean of itself and its neighbours; isolated ones stay.

    positions (n, d) of all vertices; out (r, d) of the block's.
    """
    for i in range(indptr.shape[0] - 1):
        total = 1.0
        for c in range(positions.shape[1]):
            out[i, c] = positions[first + i, c]
        for e in range(indptr[i], indptr[i + 1]):
            total += weights[e]
            for c in range(positions.shape[1]):
                out[i, c] += weights[e] * positions[tails[e], c]
        for c in range(positions.shape[1]):
            out[i, c] /= total


@kernel
def coarsen(
    groups: np.ndarray[Any, Any],
    first: int,
    indptr: np.ndarray[Any, Any],
    tails: np.ndarray[Any, Any],
    weights: np.ndarray[Any, Any],
    out: np.ndarray[Any, Any],
) -> None:
    """Add a block's edge weights to the dense graph of groups, `out` (g, g) float64, in place.

    groups (n,) int32 gives each vertex's group; -1 takes no part.
    """
    for i in range(indptr.shape[0] - 1):
        g = groups[first + i]
        if g < 0:
            continue
        for e in range(indptr[i], indptr[i + 1]):
            h = groups[tails[e]]
            if h >= 0:
                out[g, h] += weights[e]
