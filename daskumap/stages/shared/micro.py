"""Micro-cells of the spectral start: which rows share a coarse vertex."""

from __future__ import annotations

from daskumap.runtime.context import Context

MICRO_CELLS = 2_000
# Up to this many rows the start is of all rows: half a second or less (measured: 5,000 x 50 in .1).
EXACT_ROWS = 10_000


def has_micro_cells(context: Context) -> bool:
    """Return whether the start needs micro-cells."""
    return context.job.start == "spectral" and context.sizes.rows > EXACT_ROWS
