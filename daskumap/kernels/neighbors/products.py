"""Exact nearest rows in a Euclidean space: blocks of products, filtered by `scores.absorb`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.jit import kernel
from daskumap.kernels.neighbors.scores import STRIP, absorb, move_rows, rounding_bound

# Scores in flight: 4 MB. Wide tiles let fewer rows pass, tall ones feed the BLAS; 3,000 x 64 takes 17.0 ms
# with 256 x 4096, 17.6 with 128 x 4096, 20.1 with 512 x 1024 (measured, bare product 9.4).
TILE_ROWS = 256
TILE_COLUMNS = 4096
# `search_self` holds a tile and its transpose: 4,400 x 784 takes 161 ms, 170 with 512, 185 with 1024
# (measured).
TILE_SELF = 768
# From here on half the products are worth a transpose: 12,000 x 128 takes 283 ms instead of 366, 3,000 x 64
# 19 instead of 16 (measured).
MIN_COLUMNS_FOR_SYMMETRY = 96
# Rows that define the centre: any centre is correct, a fair one keeps the bound small. The mean of 64 rows is
# an eighth of a deviation off, which adds a hundredth to the bound; that of 1,024 x 784 takes as long as
# their norms (measured).
CENTRE_ROWS = 64


@kernel
def transpose(a, out):  # type: ignore[no-untyped-def]
    """Write the transpose of `a` to `out`, both (rows, strips, STRIP), strip by strip."""
    for u in range(out.shape[1]):
        for s in range(a.shape[1]):
            for c in range(min(STRIP, out.shape[0] - s * STRIP)):
                for v in range(min(STRIP, a.shape[0] - u * STRIP)):
                    out[s * STRIP + c, u, v] = a[u * STRIP + v, s, c]


def _scratch(k: int) -> NDArray[np.float32]:
    """Return room for the group minima: enough groups that few rows besides the k best pass."""
    return np.empty((max(2, math.ceil((k + 1) / 16)), STRIP), np.float32)


def _centre(X: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a (D,) float32 point in the middle of the rows."""
    step = max(1, X.shape[0] // CENTRE_ROWS)
    mean: NDArray[np.float64] = X[::step].mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32)


