"""What a fit takes, refuses, returns, leaves behind and goes on with; what map and report are worth."""

import gc
import re
import shutil
import sys
import tempfile
from pathlib import Path

import dask.array
import numba
import numpy as np
import pytest
import zarr
from conftest import QUIET, sha
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

import daskumap
from daskumap.errors import (
    ParameterError,
    RunMismatchError,
    SourceError,
    SourceNotFoundError,
    StoreError,
    TaskError,
)
from daskumap.params import make_params
from daskumap.pipeline import FIT, steps_of
from daskumap.testing.faults import FailingEngine, Fault

QUICK = {"n_epochs": 10}
STEPS = [step.name for step in steps_of(FIT, make_params({}))]


def blobs(*sizes, columns=6, distance=100.0, seed=0):
    """Return clusters that are far apart: one component of the graph each."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.normal(size=(size, columns)) + distance * place for place, size in enumerate(sizes)]
    ).astype(np.float32)


def exact_neighbors(X, k):
    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(X).kneighbors(return_distance=False)


def overlap(a, b):
    """Return the mean share of common ids."""
    return float(np.mean([len(set(x) & set(y)) / len(x) for x, y in zip(a, b, strict=True)]))


# Input.


def test_kinds_of_input_give_the_same_map(fit, small, write, tmp_path):
    group = zarr.open_group(str(tmp_path / "group.zarr"), mode="w")
    inside = group.create_array("deep/X", shape=small.shape, chunks=(90, 3), dtype="f4")
    inside[...] = small
    path = write(small)
    kinds = [small, small.tolist(), np.asfortranarray(small), dask.array.from_array(small, chunks=(150, 8))]
    kinds += [path, str(path), zarr.open_array(str(path)), zarr.array(small)]
    kinds += [tmp_path / "group.zarr" / "deep" / "X", tmp_path / "group.zarr"]
    assert len({sha(fit(kind, **QUICK).embedding) for kind in kinds}) == 1


@pytest.mark.parametrize("dtype", ["f2", "f8", "u1", "i8", "?"])
def test_types_are_read_as_float32(fit, small, write, dtype):
    levels = np.clip(np.rint(small - small.min()), 0, 120)
    data = (levels > levels.mean()) if dtype == "?" else levels
    data = data + 0  # bool to integers
    expected = sha(fit(data.astype("f4"), **QUICK).embedding)
    assert sha(fit(data.astype(dtype), **QUICK).embedding) == expected
    assert sha(fit(write(data.astype(dtype)), **QUICK).embedding) == expected


def with_bad_rows(X, rows, value):
    X = X.copy()
    X[rows] = value
    return X


@pytest.mark.parametrize(
    ("rows", "value", "metric", "message"),
    [
        (
            [5, 77, 300],
            np.nan,
            "euclidean",
            r"3 of 400 rows hold NaN or infinity .* rows 5, 77, 300\. Remove",
        ),
        (range(100, 120), np.inf, "euclidean", r"20 of 400 rows .* rows 100, 101, 102, 103, 104\."),
        ([9], 1e300, "euclidean", r"1 of 400 rows .*beyond float32"),
        ([3, 4], 0.0, "cosine", r"'cosine' is not defined on 2 of 400 rows; .* rows 3, 4\. .*not all zero"),
        ([399], 2.5, "correlation", r"'correlation' is not defined on 1 of .* 399\. .*not constant"),
    ],
)
def test_rows_that_cannot_take_part_are_named(fit, small, write, rows, value, metric, message):
    bad = with_bad_rows(small.astype("f8"), list(rows), value)
    for source in (bad, write(bad, chunks=(64, 8))):
        with pytest.raises(SourceError, match=message):
            fit(source, metric=metric)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.zeros(10), r"1 dimensions \(10,\); 2 are needed"),
        (np.zeros((4, 5, 6)), r"3 dimensions \(4, 5, 6\); 2 are needed"),
        (np.zeros((0, 5)), r"is empty: its shape is \(0, 5\)"),
        (np.zeros((5, 0)), "is empty"),
        (np.array([["a", "b"]] * 30), "holds <U1"),
        (np.zeros((15, 4)), r"n_neighbors is 15 and the input has 15 rows; .* at most 14"),
        (np.zeros((2, 4)), "The input has 2 rows; at least 3 are needed"),
    ],
)
def test_arrays_that_are_none_are_refused(fit, data, message):
    with pytest.raises(SourceError, match=message):
        fit(data)


def test_a_path_to_nothing(fit, tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"There is nothing at .*no\.zarr"):
        fit(tmp_path / "no.zarr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neighbours": 5}, r"Unknown parameter 'n_neighbours'\. Did you mean 'n_neighbors'\? Allowed"),
        ({"n_neighbors": 1}, "n_neighbors is 1; it must be an integer from 2 to"),
        ({"n_neighbors": 5.0}, "n_neighbors is 5.0; it must be an integer"),
        ({"n_components": 0}, "n_components is 0"),
        ({"n_epochs": True}, "n_epochs is True; it must be an integer"),
        ({"min_dist": -0.1}, "min_dist is -0.1; it must be a number from 0"),
        ({"min_dist": float("nan")}, "min_dist is nan"),
        ({"min_dist": 2.0}, "min_dist is 2, above spread, which is 1"),
        ({"a": 1.0}, "a and b go together"),
        ({"set_op_mix_ratio": 1.5}, "set_op_mix_ratio is 1.5; it must be a number from 0 to 1"),
        ({"metric": "euclidian"}, "Unknown metric 'euclidian'.*euclidean"),
        ({"metric": 3}, "metric is a int; it must be a name, or a function"),
        ({"metric": "haversine"}, "'haversine' takes 2 columns"),
        ({"metric": "minkowski", "metric_kwds": {"q": 3}}, "does not take 'q'"),
        ({"metric_kwds": [1]}, "metric_kwds is a list"),
        ({"init": "laplace"}, "init is 'laplace'; allowed are pca, spectral, tswspectral, random, an array"),
        ({"init": 3}, "init is a int"),
        ({"init": np.zeros((400, 3))}, r"init is an array of shape \(400, 3\) .* it must be \(400, 2\)"),
        ({"init": np.full((400, 2), np.nan)}, "init is an array .*finite"),
        ({"optimizer": "lbfgs"}, "optimizer is 'lbfgs'; allowed are adam, sgd"),
        ({"random_state": "x"}, "random_state is 'x'; it must be an integer"),
        ({"random_state": -1}, "random_state is -1"),
        ({"memory": "lots"}, "memory is 'lots'; give bytes, or text such as '4GB'"),
        ({"memory": -5}, "memory is -5"),
        ({"threads": 0}, "threads is 0; it must be an integer from 1"),
        ({"partitions": 0}, "partitions is 0; it must be an integer from 1"),
        ({"partitions": 401}, "partitions is 401"),
    ],
)
def test_bad_parameters_are_refused(fit, small, tmp_path, options, message):
    with pytest.raises(ParameterError, match=message):
        fit(small, tmp_path / "run.zarr", **options)
    assert not (tmp_path / "run.zarr").exists()


def test_progress_that_hears_nothing_is_refused(fit, small, tmp_path):
    for progress in (3, object(), print, type("Half", (), {"start": print})()):
        with pytest.raises(ParameterError, match=r"progress is .*, which lacks "):
            fit(small, tmp_path / "run.zarr", progress=progress)
    assert not (tmp_path / "run.zarr").exists()


def test_a_process_without_standard_error(fit, small, monkeypatch):
    bits = sha(fit(small, **QUICK).embedding)
    monkeypatch.setattr(sys, "stderr", None)
    assert sha(fit(small, progress=True, **QUICK).embedding) == bits


# Output.


def test_rows_of_the_map_are_in_the_users_order(fit, clustered):
    """Whatever the order is: each row's nearest on the map belong to its cluster."""
    rows = np.random.default_rng(5).permutation(1500)
    for X in (clustered[:1500], clustered[:1500][rows]):
        run = fit(X, n_epochs=100, max_cell_rows=512)
        assert run.embedding.shape == (1500, 2)
        assert run.embedding.dtype == np.float32
        near, far = exact_neighbors(X, 15), exact_neighbors(run.embedding[:], 15)
        assert overlap(near, far) > 0.2  # 0.005 if rows are mixed up
        ids, distances = run.knn()
        assert overlap(ids, near[:, :14]) > 0.95
        there = ids[:, 0] >= 0
        direct = np.linalg.norm(X[there] - X[ids[there, 0]], axis=1)
        np.testing.assert_allclose(distances[there, 0], direct, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("components", [1, 2, 3, 5])
@pytest.mark.parametrize("init", ["pca", "spectral"])
def test_components_of_the_map(fit, small, components, init):
    map_ = fit(small, n_components=components, init=init, **QUICK).embedding[:]
    assert map_.shape == (400, components)
    assert np.isfinite(map_).all()
    assert (np.ptp(map_, axis=0) > 1).all()


def test_more_components_than_columns(fit, small):
    assert np.isfinite(fit(small[:, :2], n_components=4, **QUICK).embedding[:]).all()


@pytest.mark.parametrize("init", ["pca", "spectral", "random", "array"])
def test_components_of_the_graph(fit, init):
    X = blobs(150, 90, 60)
    start = np.random.default_rng(0).random((300, 2)) if init == "array" else init
    run = fit(X, init=start, n_epochs=100, report=True)
    measures = run.report["measures"]
    assert (measures["components"], measures["largest_component"], measures["isolated_rows"]) == (3, 150, 0)
    assert measures["cut_edge_share"] <= 1
    assert np.isfinite(run.embedding[:]).all()
    assert overlap(exact_neighbors(X, 10), exact_neighbors(run.embedding[:], 10)) > 0.15


def test_rows_that_nothing_joins_are_nan(fit):
    X = np.concatenate([blobs(300), 1000.0 * np.eye(6, dtype=np.float32)[:4]])
    run = fit(X, disconnection_distance=50.0, report=True, **QUICK)
    lost = np.isnan(run.embedding[:]).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(lost), [300, 301, 302, 303])
    assert run.report["measures"]["isolated_rows"] == 4
    assert run.report["measures"]["components"] == 5
    ids, distances = run.knn()
    assert (ids[300:] == -1).all()
    assert np.isinf(distances[300:]).all()
    assert "4 of 304 rows (1.3%) have no neighbour and no place on the map." in " ".join(str(run).split())


