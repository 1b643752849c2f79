"""The rows of the input as the metric works on them, kept in memory where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from daskumap.kernels.neighbors.distances import Distances
from daskumap.planning.sizes import Sizes
from daskumap.sources.base import Source
from daskumap.sources.distances import SparseDistances
from daskumap.sources.move import Move

Array = np.ndarray[Any, Any]

# What is moved at a time, as stored: a fraction of any row block.
MOVED_BYTES = 8 << 20
# What is measured as stored at a time, in float64: a second-level cache holds it.
STORED_BYTES = 1 << 20


class Rows:
    """Reads rows of a source; one worker that can hold all rows decodes them once.

    Rows that are returned are not to be changed.
    """

    def __init__(self, source: Source, sizes: Sizes, dtype: str, find_move: Callable[[bool], Move]) -> None:
        self.source, self.sizes, self.dtype = source, sizes, np.dtype(dtype)
        self._find_move = find_move
        self._blocks: dict[tuple[int, int], Array] = {}

    @property
    def held(self) -> bool:
        """Whether scattered rows cost little: the one worker keeps all that it reads, or need not."""
        return self.sizes.cache_bytes > 0 or self.source.gathers

    def read(self, start: int, stop: int) -> Array:
        """Return rows start to stop, (r, D)."""
        if not self.held or self.source.gathers:
            return self._read(start, stop)
        block = self._blocks.get((start, stop))
        if block is None:
            block = self._blocks[start, stop] = self._read(start, stop)
        return block

    def distances(self, start: int, stop: int) -> Distances:
        """Return rows start to stop of an input that is distances, as they are stored."""
        if isinstance(self.source, SparseDistances):
            return self.source.csr(start, stop, self._find_move(False))
        return Distances.whole(self.read(start, stop))

    def distances_bytes(self, rows: int) -> int:
        """Return an upper bound, in bytes, of what reading that many rows of distances holds."""
        if isinstance(self.source, SparseDistances):
            return self.source.csr_bytes(rows)
        return self.read_bytes(rows)

    def _read(self, start: int, stop: int) -> Array:
        """Read rows, and move them piece by piece to where float32 resolves them."""
        move = self._find_move(False)
        if move.is_still:
            return self.source.read(start, stop, self.dtype)
        out = np.empty((stop - start, self.sizes.columns), self.dtype)
        for first, end in self._pieces(start, stop):
            out[first - start : end - start] = move.apply(self.source.read_stored(first, end))
        return out

    def stored(self, start: int, stop: int) -> Iterator[tuple[int, Array]]:
        """Yield rows start to stop as stored, moved, in float64: the first row, and a few that follow."""
        move, few = self._find_move(False), max(1, STORED_BYTES // (8 * self.sizes.columns))
        for first, end in self._pieces(start, stop):
            block = self.source.read_stored(first, end)
            for place in range(0, len(block), few):
                yield first + place, move.values(block[place : place + few])

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield consecutive ranges, from start to stop, that are read as stored at a time."""
        step = self.move_rows
        while start < stop:
            end = min(stop, (start // step + 1) * step)
            yield start, end
            start = end

    @property
    def whole(self) -> bool:
        """Whether the metric works on the values as stored, to the bit; bits are never changed."""
        safe = self.dtype == np.uint8 or np.can_cast(self.source.dtype, self.dtype)
        return safe and self._find_move(True).is_still

    @property
    def move_rows(self) -> int:
        """Rows that are moved at a time: whole pieces of the source."""
        rows = MOVED_BYTES // (self.sizes.columns * self.source.dtype.itemsize)
        return max(1, rows // self.source.block_rows) * self.source.block_rows

    def read_bytes(self, rows: int) -> int:
        """Return an upper bound, in bytes, of what reading that many rows holds, moved or not."""
        read = self.source.read_bytes(rows)
        if self._find_move(True).is_still:
            return read
        # As stored, as float64 less the centre, and scaled.
        return read + min(rows, self.move_rows) * self.sizes.columns * (self.source.dtype.itemsize + 24)

    def stored_bytes(self, rows: int) -> int:
        """Return an upper bound, in bytes, of what reading that many rows as stored holds."""
        piece = min(rows, self.move_rows)
        read = self.source.read_bytes(piece) + piece * self.sizes.columns * self.source.dtype.itemsize
        # As float64 less the centre, and scaled.
        return read + 3 * STORED_BYTES

    def gather(self, ids: Array) -> Array:
        """Return scattered rows in the order asked for, (len(ids), D)."""
        if self.source.gathers:
            return self._take(ids)
        out = np.empty((len(ids), self.sizes.columns), self.dtype)
        return fill_by_block(self.sizes, ids, out, self.read)

    def _take(self, ids: Array) -> Array:
        move = self._find_move(False)
        if move.is_still:
            return self.source.take(ids, self.dtype)
        out = np.empty((len(ids), self.sizes.columns), self.dtype)
        for first in range(0, len(ids), self.move_rows):
            here = slice(first, first + self.move_rows)
            out[here] = move.apply(self.source.take(ids[here], self.source.dtype))
        return out

    def release(self) -> None:
        """Free the rows that are held."""
        self._blocks.clear()


def fill_by_block(sizes: Sizes, rows: Array, out: Array, read: Callable[[int, int], Array]) -> Array:
    """Fill `out` with scattered rows, each row block that holds one read once."""
    blocks = rows // sizes.row_block
    for block in np.unique(blocks).tolist():
        here, (start, stop) = np.flatnonzero(blocks == block), sizes.block(block)
        out[here] = np.take(read(start, stop), rows[here] - start, axis=0)
    return out
