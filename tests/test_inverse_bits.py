"""A point's row depends on the point and the model: no other point, and nothing of the machine."""

import dataclasses
import multiprocessing
import os
import signal
import sys
from types import SimpleNamespace

import dask.array
import numpy as np
import pytest
from zarr.storage import MemoryStore

import daskumap
from daskumap.engine.sequential import SequentialEngine
from daskumap.engine.threads import ThreadsEngine
from daskumap.errors import TaskError
from daskumap.opening import (
    open_model,
)
from daskumap.pipeline import INVERSE
from daskumap.report.progress import Silent
from daskumap.request import make_inverse_request
from daskumap.session import (
    fit_request,
)
from daskumap.testing.datasets import uneven_clusters
from daskumap.testing.faults import FailingEngine, Fault, Kill, ShufflingEngine

MEMORY = 4 * 10**9
QUIET = {"client": "sequential", "progress": False}
FIT = {"n_epochs": 30, "max_cell_rows": 1024, "random_state": 1, "report": False, **QUIET}
STEPS = [step.name for step, _ in INVERSE]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run of 3,000 rows on disk; 600 points, some of them equal, some places of rows; and their rows."""
    rows = uneven_clusters(3000, 16, 12, seed=3).rows()
    place = tmp_path_factory.mktemp("model") / "run.zarr"
    run = daskumap.fit(rows, place, **FIT)
    places = run.embedding[:]
    points = np.random.default_rng(0).uniform(places.min(axis=0), places.max(axis=0), (500, 2))
    points = np.concatenate([points, places[:90], points[:10]]).astype(np.float32)
    expected = run.inverse_transform(points, **QUIET).rows[:]
    return SimpleNamespace(run=run, place=place, points=points, expected=expected)


def invert_with(model, points, out=None, engine=None, **sizes):
    """Find rows with sizes that may not matter."""
    request = make_inverse_request(points, open_model(model.run.store))
    adjusted = dataclasses.replace(request, adjust=lambda made: dataclasses.replace(made, **sizes))
    store = fit_request(adjusted, out, engine or SequentialEngine(MEMORY), Silent(), restart=False)
    return daskumap.Inverted(store)


def check(found, expected):
    np.testing.assert_array_equal(found.rows[:], expected)


def test_rows_differ_and_equal_points_do_not(model):
    assert np.isfinite(model.expected).all()
    assert len(np.unique(model.expected[:500], axis=0)) == 500
    np.testing.assert_array_equal(model.expected[-10:], model.expected[:10])


@pytest.mark.parametrize(
    "chosen",
    [slice(0, 1), slice(499, 500), slice(3, 66), slice(100, None, 7), slice(None, None, -1)],
    ids=str,
)
def test_other_points_do_not_matter(model, chosen):
    check(model.run.inverse_transform(model.points[chosen], **QUIET), model.expected[chosen])


SOURCES = {
    "fortran": lambda P, write: np.asfortranarray(P),
    "float64": lambda P, write: P.astype(np.float64),
    "dask": lambda P, write: dask.array.from_array(P, chunks=(77, 1)),
    "v2": lambda P, write: write(P, "v2.zarr", chunks=(100, 2), zarr_format=2),
    "sharded": lambda P, write: write(P, "shards.zarr", chunks=(25, 2), shards=(150, 2)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_any_source(model, write, source):
    check(model.run.inverse_transform(SOURCES[source](model.points, write), **QUIET), model.expected)


@pytest.mark.parametrize(
    "sizes",
    [
        {"row_block": 1, "window_rows": 10**6},
        {"row_block": 97, "window_rows": 1000, "cache_bytes": 0},
        {"row_block": 599, "window_rows": 50},
        {"row_block": 600, "window_rows": 7, "cache_bytes": 0},
    ],
    ids=str,
)
def test_any_sizes(model, sizes):
    rows = slice(4) if sizes["row_block"] == 1 else slice(None)
    check(invert_with(model, model.points[rows], **sizes), model.expected[rows])


ENGINES = {
    "shuffled": lambda: ShufflingEngine(SequentialEngine(MEMORY), 0),
    "threads 1": lambda: ThreadsEngine(MEMORY, 1),
    "threads 3": lambda: ThreadsEngine(MEMORY, 3),
}


@pytest.mark.parametrize("engine", ENGINES)
def test_any_engine(model, tmp_path, engine):
    for out in (tmp_path / "out.zarr", MemoryStore()):
        made = invert_with(model, model.points, out, ENGINES[engine](), row_block=150)
        check(made, model.expected)
    check(daskumap.open(tmp_path / "out.zarr"), model.expected)


def test_a_cluster(model, tmp_path, write, client_1x2):
    points = write(model.points, chunks=(64, 2))
    made = daskumap.inverse_transform(
        model.place, points, tmp_path / "out.zarr", client=client_1x2, progress=False
    )
    check(made, model.expected)


def test_memory(model):
    least = SequentialEngine(MEMORY).resources.reserved + 200_000_000
    check(model.run.inverse_transform(model.points, memory=least, **QUIET), model.expected)


def test_other_points_have_other_rows(model):
    """Or else what is above would compare nothing."""
    moved = model.points + np.float32(1e-2)
    assert (model.run.inverse_transform(moved, **QUIET).rows[:] != model.expected).any(axis=1).all()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_an_inverse_that_failed_goes_on(model, tmp_path, step, after):
    out, faults = tmp_path / "out.zarr", {(step, 0): [Fault("lightning")]}
    engine = FailingEngine(SequentialEngine(MEMORY), tmp_path / "seen", faults, after=after)
    with pytest.raises(TaskError, match="lightning"):
        invert_with(model, model.points, out, engine, row_block=200)
    made = daskumap.open(out)
    assert isinstance(made, daskumap.Inverted)
    assert not made.finished
    before = made.status()
    made = daskumap.resume(out, **QUIET)
    check(made, model.expected)
    assert daskumap.verify(out) == {}
    assert sum(made.status().values()) > sum(before.values())


def kill_in(place, points, out, step, witnesses):
    """Find rows in a process that is killed."""
    when = "between" if step == "inverse.gather" else "after"
    engine = FailingEngine(SequentialEngine(MEMORY), witnesses, {(step, 0): [Kill(when)]})
    invert_with(SimpleNamespace(run=daskumap.open(place)), points, out, engine, row_block=200)


@pytest.fixture(scope="module")
def forks():
    """A context whose processes begin with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["daskumap.api", "test_inverse_bits"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the server knows no other
        yield context


@pytest.mark.parametrize("step", ["inverse.gather", "inverse.descend"])
def test_an_inverse_that_was_killed_goes_on(model, tmp_path, forks, step):
    out = tmp_path / "out.zarr"
    killed = forks.Process(target=kill_in, args=(model.place, model.points, out, step, tmp_path / "seen"))
    killed.start()
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL
    check(daskumap.inverse_transform(model.place, model.points, out, **QUIET), model.expected)
    assert not list(out.rglob("*.partial"))
    assert daskumap.verify(out) == {}


def test_damaged_rows_are_made_again(model, tmp_path):
    out = tmp_path / "out.zarr"
    invert_with(model, model.points, out, row_block=200)
    (out / "inverted/c/1/0").unlink()
    assert "inverse.descend" in daskumap.verify(out, repair=True)
    check(model.run.inverse_transform(model.points, out, **QUIET), model.expected)
