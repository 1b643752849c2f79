"""Transform: what it promises and refuses, and how good the places of new rows are."""

from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import zarr
from scipy.spatial.distance import cdist
from sklearn.datasets import load_iris
from sklearn.neighbors import KNeighborsClassifier

import daskumap
from daskumap.cli.main import main
from daskumap.engine.sequential import SequentialEngine
from daskumap.errors import ParameterError, PlanError, RunMismatchError, SourceError, StoreError
from daskumap.store.places import find_place
from daskumap.store.run import RunStore
from daskumap.testing.datasets import digits
from daskumap.testing.faults import FailingEngine, Fault

QUIET = {"client": "sequential", "progress": False}
FIT = {"n_epochs": 20, "random_state": 1, "report": False, **QUIET}


@pytest.fixture(scope="module")
def run(small):
    return daskumap.fit(small[:350], **FIT)


# How good it is.


def split(data, labels):
    order = np.random.default_rng(0).permutation(len(data))
    rows, labels = data[order].astype(np.float32), labels[order]
    third = len(rows) // 3
    return rows[third:], labels[third:], rows[:third], labels[:third]


def trustworthiness(rows, places, new, new_places, k=15):
    """Return that of new rows, whose neighbours on the map and in the data are fitted rows."""
    near = cdist(new_places, places).argsort(axis=1)[:, :k]
    ranks = cdist(new, rows).argsort(axis=1).argsort(axis=1) + 1
    beyond = np.maximum(0, np.take_along_axis(ranks, near, axis=1) - k)
    return 1 - 2 / (len(new) * k * (2 * (len(rows) + 1) - 3 * k - 1)) * beyond.sum()


@pytest.mark.parametrize(
    ("data", "least", "accuracy"),
    [
        pytest.param(load_iris(return_X_y=True), 0.97, 0.92, id="iris"),
        pytest.param((digits().rows(), digits().labels()), 0.96, 0.95, id="digits"),
    ],
)
def test_new_rows_lie_among_their_own(data, least, accuracy):
    rows, labels, new, wanted = split(*data)
    run = daskumap.fit(rows, random_state=1, report=False, **QUIET)
    places, placed = run.embedding[:], run.transform(new, **QUIET).embedding[:]
    assert trustworthiness(rows, places, new, placed) >= least
    assert KNeighborsClassifier(5).fit(places, labels).score(placed, wanted) >= accuracy


def test_rows_unlike_any_are_flagged(small, run):
    usual = run.transform(small[350:], **QUIET).fit_distance[:]
    placed = run.transform(np.concatenate([small[350:] + 100, small[:7]]), **QUIET)
    assert placed.report["placed"] == {"rows": 57, "epochs": 6, "known": 7, "alone": 0, "unlike": 50}
    assert str(placed).startswith(
        "57 rows placed in 6 epochs: 7 equal a fitted row, 0 have no neighbour,\n50 "
    )
    assert (placed.fit_distance[:50] == 1).all()
    assert 0.2 < usual.mean() < 0.8
    again = run.transform(small[:350], **QUIET).fit_distance[:]
    assert again.mean() < 0.5
    assert ((again >= 0) & (again <= 1)).all()


def test_the_midst_is_usual():
    """The score orders rows by how far their neighbours are."""
    rng = np.random.default_rng(0)
    run = daskumap.fit(rng.normal(size=(500, 4)), **FIT)
    scores = run.transform(np.linspace(0, 6, 13)[:, None] * np.ones((1, 4)) / 2, **QUIET).fit_distance[:]
    assert (np.diff(scores) >= 0).sum() >= 11
    assert scores[0] < 0.2
    assert scores[-1] == 1


def test_rows_beyond_the_cutoff_have_no_place(small):
    run = daskumap.fit(small[:350], disconnection_distance=1e3, **FIT)
    placed = run.transform(np.concatenate([small[350:360], small[350:360] + 1e5]), **QUIET)
    assert np.isfinite(placed.embedding[:10]).all()
    assert np.isnan(placed.embedding[10:]).all()
    assert (placed.fit_distance[10:] == 1).all()


