"""A run as its user sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.driver import STAGES
from daskumap.engine.clusters import make_engine
from daskumap.engine.machine import parse_memory
from daskumap.errors import ParameterError, StoreError
from daskumap.params import Params
from daskumap.pipeline import Kind, kind_of, steps_of
from daskumap.planning.sizes import Sizes
from daskumap.report.progress import Progress, choose_progress
from daskumap.report.text import assemble, render
from daskumap.request import Request, make_transform_request
from daskumap.session import fit_request, open_model, stored_params
from daskumap.sources.base import Source
from daskumap.store import schema
from daskumap.store.graph import read_blocks, read_edges
from daskumap.store.places import Place
from daskumap.store.run import RunStore

Array = np.ndarray[Any, Any]

PLACED = (
    "{rows:,} rows placed in {epochs} epochs: {known:,} equal a fitted row, {alone:,} have no neighbour,\n"
    "{unlike:,} are farther from their neighbours than any fitted row"
)
JOINED = (
    "{rows:,} rows joined to {fitted:,} fitted ones: {known:,} equal one, {alone:,} have no neighbour,\n"
    "{unlike:,} are farther from their neighbours than any fitted row"
)


class View:
    """A run store as its user sees it, of a fit or of a transform."""

    def __init__(self, store: RunStore) -> None:
        self.store = store

    @property
    def path(self) -> str:
        """Where the run store is."""
        return self.store.url

    @property
    def finished(self) -> bool:
        """Whether every stage is done."""
        return self.store.ledger.finished() is not None

    @property
    def embedding(self) -> Any:
        """The map: a `zarr.Array` (n, n_components) float32 in the user's row order.

        Rows without any neighbour are NaN.

        Raises
        ------
        StoreError
            While the run is unfinished, or if it ends with the graph.
        """
        if self.params.get("transform_mode") == "graph":
            raise StoreError(
                f"The run in {self.path} has no map: its transform_mode is 'graph'. It has graph(); fit with "
                "transform_mode='embedding' for a map."
            )
        self._refuse_unfinished("embedding")
        return self.store.array(schema.EMBEDDING.name)

    def _refuse_unfinished(self, what: str) -> None:
        blocks = Sizes(**self.store.about["sizes"]).row_blocks
        if self.store.ledger.count(self._kind.publishes.name) < blocks:
            raise StoreError(
                f"The run in {self.path} has no {what} yet. Fit again on the same run store to go on."
            )

    @property
    def _kind(self) -> Kind:
        return kind_of(self.store.about["model"], stored_params(self.store))

    @property
    def report(self) -> dict[str, Any]:
        """The verdict on the map and what was measured: quality, graph, seconds and peak memory by stage."""
        measures = self.store.documents.load(schema.MEASURES.name) if self.store.ledger.has_begun() else None
        return assemble(measures or {}, self._stages(), self.store.about)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the run."""
        return dict(self.store.about["params"])

    def status(self) -> dict[str, int]:
        """Return the number of finished tasks by step."""
        steps = steps_of(self._kind.pipeline, stored_params(self.store))
        return {step.name: self.store.ledger.count(step.name) for step in steps}

    def _stages(self) -> dict[str, Any]:
        return dict(self.store.documents.load(STAGES) or {}) if self.store.ledger.has_begun() else {}

    def __repr__(self) -> str:
        sizes = self.store.about["sizes"]
        state = "finished" if self.finished else "unfinished"
        return (
            f"<daskumap.{type(self).__name__} {self.path}: {sizes['rows']:,} x {sizes['columns']:,}, {state}>"
        )

    def __str__(self) -> str:
        return render(self.report) if self.finished else repr(self)


