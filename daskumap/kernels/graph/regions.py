"""Regions of the graph: seeds that grow along heavy edges, as coarse vertices where there are no vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.jit import kernel


@kernel
def grow(
    regions: np.ndarray[Any, Any],
    first: int,
    indptr: np.ndarray[Any, Any],
    tails: np.ndarray[Any, Any],
    weights: np.ndarray[Any, Any],
    out: np.ndarray[Any, Any],
) -> int:
    """Let the vertices of a block without a region join that of their neighbours with most weight.

    Parameters
    ----------
    regions
        (n,) int32 of all vertices, -1 for none yet; read only, so that the order of blocks does not matter.
    out
        (r,) int32 of the block's vertices. Of two regions with the same weight it is the lower one.

    Returns
    -------
    :
        How many joined one.
    """
    joined = 0
    for i in range(indptr.shape[0] - 1):
        out[i] = regions[first + i]
        if out[i] >= 0:
            continue
        heaviest = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            region = regions[tails[e]]
            if region < 0:
                continue
            total = 0.0
            for other in range(indptr[i], indptr[i + 1]):
                if regions[tails[other]] == region:
                    total += weights[other]
            if total > heaviest or (total == heaviest and region < out[i]):
                heaviest, out[i] = total, region
        if out[i] >= 0:
            joined += 1
    return joined
