"""The rows that are near a probe on the map."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.runtime.context import Context
from daskumap.store import schema


def wanted_rows(context: Context) -> np.ndarray[Any, Any]:
    """Return the ids of all rows that are near a probe on the map, ascending, each once."""
    ids = np.unique(context.read(schema.MAP_IDS))
    return ids[ids >= 0]