@dataclass(frozen=True)
class Space:
    """Rows ready for the filter: `moved` (r, D) to the centre, `half` norms (r,), `error` their bound."""

    moved: NDArray[np.float32]
    half: NDArray[np.float32]
    error: float

    @classmethod
    def of(cls, rows: NDArray[np.float32], centre: NDArray[np.float32]) -> "Space":
        """Centre the rows."""
        moved, half = np.empty_like(rows), np.empty(len(rows), np.float32)
        move_rows(rows, centre, moved, half)
        return cls(moved, half, rounding_bound(rows.shape[1]))

    def bounds(self, part: slice, sign: int) -> NDArray[np.float32]:
        """Return the half norms of a part less (-1) or plus (1) their error, padded to strips with inf."""
        half = self.half[part]
        padded = np.full(-(-len(half) // STRIP) * STRIP, np.inf, np.float32)
        padded[: len(half)] = half * np.float32(1 + sign * self.error)
        return padded.reshape(-1, STRIP)


def _slices(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _buffer(rows: int, columns: int) -> NDArray[np.float32]:
    """Return a flat buffer for a tile. Zeros: padding must hold finite numbers."""
    return np.zeros(rows * -(-columns // STRIP) * STRIP, np.float32)


def _in_strips(buffer: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Return the start of a flat buffer as (rows, strips, STRIP), room for `columns` numbers a row."""
    strips = -(-columns // STRIP)
    return buffer[: rows * strips * STRIP].reshape(rows, strips, STRIP)


def products(
    Q: NDArray[np.float32], X: NDArray[np.float32], buffer: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Write the products of all rows of Q and X to the buffer, in strips; padding stays as it was."""
    strips = _in_strips(buffer, len(Q), len(X))
    np.matmul(Q, X.T, out=strips.reshape(len(Q), -1)[:, : len(X)])
    return strips


class Tile(NamedTuple):
    """The products of some queries with some rows; arrays as in `absorb`, valid until the next tile."""

    queries: slice
    rows: slice
    scores: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    half: NDArray[np.float32]
    error: float


def tiles(Q: NDArray[np.float32], X: NDArray[np.float32]) -> Iterator[Tile]:
    """Multiply all queries with all rows, tile by tile, rows in order."""
    centre = _centre(X)
    space, queries = Space.of(X, centre), Space.of(Q, centre)
    buffer = _buffer(min(TILE_ROWS, len(Q)), min(TILE_COLUMNS, len(X)))
    for x in _slices(len(X), TILE_COLUMNS):
        low, high = space.bounds(x, -1), space.bounds(x, 1)
        for q in _slices(len(Q), TILE_ROWS):
            scores = products(queries.moved[q], space.moved[x], buffer)
            yield Tile(q, x, scores, low, high, queries.half[q], space.error)


def search(
    Q: NDArray[np.float32], X: NDArray[np.float32], k: int, finish: int, own: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the k nearest rows of X for each row of Q, exactly.

    Parameters
    ----------
    Q, X
        (q, D) and (r, D) float32 C arrays in one Euclidean space.
    own
        (q,) int32, the row of X that each query leaves out, or -1.

    Returns
    -------
    ids, distances
        (q, k) int32 and float32, ascending by (distance, id); -1 and inf where X is too short.

    Notes
    -----
    Works in 4 D (q + r) bytes for the centred copies and about 4 MB for the tile.
    """
    ids, distances = _no_neighbors(len(Q), k)
    enter(Q, X, finish, own, 0, ids, distances)
    return ids, distances


def enter(
    Q: NDArray[np.float32],
    X: NDArray[np.float32],
    finish: int,
    own: NDArray[np.int32],
    first: int,
    ids: NDArray[Any],
    distances: NDArray[np.float32],
) -> None:
    """Enter the rows of X into lists that the rows of Q have, in place: `search` in several blocks.

    A full list lets few rows of the next block pass its filter.

    Parameters
    ----------
    own
        (q,) int32, the id that each query leaves out, or -1.
    first
        id of row 0 of X.
    ids, distances
        (q, k) int32 or int64, and float32: ascending lists, -1 and inf where short.
    """
    if ids.size == 0 or len(X) == 0:
        return
    minima = _scratch(ids.shape[1])
    for tile in tiles(Q, X):
        q, x = tile.queries, tile.rows
        absorb(
            tile.scores,
            tile.low,
            tile.high,
            tile.half,
            own[q],
            Q[q],
            X[x],
            first + x.start,
            tile.error,
            finish,
            ids[q],
            distances[q],
            minima,
        )


def nearest_others(
    X: NDArray[np.float32], k: int, finish: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the k nearest other rows of each row of X, in the way that is faster for its width."""
    if X.shape[1] >= MIN_COLUMNS_FOR_SYMMETRY:
        return search_self(X, k, finish)
    return search(X, X, k, finish, np.arange(len(X), dtype=np.int32))


def _no_neighbors(rows: int, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return empty lists: -1 and inf."""
    return np.full((rows, k), -1, np.int32), np.full((rows, k), np.inf, np.float32)


def search_self(X: NDArray[np.float32], k: int, finish: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the k nearest other rows of each row of X: `search(X, X, ...)` with half the products.

    A product of two blocks serves the rows of both: once as it is and once transposed.
    """
    ids, distances = _no_neighbors(len(X), k)
    if ids.size == 0:
        return ids, distances
    space = Space.of(X, _centre(X))
    own = np.arange(len(X), dtype=np.int32)
    minima = _scratch(k)
    side = min(TILE_SELF, len(X))
    buffer, turned = _buffer(side, side), _buffer(side, side)

    def take(scores: NDArray[np.float32], a: slice, b: slice) -> None:
        absorb(
            scores,
            space.bounds(b, -1),
            space.bounds(b, 1),
            space.half[a],
            own[a],
            X[a],
            X[b],
            b.start,
            space.error,
            finish,
            ids[a],
            distances[a],
            minima,
        )

    blocks = _slices(len(X), TILE_SELF)
    for t, a in enumerate(blocks):
        for b in blocks[t:]:
            scores = products(space.moved[a], space.moved[b], buffer)
            take(scores, a, b)
            if b != a:
                transposed = _in_strips(turned, b.stop - b.start, a.stop - a.start)
                transpose(scores, transposed)
                take(transposed, b, a)
    return ids, distances
