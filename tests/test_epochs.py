"""No epochs, and the map after each of several numbers of them."""

import numpy as np
import pytest
from conftest import sha

import daskumap
from daskumap import UMAP
from daskumap.errors import ParameterError, StoreError
from daskumap.params import make_params
from daskumap.testing.faults import FailingEngine, Fault

LIST = {"n_epochs": [12, 5, 0, 5], "checkpoint_every": 4}


@pytest.fixture(scope="module")
def alone(small):
    """A digest of the map of each number of epochs alone."""
    options = {"client": "sequential", "progress": False, "random_state": 1, "report": False}
    return {n: sha(daskumap.fit(small, n_epochs=n, **options).embedding) for n in (0, 12)}


def check(run, alone):
    kept = run.embedding_list
    assert kept.shape == (3, 400, 2)
    assert sha(kept[0]) == alone[0]
    assert sha(kept[2]) == sha(run.embedding) == alone[12]
    assert len({sha(map_) for map_ in kept}) == 3


def test_a_map_of_no_epochs_is_the_start(fit, small):
    """Each column from 0 to 10, as umap-learn's, and the given one where one is given."""
    run = fit(small, n_epochs=0, report=True)
    map_ = run.embedding[:]
    np.testing.assert_allclose(map_.min(0), 0, atol=2e-4)
    np.testing.assert_allclose(map_.max(0), 10, atol=2e-4)
    assert run.report["measures"]["trustworthiness"] > 0.8
    given = np.random.default_rng(0).random((400, 2))
    map_ = fit(small, n_epochs=0, init=given).embedding[:]
    np.testing.assert_allclose(map_, 10 * (given - given.min(0)) / np.ptp(given, 0), atol=2e-4)


def test_new_rows_on_a_map_of_no_epochs_are_where_their_neighbours_are(fit, small):
    """umap-learn divides by the number of epochs there."""
    for epochs in (0, [0, 2]):
        run = fit(small, n_epochs=epochs)
        placed = run.transform(small[:9] + 0.01, client="sequential", progress=False)
        assert placed.report["placed"]["epochs"] == 0
        assert np.isfinite(placed.embedding[:]).all()


def test_the_map_after_each_listed_epoch_is_kept(fit, small, alone, tmp_path):
    """Ascending and each once, whatever stands in the list; the last is that of the largest alone."""
    run = fit(small, tmp_path / "run.zarr", keep="model", **LIST)
    check(run, alone)
    assert run.params["n_epochs"] == [0, 5, 12]
    assert not (tmp_path / "run.zarr/layout").exists()
    check(fit(small, **LIST), alone)
    assert daskumap.verify(tmp_path / "run.zarr") == {}
    again = fit(small, tmp_path / "run.zarr", **{**LIST, "keep": "model", "n_epochs": (12, 0, 5)})
    check(again, alone)
    twice = fit(small, checkpoint_every=1, partitions=3, n_epochs=[5, 12])
    assert sha(twice.embedding_list[0]) == sha(run.embedding_list[1])


def test_listed_maps_in_several_blocks_partitions_and_threads(fit, small, alone, tmp_path, block_sizes):
    block_sizes(row_block=150)
    check(fit(small, tmp_path / "a.zarr", client="1x2", partitions=3, **LIST), alone)
    check(fit(small, client="threads", threads=2, **LIST), alone)


def test_listed_maps_of_copies(fit, small):
    rows = np.concatenate([small[:100], small[:50]])
    kept = fit(rows, unique=True, n_neighbors=10, n_epochs=[1, 3]).embedding_list[:]
    np.testing.assert_array_equal(kept[:, :50], kept[:, 100:])


@pytest.mark.parametrize("task", [("layout", 2), ("publish.list", 1)])
def test_a_run_that_died_goes_on(fit, small, alone, sequential, tmp_path, task):
    engine = FailingEngine(sequential, tmp_path / "w", {task: [Fault("power")]}, after=True)
    with pytest.raises(daskumap.TaskError, match="power"):
        fit(small, tmp_path / "run.zarr", client=engine, keep="model", **LIST)
    with pytest.raises(StoreError, match="has no embedding yet"):
        _ = daskumap.open(tmp_path / "run.zarr").embedding_list
    check(daskumap.resume(tmp_path / "run.zarr", client="sequential", progress=False), alone)


def test_a_listed_map_that_was_damaged_is_made_again(fit, small, alone, sequential, tmp_path):
    """Of one that the layout has passed the run goes back before it; a published one is found by verify."""
    engine = FailingEngine(sequential, tmp_path / "w", stop_at="publish.list")
    path = tmp_path / "run.zarr"
    with pytest.raises(Fault):
        fit(small, path, client=engine, **LIST)
    assert sorted(one.name for one in path.glob("layout/0*")) == [f"{n:08d}" for n in (0, 2, 3, 4)]
    damaged = path / "layout/00000000/positions/c/0/0"
    damaged.write_bytes(damaged.read_bytes()[::-1])
    run = daskumap.resume(path, client="sequential", progress=False)
    check(run, alone)
    chunk = path / "embedding_list/c/1/0/0"
    chunk.write_bytes(chunk.read_bytes()[::-1])
    assert "embedding_list, map 1, rows 0 to 399" in daskumap.verify(path)["publish.list"][0]
    daskumap.verify(path, repair=True)
    check(daskumap.resume(path, client="sequential", progress=False), alone)


def test_the_plan_counts_listed_maps(small):
    few, more = (daskumap.plan(small, n_epochs=n, calibrate=False) for n in (200, [0, 50, 200]))
    written = {stage.name: stage.written_bytes for stage in more.stages}
    assert written["publish.list"] == 3 * 400 * 2 * 4
    state = 3 * 400 * 2 * 4
    assert (
        written["layout"] - {stage.name: stage.written_bytes for stage in few.stages}["layout"] == 3 * state
    )
    assert more.kept_bytes - few.kept_bytes == written["publish.list"]


def test_a_run_without_a_list_says_so(fit, small):
    with pytest.raises(StoreError, match=r"kept its last map alone\. List the epochs to keep"):
        _ = fit(small, n_epochs=2).embedding_list


@pytest.mark.parametrize("value", [[], [1, -1], [1.0], [True], ["a"], -1, 2.5, [10**7]])
def test_what_is_no_number_of_epochs_is_refused(value):
    with pytest.raises(ParameterError, match=r"^n_epochs is "):
        make_params({"n_epochs": value})


def test_a_list_within_rounds_is_refused(fit, small):
    """Partitions do not know each other's positions there."""
    with pytest.raises(
        ParameterError, match=r"^n_epochs lists 3, and with reconcile_every=4 .* every 2 epochs"
    ):
        make_params({"n_epochs": [3, 8], "reconcile_every": 4})
    options = {"reconcile_every": 4, "partitions": 2}
    listed = fit(small, n_epochs=np.array([4, 7]), **options)
    assert sha(listed.embedding) == sha(fit(small, n_epochs=7, **options).embedding)


def test_the_estimator_has_a_list_of_maps(small):
    model = UMAP(n_epochs=[4, 2], random_state=1).fit(small)
    assert model.n_epochs == model.n_epochs_list == [4, 2]
    assert [map_.shape for map_ in model.embedding_list_] == [(400, 2)] * 2
    np.testing.assert_array_equal(model.embedding_list_[-1], model.embedding_)
    assert not hasattr(UMAP(n_epochs=2, random_state=1).fit(small), "n_epochs_list")
    assert model.transform(small[:3]).shape == (3, 2)
