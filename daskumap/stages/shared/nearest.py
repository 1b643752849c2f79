"""The cells that rows are near, of the training rows and of new ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.cells import join
from daskumap.kernels.neighbors import knn
from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# A row is compared with so many lists of neighbours, or with such a share of a usual cell, at least.
ENOUGH_LISTS, ENOUGH_SHARE = 3, 0.25


def nearest_cells(context: Context, X: Array, most: int) -> tuple[Array, Array]:
    """Return the nearest cells of some rows and from which level on they join them, of the run that has them.

    Returns
    -------
    nearest, levels
        (r, most) int32 and uint8; -1 where there are fewer cells.
    """
    metric, centroids = context.metric, context.read(schema.CENTROIDS)
    nearest, distances = knn.assign_cells(X, centroids, most, metric)
    radii, members = context.read(schema.RADII), context.read(schema.MEMBERS)
    enough = max(ENOUGH_LISTS * (context.job.neighbors + 1), ENOUGH_SHARE * members.mean())
    centres = centroids if metric.space else None
    return nearest, join.rank_margins(nearest, distances, radii, members, enough, centres)
