"""Nearest neighbours in plain NumPy and float64: slow, short, and what the kernels are compared with."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def distances(Q: Array, X: Array, metric: str) -> Array:
    """Return (q, r) float64 distances of a few metrics, from their definitions."""
    a, b = np.asarray(Q, np.float64), np.asarray(X, np.float64)
    if metric == "correlation":
        a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    if metric in ("cosine", "dot", "correlation"):
        a = a / np.linalg.norm(a, axis=1, keepdims=True)
        b = b / np.linalg.norm(b, axis=1, keepdims=True)
        return 0.5 * _squared(a, b)
    if metric == "hellinger":
        a, b = np.sqrt(a / a.sum(axis=1, keepdims=True)), np.sqrt(b / b.sum(axis=1, keepdims=True))
        return np.sqrt(0.5 * _squared(a, b))
    if metric == "manhattan":
        return np.stack([np.abs(row - b).sum(axis=1) for row in a])
    if metric == "chebyshev":
        return np.stack([np.abs(row - b).max(axis=1) for row in a])
    if metric == "sqeuclidean":
        return _squared(a, b)
    if metric == "euclidean":
        return np.sqrt(_squared(a, b))
    raise ValueError(f"No reference for metric {metric!r}.")


def _squared(a: Array, b: Array) -> Array:
    """Return squared Euclidean distances, row by row: all differences at once fit no cache."""
    return np.stack([((row - b) ** 2).sum(axis=1) for row in a])


def neighbors(table: Array, k: int, own: Array | None = None) -> tuple[Array, Array]:
    """Return the k nearest of each row of a (q, r) table by (distance, id), -1 and inf where short.

    Parameters
    ----------
    own
        (q,) the column that each row leaves out, -1 for none; by default none.
    """
    table = np.array(table, np.float64)
    if own is not None:
        some = np.flatnonzero(own >= 0)
        table[some, own[some]] = np.inf
    ids = np.full((len(table), k), -1)
    nearest = np.full((len(table), k), np.inf)
    order = np.argsort(table, axis=1, kind="stable")[:, :k]
    ids[:, : order.shape[1]] = order
    nearest[:, : order.shape[1]] = np.take_along_axis(table, order, axis=1)
    ids[np.isinf(nearest)] = -1
    return ids, nearest


def merge_nearest(
    ids_a: Array, distances_a: Array, ids_b: Array, distances_b: Array, k: int
) -> tuple[Array, Array]:
    """Merge two lists per row to the k nearest by (distance, id), each id once at its smaller distance."""
    ids = np.full((len(ids_a), k), -1)
    merged = np.full((len(ids_a), k), np.inf)
    for i in range(len(ids_a)):
        best: dict[int, float] = {}
        for j, d in zip(np.r_[ids_a[i], ids_b[i]], np.r_[distances_a[i], distances_b[i]], strict=True):
            if j >= 0:
                best[int(j)] = min(best.get(int(j), np.inf), float(d))
        for place, (j, d) in enumerate(sorted(best.items(), key=lambda pair: (pair[1], pair[0]))[:k]):
            ids[i, place], merged[i, place] = j, d
    return ids, merged


def count_closer(table: Array, thresholds: Array, own: Array) -> Array:
    """Count for each row of a (q, r) table the other rows below each of its (q, t) thresholds."""
    table = np.array(table, np.float64)
    some = np.flatnonzero(own >= 0)
    table[some, own[some]] = np.inf
    return (table[:, None, :] < thresholds[:, :, None]).sum(axis=2)  # type: ignore[no-any-return]


def local_join(
    X: Array, cells: Array, ids: Array, squares: Array, fresh: Array, room: int
) -> tuple[Array, Array, Array]:
    """Return ids, squared distances and marks of the lists after one round of local joins.

    Rows that list one another meet, `room` at a row: those listed first, then those that list it, both by
    place. Two that met, one of them fresh, are compared unless they share a small cell.
    """
    rows, k = ids.shape
    met: list[list[tuple[int, bool]]] = [[] for _ in range(rows)]
    for place in range(k):
        for i in range(rows):
            if ids[i, place] >= 0:
                met[i].append((int(ids[i, place]), bool(fresh[i, place])))
    for place in range(k):
        for i in range(rows):
            j = int(ids[i, place])
            if j >= 0 and i not in ids[j] and len(met[j]) < room:
                met[j].append((i, bool(fresh[i, place])))
    best = [
        {int(j): (float(d), False) for j, d in zip(ids[i], squares[i], strict=True) if j >= 0}
        for i in range(rows)
    ]

    def offer(i: int, j: int, d: float) -> None:
        if j not in best[i]:
            ranked = sorted((known, other) for other, (known, _) in best[i].items())
            if len(ranked) < k or (d, j) < ranked[-1]:
                if len(ranked) == k:
                    del best[i][ranked[-1][1]]
                best[i][j] = (d, True)

    for guests in met:
        for a in range(len(guests)):
            for b in range(a + 1, len(guests)):
                (p, new_p), (q, new_q) = guests[a], guests[b]
                shared = set(cells[p][cells[p] >= 0]) & set(cells[q])
                if p != q and (new_p or new_q) and not shared:
                    d = float(((X[p].astype(np.float64) - X[q]) ** 2).sum())
                    offer(p, q, d)
                    offer(q, p, d)
    out = np.full(ids.shape, -1), np.full(ids.shape, np.inf), np.zeros(ids.shape, np.uint8)
    for i in range(rows):
        for place, (d, j, new) in enumerate(sorted((d, j, new) for j, (d, new) in best[i].items())):
            out[0][i, place], out[1][i, place], out[2][i, place] = j, d, new
    return out