def test_exact_duplicates(fit):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 5)).astype(np.float32)
    X[700:] = X[rng.integers(0, 700, 300)]
    X[:40] = X[0]
    run = fit(X, n_epochs=100, report=True)
    map_ = run.embedding[:]
    assert np.isfinite(map_).all()
    assert run.report["measures"]["recall"] > 0.9
    # Forty equal rows stay together.
    assert (
        np.linalg.norm(map_[:40] - np.median(map_[:40], 0), axis=1).max() < 0.3 * np.ptp(map_, axis=0).max()
    )


def test_all_rows_equal(fit):
    assert np.isfinite(fit(np.ones((100, 3)), **QUICK).embedding[:]).all()


@numba.njit
def first_columns(x, y, p):
    return np.abs(x[0] - y[0]) + p * np.abs(x[1] - y[1])


def test_a_numba_function_is_a_metric(fit, small):
    run = fit(small, metric=first_columns, metric_kwds={"p": 2.0}, report=True, **QUICK)
    ids, distances = run.knn()
    there = np.abs(small[:, 0] - small[ids[:, 0], 0]) + 2 * np.abs(small[:, 1] - small[ids[:, 0], 1])
    np.testing.assert_allclose(distances[:, 0], there, rtol=1e-5)
    assert run.report["measures"]["recall"] > 0.95
    assert run.params["metric"].startswith("callable:")


