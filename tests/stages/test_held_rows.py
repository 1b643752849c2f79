"""What a process trains on: all rows, or runs of vertices with the edges between them alone."""

import numpy as np
import pytest

import daskumap
from daskumap.planning.training import RUN_ROWS
from daskumap.stages.shared import held_rows
from daskumap.store.run import RunStore
from daskumap.testing.datasets import uneven_clusters

QUICK = {"client": "sequential", "progress": False, "report": False}


@pytest.fixture(scope="module")
def context():
    """The context of a training of 3,000 rows on windows of two runs of six."""
    X = uneven_clusters(3000, 8, 6, seed=2).rows()
    run = daskumap.fit(X, random_state=1, n_epochs=2, **QUICK)
    words = {"hidden": (4,), "steps": 200, "window_rows": 1024, "keep": "all"}
    made = daskumap.train(run, labels=np.arange(3000) % 3, **words, **QUICK)
    assert isinstance(made.store, RunStore)
    return made.model()


def vertices_of(runs):
    return np.concatenate([np.arange(run * RUN_ROWS, min(3000, (run + 1) * RUN_ROWS)) for run in runs])


def edges_of(edges):
    heads = np.repeat(np.arange(len(edges.indptr) - 1), np.diff(edges.indptr))
    return heads, edges.tails, edges.weights


def test_all_rows(context):
    part = held_rows.read_part(context, None)
    np.testing.assert_array_equal(part.rows, context.store.read("encoder/rows"))
    indptr, tails, weights = context.edges(0, 3000)
    np.testing.assert_array_equal(part.edges.indptr, indptr)
    np.testing.assert_array_equal(part.edges.tails, tails)
    np.testing.assert_array_equal(part.edges.weights, weights)


@pytest.mark.parametrize("runs", [[1, 4], [5], [0, 1, 5]])
def test_runs(context, runs):
    """Those of the rows, in their order; edges are those whose ends are both there, by their places."""
    part, taken = held_rows.read_part(context, np.array(runs)), vertices_of(runs)
    np.testing.assert_array_equal(part.rows, context.store.read("encoder/rows")[taken])
    np.testing.assert_array_equal(part.known["labels"], context.store.read("encoder/labels")[taken])
    np.testing.assert_array_equal(part.known["places"], context.store.read("encoder/places")[taken])
    indptr, tails, weights = context.edges(0, 3000)
    heads = np.repeat(np.arange(3000), np.diff(indptr))
    inside = np.isin(heads, taken) & np.isin(tails, taken)
    expected = np.searchsorted(taken, heads[inside]), np.searchsorted(taken, tails[inside]), weights[inside]
    for found, wanted in zip(edges_of(part.edges), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_windows_are_others_and_each_run_comes(context):
    chosen = [tuple(held_rows.window_runs(context, number)) for number in range(40)]
    assert all(len(runs) == 2 for runs in chosen)
    assert len(set(chosen)) > 8
    assert set(np.concatenate(chosen)) == set(range(6))


def test_the_next_window_is_read_ahead_and_the_last_one_goes(context, monkeypatch):
    read = []
    monkeypatch.setattr(held_rows, "read_part", lambda context, runs: read.append(tuple(runs)) or tuple(runs))
    windows = held_rows.Windows(context)
    wanted = [tuple(held_rows.window_runs(context, number)) for number in range(5)]
    assert [windows.at(number) for number in range(5)] == wanted
    windows._pool.shutdown()
    assert read == wanted  # each once, and none after the last step
    assert len(windows._read) == 1
