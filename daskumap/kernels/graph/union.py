"""The fuzzy graph: transposed edges, the union with the transpose, and connected components."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.jit import kernel


@kernel
def sort_by_tail(
    indices: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], first: int, unit: int, ranges: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Transpose a block of kNN rows: its edges ordered by the range of vertices that their tail is in.

    Parameters
    ----------
    indices, weights
        (r, k): neighbours of the vertices first, first + 1, ... and their memberships; weight 0 is no edge.
    unit, ranges
        Range p of `ranges` holds the vertices p * unit to (p + 1) * unit - 1.

    Returns
    -------
    tails, heads, weights, offsets
        One entry an edge, and (ranges + 1,) offsets.
    """
    offsets = np.zeros(ranges + 1, np.int64)
    for i in range(indices.shape[0]):
        for j in range(indices.shape[1]):
            if weights[i, j] > 0.0:
                offsets[indices[i, j] // unit + 1] += 1
    for p in range(ranges):
        offsets[p + 1] += offsets[p]
    at = offsets[:-1].copy()
    tails = np.empty(offsets[-1], np.int64)
    heads = np.empty(offsets[-1], np.int64)
    out = np.empty(offsets[-1], np.float32)
    for i in range(indices.shape[0]):
        for j in range(indices.shape[1]):
            if weights[i, j] > 0.0:
                p = indices[i, j] // unit
                tails[at[p]] = indices[i, j]
                heads[at[p]] = first + i
                out[at[p]] = weights[i, j]
                at[p] += 1
    return tails, heads, out, offsets


@kernel
def fuzzy_union(
    indices: np.ndarray[Any, Any],
    weights: np.ndarray[Any, Any],
    first: int,
    in_vertices: np.ndarray[Any, Any],
    in_heads: np.ndarray[Any, Any],
    in_weights: np.ndarray[Any, Any],
    mix: float,
    cap: float,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
    """Join a block of kNN rows with the edges that point at it.

    w = mix (p + q - p q) + (1 - mix) p q, with p the membership of the edge and q that of its reverse.
    Memberships above 1 are taken as they are: clipped before, those of 1 and more would all be equal.

    Parameters
    ----------
    indices, weights
        (r, k): neighbours of the vertices first, first + 1, ... and memberships p; weight 0 is no edge.
    in_vertices, in_heads, in_weights
        The edges in_heads -> in_vertices that point into the block, in any order, and their memberships q.
    mix
        `set_op_mix_ratio`: 1 is the union, 0 the intersection.
    cap
        The largest weight: 1, or inf where memberships may be above 1.

    Returns
    -------
    indptr, tails, weights
        CSR rows of the block with global tails in ascending order and weights in (0, cap].
    dropped
        Edges of which nothing is left since p q is p + q or more: of memberships above 1 alone.

    References
    ----------
    McInnes, Healy, Melville (2018), section 3.1.
    """
    rows = indices.shape[0]
    sizes = np.zeros(rows + 1, np.int64)
    for i in range(rows):
        for j in range(indices.shape[1]):
            if weights[i, j] > 0.0:
                sizes[i + 1] += 1
    for e in range(in_vertices.shape[0]):
        sizes[in_vertices[e] - first + 1] += 1
    starts = np.cumsum(sizes)
    tails = np.empty(starts[-1], np.int64)
    forward = np.zeros(starts[-1], np.float32)
    backward = np.zeros(starts[-1], np.float32)
    at = starts[:-1].copy()
    for i in range(rows):
        for j in range(indices.shape[1]):
            if weights[i, j] > 0.0:
                tails[at[i]] = indices[i, j]
                forward[at[i]] = weights[i, j]
                at[i] += 1
    for e in range(in_vertices.shape[0]):
        i = in_vertices[e] - first
        tails[at[i]] = in_heads[e]
        backward[at[i]] = in_weights[e]
        at[i] += 1
    return _merge_rows(starts, tails, forward, backward, mix, cap)  # type: ignore[no-any-return]


@kernel
def _merge_rows(
    starts: np.ndarray[Any, Any],
    tails: np.ndarray[Any, Any],
    forward: np.ndarray[Any, Any],
    backward: np.ndarray[Any, Any],
    mix: float,
    cap: float,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], int]:
    """Sort each row by tail, join the two entries of an edge and its reverse, drop what is not above 0."""
    rows = starts.shape[0] - 1
    indptr = np.zeros(rows + 1, np.int64)
    out = np.empty(tails.shape[0], np.float32)
    at, dropped = 0, 0
    for i in range(rows):
        order = np.argsort(tails[starts[i] : starts[i + 1]])
        row_tails = tails[starts[i] : starts[i + 1]][order]
        row_p = forward[starts[i] : starts[i + 1]][order]
        row_q = backward[starts[i] : starts[i + 1]][order]
        j = 0
        while j < row_tails.shape[0]:
            p, q = row_p[j], row_q[j]
            tail = row_tails[j]
            j += 1
            if j < row_tails.shape[0] and row_tails[j] == tail:
                p = max(p, row_p[j])
                q = max(q, row_q[j])
                j += 1
            weight = mix * (p + q - p * q) + (1.0 - mix) * p * q
            if weight > 0.0:
                tails[at] = tail  # at never passes j: a merged row is no longer than its entries
                out[at] = min(weight, cap)
                at += 1
            elif p + q <= p * q:
                dropped += 1
        indptr[i + 1] = at
    return indptr, tails[:at].copy(), out[:at].copy(), dropped


@kernel
def unite(
    parents: np.ndarray[Any, Any], first: int, indptr: np.ndarray[Any, Any], tails: np.ndarray[Any, Any]
) -> None:
    """Merge the components that a block's edges join, in `parents`, (n,) int64, in place.

    A root is the smallest vertex of its component, so the outcome does not depend on the order of the edges.
    """
    for i in range(indptr.shape[0] - 1):
        for e in range(indptr[i], indptr[i + 1]):
            join(parents, first + i, tails[e])


@kernel
def join(parents: np.ndarray[Any, Any], one: int, other: int) -> None:
    """Merge the components of two vertices: the smaller root stays."""
    a, b = find_root(parents, one), find_root(parents, other)
    if a < b:
        parents[b] = a
    elif b < a:
        parents[a] = b


@kernel
def find_root(parents: np.ndarray[Any, Any], vertex: int) -> int:
    """Return the root of a vertex, halving the path to it."""
    while parents[vertex] != vertex:
        parents[vertex] = parents[parents[vertex]]
        vertex = parents[vertex]
    return vertex


@kernel
def count_components(parents: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Return the number of components and the size of the largest."""
    sizes = np.zeros(parents.shape[0], np.int64)
    for vertex in range(parents.shape[0]):
        sizes[find_root(parents, vertex)] += 1
    return int(np.sum(sizes > 0)), int(sizes.max())
