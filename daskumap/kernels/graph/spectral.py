"""The spectral start: a dense eigenproblem of the graph of micro-cells, smoothed over the graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.jit import kernel


def embed(
    coarse: np.ndarray[Any, Any], sizes: np.ndarray[Any, Any], n_components: int
) -> np.ndarray[Any, Any]:
    """Return the normalised Laplacian's first eigenvectors but the trivial one, (g, n_components) float64.

    Components would each be an eigenvector of its own and hide the structure within them, so they are tied
    together by weak edges (a thousandth of a mean edge) between every group and every other.

    Parameters
    ----------
    coarse
        (g, g) float64: total edge weight between groups, symmetric.
    sizes
        (g,) vertices in each group.

    References
    ----------
    Galerkin projection of the Laplacian eigenmap of Belkin and Niyogi (2003).
    """
    from scipy.linalg import eigh

    mass = np.maximum(sizes, 0).astype(np.float64)
    weights = (coarse + coarse.T) / 2.0
    weights += 1e-3 * max(weights.sum(), 1e-12) * np.outer(mass, mass) / mass.sum() ** 2
    root = np.sqrt(np.maximum(weights.sum(axis=1), 1e-300))
    wanted = min(n_components + 1, len(root))
    affinity = weights / root[:, None] / root[None, :]
    vectors = eigh(affinity, subset_by_index=[len(root) - wanted, len(root) - 1])[1][:, ::-1][:, 1:]
    vectors = vectors / root[:, None] * root.max()
    signs = np.sign(vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])])
    vectors = vectors * np.where(signs == 0, 1.0, signs)
    return np.pad(vectors, ((0, 0), (0, n_components - vectors.shape[1])))


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
