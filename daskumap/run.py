"""A run as its user sees it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.cleaning import Kept, clean_run, kept_by
from daskumap.clusters import choose
from daskumap.diagnosis import diagnose_map
from daskumap.encoder import Encoder
from daskumap.engine.base import Engine
from daskumap.engine.clusters import make_engine
from daskumap.engine.machine import parse_memory
from daskumap.errors import ParameterError, StoreError
from daskumap.history import history_of
from daskumap.opening import (
    open_model,
    refuse_other_rows,
)
from daskumap.params import Params, explicit, make_params
from daskumap.peer import Fitted, make_umap, refuse_foreign
from daskumap.pipeline import purpose_in
from daskumap.planning.sizes import Sizes
from daskumap.report.progress import Progress, choose_progress
from daskumap.request import Request, make_inverse_request, make_transform_request, without_gaps
from daskumap.runtime.context import Context
from daskumap.saving import save_model
from daskumap.session import (
    fit_request,
)
from daskumap.sources.base import Source
from daskumap.sources.find import find
from daskumap.store import schema
from daskumap.store.graph import read_edges
from daskumap.store.model import Model, in_run
from daskumap.store.places import Place, find_place
from daskumap.store.run import RunStore, is_run_store
from daskumap.views import Decoded, Encoded, Inverted, Mapped, Predicted, Transformed, View

Array = np.ndarray[Any, Any]


class Run(Mapped):
    """A finished or unfinished fit.

    Parameters
    ----------
    params, source
        Where this process fitted it: parameters and rows, which the run store may not hold.
    """

    def __init__(self, store: RunStore, params: Params | None = None, source: Source | None = None) -> None:
        super().__init__(store)
        self._params, self._source = params, source

    def _held(self) -> Source | None:
        return self._source

    @property
    def held_params(self) -> Params | None:
        """The parameters where this process fitted the run: functions among them, which no store holds."""
        return self._params

    def model(self, fitted: Any = None) -> Context:
        """Return what other runs are made from: new rows on its map, and fits of its neighbours.

        Parameters
        ----------
        fitted
            Path or URL of the rows that were fitted; None for what the run names.
        """
        return open_model(self.store, self._params, self._source, fitted)

    def of_rows(self, data: Any) -> Run:
        """Return the run with its rows as the caller names them.

        Raises
        ------
        RunMismatchError
            If they are other ones.
        """
        source = find(data)
        refuse_other_rows(self.store, source)
        return Run(self.store, self._params, source)

    def refuse_out_of_reach(self, engine: Engine) -> None:
        """Refuse a run that only this process has where workers of a cluster have to read it."""
        if not (engine.local or self.store.place.shared):
            raise ParameterError(
                f"The workers of the cluster cannot reach the run in {self.path}. Fit into a path or URL "
                "that they reach, or work in this process with client='threads'."
            )

    @property
    def trained(self) -> bool:
        """Whether a network that was trained makes its map, and places new rows."""
        return self.params.get("encoder") is not None

    @property
    def encoder(self) -> Encoder:
        """The network of a trained run.

        Raises
        ------
        StoreError
            If the run is unfinished, or a layout made its map.
        """
        if not self.trained:
            raise StoreError(
                f"The map of the run in {self.path} is that of a layout, without a network. Train one on its "
                f"graph: daskumap.train({self.path!r}, 'trained.zarr')."
            )
        self._refuse_unfinished("network")
        found = Model.read(in_run(self.store.documents))
        if found.backend == "mlp":
            return Encoder(found, self.path)
        if self._params is None:  # of a run that was opened: the module stays with whoever trained it
            raise ParameterError(
                f"The network of the run in {self.path} is a module, and a run store has no code. Give it: "
                f"daskumap.Encoder.open({self.path!r}, encoder=module)."
            )
        e = self._params.encoder
        return Encoder(found, self.path, e.encoder, e.decoder, e.device)

    @explicit
    def transform(
        self,
        data: Any,
        out: Any = None,
        *,
        fitted: Any = None,
        ensure_all_finite: bool | str | None = None,
        client: Any = None,
        cluster: Any = None,
        memory: str | int | None = None,
        threads: int | None = None,
        progress: bool | Progress = True,
        restart: bool = False,
        take_over: bool = False,
        trust_input: bool = False,
    ) -> Transformed | Encoded:
        """Place new rows into the map, out of core: see `daskumap.transform`."""
        if self.trained:
            return self.encoder.transform(
                data,
                out,
                fitted=fitted,
                ensure_all_finite=ensure_all_finite,
                client=client,
                cluster=cluster,
                memory=memory,
                threads=threads,
                progress=progress,
                restart=restart,
                take_over=take_over,
                trust_input=trust_input,
            )
        where = choose(client, cluster)
        request, shown = self.request(data, fitted, ensure_all_finite), choose_progress(progress)
        made = self._made(request, out, where, memory, threads, shown, restart, take_over, trust_input)
        return Transformed(made)

    @explicit
    def inverse_transform(
        self,
        points: Any,
        out: Any = None,
        *,
        fitted: Any = None,
        client: Any = None,
        cluster: Any = None,
        memory: str | int | None = None,
        threads: int | None = None,
        progress: bool | Progress = True,
        restart: bool = False,
        take_over: bool = False,
        trust_input: bool = False,
    ) -> Inverted | Decoded:
        """Find rows of the data for points of the map, out of core: see `daskumap.inverse_transform`."""
        if self.trained and self.encoder.model.has("decoder"):
            return self.encoder.inverse_transform(
                points,
                out,
                fitted=fitted,
                client=client,
                cluster=cluster,
                memory=memory,
                threads=threads,
                progress=progress,
                restart=restart,
                take_over=take_over,
                trust_input=trust_input,
            )
        where = choose(client, cluster)
        request, shown = self.request(points, fitted, inverse=True), choose_progress(progress)
        made = self._made(request, out, where, memory, threads, shown, restart, take_over, trust_input)
        return Inverted(made)

    def request(
        self,
        data: Any,
        fitted: Any = None,
        ensure_all_finite: bool | str | None = None,
        inverse: bool = False,
    ) -> Request:
        """Return what a transform of new rows asks for, or an inverse of points, checked against this run."""
        if self.trained and (not inverse or self.encoder.model.has("decoder")):
            return self.encoder.request(data, inverse)
        model = self.model(fitted)
        if inverse:
            return make_inverse_request(data, model)
        return make_transform_request(data, model, ensure_all_finite)

    def _made(
        self,
        request: Request,
        out: Any,
        client: Any,
        memory: str | int | None,
        threads: int | None,
        progress: Progress,
        restart: bool,
        take_over: bool,
        trust_input: bool,
    ) -> RunStore:
        """Return the run store of what is made by this run."""
        rows = max(request.source.shape[0], self.store.about["sizes"]["rows"])
        engine = make_engine(client, parse_memory(memory), threads, rows)
        try:
            self.refuse_out_of_reach(engine)
            return fit_request(request, out, engine, progress, restart, take_over, trust_input)
        finally:
            engine.close()

    @property
    def embedding_list(self) -> Any:
        """The map after each epoch that `n_epochs` lists: a `zarr.Array` (m, n, n_components) float32.

        In ascending order of the epochs, each once; the last one is `embedding`.

        Raises
        ------
        StoreError
            While the run is unfinished, or if `n_epochs` is no list.
        """
        self.embedding  # noqa: B018, raises where there is none yet
        if not isinstance(self.params["n_epochs"], list):
            raise StoreError(
                f"The run in {self.path} kept its last map alone. List the epochs to keep: "
                "n_epochs=[50, 200]."
            )
        return self.store.array(schema.EMBEDDING_LIST.name)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Of a training the mean of each term of the loss, by segment; so far, while it is unfinished.

        Raises
        ------
        StoreError
            If a layout made the map.
        """
        return history_of(self.store)

    @explicit
    def save(self, path: Any, rows: bool = False, *, fitted: Any = None) -> Run | Encoder:
        """Write what `transform` needs to a place of its own, without the neighbours and their graph.

        Of a trained run that is its network alone.

        Parameters
        ----------
        path
            Path or URL of the copy, or a Zarr store. A copy that was cut short there is written anew.
        rows
            Whether the rows that were fitted go with it. Else the copy names where they are, as the run does;
            rows that came from memory are in the copy in any case.
        fitted
            Path or URL of the rows, where they are no longer where the run found them.

        Returns
        -------
        Run, Encoder
            The copy, which any process opens with `daskumap.open(path)`. It was read again before it was
            declared whole.

        Raises
        ------
        StoreError
            If the run is unfinished, damaged, or kept its embedding alone; or if anything is at `path`.
        """
        if not isinstance(rows, bool):
            raise ParameterError(f"rows is {rows!r}; it must be True or False.")
        if self.trained:
            if rows or fitted is not None:
                raise ParameterError(
                    f"rows is {rows} and fitted is {fitted!r}, and of a trained run the network is saved, "
                    "which works without the rows that were fitted. Leave them out."
                )
            return self.encoder.save(path)
        params = self._params and dataclasses.replace(self._params, keep="model")
        return Run(save_model(self.store, find_place(path), self._params, self._source, rows, fitted), params)

    def clean(self, keep: str | None = None) -> Kept:
        """Shrink the run to a lower level of `keep`, or say what each would leave: see `daskumap.clean`."""
        if keep is None:
            return kept_by(self.store)
        place = self.store.place
        found = clean_run(RunStore.open(place), keep, self._params)
        self.store = RunStore.open(place, mode="r")
        self._params = self._params and dataclasses.replace(self._params, keep=found.keep)
        return found

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
        vertices = self._vertices()
        place = np.full(self.store.about["sizes"]["rows"], -1)
        place[vertices] = np.arange(len(vertices))
        indptr, tails, weights = read_edges(self.store, Sizes(**self.store.about["sizes"]), 0, len(place))
        heads = np.repeat(place, np.diff(indptr))
        size = len(vertices)
        graph = csr_matrix((weights, (heads, place[tails])), shape=(size, size))
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
        vertices = self._vertices()
        rho, sigma = (
            self._in_users_unit(self.store.read(item.name)[vertices]) for item in (schema.RHO, schema.SIGMA)
        )
        return rho, sigma

    def diagnose(
        self, embedding: Any = None, *, a: float | None = None, b: float | None = None
    ) -> dict[str, float]:
        """Return how well a map fits the graph of the run: see `daskumap.diagnose`."""
        if (a is None) != (b is None):
            raise ParameterError(f"a is {a} and b is {b}. Give both, or none for those of the map's run.")
        if isinstance(embedding, str | Path) and is_run_store(embedding):
            embedding = view(RunStore.open(find_place(embedding), mode="r"))
        self._refuse_freed(schema.GRAPH)
        curve = None if a is None else make_params({"a": a, "b": b}).curve()
        own = embedding is None
        of = self if own else embedding
        if isinstance(of, Mapped):
            embedding, curve = of.embedding, curve or of.curve()
        return diagnose_map(self.store, self._params, embedding, curve, own)

    def __reduce__(self) -> tuple[Callable[..., Run], tuple[Any, ...]]:
        # Rows that lie elsewhere are found again by what the run store says of them.
        held = self._source is not None and self._source.spec() is None
        return _reopen, (self.store.place, self._params, self._source if held else None)

    def to_umap(self, *, fitted: Any = None) -> Any:
        """Return a fitted `umap.UMAP` of umap-learn's with this map, its graph, neighbours and rows.

        Its `transform`, `inverse_transform` and plots work. From 4,096 rows on its search index is built,
        which takes as long as its own search does.

        Parameters
        ----------
        fitted
            As of `transform`.

        Raises
        ------
        DependencyError
            If umap-learn is missing.
        StoreError
            If the run is unfinished, or did not keep its graph.
        """
        refuse_foreign(self.params)
        self._refuse_freed(schema.INDICES)
        with contextlib.closing(open_model(self.store, self._params, self._source, fitted)) as model:
            params, rows = model.params, model.source.read(0, model.sizes.rows, np.dtype(model.metric.dtype))
        start = str(self.params["init"])
        given = start.startswith("array(")
        # Where alpha sets the repulsion, umap-learn is told what it came to.
        repulsion = self.store.documents.load(schema.REPULSION.name) or {
            "strength": params.repulsion_strength
        }
        params = dataclasses.replace(
            params,
            init=self.store.read(schema.INIT.name) if given else start,
            repulsion_strength=repulsion["strength"],
        )
        inverse, (indices, distances) = self.inverse(), self.knn()
        firsts = np.unique(inverse, return_index=True)[1]
        indices = np.where(indices[firsts] >= 0, inverse[indices[firsts]], -1)
        knn = indices, distances[firsts]
        found = Fitted(rows, self.embedding[:], self.graph(), knn, self.calibration(), inverse)
        return make_umap(params, found)

    def inverse(self) -> Array:
        """Return the place of each row in `graph`, (n,) int64, in memory: with `unique`, copies share one."""
        if not self.params.get("unique"):
            return np.arange(self.store.about["sizes"]["rows"])
        self._refuse_freed(schema.FIRST)
        return np.unique(self.store.read(schema.FIRST.name), return_inverse=True)[1]

    def _vertices(self) -> Array:
        """Return the vertex of each distinct row in the user's order; twins are left out."""
        vertex = self.store.read(schema.VERTEX.name)
        if self.params.get("unique"):
            vertex = vertex[np.unique(self.store.read(schema.FIRST.name))]
        return vertex

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
                f"The run in {self.path} has no {item.name}, since it was fitted with "
                f"keep={self.params['keep']!r} or saved. Fit with keep='graph' for the neighbours and their "
                "graph."
            )

    def plot(self, color: Any = None, **options: Any) -> Any:
        """Draw the map into axes of matplotlib: see `daskumap.plot.points`."""
        from daskumap.plot import points

        return points(self, color, **options)

    def save_page(self, path: str | Path, color: Any = None) -> Path:
        """Write the report as one HTML file: see `daskumap.page.write_page`."""
        from daskumap.page import write_page

        return write_page([self], path, color)

    def watch(self, png: str | Path | None = None, port: int | None = None) -> None:
        """Show the map as it forms, until the run is over; another process or thread makes it.

        What is seen is the newest checkpoint, so a smaller `checkpoint_every` shows more. It costs a share of
        a core, 2 %, and the run does not hear of it.

        Parameters
        ----------
        png
            A file that is renewed. None where `port` is given; or for the cell of a notebook, in place.
        port
            Of a page on this machine's loopback; 0 for a free one, which is logged.

        Raises
        ------
        ParameterError
            If both or none are given, the latter outside a notebook; or the run makes a graph alone.
        """
        from daskumap.watching import watch

        watch(self.store, png, port)

    def _repr_html_(self) -> str:
        from daskumap.page.notebook import summary

        return summary(self)

    def save_picture(self, path: str | Path) -> None:
        """Write the picture of the map to a PNG file; a sphere by longitude and latitude."""
        from daskumap.report.picture import embedding_png
        from daskumap.report.unrolled import unrolled

        metric = self.params["output_metric"], self.params["output_metric_kwds"]
        embedding_png(unrolled(self.embedding, *metric), path)


def view(store: RunStore) -> View:
    """Return what a user sees of a run store."""
    kinds: dict[str, type[View]] = {
        "fit": Run,
        "transform": Transformed,
        "inverse": Inverted,
        "encode": Encoded,
        "decode": Decoded,
        "predict": Predicted,
    }
    return kinds[purpose_in(store.about)](store)


def start_of(init: Any, adopted: bool = False) -> Any:
    """Return a start as parameters have it: of a run, or of where one is, its map.

    A text is where a run is if it has a slash or ends in .zarr; else it is the name of a start. Rows that are
    not on the map start in the middle of it, unless the map is adopted as it is.
    """
    if isinstance(init, str) and not ("/" in init or init.endswith(".zarr")):
        return init
    if isinstance(init, str | Path):
        init = view(RunStore.open(find_place(init), mode="r"))
    if not isinstance(init, Mapped):
        return init
    places = np.asarray(init.embedding[:])
    return places if adopted else without_gaps(places)


def _reopen(place: Place, params: Params | None, source: Source | None) -> Run:
    """Return the run at a place, as from a pickle: which has the place, or the bytes of a run in memory."""
    return Run(RunStore.open(place, mode="r"), params, source)
