"""The embedding as it is measured: twins left out."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.runtime.context import Context
from daskumap.stages.shared.distinct import distinct_places
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def map_of(context: Context) -> Any:
    """Return the embedding as it is measured: anything that slices."""
    return DistinctMap(context) if context.params.unique else context.array(schema.EMBEDDING)


class DistinctMap:
    """The embedding with twins as NaN: it slices, and measures leave them out as they do rows off the map."""

    def __init__(self, context: Context) -> None:
        self.context, self.array = context, context.array(schema.EMBEDDING)
        self.shape = self.array.shape

    def __getitem__(self, rows: slice) -> Array:
        """Return a range of rows."""
        start, stop, _ = rows.indices(self.shape[0])
        out = np.full((stop - start, self.shape[1]), np.nan, np.float32)
        places = distinct_places(self.context, start, stop)
        out[places] = np.asarray(self.array[start:stop])[places]
        return out