def test_a_neighbour_without_a_place_is_none(small):
    rows = np.concatenate([small[:350], small[:1] + 1e5])
    run = daskumap.fit(rows, disconnection_distance=1e3, **FIT)
    assert np.isnan(run.embedding[350]).all()
    placed = run.transform(rows[349:], **QUIET).embedding[:]
    np.testing.assert_array_equal(placed, run.embedding[349:])


# What it takes and refuses.


def test_rows_are_moved_as_those_of_the_fit(small):
    """Far from the origin float32 would make most of these rows equal."""
    moved = small.astype(np.float64) + 1e9
    run = daskumap.fit(moved[:350], **FIT)
    assert run.store.documents.load("facts/cast")["centre"] is not None
    placed = run.transform(moved[350:], **QUIET).embedding[:]
    assert len(np.unique(placed, axis=0)) == 50
    np.testing.assert_array_equal(run.transform(moved[:50], **QUIET).embedding[:], run.embedding[:50])
    # Another type of the same values: whole numbers are the same in both.
    whole = np.rint(moved)
    run = daskumap.fit(whole[:350], **FIT)
    placed = [run.transform(whole[350:].astype(kind), **QUIET).embedding[:] for kind in ("f8", "i8")]
    np.testing.assert_array_equal(*placed)


def test_rows_of_integers(small):
    """Exact as differences of integers, which float64 does not hold."""
    rows = np.rint(small * 100).astype(np.int64) + 2**55
    run = daskumap.fit(rows[:350], **FIT)
    np.testing.assert_array_equal(run.transform(rows[:50], **QUIET).embedding[:], run.embedding[:50])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X: X[:, :5], r"The new rows have 5 columns, and the run in .* was fitted to rows of 8\."),
        (lambda X: np.where(np.arange(50)[:, None] == 7, np.nan, X), r"1 of 50 rows hold NaN .* row 7\."),
        (lambda X: np.where(np.arange(50)[:, None] == 7, np.inf, X), r"1 of 50 rows hold NaN .* row 7\."),
        (lambda X: X[0], "2 are needed"),
    ],
)
def test_rows_that_are_refused(run, small, change, message):
    with pytest.raises(SourceError, match=message):
        run.transform(change(small[350:]), **QUIET)


def test_rows_that_the_metric_does_not_measure(small):
    run = daskumap.fit(small[:350], metric="cosine", **FIT)
    with pytest.raises(SourceError, match=r"'cosine' is not defined on 1 of 2 rows; the first: row 1\."):
        run.transform(np.stack([small[350], 0 * small[0]]), **QUIET)


def test_missing_chunks_are_refused_where_the_fit_does(write, small, tmp_path):
    run = daskumap.fit(write(small[:350]), tmp_path / "run.zarr", missing="refuse", **FIT)
    new = zarr.create_array(str(tmp_path / "new.zarr"), shape=(50, 8), chunks=(10, 8), dtype="f4")
    new[:40] = small[350:390]
    with pytest.raises(SourceError, match="lacks 1 chunks"):
        run.transform(tmp_path / "new.zarr", **QUIET)
    with pytest.raises(SourceError, match="lacks 1 chunks"):
        daskumap.open(tmp_path / "run.zarr").transform(tmp_path / "new.zarr", **QUIET)


def test_a_run_that_kept_its_embedding_alone(small, tmp_path):
    run = daskumap.fit(small, tmp_path / "run.zarr", keep="embedding", **FIT)
    with pytest.raises(
        StoreError, match=r"kept its embedding alone.* daskumap\.fit\(data, run, keep='model'"
    ):
        run.transform(small, **QUIET)


def test_a_run_that_is_no_model(small, tmp_path, run):
    placed = run.transform(small, tmp_path / "out.zarr", **QUIET)
    with pytest.raises(StoreError, match="holds new rows on a map"):
        daskumap.transform(placed.path, small, **QUIET)


