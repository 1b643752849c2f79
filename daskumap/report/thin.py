"""Every so many rows of a map, so that a picture in passing costs little, however many rows there are."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.report.window import READ_ROWS

Array = np.ndarray[Any, Any]

# A picture of 400 pixels shows no more; they take half a second (measured).
ENOUGH_ROWS = 500_000


class Thin:
    """Rows 0, step, 2 step, ... of what slices, which slices itself.

    Parameters
    ----------
    values
        (n, d), anything that slices; read in blocks.
    most
        At most so many rows.
    """

    def __init__(self, values: Any, most: int = ENOUGH_ROWS) -> None:
        self.values = values
        self.step = max(1, -(-values.shape[0] // most))
        self.shape = (-(-values.shape[0] // self.step), *values.shape[1:])

    def __getitem__(self, rows: slice) -> Array:
        start, stop, _ = rows.indices(self.shape[0])
        block = max(1, READ_ROWS // self.step)
        parts = [self._read(at, min(at + block, stop)) for at in range(start, stop, block)]
        return np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), np.float32)

    def _read(self, start: int, stop: int) -> Array:
        return np.asarray(self.values[start * self.step : stop * self.step])[:: self.step]
