"""Contexts: a task touches what its step declares and nothing else, and nothing of a run outlives it."""

import gc
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from zarr.storage import MemoryStore

import daskumap
from daskumap.engine.dask import DaskEngine
from daskumap.engine.sequential import SequentialEngine
from daskumap.engine.threads import ThreadsEngine
from daskumap.errors import SourceError, TaskError
from daskumap.kernels.layout.iterations import Edges
from daskumap.params import make_params
from daskumap.pipeline import FIT, steps_of
from daskumap.planning.job import Job
from daskumap.planning.sizes import Resources, Sizes
from daskumap.planning.stage import Receipt, Stage
from daskumap.run import View
from daskumap.runtime.context import Context, UndeclaredError
from daskumap.runtime.rows import Rows
from daskumap.sources.memory import MemorySource
from daskumap.sources.zarr import ZarrSource
from daskumap.store import schema
from daskumap.testing.faults import FailingEngine, Fault

MEMORY = 4 * 10**9
PARAMS = {"random_state": 1, "unique": True, "n_epochs": 2}


class WatchedSource(MemorySource):
    """Keeps weak references to the blocks that it returns: copies, where the array is float64."""

    def __init__(self, array):
        super().__init__(array)
        self.blocks_read = []

    def _read(self, start, stop, dtype):
        block = super()._read(start, stop, dtype)
        self.blocks_read.append(weakref.ref(block))
        return block


@pytest.fixture(scope="module")
def finished(small):
    """A run store in memory with all that a run makes."""
    return daskumap.fit(small, progress=False, client="sequential", keep="all", **PARAMS).store


@pytest.fixture
def context(finished, small):
    sizes, resources = Sizes(**finished.about["sizes"]), Resources(MEMORY)
    job = Job(finished.url, "", None, make_params(PARAMS), sizes, resources)
    context = Context(job, WatchedSource(small.astype(np.float64)), finished)
    yield context
    context.close()


def stage_of(name="probe", reads=(), writes=(), task=None):
    names = (frozenset(item.name for item in items) for items in (reads, writes))
    return Stage(task, 1, {}, name=name, reads=next(names), writes=next(names))


# What a task may touch.

READS = {
    "read": (schema.LEVELS, lambda context: context.read(schema.LEVELS, 0, 5)),
    "array": (schema.LEVELS, lambda context: context.array(schema.LEVELS)[:5]),
    "take": (schema.LEVELS, lambda context: context.take(schema.LEVELS, np.arange(5))),
    "reader": (schema.SHUFFLE, lambda context: context.reader(schema.SHUFFLE, 0, 1, "vertices").read(0, 1)),
    "edges": (schema.GRAPH, lambda context: context.edges(0, 5)),
    "fact": (schema.CELLS, lambda context: context.fact(schema.CELLS)),
    "an expected fact": (schema.CELLS, lambda context: context.fact(schema.CELLS, {"cells": 1})),
    "rows": (schema.SOURCE, lambda context: context.rows.read(0, 5)),
    "gather": (schema.SOURCE, lambda context: context.rows.gather(np.arange(5))),
}
RADII = np.ones(3, np.float32)
TWINS = {"rows": np.arange(2), "firsts": np.zeros(2, int)}
WRITES = {
    "write": (
        schema.RHO,
        lambda context: context.write(schema.RHO, 0, context.store.read("calibration/rho")),
    ),
    "put": (schema.RADII, lambda context: context.put(schema.RADII, RADII)),
    "send": (schema.TWINS, lambda context: context.send(schema.TWINS, 0, np.array([0, 2]), **TWINS)),
    "writer": (schema.TWINS, lambda context: context.writer(schema.TWINS, 0, 2)),
    "save_fact": (schema.LOSS, lambda context: context.save_fact(schema.LOSS, {})),
    "save_file": (schema.PICTURE, lambda context: context.save_file(schema.PICTURE, b"")),
}


@pytest.mark.parametrize("kind", READS)
def test_reading_what_is_not_declared_is_refused(context, kind):
    item, access = READS[kind]
    others = [step for step, _ in FIT if item not in (*step.reads, *step.writes)]
    context.enter(stage_of(reads=others[0].reads, writes=others[0].writes))
    message = f"Stage 'probe' does not declare that it reads {item.name}"
    with pytest.raises(UndeclaredError, match=message):
        access(context)
    context.enter(stage_of("reader", reads=[item]))
    access(context)
    context.enter(stage_of("writer", writes=[item]))  # What a step writes it may read back.
    access(context)
    context.leave()
    access(context)