def test_an_input_that_has_changed(write, small, tmp_path):
    path = write(small[:350])
    daskumap.fit(path, tmp_path / "run.zarr", **FIT)
    array = zarr.open_array(str(path))
    array[100, 0] += 1
    with pytest.raises(
        RunMismatchError, match=r"Rows 0 to 349 of .* are not those that the run in .* fitted"
    ):
        daskumap.transform(tmp_path / "run.zarr", small[350:], **QUIET)


def test_an_input_that_the_caller_names(write, small, tmp_path):
    """Where it was moved, or where the run store's word does not do."""
    path, place = write(small[:350]), tmp_path / "run.zarr"
    expected = daskumap.fit(path, place, **FIT).transform(small[350:], **QUIET).embedding[:]
    moved = path.rename(tmp_path / "moved.zarr")
    with pytest.raises(SourceError):
        daskumap.transform(place, small[350:], **QUIET)
    found = daskumap.transform(place, small[350:], fitted=moved, **QUIET)
    np.testing.assert_array_equal(found.embedding[:], expected)
    with pytest.raises(RunMismatchError, match=r"rows was .* and is now"):
        daskumap.transform(place, small[350:], fitted=write(small[50:]), **QUIET)


def test_rows_in_memory_stay_with_the_run():
    """A run that keeps its model keeps the rows; they are compared with those that were fitted."""
    rows = np.random.default_rng(0).normal(size=(300, 4)).astype("f4")
    run = daskumap.fit(rows, **FIT)
    kept = run.embedding[:20]
    data, rows = rows, None
    np.testing.assert_array_equal(run.transform(data[:20].copy(), **QUIET).embedding[:], kept)
    data[5] += 1
    with pytest.raises(RunMismatchError, match="are not those that the run"):
        run.transform(np.zeros((1, 4)), **QUIET)


def test_a_function_as_metric(small):
    import numba

    @numba.njit
    def taxi(x, y):
        return np.abs(x - y).sum()

    run = daskumap.fit(small[:200], metric=taxi, **FIT)
    np.testing.assert_array_equal(run.transform(small[:9], **QUIET).embedding[:], run.embedding[:9])


# Where it goes.


def test_out_is_read_by_zarr(run, small, tmp_path):
    placed = run.transform(small[350:], tmp_path / "out.zarr", **QUIET)
    group = zarr.open_group(str(tmp_path / "out.zarr"), mode="r")
    np.testing.assert_array_equal(group["embedding"][:], placed.embedding[:])
    np.testing.assert_array_equal(group["fit_distance"][:], placed.fit_distance[:])
    freed = placed.store.ledger.freed()
    assert freed == {"input/rows", "reached/cells", "reached/blocks", "gathered", "typical"}
    assert not any((tmp_path / "out.zarr" / name).exists() for name in freed)


def test_again_there_is_nothing_left_to_do(run, small, tmp_path, caplog):
    out = tmp_path / "out.zarr"
    first = run.transform(small[350:], out, **QUIET).embedding[:]
    with caplog.at_level("INFO"):
        again = run.transform(small[350:], out, **QUIET)
    assert "Nothing was left to do" in caplog.text
    np.testing.assert_array_equal(again.embedding[:], first)
    with pytest.raises(RunMismatchError, match="holds another run"):
        run.transform(small[340:], out, **QUIET)
    assert run.transform(small[340:], out, restart=True, **QUIET).embedding.shape == (60, 2)


def test_out_is_not_the_run(small, tmp_path):
    place = tmp_path / "run.zarr"
    run = daskumap.fit(small, place, **FIT)
    for restart in (False, True):
        with pytest.raises(ParameterError, match="where the run itself is"):
            run.transform(small, place, restart=restart, **QUIET)
    with pytest.raises(ParameterError, match="would lie in the Zarr node"):
        run.transform(small, place / "new.zarr", **QUIET)
    assert daskumap.verify(place) == {}


