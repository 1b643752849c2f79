"""A run as its user sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from daskumap.errors import StoreError
from daskumap.pipeline import steps_of
from daskumap.report.tables import assemble, render
from daskumap.store.run import RunStore

Array = np.ndarray[Any, Any]


class Run:
    """A finished or unfinished run: a view of its run store."""

    def __init__(self, store: RunStore, path: str) -> None:
        self.store = store
        self.path = path

    @property
    def finished(self) -> bool:
        """Whether every stage is done."""
        return bool(self.store.records("report.summary"))

    @property
    def embedding(self) -> Any:
        """The map: a `zarr.Array` (n, n_components) float32 in the user's row order.

        Rows without any neighbour are NaN.

        Raises
        ------
        StoreError
            While the run is unfinished.
        """
        if not self._done("publish"):
            raise StoreError(
                f"The run in {self.path} has no embedding yet. Fit again on the same run store to go on."
            )
        return self.store.array("embedding")

    @property
    def report(self) -> dict[str, Any]:
        """What was measured: quality, graph, seconds and peak memory by stage."""
        return assemble(self.store)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the run."""
        return dict(self.store.about["params"])

    def knn(self) -> tuple[Array, Array]:
        """Return the neighbours of all rows in the user's row order, in memory.

        Returns
        -------
        indices, distances
            (n, n_neighbors - 1) int64 and float32, ascending, without the row itself; -1 and inf where
            missing. With `unique`, those are distinct rows, each by its first, and a duplicate has the
            neighbours of its first row.
        """
        vertex = self.store.read("rows/vertex")
        row = np.empty_like(vertex)
        row[vertex] = np.arange(len(vertex))
        if self.params.get("unique"):
            vertex = vertex[self.store.read("rows/first")]
        indices = self.store.read("knn/indices")[vertex]
        rows = np.where(indices >= 0, row[np.maximum(indices, 0)], -1)
        return rows, self.store.read("knn/distances")[vertex]

    def save_picture(self, path: str | Path) -> None:
        """Write the picture of the map to a PNG file."""
        from daskumap.report.picture import embedding_png

        embedding_png(self.embedding, path)

    def status(self) -> dict[str, int]:
        """Return the number of finished tasks by stage."""
        return {name: len(self.store.records(name)) for name in steps_of(bool(self.params.get("unique")))}

    def _done(self, stage: str) -> bool:
        times = self.store.load_json("report/stages") or {}
        return stage in times

    def __repr__(self) -> str:
        sizes = self.store.about["sizes"]
        state = "finished" if self.finished else "unfinished"
        return f"<daskumap.Run {self.path}: {sizes['rows']:,} x {sizes['columns']:,}, {state}>"

    def __str__(self) -> str:
        return render(self.report) if self.finished else repr(self)
