"""Consecutive blocks, cut anew so that each is made of whole chunks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from daskumap.sources.base import Array


def whole_chunks(blocks: Iterator[Array], rows: int) -> Iterator[Array]:
    """Cut consecutive blocks anew, so that each part but the last one is made of whole chunks."""
    rest: Array | None = None
    for block in blocks:
        if rest is not None:
            missing = rows - len(rest)
            rest, block = np.concatenate([rest, block[:missing]]), block[missing:]
            if len(rest) < rows:
                continue
            yield rest
        whole = len(block) // rows * rows
        if whole:
            yield block[:whole]
        # A copy, since a view would keep the whole block in memory while the next one is made.
        rest = block[whole:].copy() if whole < len(block) else None
    if rest is not None:
        yield rest
