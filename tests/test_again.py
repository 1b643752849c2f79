"""A fit of a finished run's neighbours: the bits of a fit of the rows, without a search, whole by itself."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

import daskumap
from daskumap import UMAP
from daskumap.cli.main import main
from daskumap.engine.sequential import SequentialEngine
from daskumap.engine.threads import ThreadsEngine
from daskumap.errors import ParameterError, RunMismatchError, StoreError
from daskumap.report.progress import Silent
from daskumap.request import make_again_request, make_request
from daskumap.run import Run
from daskumap.session import fit_request
from daskumap.testing.datasets import uneven_clusters
from daskumap.testing.faults import FailingEngine, Fault, ShufflingEngine

MEMORY = 4 * 10**9
WORDS = {"random_state": 1, "n_epochs": 2, "report": False, "max_cell_rows": 256}


def fitted(rows, out=None, engine=None, **words):
    """Fit rows in blocks of 500, and partitions of a vertex chunk."""
    return done(make_request(rows, {**WORDS, **words}, None), out, engine, row_block=500)


def again(run, out=None, engine=None, **words):
    """Fit a run's neighbours."""
    return done(make_again_request(run.model(), words, None), out, engine)


def done(request, out, engine, **sizes):
    def adjust(made):
        return dataclasses.replace(made, partition_rows=made.vertex_chunk, **sizes)

    request = dataclasses.replace(request, adjust=adjust)
    store = fit_request(request, out, engine or SequentialEngine(MEMORY), Silent(), restart=False)
    params = None if store.place.shared else request.params
    return Run(store, params, None if store.place.shared else request.source)


def same(run, other):
    np.testing.assert_array_equal(run.embedding[:], other.embedding[:])