@pytest.mark.parametrize("kind", WRITES)
def test_writing_what_is_not_declared_is_refused(context, kind):
    item, access = WRITES[kind]
    for number, declared in enumerate(([], [item])):
        context.enter(stage_of(f"reader {number}", reads=declared))
        message = f"Stage 'reader {number}' does not declare that it writes {item.name}"
        with pytest.raises(UndeclaredError, match=message):
            access(context)
    context.enter(stage_of("writer", writes=[item]))
    access(context)
    context.leave()
    access(context)


def test_an_engine_says_what_a_task_did_not_declare(context):
    def task(context, number):
        context.read(schema.LEVELS)
        return Receipt(0)

    engine = SequentialEngine(MEMORY)
    engine.begin(context)
    with pytest.raises(
        TaskError, match=r"Stage 'probe', task 0 failed .* declare that it reads assign/levels"
    ):
        list(engine.run(stage_of(task=task), [0], lambda number, share: None))
    engine.end()


@pytest.mark.parametrize("dtype", ["float64", "int32"])
def test_an_array_of_another_type_is_refused(context, dtype):
    context.enter(stage_of(writes=[schema.RADII]))
    with pytest.raises(UndeclaredError, match=f"cells/radii is {dtype}, and declared as float32"):
        context.put(schema.RADII, np.ones(3, dtype))


# What is held, and for how long.


class Something:
    """What can be held, and watched."""


def test_what_is_held_goes_with_its_stage(context):
    context.enter(stage_of("first"))
    held = weakref.ref(context.held("thing", Something))
    assert not context.enter(stage_of("first"))
    assert context.held("thing", Something) is held()
    assert context.enter(stage_of("second"))
    gc.collect()
    assert held() is None
    held = weakref.ref(context.held("thing", Something))
    context.leave()
    gc.collect()
    assert held() is None


def test_what_is_held_is_made_once(context):
    def make():
        time.sleep(0.02)
        return Something()

    context.enter(stage_of())
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda number: context.held("thing", make), range(8)))) == 1


def test_all_is_freed_by_close(context):
    context.enter(stage_of(reads=[schema.SOURCE, schema.LEVELS, schema.CELLS]))
    watched = [
        weakref.ref(context.held("thing", Something)),
        weakref.ref(context.array(schema.LEVELS)),
    ]
    assert context.rows.held
    context.rows.read(0, 100)
    watched += context.source.blocks_read
    assert all(reference() is not None for reference in watched)
    cells = context.fact(schema.CELLS)
    context.close()
    gc.collect()
    assert all(reference() is None for reference in watched)
    # Another run may lie at the place by then, so facts are read again.
    assert context.fact(schema.CELLS) == cells
    assert context.fact(schema.CELLS) is not cells
    context.close()


# Nothing outlives a call but what it returned.


KINDS = (Context, Rows, Edges, WatchedSource, ZarrSource, MemoryStore)