class Run(View):
    """A finished or unfinished fit.

    Parameters
    ----------
    params, source
        Where this process fitted it: parameters and rows, which the run store may not hold.
    """

    def __init__(self, store: RunStore, params: Params | None = None, source: Source | None = None) -> None:
        super().__init__(store)
        self._params, self._source = params, source

    def transform(
        self,
        data: Any,
        out: Any = None,
        *,
        fitted: Any = None,
        client: Any = None,
        memory: str | int | None = None,
        threads: int | None = None,
        progress: bool | Progress = True,
        restart: bool = False,
        take_over: bool = False,
        trust_input: bool = False,
    ) -> Transformed:
        """Place new rows into the map, out of core: see `daskumap.transform`."""
        shown, request = choose_progress(progress), self.request(data, fitted)
        rows = max(request.source.shape[0], self.store.about["sizes"]["rows"])
        engine = make_engine(client, parse_memory(memory), threads, rows)
        try:
            if not (engine.local or self.store.place.shared):
                raise ParameterError(
                    f"The workers of the cluster cannot reach the run in {self.path}. Fit into a path or URL "
                    "that they reach, or transform in this process with client='threads'."
                )
            return Transformed(fit_request(request, out, engine, shown, restart, take_over, trust_input))
        finally:
            engine.close()

    def request(self, data: Any, fitted: Any = None) -> Request:
        """Return what a transform of new rows asks for, checked against the rows that were fitted."""
        return make_transform_request(data, open_model(self.store, self._params, self._source, fitted))

    def knn(self) -> tuple[Array, Array]:
        """Return the neighbours of all rows in the user's row order, in memory.

        Returns
        -------
        indices, distances
            (n, n_neighbors - 1) int64 and float32, ascending, without the row itself; -1 and inf where
            missing. Distances are float64 where the search scaled the values. With `unique`, neighbours are
            distinct rows, each by its first, and a duplicate has the neighbours of its first row.

        Raises
        ------
        StoreError
            If the run did not keep them.
        """
        self._refuse_freed(schema.INDICES)
        vertex = self.store.read(schema.VERTEX.name)
        row = np.empty_like(vertex)
        row[vertex] = np.arange(len(vertex))
        if self.params.get("unique"):
            vertex = vertex[self.store.read(schema.FIRST.name)]
        indices = self.store.read(schema.INDICES.name)[vertex]
        rows = np.where(indices >= 0, row[np.maximum(indices, 0)], -1)
        distances = self.store.read(schema.DISTANCES.name)[vertex]
        return rows, self._in_users_unit(distances)

    def graph(self) -> Any:
        """Return the memberships of all edges, in memory: umap-learn's `graph_`.

        Returns
        -------
        scipy.sparse.csr_matrix
            (n, n) float32, symmetric, in the user's row order, with ascending columns. With `unique` it has
            the distinct rows alone, in the order of their first occurrence.

        Raises
        ------
        StoreError
            If the run did not keep it.
        """
        from scipy.sparse import csr_matrix

        self._refuse_freed(schema.GRAPH)
        place = self._places()
        indptr, tails, weights = read_edges(self.store, Sizes(**self.store.about["sizes"]), 0, len(place))
        heads = np.repeat(place, np.diff(indptr))
        graph = csr_matrix((weights, (heads, place[tails])), shape=(len(place), len(place)))
        graph.eliminate_zeros()
        return graph

    def calibration(self) -> tuple[Array, Array]:
        """Return rho, the distance to the nearest neighbour, and sigma, the bandwidth, in memory.

        Returns
        -------
        rho, sigma
            (n,) float32 each, in the order of the rows of `graph`; float64 where the search scaled values.

        Raises
        ------
        StoreError
            If the run did not keep them.
        """
        self._refuse_freed(schema.RHO)
        place = self._places()
        found = []
        for item in (schema.RHO, schema.SIGMA):
            values = self.store.read(item.name, 0, len(place))
            in_order = np.empty_like(values)
            in_order[place] = values
            found.append(self._in_users_unit(in_order))
        return found[0], found[1]

    def __reduce__(self) -> tuple[Callable[..., Run], tuple[Any, ...]]:
        # Rows that lie elsewhere are found again by what the run store says of them.
        held = self._source is not None and self._source.spec() is None
        return _reopen, (self.store.place, self._params, self._source if held else None)

    def inverse(self) -> Array:
        """Return the place of each row in `graph`, (n,) int64, in memory: with `unique`, copies share one."""
        if not self.params.get("unique"):
            return np.arange(self.store.about["sizes"]["rows"])
        self._refuse_freed(schema.FIRST)
        return np.unique(self.store.read(schema.FIRST.name), return_inverse=True)[1]

    def _places(self) -> Array:
        """Return the place of each vertex among the distinct rows in the user's order; twins are left out."""
        vertex = self.store.read(schema.VERTEX.name)
        if self.params.get("unique"):
            vertex = vertex[np.unique(self.store.read(schema.FIRST.name))]
        place = np.empty_like(vertex)
        place[vertex] = np.arange(len(vertex))
        return place

    def _in_users_unit(self, distances: Array) -> Array:
        """Return distances as of the user's values, in float64 where these were scaled to suit float32."""
        cast = self.store.documents.load(schema.CAST.name)
        unit = cast["exponent"] * cast["degree"]
        if not unit:
            return distances
        with np.errstate(over="ignore"):
            scaled: Array = np.ldexp(distances.astype(np.float64), -unit)
        return scaled

    def _refuse_freed(self, item: schema.Item) -> None:
        """Refuse to read what the run did not keep."""
        if item.name in self.store.ledger.freed():
            raise StoreError(
                f"The run in {self.path} kept its embedding alone. Fit with keep='model' for the neighbours "
                "and their graph."
            )

    def save_picture(self, path: str | Path) -> None:
        """Write the picture of the map to a PNG file."""
        from daskumap.report.picture import embedding_png

        embedding_png(self.embedding, path)


