"""What the tasks of one run see in one process: its run store, its rows, its metric, and what they hold.

A context is opened once a run and process and closed when the run ends, also by an error. What tasks hold is
freed when the process goes over to another stage. A task may touch only what its step declares.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from daskumap.errors import StoreError
from daskumap.kernels.cells.join import LEVELS
from daskumap.kernels.encoder.backend import Backend
from daskumap.kernels.graph import chosen
from daskumap.kernels.layout import output_metrics
from daskumap.kernels.metrics import metric as metrics
from daskumap.kernels.neighbors.join import SEEDS
from daskumap.kernels.random import stream_key
from daskumap.params import PRECOMPUTED, Params
from daskumap.planning import memory
from daskumap.planning.job import Job
from daskumap.planning.sizes import Resources, Sizes
from daskumap.planning.stage import Output, Stage
from daskumap.runtime.networks import network_of
from daskumap.runtime.rows import Rows, fill_by_block
from daskumap.sources.base import Source
from daskumap.sources.find import open_spec
from daskumap.sources.ingest import as_stored, open_ingested
from daskumap.sources.move import Move
from daskumap.store import schema
from daskumap.store.checkpoint import Checkpoint
from daskumap.store.chunks import write_rows
from daskumap.store.exchange import BatchReader, BatchWriter
from daskumap.store.graph import read_edges
from daskumap.store.model import Model, in_run
from daskumap.store.places import find_place
from daskumap.store.run import RunStore, read_range

if TYPE_CHECKING:
    import zarr

Array = np.ndarray[Any, Any]
Held = TypeVar("Held")

STILL = Move().as_dict()
# Along these dimensions a chunk holds one; along those that are not named here or in `chunk_of`, all.
SINGLE = ("block", "bundle", "listed", "replica")


class UndeclaredError(AssertionError):
    """A task touched something that its step does not declare: a mistake in the step."""


class Context:
    """A run as its tasks see it in this process.

    Parameters
    ----------
    job
        What was fixed when the run started.
    source
        The input.
    store
        The run store; None while the run is planned.
    model
        The finished run into whose map new rows are placed, from whose map points are, or whose neighbours
        are fitted again; None for any other fit, and where that run is gone and no longer needed.

    encoder
        The trained network that the input goes through, where the run store does not hold it yet.

    Attributes
    ----------
    rows
        The input's rows as the metric works on them: new ones moved as those of the model were. Points of a
        map as they are.
    memberships
        The kernels that make memberships of gaps, and set bandwidths.
    output_metric
        The metric of the map; None for the Euclidean one.
    """

    def __init__(
        self,
        job: Job,
        source: Source,
        store: RunStore | None = None,
        model: Context | None = None,
        encoder: Model | None = None,
    ) -> None:
        self.job, self.source, self._store, self._model, self._encoder = job, source, store, model, encoder
        p = job.params
        self.metric = metrics.resolve(p.metric, p.metric_kwds, apart=p.undefined == "apart")
        self.memberships = chosen.resolve(p.membership, p.calibration)
        self.output_metric = output_metrics.resolve(p.output_metric, p.output_metric_kwds, p.n_components)
        if (
            job.inverse or job.encodes == "decode"
        ):  # Points of the map are no rows of the data: no metric sees them, and none is moved.
            self._rows = Rows(source, job.sizes, "float32", lambda planning: Move())
        else:
            find_move = (model if model is not None and job.anew is None else self)._find_move
            self._rows = Rows(source, job.sizes, str(np.dtype(self.metric.dtype)), find_move)
        self._network: Backend | None = None
        self._lock = threading.RLock()
        self._stage: Stage | None = None
        self._held: dict[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self._arrays: dict[str, zarr.Array[Any]] = {}

    # -- what it is

    @property
    def params(self) -> Params:
        """The user's parameters."""
        return self.job.params

    @property
    def sizes(self) -> Sizes:
        """The sizes of the run."""
        return self.job.sizes

    @property
    def resources(self) -> Resources:
        """What the run may use."""
        return self.job.resources

    @property
    def url(self) -> str:
        """Where the run store is, for messages."""
        return self.job.url

    @property
    def store(self) -> RunStore:
        """The run store."""
        assert self._store is not None, "a plan has no run store"
        return self._store

    @property
    def model(self) -> Context:
        """The finished run that this one is made from; nothing is written there.

        Raises
        ------
        StoreError
            If it is gone, and what was copied of it is damaged.
        """
        if self._model is None:
            raise StoreError(
                f"The run that {self.url} has its neighbours from is gone, and is needed to mend what was "
                "copied. Restore it, or fit the data again."
            )
        return self._model

    @property
    def encoder(self) -> Model:
        """The trained network that the input goes through, or that a training made."""
        self._check(schema.ENCODER, writing=False)
        with self._lock:
            if self._encoder is None:
                self._encoder = Model.read(in_run(self.store.documents))
            return self._encoder

    @property
    def anew(self) -> tuple[str, ...] | None:
        """What a fit of the model's neighbours does not have from it; None for anything else."""
        return self.job.anew

    @property
    def transforms(self) -> bool:
        """Whether new rows are placed into the map of a model, or points of it become rows."""
        return self.job.encodes is not None or (self._model is not None and self.anew is None)

    def key(self, stream: str, index: int = 0) -> int:
        """Return the key of a stream of random numbers."""
        return stream_key(int(self.params.random_state or 0), stream, index)

    # -- how long it lives

    def opener(self) -> Callable[[], Context]:
        """Return what opens a context of this run in another process."""
        return partial(open_context, self.job)

    def enter(self, stage: Stage) -> bool:
        """Go over to a stage and free what the last one held; tell whether the process was in another one."""
        with self._lock:
            if self._stage is not None and self._stage.name == stage.name:
                return False
            self._stage = stage
            self._held.clear()
            if self._model is not None:
                self._model.enter(dataclasses.replace(stage, reads=stage.model, writes=frozenset()))
            return True

    def leave(self) -> None:
        """Be in no stage, as the driver is between two of them: it may read and write what it likes."""
        with self._lock:
            self._stage = None
            self._held.clear()
            if self._model is not None:
                self._model.leave()

    def close(self) -> None:
        """Free all that is held."""
        with self._lock:
            self._held.clear()
            self._arrays.clear()
            self._facts.clear()
            self._rows.release()
            if self._model is not None:
                self._model.close()

    def held(self, name: str, make: Callable[[], Held]) -> Held:
        """Return what `make` returns, made once a process and kept until it goes over to another stage."""
        with self._lock:
            if name not in self._held:
                self._held[name] = make()
            found: Held = self._held[name]
            return found

    # -- what tasks read and write

    @property
    def rows(self) -> Rows:
        """The input's rows as the metric works on them."""
        self._check(schema.SOURCE, writing=False)
        return self._rows

    def _find_move(self, planning: bool) -> Move:
        """Return how rows are moved: as chosen; for a plan before that not at all.

        Rows that go through a trained network are moved as those that it was trained on.
        """
        if self.job.encodes is not None:
            return Move.from_dict(dict(self.encoder.cast), np.dtype(self.encoder.dtype))
        return Move.from_dict(self._fact(schema.CAST, STILL if planning else None), self.source.dtype)

    def moved_back(self, rows: Array) -> Array:
        """Return rows that the metric works on as the user has them, in the type "value" of the schema."""
        return self._find_move(False).undo(rows)

    @property
    def cutoff(self) -> float:
        """The distance from which on two rows are not joined, between rows as they were moved."""
        with np.errstate(over="ignore"):
            return float(np.ldexp(self.params.cutoff(), self.unit))

    @property
    def unit(self) -> int:
        """The power of two by which distances between rows as they were moved are larger than the user's."""
        known = self._fact(schema.CAST, None)
        return int(known["exponent"] * known["degree"])

    def input_bytes(self, rows: int) -> int:
        """Return an upper bound, in bytes, of what reading that many rows of the input holds."""
        return self._rows.read_bytes(rows)

    def distances_bytes(self, rows: int) -> int:
        """Return an upper bound, in bytes, of what reading that many rows of given distances holds."""
        return self._rows.distances_bytes(rows)

    def stored_bytes(self, rows: int) -> int:
        """Return an upper bound, in bytes, of what reading that many rows as stored holds."""
        return self._rows.stored_bytes(rows)

    def read(self, item: schema.Array, start: int = 0, stop: int | None = None) -> Array:
        """Return the places start to stop of an array along its first dimension."""
        return read_range(self.array(item), start, stop)

    def array(self, item: schema.Array) -> zarr.Array[Any]:
        """Return an array to read from."""
        self._check(item, writing=False)
        return self._open(item)

    def write(self, item: schema.Array, start: int | tuple[int, ...], values: Array) -> None:
        """Write values from place `start` on, or from places along the first dimensions on.

        A task writes whole chunks that it alone owns.
        """
        self._check(item, writing=True)
        write_rows(self._open(item), start if isinstance(start, tuple) else (start,), values)

    def put(self, item: schema.Array, values: Array) -> None:
        """Write a whole array that only this task knows the size of."""
        self._check(item, writing=True)
        if str(values.dtype) != self.dtype(item.dtype):
            raise UndeclaredError(f"{item.name} is {values.dtype}, and declared as {item.dtype}.")
        self.store.put(item.name, values)

    def take(self, item: schema.Array, rows: Array) -> Array:
        """Return the values of scattered rows from an array in row order, block by block."""
        array = self.array(item)
        out = np.empty((len(rows), *array.shape[1:]), array.dtype)
        return fill_by_block(self.sizes, rows, out, partial(read_range, array))

    def writer(self, item: schema.Exchange, task: int, rows: int, *columns: str) -> BatchWriter:
        """Return what writes a task's batch of so many records; all columns unless some are named."""
        self._check(item, writing=True)
        wanted = columns or tuple(item.columns)
        kinds = {name: item.columns[name] for name in wanted}
        types = {name: (self.dtype(dtype), self.extent(width)) for name, (dtype, width) in kinds.items()}
        return BatchWriter(self.store, item, task, rows, types)

    def send(self, item: schema.Exchange, task: int, offsets: Array, **columns: Array) -> None:
        """Write a task's whole batch: destination d gets the records offsets[d] to offsets[d + 1]."""
        rows = len(next(iter(columns.values())))
        writer = self.writer(item, task, rows, *columns)
        for name, values in columns.items():
            writer.write(name, values)
        writer.close(np.asarray(offsets, np.int64))

    def reader(self, item: schema.Exchange, first: int, last: int, *columns: str) -> BatchReader:
        """Return what reads all records for the destinations first to last - 1."""
        self._check(item, writing=False)
        return BatchReader(
            self.store, item, self.extent(item.by), columns or tuple(item.columns), first, last
        )

    def edges(
        self, start: int, stop: int, graph: schema.Exchange = schema.GRAPH
    ) -> tuple[Array, Array, Array]:
        """Return indptr, tails and weights of a range of vertices in a symmetrised graph."""
        self._check(graph, writing=False)
        return read_edges(self.store, self.sizes, start, stop, graph)

    def fact(self, item: schema.Fact, expected: Any = None) -> Any:
        """Return what a stage found out, or what to expect of it while it has not run.

        Raises
        ------
        StoreError
            If it is missing, and nothing is expected.
        """
        self._check(item, writing=False)
        return self._fact(item, expected)

    def save_fact(self, item: schema.Fact, value: Any) -> None:
        """Write down what a stage found out."""
        self._check(item, writing=True)
        self._facts.pop(item.name, None)
        self.store.documents.save(item.name, value)

    def save_file(self, item: schema.File, value: bytes) -> None:
        """Write a file."""
        self._check(item, writing=True)
        self.store.documents.save_bytes(item.name, value)

    def _fact(self, item: schema.Fact, expected: Any) -> Any:
        if item.name not in self._facts and self._store is not None:
            found = self._store.documents.load(item.name)
            if found is not None:
                self._facts[item.name] = found
        found = self._facts.get(item.name, expected)
        if found is None:
            raise StoreError(
                f"{item.name} is missing in {self.url}. Run `daskumap verify --repair`, then "
                "`daskumap resume`."
            )
        return found

    def _open(self, item: schema.Array) -> zarr.Array[Any]:
        array = self._arrays.get(item.name)
        if array is None:
            array = self._arrays[item.name] = self.store.array(item.name)
        return array

    def _check(self, item: schema.Item, writing: bool) -> None:
        stage = self._stage
        if stage is None or item.name in stage.writes or (not writing and item.name in stage.reads):
            return
        does = "write" if writing else "read"
        raise UndeclaredError(f"Stage '{stage.name}' does not declare that it {does}s {item.name}.")

    def checkpoint(self, item: schema.Checkpoints, task: int, writing: bool = False) -> Checkpoint:
        """Return what reads, or writes, the state after an ordered task."""
        self._check(item, writing)
        return Checkpoint(self.store, item, task, self.output(item))

    # -- how large things are

    def output(self, item: schema.Array | schema.Checkpoints) -> Output:
        """Return an array as the driver creates it."""
        shape = tuple(map(self.extent, item.dims))
        chunks = tuple(map(self.chunk_of, item.dims))
        return Output(item.name, shape, chunks, self.dtype(item.dtype))

    def dtype(self, name: str) -> str:
        """Return the NumPy name of a type of the schema."""
        if name == "metric":
            return str(np.dtype(self.metric.dtype))
        if name == "value":
            of = self if self.job.encodes is not None else self.model
            return "float32" if of._find_move(False).is_still else "float64"
        if name == "vertex":
            return "int32" if self.sizes.rows < 2**31 else "int64"
        return name

    def extent(self, dim: str) -> int:
        """Return how many there are of a dimension: as found, or before the run as planned."""
        s, p = self.sizes, self.params
        if dim == "probe":
            return int(self._fact(schema.CELLS, {"probes": s.probe_rows})["probes"])
        if dim in ("cell", "cell and twins"):
            cells = int(self._fact(schema.CELLS, {"cells": s.cells})["cells"])
            return cells + (dim == "cell and twins")
        if dim == "group":
            return self.groups
        if dim.startswith("model "):
            return self.model.extent(dim.removeprefix("model "))
        if dim == "nearest":
            # As many as the fit's, and as umap-learn no more than there are columns (docs/decisions/0021).
            return min(p.n_neighbors, self.model.sizes.columns)
        if dim == "feature":
            return self.model.sizes.columns if self.job.encodes is None else self.encoder.columns
        if dim == "class":
            return len(self.encoder.classes or ())
        if dim == "reach":
            return min(memory.MOST_CELLS, self.model.cells)
        if dim == "parameter":
            return self.network.size
        if dim in ("axis", "replica"):
            return int(p.encoder.inputs(s.columns) if dim == "axis" else p.encoder.replicas)
        return {
            "": 0,
            "row": s.rows,
            "vertex": s.rows,
            "moving": s.rows,
            "block": s.row_blocks,
            "bundle": s.bundles,
            "bucket": s.buckets,
            "partition": s.partitions,
            "column": s.columns,
            "coordinate": s.columns + self.metric.apart,
            "component": p.n_components,
            "listed": len(p.listed_epochs),
            "neighbor": self.job.neighbors,
            "near": p.n_neighbors,
            "overlap": p.max_overlap,
            "level": LEVELS,
            "seed": SEEDS,
        }[dim]

    def chunk_of(self, dim: str) -> int:
        """Return how many of a dimension a chunk holds."""
        if dim in SINGLE:
            return 1
        s = self.sizes
        chunks = {"row": s.row_block, "vertex": s.vertex_chunk, "moving": s.state_chunk}
        return chunks.get(dim) or self.extent(dim)

    @property
    def network(self) -> Backend:
        """The network that a training trains: what it is made of, and nothing that was learnt."""
        if self._network is None:
            self._network = network_of(self.params, self.sizes.columns)
        return self._network

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as the metric sees it."""
        return self.sizes.columns * np.dtype(self.metric.dtype).itemsize

    @property
    def cells(self) -> int:
        """Small cells: as found, or before the run as planned."""
        return self.extent("cell")

    @property
    def probes(self) -> int:
        """Probes: as chosen, or before the run the most there may be."""
        return self.extent("probe")

    @property
    def groups(self) -> int:
        """Groups of cells that one task searches: as made, or before the run as expected."""
        expected = math.ceil(self.sizes.rows * self.copies / self.sizes.group_rows)
        return int(self.order("groups", expected))

    @property
    def copies(self) -> float:
        """How often a row is written for the search: as counted, or before the run as most data need."""
        return float(self.order("copies", min(2, self.params.max_overlap, self.sizes.cells)))

    @property
    def distinct(self) -> int:
        """Rows on the map, twins not counted; before the run all."""
        return int(self.order("distinct", self.sizes.rows))

    @property
    def whole(self) -> bool:
        """Whether the metric works on the values as stored, to the bit."""
        return self._rows.whole

    @property
    def doubted(self) -> int:
        """Probes whose neighbours float32 may not tell: as found, or before the run the most there may be."""
        whole = self.whole and self.metric.space in ("identity", None)
        return int(self.order("doubted", 0 if whole else self.sizes.probe_rows))

    def order(self, name: str, expected: Any) -> Any:
        """Return what the choice of cells found, or what to expect of it while it has not run."""
        return self._fact(schema.ORDER, {name: expected})[name]


def make_context(
    job: Job,
    source: Source,
    store: RunStore | None = None,
    model: Context | None = None,
    encoder: Model | None = None,
) -> Context:
    """Return the context of a job; where that keeps new rows, those of the model are kept too."""
    if model is None:
        return Context(job, source, store, encoder=encoder)
    sizes = dataclasses.replace(model.sizes, cache_bytes=job.sizes.cache_bytes)
    of_model = dataclasses.replace(model.job, sizes=sizes)
    kept = Context(of_model, model.source, model.store)
    return Context(dataclasses.replace(job, model=of_model), source, store, kept)


def open_context(job: Job) -> Context:
    """Open a run that is reached by its place, with a source that is reached by its spec or lies in there."""
    store = RunStore.open(find_place(job.url, job.storage_options))
    return Context(
        job, _open_source(job, store), store, None if job.model is None else _open_model(job.model)
    )


def _open_model(job: Job) -> Context:
    """Open the model of a run; of distances that were given none is read again."""
    store, s = RunStore.open(find_place(job.url, job.storage_options)), job.sizes
    if job.params.metric == PRECOMPUTED:
        return Context(job, as_stored((s.rows, s.columns), np.dtype(np.float32)), store)
    return Context(job, _open_source(job, store), store)


def _open_source(job: Job, store: RunStore) -> Source:
    return open_ingested(store) if job.source is None else open_spec(job.source)
