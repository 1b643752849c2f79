"""A new row's place depends on the row, the model and the seed: no other row, and nothing of the machine."""

import dataclasses
import signal
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import dask.array
import numpy as np
import pytest
from zarr.storage import MemoryStore

import daskumap
from daskumap.engine.sequential import SequentialEngine
from daskumap.engine.threads import ThreadsEngine
from daskumap.errors import TaskError
from daskumap.kernels.cells.join import LEVELS
from daskumap.kernels.cells.slices import join_cells
from daskumap.opening import (
    open_model,
)
from daskumap.params import Params
from daskumap.pipeline import TRANSFORM, steps_of
from daskumap.report.progress import Silent
from daskumap.request import make_transform_request
from daskumap.session import (
    fit_request,
)
from daskumap.stages.cells import order
from daskumap.stages.shared.choose import Choice
from daskumap.testing.datasets import uneven_clusters
from daskumap.testing.faults import FailingEngine, Fault, Kill, ShufflingEngine

MEMORY = 4 * 10**9
QUIET = {"client": "sequential", "progress": False}
FIT = {"n_epochs": 30, "max_cell_rows": 1024, "random_state": 1, "report": False, **QUIET}
STEPS = [step.name for step in steps_of(TRANSFORM, Params())]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run of 3,000 rows on disk; 600 new ones, some of them equal, some fitted; and their places."""
    rows = uneven_clusters(3500, 16, 12, seed=3).rows()
    new = np.concatenate([rows[3000:], rows[:90], rows[3000:3010]])
    place = tmp_path_factory.mktemp("model") / "run.zarr"
    run = daskumap.fit(rows[:3000], place, **FIT)
    assert run.store.documents.load("facts/cells")["cells"] > 3
    return SimpleNamespace(
        run=run, place=place, rows=rows, new=new, expected=result(run.transform(new, **QUIET))
    )


def result(transformed):
    return np.column_stack([transformed.embedding[:], transformed.fit_distance[:]])


def check(found, expected):
    np.testing.assert_array_equal(found, expected)


def transform_with(model, data, out=None, engine=None, **sizes):
    """Transform with sizes that may not matter."""
    request = make_transform_request(data, open_model(model.run.store))
    adjusted = dataclasses.replace(request, adjust=lambda made: dataclasses.replace(made, **sizes))
    store = fit_request(adjusted, out, engine or SequentialEngine(MEMORY), Silent(), restart=False)
    return daskumap.Transformed(store)


def test_rows_are_placed(model):
    assert np.isfinite(model.expected).all()
    assert len(np.unique(model.expected[:500, :2], axis=0)) == 500
    check(model.expected[-10:], model.expected[:10])  # equal rows


def test_fitted_rows_land_on_themselves(model):
    check(model.expected[500:590, :2], model.run.embedding[:90])


def test_a_row_at_a_time(model):
    for row in (0, 1, 499, 500, 599):
        check(result(model.run.transform(model.new[row : row + 1], **QUIET)), model.expected[row : row + 1])


def test_a_few_of_them(model):
    for rows in (slice(0, 2), slice(3, 66), slice(100, None, 7)):
        check(result(model.run.transform(model.new[rows], **QUIET)), model.expected[rows])


def test_another_order(model):
    order = np.random.default_rng(0).permutation(len(model.new))
    check(result(model.run.transform(model.new[order], **QUIET)), model.expected[order])


SOURCES = {
    "fortran": lambda X, write: np.asfortranarray(X),
    "dask": lambda X, write: dask.array.from_array(X, chunks=(77, 5)),
    "v2": lambda X, write: write(X, "v2.zarr", chunks=(100, 16), zarr_format=2),
    "v3": lambda X, write: write(X, "v3.zarr", chunks=(33, 7)),
    "sharded": lambda X, write: write(X, "shards.zarr", chunks=(25, 16), shards=(150, 16)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_any_source(model, write, source):
    check(result(model.run.transform(SOURCES[source](model.new, write), **QUIET)), model.expected)


@pytest.mark.parametrize(
    "sizes",
    [
        {"row_block": 1},
        {"row_block": 97, "window_rows": 1},
        {"row_block": 599, "window_rows": 50},
        {"row_block": 600, "window_rows": 10**6},
    ],
    ids=str,
)
def test_any_sizes(model, sizes):
    rows = slice(None) if sizes["row_block"] > 100 else slice(6) if sizes["row_block"] == 1 else slice(100)
    check(result(transform_with(model, model.new[rows], **sizes)), model.expected[rows])


ENGINES = {
    "shuffled": lambda: ShufflingEngine(SequentialEngine(MEMORY), 0),
    "threads 1": lambda: ThreadsEngine(MEMORY, 1),
    "threads 3": lambda: ThreadsEngine(MEMORY, 3),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("store", ["memory", "disk"])
def test_any_engine(model, tmp_path, engine, store):
    out = tmp_path / "out.zarr" if store == "disk" else MemoryStore()
    made = transform_with(model, model.new, out, ENGINES[engine](), row_block=150)
    check(result(made), model.expected)
    check(result(daskumap.open(out)) if store == "disk" else result(made), model.expected)


def test_other_processes(model, tmp_path, write, client_processes):
    source = write(model.new, chunks=(64, 16))
    made = daskumap.open(model.place).transform(
        source, tmp_path / "out.zarr", client=client_processes, progress=False
    )
    check(result(made), model.expected)


def test_memory(model):
    least = SequentialEngine(MEMORY).resources.reserved + 200_000_000
    check(result(model.run.transform(model.new, memory=least, **QUIET)), model.expected)


@pytest.mark.parametrize("metric", ["cosine", "correlation", "manhattan"])
def test_any_metric(model, metric):
    run = daskumap.fit(model.rows[:1200], metric=metric, **FIT)
    expected = result(run.transform(model.new[:60], **QUIET))
    check(result(run.transform(model.new[7:8], **QUIET)), expected[7:8])
    check(result(run.transform(model.new[59::-1], **QUIET)), expected[::-1])
    check(run.transform(model.rows[:30], **QUIET).embedding[:], run.embedding[:30])


def test_bits(model):
    rows, new = ((rows > 0).astype(np.uint8) for rows in (model.rows[:600], model.new[:60]))
    run = daskumap.fit(rows, metric="bit_hamming", **FIT)
    expected = result(run.transform(new, **QUIET))
    check(result(run.transform(new[7:8].astype(np.float64), **QUIET)), expected[7:8])


def test_wide_cells(model, monkeypatch):
    """New rows are compared with small cells of a run that searched wide ones."""
    monkeypatch.setattr(
        order,
        "choose_cells",
        lambda context, probes, members: Choice(join_cells(members[0], 900), 6, np.ones(LEVELS)),
    )
    run = daskumap.fit(model.rows[:3000], **FIT)
    assert run.store.documents.load("facts/order")["wide"] > 1
    expected = result(run.transform(model.new, **QUIET))
    check(result(run.transform(model.new[40:45], **QUIET)), expected[40:45])
    check(expected[500:590, :2], run.embedding[:90])


@pytest.mark.parametrize("n_components", [1, 3, 5])
def test_any_number_of_components(small, n_components):
    run = daskumap.fit(small[:350], n_components=n_components, **FIT)
    expected = result(run.transform(small[350:], **QUIET))
    assert expected.shape == (50, n_components + 1)
    check(result(run.transform(small[380:381], **QUIET)), expected[30:31])
    check(run.transform(small[:30], **QUIET).embedding[:], run.embedding[:30])


def test_unique_rows(model):
    """A twin lands where its first row is."""
    rows = np.concatenate([model.rows[:1500], model.rows[:40]])
    run = daskumap.fit(rows, unique=True, **FIT)
    check(run.transform(rows[-40:], **QUIET).embedding[:], run.embedding[-40:])
    expected = result(run.transform(model.new[:50], **QUIET))
    check(result(run.transform(model.new[20:21], **QUIET)), expected[20:21])


def test_another_seed_places_them_elsewhere(model):
    """Or else what is above would compare nothing."""
    run = daskumap.fit(model.rows[:3000], **{**FIT, "random_state": 2})
    assert not np.array_equal(run.transform(model.new[:9], **QUIET).embedding[:], model.expected[:9, :2])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_a_transform_that_failed_goes_on(model, tmp_path, step, after):
    out, faults = tmp_path / "out.zarr", {(step, 0): [Fault("lightning")]}
    engine = FailingEngine(SequentialEngine(MEMORY), tmp_path / "seen", faults, after=after)
    with pytest.raises(TaskError, match="lightning"):
        transform_with(model, model.new, out, engine, row_block=200)
    made = daskumap.open(out)
    assert isinstance(made, daskumap.Transformed)
    assert not made.finished
    before = made.status()
    made = daskumap.resume(out, **QUIET)
    check(result(made), model.expected)
    assert daskumap.verify(out) == {}
    assert sum(made.status().values()) > sum(before.values())


def kill_in(place, new, out, step, witnesses):
    """Transform in a process that is killed."""
    engine = FailingEngine(SequentialEngine(MEMORY), witnesses, {(step, 0): [Kill("between")]})
    transform_with(SimpleNamespace(run=daskumap.open(place)), new, out, engine, row_block=200)


@pytest.mark.parametrize("step", ["transform.gather", "transform.place"])
def test_a_transform_that_was_killed_goes_on(model, tmp_path, forks, step):
    out = tmp_path / "out.zarr"
    killed = forks.Process(target=kill_in, args=(model.place, model.new, out, step, tmp_path / "seen"))
    killed.start()
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    check(result(daskumap.transform(model.place, model.new, out, **QUIET)), model.expected)
    assert not list(out.rglob("*.partial"))
    assert daskumap.verify(out) == {}


def transform_apart(place, new):
    return result(daskumap.open(place).transform(new, **QUIET))


def test_a_model_opened_in_another_process(model, forks):
    with ProcessPoolExecutor(1, forks) as process:
        check(process.submit(transform_apart, model.place, model.new).result(), model.expected)
