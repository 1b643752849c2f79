"""Maps on a sphere or a torus as they are drawn: each point within one turn.

A layout does not fold angles, so that points of one place may lie turns apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Unrolled:
    """A map that is unrolled as it is read, by rows."""

    def __init__(self, embedding: Any, unroll: Callable[[Array], Array]) -> None:
        self.embedding, self.unroll = embedding, unroll
        self.shape = embedding.shape

    def __getitem__(self, rows: Any) -> Array:
        return self.unroll(np.asarray(self.embedding[rows]))


def unrolled(embedding: Any, output_metric: Any, output_metric_kwds: Mapping[str, Any] | None) -> Any:
    """Return a map as it is drawn: as it is, unless its metric goes round.

    Parameters
    ----------
    embedding
        (n, d), anything that slices.
    output_metric, output_metric_kwds
        As of `daskumap.fit`, or as a run recorded them.
    """
    if output_metric == "haversine":
        return Unrolled(embedding, _on_sphere)
    if output_metric == "torus":
        turns = (output_metric_kwds or {}).get("torus_dimensions", 2 * np.pi)
        if not isinstance(turns, str):  # A recorded array is a digest, of which no length is known.
            return Unrolled(embedding, partial(_on_torus, turns))
    return embedding


def _on_sphere(points: Array) -> Array:
    """Return longitude, and latitude upwards, of angles from the pole and longitudes; (r, 2) float32."""
    polar, longitude = points.astype(np.float64).T
    x, y, z = np.sin(polar) * np.cos(longitude), np.sin(polar) * np.sin(longitude), np.cos(polar)
    return np.stack([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))], axis=1).astype(np.float32)


def _on_torus(turns: Any, points: Array) -> Array:
    """Return coordinates within one turn each, (r, d) float32."""
    return np.mod(points.astype(np.float64), np.asarray(turns, np.float64)).astype(np.float32)