def test_a_seed_that_was_drawn_is_known(fit, small):
    one = fit(small, random_state=None, **QUICK)
    two = fit(small, random_state=None, **QUICK)
    seeds = [run.params["random_state"] for run in (one, two)]
    assert seeds[0] != seeds[1]
    assert sha(one.embedding) != sha(two.embedding)
    assert sha(fit(small, random_state=seeds[0], **QUICK).embedding) == sha(one.embedding)


def test_kinds_of_seeds(fit, small):
    def seed(state):
        return fit(small, random_state=state, n_epochs=1).params["random_state"]

    assert seed(np.int64(3)) == 3
    assert seed(np.random.RandomState(3)) == seed(np.random.RandomState(3)) != seed(np.random.RandomState(4))
    assert seed(np.random.default_rng(3)) == seed(np.random.default_rng(3))


# Run stores.


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files of this test's own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def test_a_temporary_store_goes_with_what_was_taken_of_it(fit, small, write, temporary):
    run = fit(write(small), **QUICK)
    embedding = run.embedding
    assert Path(run.path).parent.parent == temporary
    del run
    gc.collect()
    assert np.isfinite(embedding[:]).all()
    del embedding
    gc.collect()
    assert not list(temporary.iterdir())


def test_a_fit_that_fails_leaves_no_temporary_store(fit, small, write, temporary):
    with pytest.raises(SourceError):
        fit(write(with_bad_rows(small, [1], np.nan)))
    assert not list(temporary.iterdir())