def same_graph(run, other):
    for one, two in zip((*run.knn(), *run.calibration()), (*other.knn(), *other.calibration()), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (run.graph() != other.graph()).nnz == 0


@pytest.fixture(scope="module")
def rows():
    return uneven_clusters(1500, 8, 6, seed=2).rows()


@pytest.fixture(scope="module")
def source(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "x.zarr"
    zarr.create_array(str(path), data=rows, chunks=(300, 8))
    return path


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    found = fitted(source, tmp_path_factory.mktemp("run") / "run.zarr")
    assert found.store.documents.load("facts/cells")["cells"] > 3
    assert len(found.store.documents.members("graph")) == 3  # partitions, and the group's own metadata
    return found


STARTS = {
    "pca": {},
    "spectral": {"init": "spectral"},
    "random": {"init": "random"},
    "array": {"init": np.random.default_rng(0).random((1500, 2), np.float32)},
}


@pytest.mark.parametrize("start", STARTS)
def test_nothing_else_gives_the_same_bits(rows, start, few_micro_cells):
    before = fitted(rows, report=start == "pca", **STARTS[start])
    after = again(before)
    same(before, after)
    same_graph(before, after)
    assert before.report["measures"] == after.report["measures"]
    assert before.params == after.params
    assert not {"neighbors", "calibrate", "symmetrize", "start.sample"} & after.status().keys()


OTHERS = {
    "curve and layout": {
        "spread": 2.0,
        "a": 1.2,
        "b": 0.8,
        "n_epochs": 3,
        "learning_rate": 0.5,
        "repulsion_strength": 2.0,
        "negative_sample_rate": 2,
    },
    "optimizer": {"min_dist": 0.6, "optimizer": "sgd", "reconcile_every": 2},
    "dimension": {"n_components": 3},
    "spectral": {"init": "spectral"},
    "array": STARTS["array"],
    "mix and connectivity": {"set_op_mix_ratio": 0.3, "local_connectivity": 2.5},
    "cutoff": {"disconnection_distance": 3.0},
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_parameter_gives_the_bits_of_a_fit(rows, run, other, few_micro_cells):
    """Whatever it touches is made anew, to the bits that a fit of the rows gives."""
    after, expected = again(run, **OTHERS[other]), fitted(rows, **OTHERS[other])
    same(after, expected)
    same_graph(after, expected)
    graph = other in ("mix and connectivity", "cutoff")
    start = other in ("dimension", "spectral")
    status = after.status()
    assert ("symmetrize" in status, "taken.graph" in status) == (graph, not graph)
    assert ("start.sample" in status) == start
    assert {name: run.params[name] for name in run.params.keys() - OTHERS[other].keys()} == {
        name: after.params[name] for name in run.params.keys() - OTHERS[other].keys()
    }


def test_fewer_neighbors(rows, run):
    after = again(run, n_neighbors=6)
    indices, distances = run.knn()
    for found, known in zip(after.knn(), (indices, distances), strict=True):
        np.testing.assert_array_equal(found, known[:, :5])
    given = fitted(rows, n_neighbors=6, precomputed_knn=(indices, distances))
    assert abs(after.graph() - given.graph()).max() < 1e-7
    again(after, n_neighbors=4, report=True)


def test_another_seed(run):
    one, two = (again(run, random_state=seed) for seed in (2, 2))
    same(one, two)
    same_graph(one, run)
    assert not np.array_equal(one.embedding[:], run.embedding[:])
    assert again(run, random_state=None).params["random_state"] != 1


def test_min_dist_outweighs_a_curve_that_was_given(rows):
    before = fitted(rows, a=1.5, b=0.9)
    assert (again(before).params["a"], again(before, min_dist=0.3).params["a"]) == (1.5, None)
    same(again(before, min_dist=0.3), fitted(rows, min_dist=0.3))


@pytest.mark.parametrize(
    "words",
    [
        {"metric": "cosine"},
        {"metric": "minkowski", "metric_kwds": {"p": 3}},
        {"unique": True},
        {"n_neighbors": 16},
        {"target_recall": 0.9},
        {"max_overlap": 3},
        {"max_cell_rows": 600},
        {"missing": "refuse"},
    ],
    ids=str,
)
def test_another_search_is_refused(run, words, tmp_path):
    name, value = list(words.items())[-1]
    with pytest.raises(ParameterError, match=rf"{name} was .* and is now {value!r}".replace("{", r"\{")):
        daskumap.fit(run, tmp_path / "out.zarr", **words)
    assert not (tmp_path / "out.zarr").exists()


def test_neighbors_beyond_the_cutoff_are_gone(rows):
    near = fitted(rows, disconnection_distance=3.0)
    with pytest.raises(ParameterError, match=r"disconnection_distance was 3\.0 and is now 4\.0"):
        again(near, disconnection_distance=4.0)
    same(again(near, disconnection_distance=2.5), fitted(rows, disconnection_distance=2.5))


def test_other_refusals(run, tmp_path, fit, small, sequential):
    with pytest.raises(ParameterError, match="where the run itself is"):
        daskumap.fit(run, run.path, restart=True, progress=False)
    with pytest.raises(ParameterError, match="Did you mean 'min_dist'"):
        daskumap.fit(run, min_dst=0.5)
    small_run = fit(small, tmp_path / "map.zarr", keep="embedding")
    with pytest.raises(StoreError, match="kept its embedding alone"):
        daskumap.fit(small_run)
    with pytest.raises(Fault):
        fit(small, tmp_path / "half.zarr", client=FailingEngine(sequential, tmp_path / "w", stop_at="layout"))
    with pytest.raises(StoreError, match="is unfinished"):
        daskumap.fit(tmp_path / "half.zarr")


def test_any_engine(run, tmp_path):
    words = {"n_components": 3, "set_op_mix_ratio": 0.5}
    expected = again(run, **words)
    same(again(run, tmp_path / "1.zarr", ThreadsEngine(MEMORY, 2), **words), expected)
    same(again(run, tmp_path / "2.zarr", ShufflingEngine(SequentialEngine(MEMORY), 0), **words), expected)


def test_a_cluster(run, client_1x2, tmp_path):
    words = {"n_components": 3, "set_op_mix_ratio": 0.5}
    made = daskumap.fit(run.path, tmp_path / "out.zarr", client=client_1x2, progress=False, **words)
    same(made, again(run, **words))


def test_a_run_in_memory_is_out_of_reach_of_a_cluster(fit, small, client_1x2):
    with pytest.raises(ParameterError, match="workers of the cluster cannot reach the run"):
        daskumap.fit(fit(small), client=client_1x2)


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run that may go."""
    return shutil.copytree(run.path, tmp_path / "copy.zarr")


@pytest.mark.parametrize("rows_in", ["memory", "a place"])
def test_either_may_be_deleted(rows, source, rows_in, tmp_path):
    before = fitted(rows if rows_in == "memory" else source, tmp_path / "before.zarr")
    after = again(before, tmp_path / "after.zarr", min_dist=0.3)
    expected = before.knn()
    gone = shutil.move(before.path, tmp_path / "gone.zarr")
    assert daskumap.verify(after.path) == {}
    after = daskumap.open(after.path)
    for found, known in zip(after.knn(), expected, strict=True):
        np.testing.assert_array_equal(found, known)
    placed = after.transform(rows[:9], **QUICK).embedding[:]
    np.testing.assert_array_equal(placed, after.embedding[:9])
    # And once more, from the second one.
    same(again(after, min_dist=0.1), Run(daskumap.open(gone).store))
    assert daskumap.resume(after.path, progress=False).finished


QUICK = {"client": "sequential", "progress": False}
STEPS = ("taken.cells", "taken.graph", "start.places", "layout")


@pytest.mark.parametrize("step", STEPS)
def test_a_fit_that_died_goes_on(run, copy, step, tmp_path):
    words = {"n_components": 3, "set_op_mix_ratio": 0.5} if step == "start.places" else {"min_dist": 0.3}
    engine = FailingEngine(SequentialEngine(MEMORY), tmp_path / "witness", stop_at=step)
    out = tmp_path / "out.zarr"
    with pytest.raises(Fault):
        again(daskumap.open(copy), out, engine, **words)
    copied = step in ("start.places", "layout")
    shutil.move(copy, tmp_path / "away.zarr")
    if not copied:
        with pytest.raises(StoreError, match="There is no run store at"):
            daskumap.resume(out, **QUICK)
        shutil.move(tmp_path / "away.zarr", copy)
    same(daskumap.resume(out, **QUICK), again(run, **words))
    assert daskumap.verify(out) == {}


def test_a_fit_that_is_called_again(run, tmp_path):
    made = daskumap.fit(run, tmp_path / "out.zarr", min_dist=0.3, **QUICK)
    assert daskumap.fit(run.path, tmp_path / "out.zarr", min_dist=0.3, **QUICK).finished
    with pytest.raises(RunMismatchError, match=r"min_dist was 0\.3 and is now 0\.4"):
        daskumap.fit(run, made.path, min_dist=0.4, **QUICK)


def test_damage_is_mended_while_the_run_is_there(run, copy, tmp_path):
    made = again(daskumap.open(copy), tmp_path / "out.zarr", min_dist=0.3)
    chunk = tmp_path / "out.zarr/graph/00000001/weights/c/0"
    chunk.write_bytes(bytes(len(chunk.read_bytes())))
    assert list(daskumap.verify(made.path, repair=True)) == ["taken.graph"]
    shutil.move(copy, tmp_path / "away.zarr")
    with pytest.raises(StoreError, match=r"is gone, and is needed to mend what was copied"):
        daskumap.resume(made.path, **QUICK)
    shutil.move(tmp_path / "away.zarr", copy)
    same(daskumap.resume(made.path, **QUICK), again(run, min_dist=0.3))
    assert daskumap.verify(made.path) == {}


def test_rows_that_changed_are_refused_where_they_are_read(rows, tmp_path):
    path = tmp_path / "x.zarr"
    array = zarr.create_array(str(path), data=rows, chunks=(300, 8))
    before = fitted(path, tmp_path / "run.zarr")
    array[777] = 0.0  # no row that a fingerprint reads
    again(before, min_dist=0.3)  # It reads no rows.
    with pytest.raises(RunMismatchError, match=r"Rows 500 to 999 of .* are not those that the run in"):
        again(before, n_components=3)


def test_copies_of_rows(rows):
    X = np.concatenate([rows[:1200], rows[:300]])[np.random.default_rng(0).permutation(1500)]
    before = fitted(X, unique=True)
    words = {"n_components": 3, "local_connectivity": 2.0}
    after, expected = again(before, report=True, **words), fitted(X, unique=True, report=True, **words)
    same(after, expected)
    assert after.report["measures"] == expected.report["measures"]


def test_rows_in_doubt(rows):
    """The report measures probes that float32 may not tell as stored: which these are is copied."""
    X = np.abs(rows) + 3e3
    before = fitted(X, metric="cosine", report=True)
    assert before.store.documents.load("facts/order")["doubted"] > 0
    after = again(before)
    same(before, after)
    assert after.report["measures"] == before.report["measures"]


def test_rows_that_were_moved(rows):
    X = rows.astype(np.float64) * 2.0**-100 + 0.0
    before = fitted(X)
    same(before, again(before))
    same(again(before, disconnection_distance=3 * 2.0**-100), fitted(X, disconnection_distance=3 * 2.0**-100))


def test_a_plan(run, source):
    planned = daskumap.plan(run.path, min_dist=0.3, calibrate=False)
    assert "from the neighbours of the run in" in str(planned)
    assert [stage.name for stage in planned.stages][:5] == [
        "scan",
        "taken.cells",
        "taken.neighbors",
        "taken.graph",
        "taken.start",
    ]
    assert planned.kept_bytes < 2 * daskumap.plan(source, calibrate=False, report=False).kept_bytes


def test_the_command_line(run, tmp_path):
    out = str(tmp_path / "out.zarr")
    assert main(["fit", run.path, out, "--min-dist", ".5", "--scheduler", "sequential", "--quiet"]) == 0
    same(daskumap.open(out), again(run, min_dist=0.5))
    assert main(["resume", out, "--quiet"]) == 0
    assert main(["verify", out]) == 0


# The map of a run as the start.


def test_a_run_is_a_start(rows, run, fit, tmp_path):
    expected = again(run, init=run.embedding[:], min_dist=0.4)
    same(daskumap.fit(run, init=run.path, min_dist=0.4, **QUICK), expected)
    same(daskumap.fit(rows, init=run, **QUICK, **WORDS), fitted(rows, init=run.embedding[:]))
    made = daskumap.fit(run, tmp_path / "out.zarr", init=run, min_dist=0.4, **QUICK)
    same(again(daskumap.open(made.path)), expected)  # The start is kept.


def test_a_path_is_no_name(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    allowed = "allowed are pca, spectral, tswspectral, random, an array"
    with pytest.raises(ParameterError, match=f"init is 'spectrl'; {allowed}"):
        daskumap.fit(run, init="spectrl")
    for place in ("runs/spectral", "spectral.zarr"):
        with pytest.raises(StoreError, match="There is no run store at"):
            daskumap.fit(run, init=place)


def test_a_start_of_another_shape(run, fit, small):
    with pytest.raises(ParameterError, match=r"init is an array of shape \(400, 2\)"):
        daskumap.fit(run, init=fit(small))
    with pytest.raises(ParameterError, match=r"it must be \(1500, 3\)"):
        daskumap.fit(run, init=run, n_components=3)


def test_rows_off_the_map_start_in_its_middle(rows):
    before = fitted(rows, disconnection_distance=1.0)
    places = before.embedding[:]
    gone = np.isnan(places[:, 0])
    assert gone.any()
    places[gone] = places[~gone].mean(axis=0)
    same(again(before, init=places), daskumap.fit(before, init=before, **QUICK))


# The estimator.


def test_the_estimator(run, rows):
    words = {"n_epochs": 2, "random_state": 1, "max_cell_rows": 256, "client": "sequential", "min_dist": 0.4}
    model = UMAP(init="pca", **words).fit(run)
    same(SimpleNamespace(embedding=model.embedding_), again(run, min_dist=0.4))
    assert (model.n_features_in_, model._n_neighbors) == (8, 15)
    assert model.transform(rows[:5]).shape == (5, 2)
    assert isinstance(UMAP(init="pca", **words).fit(fitted(rows)).embedding_, np.ndarray)
