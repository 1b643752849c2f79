"""Micro-cells of the spectral start: which rows share a coarse vertex."""

from __future__ import annotations

from daskumap.runtime.context import Context

# A dense eigenproblem of this size takes about two seconds.
MICRO_CELLS = 2_000
# Up to this many rows each row is a micro-cell of its own, and the start is the exact one.
EXACT_ROWS = 3_000


def has_micro_cells(context: Context) -> bool:
    """Return whether the start needs micro-cells."""
    return context.job.start == "spectral" and context.sizes.rows > EXACT_ROWS
