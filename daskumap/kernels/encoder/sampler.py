"""The rows and edges that a training holds, and the batch that each step draws from them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskumap.kernels.encoder import draw
from daskumap.kernels.encoder.batch import Batch, Settings

Array = NDArray[Any]


class Sampler:
    """Batches of the rows that are held. One thread draws from it: a batch lasts until the next one.

    Parameters
    ----------
    rows
        (n, p) float32.
    edges
        Of these rows, by their places here.
    key
        64-bit key of the draws.
    labels
        (n,) int32, -1 for none.
    landmarks
        (n, d) float32 places where rows are wanted, NaN where they are free.
    places
        (n, d) float32 places on a map, to which the first `warm_steps` regress; NaN for rows not on it.
    """

    def __init__(
        self,
        rows: Array,
        edges: draw.Edges,
        key: int,
        settings: Settings,
        labels: Array | None = None,
        landmarks: Array | None = None,
        places: Array | None = None,
    ) -> None:
        self.rows, self.edges, self.key, self.settings = rows, edges, key, settings
        self.labels, self.landmarks, self.places = labels, landmarks, places
        self._labelled = _numbers(labels >= 0 if labels is not None else None)
        self._wanted = _finite(landmarks)
        self._mapped = _finite(places)
        self._joined = len(edges.cumulative) > 0 and edges.cumulative[-1] > 0
        self._room(settings.batch_edges)

    def _room(self, edges: int) -> None:
        """Make room for a batch. Few labels would hardly ever be at the end of an edge: they have slots."""
        ends = 2 * edges
        labelled, wanted = min(edges, len(self._labelled)), min(edges, len(self._wanted))
        self._ids = np.empty(ends + labelled + wanted, np.int32)
        self._parts = np.split(self._ids, [ends, ends + labelled])
        self._rows = np.empty((len(self._ids), self.rows.shape[1]), np.float32)
        self._pushed = np.empty((edges * self.settings.negatives, 2), np.int32)
        self._pushed[:, 0] = np.repeat(np.arange(edges), self.settings.negatives)
        self._far = np.empty((ends if self.settings.global_weight else 0, 2), np.int32)

    def batch(self, step: int) -> Batch:
        """Return what a step is about, a hash of the key and the number of the step."""
        warm = step < self.settings.warm_steps and len(self._mapped) > 0
        edges = self._draw_ends(step, warm)
        self._draw(step, draw.LABELLED, self._labelled, self._parts[1])
        self._draw(step, draw.LANDMARK, self._wanted, self._parts[2])
        draw.draw_numbers(self.key, step, draw.FAR, len(self._parts[0]), self._far.reshape(-1))
        draw.gather(self.rows, self._ids, self._rows)
        return Batch(
            self._rows,
            len(self._parts[0]),
            edges,
            self._pushed[: edges * self.settings.negatives],
            self._far,
            _of(self.labels, self._parts[1], np.int32),
            _of(self.landmarks, self._parts[2], np.float32),
            _of(self.places, self._parts[0] if warm else self._ids[:0], np.float32),
            draw.draw_key(self.key, step),
        )

    def _draw_ends(self, step: int, warm: bool) -> int:
        """Draw the ends of edges and the pairs to push, or rows alone; return the number of edges."""
        ends = self._parts[0]
        edges = len(ends) // 2
        if warm or not self._joined:
            chosen = self._mapped if warm else np.arange(len(self.rows), dtype=np.int32)
            self._draw(step, draw.ROW, chosen, ends)
            return 0
        draw.draw_edges(self.edges, self.key, step, ends[:edges], ends[edges:])
        draw.draw_partners(self.key, step, edges, self._pushed)
        return edges

    def _draw(self, step: int, purpose: int, chosen: Array, out: Array) -> None:
        draw.draw_numbers(self.key, step, purpose, len(chosen), out)
        if len(out):
            out[:] = chosen[out]


def _numbers(mask: Array | None) -> Array:
    return np.empty(0, np.int32) if mask is None else np.flatnonzero(mask).astype(np.int32)


def _finite(places: Array | None) -> Array:
    return _numbers(None if places is None else np.asarray(np.isfinite(places).all(axis=1)))


def _of(values: Array | None, ids: Array, dtype: Any) -> Array:
    """Return the values of rows; none where nothing is given."""
    return np.asarray(values[ids] if values is not None else np.empty((0, 2)), dtype)