@pytest.fixture(scope="module", autouse=True)
def frozen():
    """Leave what is there before these tests to itself: each look at all of it takes a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def living():
    """Count what a run is made of in this process."""
    gc.collect()
    return Counter(type(each).__name__ for each in gc.get_objects() if type(each) in KINDS)


@pytest.fixture
def leaves_nothing(small):
    """Call a function with an array of its own, and see that all goes but what it returns."""

    def check(function, dtype="float32", seconds=0.0):
        before, data = living(), small.astype(dtype)
        source = WatchedSource(data)
        blocks, array = source.blocks_read, weakref.ref(data)
        returned = function(source)
        del source, data
        if isinstance(returned, View) and isinstance(returned.store.place.store(), MemoryStore):
            before[MemoryStore.__name__] += 1
        until = time.monotonic() + seconds
        while living() - before and time.monotonic() < until:
            time.sleep(0.05)
        assert not living() - before
        assert array() is None
        assert not [block for block in blocks if block() is not None]
        return returned, len(blocks)

    return check


def test_a_plan_keeps_no_array(leaves_nothing, small):
    leaves_nothing(lambda source: daskumap.plan(source, calibrate=False))
    data = np.array(small)
    array = weakref.ref(data)
    kept = daskumap.plan(data, calibrate=False)
    del data
    gc.collect()
    assert array() is None
    assert kept.job.sizes.rows == 400


@pytest.mark.parametrize("client", ["sequential", "threads", "1x2"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fit_keeps_no_array(fit, leaves_nothing, client, dtype):
    """Though its run lives on, in memory or on disk: but for a model, which has its rows."""
    returned, read = leaves_nothing(
        lambda source: fit(source, client=client, report=True, keep="embedding", **PARAMS), dtype, seconds=5.0
    )
    assert returned.finished
    assert read > 0


def test_a_fit_keeps_no_start(fit, small):
    start = np.random.default_rng(0).random((400, 2)).astype(np.float32)
    array = weakref.ref(start)
    run = fit(small, init=start, n_epochs=1)
    del start
    gc.collect()
    assert array() is None
    assert run.finished


STAGES = [step.name for step in steps_of(FIT, make_params(PARAMS))]


def failing(fit, engine, folder, stage, after):
    """Return a function that fits, and fails in a stage."""
    attempts = [Fault("planned")] * 3  # as often as any engine tries

    def fail(source):
        client = FailingEngine(engine, folder, {(stage, 0): attempts}, after=after)
        with pytest.raises(TaskError, match=f"Stage '{stage}', task 0 failed"):
            fit(source, client=client, report=stage.startswith("report"), **PARAMS)

    return fail


@pytest.mark.parametrize("stage", STAGES)
def test_a_fit_that_failed_keeps_nothing(fit, leaves_nothing, tmp_path, stage):
    leaves_nothing(failing(fit, ThreadsEngine(MEMORY, 2), tmp_path, stage, after=True), "float64")


@pytest.mark.parametrize("stage", ["scan", "neighbors", "layout"])
def test_a_fit_that_failed_at_once_keeps_nothing(fit, leaves_nothing, tmp_path, stage):
    leaves_nothing(failing(fit, SequentialEngine(MEMORY), tmp_path, stage, after=False), "float64")


@pytest.mark.parametrize("stage", ["scan", "neighbors", "layout"])
def test_a_fit_that_failed_on_a_cluster_keeps_nothing(fit, leaves_nothing, client_1x2, tmp_path, stage):
    """Workers of this process, which hear a moment later that the run is over."""
    engine = DaskEngine(client_1x2)
    leaves_nothing(failing(fit, engine, tmp_path, stage, after=True), "float64", seconds=10.0)


@pytest.fixture(scope="module")
def model(small):
    """A run, which keeps its rows while it lives."""
    return daskumap.fit(small[:, :], client="sequential", progress=False, report=False, **PARAMS)


@pytest.mark.parametrize("stage", ["transform.scan", "transform.gather", "transform.place", "none"])
def test_a_transform_keeps_nothing(leaves_nothing, model, tmp_path, stage):
    """Whether it failed or not: neither the new rows nor what it read of the model."""
    faults = {(stage, 0): [Fault("planned")] * 3}

    def place(source):
        engine = FailingEngine(ThreadsEngine(MEMORY, 2), tmp_path, faults, after=True)
        try:
            return model.transform(source, client=engine, progress=False)
        except TaskError:
            return None

    returned, _ = leaves_nothing(place, "float64")
    assert (returned is None) == (stage != "none")


@pytest.mark.parametrize("stage", ["inverse.scan", "inverse.descend"])
def test_an_inverse_that_failed_keeps_nothing(leaves_nothing, model, tmp_path, stage):
    points = model.embedding[:].astype(np.float64)

    def find(source):
        source = WatchedSource(points.copy())
        engine = FailingEngine(SequentialEngine(MEMORY), tmp_path, {(stage, 0): [Fault("planned")]})
        with pytest.raises(TaskError, match="planned"):
            model.inverse_transform(source, client=engine, progress=False)

    leaves_nothing(find)


def test_diagnostics_keep_nothing(leaves_nothing, model):
    places = np.array(model.embedding[:])
    known, array = model.diagnose(), weakref.ref(places)
    assert model.diagnose(places) == known
    leaves_nothing(lambda source: model.diagnose())
    places[3] = np.nan
    with pytest.raises(SourceError, match="has no finite place"):
        model.diagnose(places)
    del places
    gc.collect()
    assert array() is None


def test_a_fit_of_bad_rows_keeps_nothing(fit, leaves_nothing, small):
    bad = np.array(small)
    bad[7] = np.nan
    array = weakref.ref(bad)
    with pytest.raises(SourceError, match="1 of 400 rows hold NaN"):
        fit(bad)
    del bad
    gc.collect()
    assert array() is None
