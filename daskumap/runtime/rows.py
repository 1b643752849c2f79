"""The rows of the input as the metric works on them, kept in memory where they fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from daskumap.planning.sizes import Sizes
from daskumap.sources.base import Source

Array = np.ndarray[Any, Any]


class Rows:
    """Reads rows of a source; one worker that can hold all rows decodes them once.

    Rows that are returned are not to be changed.
    """

    def __init__(self, source: Source, sizes: Sizes, dtype: str) -> None:
        self.source, self.sizes, self.dtype = source, sizes, np.dtype(dtype)
        self._blocks: dict[tuple[int, int], Array] = {}

    @property
    def held(self) -> bool:
        """Whether the one worker keeps all rows in memory once they are read."""
        return self.sizes.cache_bytes > 0

    def read(self, start: int, stop: int) -> Array:
        """Return rows start to stop, (r, D)."""
        if not self.held:
            return self.source.read(start, stop, self.dtype)
        block = self._blocks.get((start, stop))
        if block is None:
            block = self._blocks[start, stop] = self.source.read(start, stop, self.dtype)
        return block

    def gather(self, ids: Array) -> Array:
        """Return scattered rows in the order asked for, (len(ids), D)."""
        out = np.empty((len(ids), self.sizes.columns), self.dtype)
        return fill_by_block(self.sizes, ids, out, self.read)

    def release(self) -> None:
        """Free the rows that are held."""
        self._blocks.clear()


def fill_by_block(sizes: Sizes, rows: Array, out: Array, read: Callable[[int, int], Array]) -> Array:
    """Fill `out` with scattered rows, each row block that holds one read once."""
    blocks = rows // sizes.row_block
    for block in np.unique(blocks).tolist():
        here, (start, stop) = np.flatnonzero(blocks == block), sizes.block(block)
        out[here] = read(start, stop)[rows[here] - start]
    return out