def test_a_run_store_stays_and_opens(fit, small, tmp_path):
    run = fit(small, tmp_path / "run.zarr", report=True, **QUICK)
    bits = sha(run.embedding)
    del run
    gc.collect()
    run = daskumap.open(tmp_path / "run.zarr")
    assert run.finished
    assert sha(run.embedding) == bits
    assert sha(zarr.open_array(str(tmp_path / "run.zarr" / "embedding"), mode="r")) == bits
    assert "400 x 8, finished" in repr(run)
    assert set(run.status()) == set(STEPS)
    run.save_picture(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "run.zarr" / "embedding.png").read_bytes().startswith(b"\x89PNG")


# Of each kind, one: scratch, the graph, what a model needs, and the result.
KINDS = {"found": "all", "knn/indices": "graph", "rows/vertex": "model", "embedding": "embedding"}


@pytest.mark.parametrize("report", [False, True])
@pytest.mark.parametrize(
    ("keep", "kept"),
    [("all", 4), ("graph", 3), ("model", 2), ("embedding", 1)],
    ids=["all", "graph", "model", "embedding"],
)
def test_what_stays_in_a_run_store(fit, small, tmp_path, keep, kept, report):
    run = fit(small, tmp_path / "run.zarr", keep=keep, report=report, **QUICK)
    there = [name for name in KINDS if (tmp_path / "run.zarr" / name).exists()]
    assert there == list(KINDS)[4 - kept :]
    assert daskumap.verify(run.path) == {}
    assert daskumap.resume(run.path, client="sequential").finished
    assert (tmp_path / "run.zarr" / "embedding.png").exists() == report
    assert sha(run.embedding) == sha(fit(small, **QUICK).embedding)
    if kept < 3:
        with pytest.raises(StoreError, match=r"has no knn/indices, since .* Fit with keep='graph'"):
            run.knn()
    else:
        assert run.knn()[0].shape == (400, 14)


