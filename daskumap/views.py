"""A run store as its user sees it, of whatever kind of run, and the results of what is made by a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from daskumap.driver import STAGES
from daskumap.errors import ParameterError, StoreError
from daskumap.kernels.layout.output_metrics import EUCLIDEAN
from daskumap.opening import columns_of_input, open_copy, open_cube_of, open_input, refuse_other_rows
from daskumap.params import make_params
from daskumap.pipeline import Kind, kind_in, params_in, steps_of
from daskumap.planning.sizes import Sizes
from daskumap.report.text import assemble, render
from daskumap.sources.base import Source
from daskumap.sources.cubes.source import CubeSource
from daskumap.sources.cubes.unstack import to_xarray
from daskumap.store import schema
from daskumap.store.graph import read_blocks
from daskumap.store.labels import Column, Labels, read_labels
from daskumap.store.model import Model, in_run
from daskumap.store.run import RunStore

PLACED = (
    "{rows:,} rows placed in {epochs} epochs: {known:,} equal a fitted row, {alone:,} have no neighbour,\n"
    "{unlike:,} are farther from their neighbours than any fitted row"
)
INVERTED = "{points:,} points became rows by {neighbors} neighbours and {epochs} epochs; {alone:,} have none"
JOINED = (
    "{rows:,} rows joined to {fitted:,} fitted ones: {known:,} equal one, {alone:,} have no neighbour,\n"
    "{unlike:,} are farther from their neighbours than any fitted row"
)


class View:
    """A run store as its user sees it, of a fit, a transform or an inverse."""

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

    def _result(self, item: schema.Array) -> Any:
        """Return an array of the result.

        Raises
        ------
        StoreError
            While the run is unfinished.
        """
        self._refuse_unfinished(item.name)
        return self.store.array(item.name)

    def _refuse_unfinished(self, what: str) -> None:
        blocks = Sizes(**self.store.about["sizes"]).row_blocks
        if self.store.ledger.count(self._kind.publishes.name) < blocks:
            raise StoreError(
                f"The run in {self.path} has no {what} yet. Make the same call with the same run store to go "
                "on."
            )

    @property
    def _kind(self) -> Kind:
        return kind_in(self.store.about)

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
        steps = steps_of(self._kind.pipeline, params_in(self.store.about))
        tasks = self.store.ledger.all_tasks()
        return {step.name: len(tasks.get(step.name, {})) for step in steps}

    @property
    def undefined_rows(self) -> int:
        """How many rows the metric is not defined on, such as rows of zeros under "cosine"."""
        return int(self.store.documents.load(schema.UNDEFINED.name) or 0)

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


class Beside(Mapping[str, Column]):
    """Labels, and others that are looked for only where these have no such name."""

    def __init__(self, labels: Labels, more: Callable[[], Labels]) -> None:
        self.labels, self._open = labels, more

    @cached_property
    def more(self) -> Labels:
        """The others."""
        return self._open()

    def __contains__(self, name: object) -> bool:
        return name in self.labels or name in self.more

    def __getitem__(self, name: str) -> Column:
        return self.labels[name] if name in self.labels else self.more[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)


# What a map is called on the grid of its cube.
MAP = "umap"


class Mapped(View):
    """Rows on a map, of a fit or of a transform."""

    @property
    def embedding(self) -> Any:
        """The map: a `zarr.Array` (n, n_components) float32 in the user's row order.

        Rows without any neighbour are NaN.

        Raises
        ------
        StoreError
            While the run is unfinished, or if it ends with the graph.
        """
        if self.params["transform_mode"] == "graph":
            raise StoreError(
                f"The run in {self.path} has no map: its transform_mode is 'graph'. It has graph(); fit with "
                "transform_mode='embedding' for a map."
            )
        return self._result(schema.EMBEDDING)

    @property
    def labels(self) -> Labels:
        """What rows are called, by name: ids, an index, coordinates, as they came with the input.

        Each is read by slices, such as `run.labels["index"][:1000]`, to a NumPy array; of texts to one of
        objects, None where a text is missing. Empty where rows had no names.
        """
        return read_labels(self.store)

    @property
    def columns(self) -> Beside:
        """Labels, and beyond them what the input says of its rows: of an AnnData the columns of `obs`.

        Those are read from the input when they are asked for, and may have come to it after the run. Iterated
        over are the labels alone.

        Raises
        ------
        ParameterError
            If the input has other cells by now.
        SourceError
            If it is not where it was.
        """
        labels = self.labels
        return Beside(labels, lambda: columns_of_input(self.store, self._held(), labels))

    def named(self, labels: Any) -> Any:
        """Return the column of `columns` that a text names; what is no such name, or a file, as it is."""
        if not isinstance(labels, str) or Path(labels).exists() or labels not in self.columns:
            return labels
        return self.columns[labels][:]

    def to_xarray(self, cube: Any = None) -> Any:
        """Return the map on the grid of its cube, with its coordinates: an `xarray.Dataset`, in memory.

        The variable `umap` has the sample dimensions and `component`; points that missed a value are NaN.

        Parameters
        ----------
        cube
            The cube, where the run does not name it: it came from memory, or has moved.

        Raises
        ------
        ParameterError
            If the input of the run was no cube, or the run does not know where it is.
        RunMismatchError
            If the cube is another one.
        DependencyError
            If xarray is missing.
        """
        return to_xarray(self.cube(cube), self.embedding, MAP, self.origin())

    def cube(self, cube: Any = None) -> CubeSource:
        """Return the cube whose points are the rows of this run: see `to_xarray`."""
        return open_cube_of(self.store, self._held() if cube is None else cube)

    def origin(self) -> dict[str, Any]:
        """Return what an exported map says of where it is from."""
        about = self.store.about
        return {"daskumap": about["versions"]["daskumap"], "run": about["id"]}

    def input(self) -> Source:
        """Return the rows that the run is of: as this process has them, or as the run store names them.

        Raises
        ------
        StoreError, SourceError
            If they are gone, or the run store names what is not contacted on its word.
        RunMismatchError
            If other rows are in their place.
        """
        if (held := self._held()) is not None:
            return held
        if self.store.about["spec"] is None:
            if schema.SOURCE.name in self.store.ledger.freed():
                raise StoreError(
                    f"The run in {self.path} has no copy of its rows, which came from memory. Give "
                    "them beside it: daskumap.evaluate(data, run)."
                )
            return open_copy(self.store)
        found = open_input(self.store, None)
        refuse_other_rows(self.store, found)
        return found

    def _held(self) -> Source | None:
        """Return the input as this process has it, if it does."""
        return None

    def curve(self) -> tuple[float, float]:
        """Return a and b of the map, with which the distance r of two rows is 1 / (1 + a r^2b) of an edge.

        Raises
        ------
        ParameterError
            If the map is no plane.
        """
        p = params_in(self.store.about)
        if p.output_metric not in EUCLIDEAN:
            raise ParameterError(
                f"The map of the run in {self.path} has output_metric {p.output_metric!r}, and the "
                "diagnostics are those of a plane. Name a map that is one as embedding."
            )
        return make_params({"a": p.a, "b": p.b, "min_dist": p.min_dist, "spread": p.spread}).curve()


class Transformed(Mapped):
    """New rows on the map of a run; `embedding` has them in the order of the input."""

    @property
    def fit_distance(self) -> Any:
        """How unlike the rows that were fitted each row is: a `zarr.Array` (n,) float32.

        The share of those that are nearer to their own neighbours, on average, than it is to its: 0 for a row
        in the midst of others, 1 for one that is farther from them than any is from its own.
        """
        return self._result(schema.FIT_DISTANCE)

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


class Inverted(View):
    """Rows of the data for points of a map; `rows` has them in the order of the points."""

    @property
    def rows(self) -> Any:
        """The rows: a `zarr.Array` (m, D) in the unit of the data.

        float32, or float64 where float32 does not tell the fitted rows apart.

        Raises
        ------
        StoreError
            While the run is unfinished.
        """
        return self._result(schema.ROWS)

    @property
    def report(self) -> dict[str, Any]:
        """What was done: `inverted`, how many points by how many neighbours and epochs; and each stage."""
        inverted = self.store.documents.load(schema.INVERTED.name) if self.finished else None
        return {**super().report, **({"inverted": inverted} if self.finished else {})}

    def __str__(self) -> str:
        if not self.finished:
            return repr(self)
        return INVERTED.format(**self.report["inverted"]) + "\n\n" + super().__str__()


class Through(View):
    """What a trained network made of rows, or of points of its map."""

    def __str__(self) -> str:
        if not self.finished:
            return repr(self)
        rows = self.store.about["sizes"]["rows"]
        return f"{rows:,} {self.WHAT} the network of {self.path}/model\n\n{super().__str__()}"

    WHAT = ""


class Encoded(Through, Mapped):
    """New rows on the map of a trained network; `embedding` has them in the order of the input."""

    WHAT = "rows mapped by the encoder, not placed by neighbours:"


class Decoded(Through):
    """Rows that a decoder gives for points of a map; `rows` has them in the order of the points."""

    WHAT = "points became rows by the decoder:"

    @property
    def rows(self) -> Any:
        """The rows: a `zarr.Array` (m, D) in the unit of the data.

        float32, or float64 where float32 does not tell apart the rows that were fitted.
        """
        return self._result(schema.ROWS)


class Predicted(Through):
    """Classes of rows; `labels` and `probabilities` have them in the order of the input."""

    WHAT = "rows classified by"

    @property
    def labels(self) -> Any:
        """The label of the most probable class of each row: a `zarr.Array` (m,) int64.

        Of classes that have names, the number of the name in `classes`.
        """
        return self._result(schema.PREDICTED)

    @property
    def probabilities(self) -> Any:
        """The probability of each class: a `zarr.Array` (m, classes) float32."""
        return self._result(schema.PROBABILITIES)

    @property
    def classes(self) -> tuple[str | int, ...]:
        """What the columns of `probabilities` stand for."""
        return Model.read(in_run(self.store.documents)).classes or ()