def test_another_run_in_the_place_of_the_model(small, write, tmp_path):
    place, out = tmp_path / "run.zarr", tmp_path / "out.zarr"
    new, engine = (
        write(small[:9]),
        FailingEngine(SequentialEngine(10**9), tmp_path, stop_at="transform.place"),
    )
    with pytest.raises(Fault):
        daskumap.fit(small, place, **FIT).transform(new, out, client=engine, progress=False)
    daskumap.fit(small[:300], place, restart=True, **FIT)
    with pytest.raises(RunMismatchError, match=r"id was .* and is now"):
        daskumap.transform(place, new, out, **QUIET)
    with pytest.raises(StoreError, match="holds another run than the one that"):
        daskumap.resume(out, **QUIET)


def test_the_command(small, write, tmp_path, capsys):
    run, new, out = (str(tmp_path / name) for name in ("run.zarr", "new.zarr", "out.zarr"))
    write(small[350:], "new.zarr")
    expected = daskumap.fit(small[:350], run, **FIT).transform(new, **QUIET).embedding[:]
    assert main(["transform", run, new, out, "--scheduler", "sequential"]) == 0
    said = capsys.readouterr()
    assert said.out.endswith(
        f"embedding            {out}/embedding\nfit distance         {out}/fit_distance\n"
    )
    assert "daskumap  transform: 4 tasks, " in said.err
    np.testing.assert_array_equal(daskumap.open(out).embedding[:], expected)
    assert main(["status", out, "--json"]) == 0
    assert '"transform.place": 1' in capsys.readouterr().out
    assert main(["verify", out]) == 0
    assert main(["report", out]) == 0
    capsys.readouterr()
    assert main(["plan", new, "--run", run]) == 0
    assert "into the map of 350 rows" in capsys.readouterr().out
    assert main(["resume", out, "--quiet"]) == 0


@pytest.mark.parametrize(
    "url", ["s3://elsewhere/run.zarr", "http://elsewhere/run.zarr", "file:///a::s3://b/c"]
)
def test_a_model_on_another_host_is_not_contacted(run, small, write, tmp_path, url):
    out, new = tmp_path / "out.zarr", write(small[350:])
    run.transform(new, out, **QUIET)
    store = RunStore.open(find_place(out))
    about = {name: value for name, value in store.about.items() if name not in ("schema", "crc32")}
    store.replace({**about, "model": {**about["model"], "url": url}})
    with pytest.raises(StoreError, match="which is not contacted on the word of a run store"):
        daskumap.verify(out)


# What it takes.


def transform_apart(place, new, out, memory):
    return daskumap.transform(place, new, out, memory=memory, **QUIET).report["steps"]


@pytest.mark.parametrize("memory", [None, "560MB"])
def test_memory_is_as_planned(clustered, tmp_path, forks, memory):
    """In a process without what other tests left in memory; with little, rows of the model are not held."""
    place, out = tmp_path / "run.zarr", tmp_path / "out.zarr"
    rows = np.repeat(clustered, 4, axis=1)
    daskumap.fit(rows[:5000], place, **FIT)
    with ProcessPoolExecutor(1, forks) as process:
        steps = process.submit(transform_apart, place, rows[5000:], out, memory).result()
    assert list(steps) == ["transform.reach", "transform.scan", "transform.gather", "transform.place"]
    assert all(0 < step["peak_bytes"] <= step["projected_bytes"] for step in steps.values())


def test_the_plan_of_few_rows_is_small(run, small):
    """Few rows reach few cells, of which alone rows are gathered; and a plan starts nothing."""
    few, many = (daskumap.plan(small[:n], run, memory="1GB", calibrate=False) for n in (1, 400))
    assert few.disk_bytes < many.disk_bytes
    assert "into the map of 350 rows" in str(few)
    assert [stage.tasks for stage in few.stages] == [1] * 4
    with pytest.raises(ParameterError, match="A transform has the parameters of its run"):
        daskumap.plan(small, run, n_neighbors=5)
    with pytest.raises(PlanError, match=r"Stage 'transform\.\w+' needs .* memory is 0\.30 GB"):
        run.transform(small, memory="300MB", **QUIET)