def test_an_embedding_alone_that_is_damaged(fit, small, tmp_path):
    """It is found without the input, and made again from it."""
    run = fit(small, tmp_path / "run.zarr", keep="embedding", **QUICK)
    bits = sha(run.embedding)
    (chunk,) = (path for path in (tmp_path / "run.zarr" / "embedding" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    assert list(daskumap.verify(run.path, repair=True)) == ["publish"]
    with pytest.raises(StoreError, match="has deleted its copy of the input, as keep='embedding' says"):
        daskumap.resume(run.path, client="sequential")
    run = fit(small, tmp_path / "run.zarr", keep="embedding", **QUICK)
    assert sha(run.embedding) == bits
    assert daskumap.verify(run.path) == {}


def test_a_run_without_a_report(fit, small, tmp_path):
    run = fit(small, tmp_path / "run.zarr", **QUICK)
    assert run.finished
    assert run.report["measures"] == {}
    stages = {name.partition(".")[0] for name in STEPS} - {"report"}
    assert set(run.report["stages"]) == stages
    assert not any(name.startswith("report") for name in run.status())
    lines = str(run).split("\n\n")[0].splitlines()
    assert lines[0].split()[:2] == ["stage", "tasks"]
    assert {line.split()[0] for line in lines[1:]} == stages | {"total"}


@pytest.mark.parametrize("change", [{"keep": "embedding"}, {"report": True}])
def test_what_a_run_leaves_is_a_parameter_of_it(fit, small, tmp_path, change):
    """A run store whose scratch is gone cannot become one with a report."""
    fit(small, tmp_path / "run.zarr", **QUICK)
    (name,) = change
    with pytest.raises(RunMismatchError, match=f"{name} was .* and is now {change[name]!r}"):
        fit(small, tmp_path / "run.zarr", **QUICK | change)


def test_places_that_are_no_run_stores(fit, small, write, tmp_path):
    with pytest.raises(StoreError, match="There is no run store at"):
        daskumap.open(tmp_path / "none.zarr")
    zarr.open_group(str(tmp_path / "group.zarr"), mode="w").attrs["mine"] = 1
    (tmp_path / "file").write_text("x")
    for place, message in (("group.zarr", "is a Zarr group but not a run store"), ("file", "is a file")):
        with pytest.raises(StoreError, match=message):
            fit(small, tmp_path / place)
    with pytest.raises(StoreError):
        fit(small, write(small))
    np.testing.assert_array_equal(zarr.open_array(str(tmp_path / "x.zarr"))[:], small)


def test_a_finished_run_is_not_done_again(fit, small, sequential, tmp_path, caplog):
    """One line says so, and since when."""
    bits = sha(fit(small, tmp_path / "run.zarr", **QUICK).embedding)
    engine = FailingEngine(sequential, tmp_path / "witnesses")
    with caplog.at_level("INFO", "daskumap"):
        assert caplog.messages == []
        run = fit(small, tmp_path / "run.zarr", client=engine, **QUICK)
    (said,) = caplog.messages
    assert re.fullmatch(
        r"Nothing was left to do: the run in .*run\.zarr was finished at \d{4}-\d\d-\d\dT\S+\.", said
    )
    assert engine.counts() == {}
    assert sha(run.embedding) == bits
    unseeded = fit(small, tmp_path / "run.zarr", client=engine, random_state=None, **QUICK)
    assert sha(unseeded.embedding) == bits


def test_another_run_is_refused(fit, small, tmp_path):
    fit(small, tmp_path / "run.zarr", **QUICK)
    with pytest.raises(
        RunMismatchError, match=r"min_dist was 0\.1 and is now 0\.2; n_neighbors was 15 and is now 10"
    ):
        fit(small, tmp_path / "run.zarr", n_neighbors=10, min_dist=0.2, **QUICK)
    with pytest.raises(RunMismatchError, match="rows was"):
        fit(small + 1, tmp_path / "run.zarr", **QUICK)
    with pytest.raises(RunMismatchError, match=r"shape was \[400, 8\] and is now \[399, 8\]"):
        fit(small[:-1], tmp_path / "run.zarr", **QUICK)


RESUMED = {"n_epochs": 30, "checkpoint_every": 10, "max_cell_rows": 512, "report": True, "keep": "graph"}


@pytest.fixture(scope="module")
def several(clustered):
    """Rows of several cells, and of two tasks of each stage."""
    return clustered[:1300]


@pytest.fixture(scope="module")
def uninterrupted(several, tmp_path_factory):
    place = tmp_path_factory.mktemp("uninterrupted") / "run.zarr"
    run = daskumap.fit(several, place, **QUIET, **RESUMED)
    return sha(run.embedding), run.status()


def test_a_run_that_stopped_before_a_stage_goes_on(fit, several, uninterrupted, sequential, tmp_path):
    """Before each but the first, in turn."""
    bits, status = uninterrupted
    path, done = tmp_path / "run.zarr", {}
    for stage in STEPS[1:]:
        engine = FailingEngine(sequential, tmp_path / stage, stop_at=stage)
        with pytest.raises(Fault, match=f"before stage {stage}$"):
            fit(several, path, client=engine, **RESUMED)
        again = engine.counts()
        assert not again.keys() & done.keys()
        done |= again
        run = daskumap.open(path)
        assert not run.finished
        assert done == {name: count for name, count in run.status().items() if count}
        assert list(done) == list(STEPS[: STEPS.index(stage)])
        if stage == "publish":
            with pytest.raises(StoreError, match="has no embedding yet"):
                _ = run.embedding
    rest = FailingEngine(sequential, tmp_path / "rest")
    run = fit(several, path, client=rest, **RESUMED)
    assert sha(run.embedding) == bits
    assert done | rest.counts() == status


@pytest.mark.parametrize("after", [False, True])
def test_a_task_that_failed_is_done_again(fit, several, uninterrupted, sequential, tmp_path, after):
    """Before its work, and after its data are written but not its record; in five stages in turn."""
    bits, status = uninterrupted
    tasks = {"scan": 0, "partition.shuffle": 0, "neighbors": 1, "calibrate": 1, "layout": 1}
    faults = {task: [Fault("power")] for task in tasks.items()}
    engine = FailingEngine(sequential, tmp_path / "w", faults, after=after)
    for stage, task in tasks.items():
        with pytest.raises(TaskError, match=rf"Stage '{stage}', task {task} failed with Fault: power\. "):
            fit(several, tmp_path / "run.zarr", client=engine, **RESUMED)
    run = fit(several, tmp_path / "run.zarr", client=engine, **RESUMED)
    assert sha(run.embedding) == bits
    assert engine.counts() == status | {stage: status[stage] + 1 for stage in tasks}


@pytest.mark.parametrize("keep", ["all", "graph", "embedding"])
def test_records_that_were_lost_are_made_again(fit, several, uninterrupted, sequential, tmp_path, keep):
    """With all that their stages read, where it was freed since."""
    bits, status = uninterrupted
    options = RESUMED | {"keep": keep}
    run = fit(several, tmp_path / "run.zarr", **options)
    lost = {"layout": 1, "publish": status["publish"], "report.summary": 1}
    for stage, count in lost.items():
        for record in sorted((tmp_path / "run.zarr").glob(f"ledger/*/*/{stage}/*.json"))[-count:]:
            record.unlink()
    next((tmp_path / "run.zarr").glob("ledger/*/*/finished.json")).unlink()
    zarr.open_array(str(tmp_path / "run.zarr" / "embedding"))[...] = 7
    engine = FailingEngine(sequential, tmp_path / "witnesses")
    run = fit(several, tmp_path / "run.zarr", client=engine, **options)
    assert engine.counts() == lost if keep == "all" else set(engine.counts()) > set(lost)
    assert sha(run.embedding) == bits
    assert daskumap.verify(run.path) == {}


def test_another_run_at_a_place_that_was_used(fit, several, sequential, tmp_path):
    """Nothing that this process holds of a run outlives it."""
    path = tmp_path / "run.zarr"
    with pytest.raises(TaskError):
        fit(
            several,
            path,
            client=FailingEngine(sequential, tmp_path / "w", {("layout", 2): [Fault()]}),
            **RESUMED,
        )
    shutil.rmtree(path)
    other = RESUMED | {"n_neighbors": 9, "report": False}
    assert sha(fit(several, path, **other).embedding) == sha(fit(several, **other).embedding)


def test_another_source_at_a_place_that_was_used(fit, small, write):
    path = write(small, chunks=(100, 8))
    fit(path, **QUICK)
    shutil.rmtree(path)
    other = np.flipud(small).astype("f8")
    write(other, chunks=(70, 3))
    assert sha(fit(path, **QUICK).embedding) == sha(fit(other, **QUICK).embedding)


def test_rows_that_were_mended_are_looked_at_again(fit, small, write, tmp_path):
    path = write(with_bad_rows(small, [123], np.nan))
    with pytest.raises(SourceError, match="row 123"):
        fit(path, tmp_path / "run.zarr", **QUICK)
    zarr.open_array(str(path))[123] = small[123]
    run = fit(path, tmp_path / "run.zarr", **QUICK)
    assert sha(run.embedding) == sha(fit(small, **QUICK).embedding)


def test_a_plan_that_was_refused_leaves_the_place_free(fit, small, tmp_path):
    with pytest.raises(daskumap.DaskumapError, match="Raise memory"):
        fit(small, tmp_path / "run.zarr", memory="425MB", **QUICK)
    assert fit(small, tmp_path / "run.zarr", n_neighbors=10, **QUICK).finished


# Quality.


def test_stale_snapshots_are_good_enough(fit, clustered):
    """With reconcile_every above 1 the result depends on the partitions; its quality hardly does."""
    measures = [
        fit(clustered[:2400], n_epochs=100, partitions=3, reconcile_every=every, report=True).report[
            "measures"
        ]
        for every in (1, 5)
    ]
    assert measures[0]["attractive_loss"] != measures[1]["attractive_loss"]
    assert measures[1]["trustworthiness"] > measures[0]["trustworthiness"] - 0.02
    assert measures[1]["flyaway_ratio"] < 3


def test_the_report(fit, clustered):
    report = fit(clustered[:2400], max_cell_rows=512, n_epochs=20, report=True).report
    assert set(report["steps"]) == set(STEPS)
    for stage in report["stages"].values():
        assert stage["seconds"] > 0
        assert stage["task_seconds"] > 0
        assert stage["peak_bytes"] > 10**8
        assert stage["tasks"] >= 1
    assert report["seconds"] == pytest.approx(sum(stage["seconds"] for stage in report["stages"].values()))
    assert 0 <= report["stages"]["layout"]["overhead_share"] <= 1
    assert report["params"]["random_state"] == 1
    assert report["sizes"]["rows"] == 2400
    measures = report["measures"]
    assert measures["rows"] == 2400
    assert 0.9 < measures["trustworthiness"] <= 1
    assert 0 < measures["cut_edge_share"] < 1
    assert measures["flyaway_ratio"] >= 1
    assert measures["attractive_loss"] > 0 < measures["repulsive_loss"]


def test_the_recall_is_true(fit, clustered):
    """Small cells and one cell a row, so that there is something to miss."""
    X = clustered[:3000]
    run = fit(X, max_cell_rows=256, max_overlap=1, n_epochs=5, report=True)
    ids, _ = run.knn()
    truth = overlap(exact_neighbors(X, 14), np.where(ids < 0, -2, ids))
    reported = run.report["measures"]["recall"]
    assert 0.3 < truth < 0.95
    # Some hundred probe rows of fourteen neighbours each.
    assert reported == pytest.approx(truth, abs=0.04)
    assert run.report["measures"]["probe_recall"] == pytest.approx(reported, abs=0.04)


def test_the_recall_reaches_its_target(fit, clustered):
    options = {"max_cell_rows": 1024, "target_recall": 0.97, "n_epochs": 5, "report": True}
    report = fit(clustered[:3000], **options).report
    assert report["measures"]["recall"] >= 0.96
    assert report["sizes"]["cells"] > 1


def test_small_cells_are_cells_not_slices(fit, clustered):
    """Rows of a cell that is too large are sliced at random; a limit must make more cells instead."""
    for metric in ("euclidean", "manhattan"):
        run = fit(clustered[:2000], max_cell_rows=256, metric=metric, n_epochs=5, report=True)
        assert run.report["measures"]["recall"] > 0.8


def test_trustworthiness_and_preservation_are_true(fit, small):
    """On few rows all of them are probes, and the report is exact."""
    X = small[:240]
    run = fit(X, n_epochs=50, report=True)
    measures = run.report["measures"]
    assert measures["probe_rows"] == 240
    map_ = run.embedding[:]
    assert measures["trustworthiness"] == pytest.approx(trustworthiness(X, map_, n_neighbors=14), abs=1e-6)
    near = exact_neighbors(X.astype(np.float64), 14)
    assert measures["knn_preservation"] == pytest.approx(overlap(near, exact_neighbors(map_, 14)), abs=1e-6)
    assert measures["recall"] == pytest.approx(1.0)


# Trustworthiness and preservation of 15 neighbours of umap-learn 0.5.12 on the digits: a mean of 3 seeds.
UMAP_LEARN = (0.9871, 0.5343)


def quality(X, near, map_):
    return trustworthiness(X, map_, n_neighbors=15), overlap(near, exact_neighbors(map_, 15))


def test_the_map_is_as_good_as_that_of_umap_learn(fit, pictures):
    maps = [fit(pictures, n_epochs=None, random_state=seed).embedding[:] for seed in range(3)]
    near = exact_neighbors(pictures, 15)
    ours = np.mean([quality(pictures, near, map_) for map_ in maps], axis=0)
    assert ours[0] >= UMAP_LEARN[0] - 0.005
    assert ours[1] >= UMAP_LEARN[1] - 0.003


@pytest.mark.slow
def test_what_is_known_of_umap_learn(pictures):
    import umap

    maps = [umap.UMAP(random_state=seed).fit_transform(pictures) for seed in range(3)]
    near = exact_neighbors(pictures, 15)
    theirs = np.mean([quality(pictures, near, map_) for map_ in maps], axis=0)
    assert theirs == pytest.approx(UMAP_LEARN, abs=0.001)