class Transformed(View):
    """New rows on the map of a run; `embedding` has them in the order of the input."""

    @property
    def fit_distance(self) -> Any:
        """How unlike the rows that were fitted each row is: a `zarr.Array` (n,) float32.

        The share of those that are nearer to their own neighbours, on average, than it is to its: 0 for a row
        in the midst of others, 1 for one that is farther from them than any is from its own.
        """
        self._refuse_unfinished("embedding")
        return self.store.array(schema.FIT_DISTANCE.name)

    @property
    def report(self) -> dict[str, Any]:
        """What was done: `placed`, how many rows lie where, by how many epochs; `reach`; and each stage."""
        facts = {name: self.store.documents.load(f"facts/{name}") for name in ("placed", "reach")}
        return {**super().report, **(facts if self.finished else {})}

    def graph(self) -> Any:
        """Return the memberships of edges from new rows to those that were fitted, in memory.

        Only where the run was fitted with transform_mode="graph".

        Returns
        -------
        scipy.sparse.csr_matrix
            (m, n) float32, both in the user's order, with ascending columns. Each row has at most n_neighbors
            entries, and none where all are beyond `disconnection_distance`.

        Raises
        ------
        StoreError
            While it is unfinished, or if new rows were placed on the map.
        """
        from scipy.sparse import csr_matrix

        if self.params.get("transform_mode") != "graph":
            raise StoreError(
                f"{self.path} holds places on a map and no graph. Transform by a run that was fitted with "
                "transform_mode='graph'."
            )
        self._refuse_unfinished("graph")
        sizes = Sizes(**self.store.about["sizes"])
        indptr, tails, weights = read_blocks(self.store, sizes.row_blocks)
        fitted = self.store.documents.load(schema.PLACED.name)["fitted"]
        return csr_matrix((weights, tails, indptr), shape=(sizes.rows, fitted))

    def __str__(self) -> str:
        if not self.finished:
            return repr(self)
        if self.params.get("transform_mode") == "graph":
            return JOINED.format(**self.report["placed"]) + "\n\n" + super().__str__()
        return PLACED.format(**self.report["placed"]) + "\n\n" + super().__str__()


def view(store: RunStore) -> Run | Transformed:
    """Return what a user sees of a run store."""
    return Run(store) if store.about["model"] is None else Transformed(store)


def _reopen(place: Place, params: Params | None, source: Source | None) -> Run:
    """Return the run at a place, as from a pickle: which has the place, or the bytes of a run in memory."""
    return Run(RunStore.open(place, mode="r"), params, source)
