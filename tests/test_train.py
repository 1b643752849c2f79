"""A training is a run: the same network for any engine, partition and death; and what it is told counts."""

import dataclasses
import shutil

import numpy as np
import pytest
import zarr
from scipy.sparse import csr_array

import daskumap
from daskumap.engine.clusters import make_engine
from daskumap.engine.sequential import SequentialEngine
from daskumap.engine.threads import ThreadsEngine
from daskumap.errors import ParameterError, PlanError, RunMismatchError, SourceError, StoreError, TaskError
from daskumap.kernels.encoder.network import Layer, apply, unpack
from daskumap.report.progress import Silent
from daskumap.session import fit_request
from daskumap.store.model import Model, in_run
from daskumap.testing.datasets import uneven_clusters
from daskumap.testing.faults import FailingEngine, Fault
from daskumap.train_request import make_train_request
from daskumap.training import trained_run

MEMORY = 4 * 10**9
QUICK = {"client": "sequential", "progress": False}
FIT = {**QUICK, "random_state": 1, "n_epochs": 4, "report": False, "max_cell_rows": 512}
# Segments of 20 steps, which no stretch of 40 ends with.
WORDS = {
    "steps": 90,
    "checkpoint_steps": 20,
    "hidden": (16, 12),
    "batch_edges": 32,
    "report": False,
    "keep": "all",
}


def trained(run, out=None, engine=None, labels=None, landmarks=None, sizes=None, **words):
    """Train; `sizes` are some that may not matter."""
    request = make_train_request(run.model(), {**WORDS, **words}, labels, landmarks)
    if sizes:
        request = dataclasses.replace(request, adjust=lambda made: dataclasses.replace(made, **sizes))
    store = fit_request(request, out, engine or SequentialEngine(MEMORY), Silent(), restart=False)
    return trained_run(store, request)


def same(one, other):
    np.testing.assert_array_equal(one.embedding[:], other.embedding[:])
    assert one.history == other.history


@pytest.fixture(scope="module")
def rows():
    return uneven_clusters(3000, 8, 6, seed=2).rows()


@pytest.fixture(scope="module")
def source(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "x.zarr"
    zarr.create_array(str(path), data=rows, chunks=(300, 8))
    return path


@pytest.fixture(scope="module")
def run(rows):
    """In memory."""
    return daskumap.fit(rows, **FIT)


@pytest.fixture(scope="module")
def stored(source, tmp_path_factory):
    """Where other processes and drivers find it."""
    return daskumap.fit(source, tmp_path_factory.mktemp("run") / "run.zarr", **FIT)


@pytest.fixture(scope="module")
def expected(run):
    """What one process makes of it, one task after the other."""
    return trained(run)


KINDS = {
    "2 threads": {"engine": ThreadsEngine(MEMORY, 2)},
    "4 threads": {"engine": ThreadsEngine(MEMORY, 4)},
    "small partitions": {"sizes": {"partition_rows": 1024}},
    "checkpoints": {"checkpoint_steps": 7},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_are_the_same(run, expected, kind):
    np.testing.assert_array_equal(trained(run, **KINDS[kind]).embedding[:], expected.embedding[:])


def test_other_chunks_of_the_input(rows, expected, tmp_path):
    """And so other row blocks, which are those of the run."""
    zarr.create_array(str(tmp_path / "x.zarr"), data=rows, chunks=(1024, 3))
    other = daskumap.fit(tmp_path / "x.zarr", memory="700MB", **FIT)
    assert other.store.about["sizes"]["row_block"] != expected.store.about["sizes"]["row_block"]
    same(trained(other), expected)


REPLICAS = {"replicas": 2, "average_every": 15}


@pytest.fixture(scope="module")
def averaged(run):
    return trained(run, **REPLICAS)


def test_a_cluster_of_two_processes(stored, expected, averaged, client_processes, tmp_path):
    """The averaged one in rounds, a replica on each worker."""
    engine = make_engine(client_processes, None, None)
    same(trained(stored, tmp_path / "one.zarr", engine), expected)
    same(trained(stored, tmp_path / "averaged.zarr", engine, **REPLICAS), averaged)


def test_replicas(run, expected, averaged):
    """Each draws its own edges; where they are averaged does not depend on where segments end."""
    assert not np.array_equal(averaged.embedding[:], expected.embedding[:])
    other = trained(run, engine=ThreadsEngine(MEMORY, 2), checkpoint_steps=31, **REPLICAS)
    np.testing.assert_array_equal(other.embedding[:], averaged.embedding[:])
    apart = trained(run, replicas=2, average_every=1000)
    assert not np.array_equal(averaged.embedding[:], apart.embedding[:])


WINDOWS = {"window_rows": 1024}


def test_windows(run, expected):
    """A window is the same whatever reads it; half of the steps regress to the map."""
    found = trained(run, **WINDOWS)
    same(trained(run, engine=ThreadsEngine(MEMORY, 2), sizes={"partition_rows": 1024}, **WINDOWS), found)
    assert not np.array_equal(found.embedding[:], expected.embedding[:])
    assert [bool(one["map"]) for one in found.history] == [True, True, True, False, False]
    assert not np.array_equal(trained(run, **WINDOWS, warm_start=0.0).embedding[:], found.embedding[:])


def test_some_of_the_rows(run, expected):
    """Larger data are represented by whole runs of vertices; all rows are mapped."""
    found = trained(run, encoder_rows=1024, warm_start=0.0)
    assert np.isfinite(found.embedding[:]).all()
    assert not np.array_equal(found.embedding[:], expected.embedding[:])
    same(trained(run, encoder_rows=1024, warm_start=0.0, sizes={"partition_rows": 1024}), found)


# Deaths.

STEPS = (
    "encoder.axes",
    "encoder.project",
    "encoder.rows",
    "encoder.train",
    "encoder.weights",
    "encoder.embed",
)


@pytest.mark.parametrize("step", STEPS)
def test_a_training_that_died_goes_on(stored, expected, step, held, tmp_path):
    engine = FailingEngine(SequentialEngine(MEMORY), tmp_path / "witness", stop_at=step)
    with pytest.raises(Fault):
        trained(stored, held, engine, keep="embedding")
    same(daskumap.resume(held, **QUICK), expected)
    assert daskumap.verify(held) == {}


@pytest.mark.parametrize("words", [{}, REPLICAS, WINDOWS], ids=["one", "replicas", "windows"])
def test_killed_in_the_middle(run, words, held, tmp_path):
    """The segment that was cut short is run again, from the checkpoint before."""
    faults = {("encoder.train", 2): (Fault(),)}
    engine = FailingEngine(SequentialEngine(MEMORY), tmp_path / "w", faults, after=not words)
    with pytest.raises(TaskError, match=r"Stage 'encoder.train', task 2 failed with Fault"):
        trained(run, held, engine, **words)
    assert len(daskumap.open(held).history) == 2
    engine = FailingEngine(SequentialEngine(MEMORY), tmp_path / "again")
    found = trained(run, held, engine, **words)
    same(found, trained(run, **words))
    assert engine.counts()["encoder.train"] == len(found.history) - 2


def test_a_lost_checkpoint(run, expected, tmp_path, held):
    """The one before it is there."""
    engine = FailingEngine(SequentialEngine(MEMORY), tmp_path / "w", {("encoder.train", 3): (Fault(),)})
    with pytest.raises(TaskError):
        trained(run, held, engine)
    for key in [key for key in held._store_dict if key.startswith("encoder.train/00000002/mean/c/")]:
        del held._store_dict[key]
    assert list(daskumap.verify(held)) == ["encoder.train"]
    same(daskumap.resume(held, **QUICK), expected)
    assert daskumap.verify(held) == {}


def test_another_training_is_refused(run, held):
    trained(run, held)
    with pytest.raises(
        RunMismatchError, match=r"encoder was .*'batch_edges': 32.* and is now .*'batch_edges': 33"
    ):
        trained(run, held, batch_edges=33)
    with pytest.raises(RunMismatchError, match="labels"):
        trained(run, held, labels=np.zeros(3000, int))


def test_a_loss_that_is_not_finite(run, held):
    words = {"encoder_learning_rate": 10.0, "hidden": (50,) * 8, "steps": 300, "global_weight": 1e6}
    with pytest.raises(TaskError, match=r"loss of the training is not finite in segment \d+, steps .* lower"):
        trained(run, held, **words)
    found = daskumap.open(held)
    assert not found.finished
    assert found.status()["encoder.train"] == len(found.history)
    assert daskumap.verify(held) == {}


# What the network learns.


def test_planted_clusters():
    """Rows of other clusters are farther than the own ones: also where an encoder puts them."""
    data = uneven_clusters(1500, 24, 5, seed=4)
    run = daskumap.fit(data.rows(), **{**FIT, "transform_mode": "graph"})
    found = daskumap.train(run, steps=600, report=False, **QUICK).embedding[:]
    nearest = ((found[:, None] - found[None]) ** 2).sum(axis=2)
    np.fill_diagonal(nearest, np.inf)
    labels = data.labels()
    assert (labels[nearest.argmin(axis=1)] == labels).mean() > 0.99


def test_folded_axes(rows, expected):
    """The finished network takes rows as they are, and puts them where the trained one does."""
    store = expected.store
    state = store.read("encoder.train/00000004/weights")[0]
    layers = unpack(state, {"encoder": (8, 16, 12, 2)})["encoder"]
    places = apply(layers, store.read("encoder/rows"))[store.read("rows/vertex")]
    np.testing.assert_allclose(expected.embedding[:], places, atol=1e-5)
    np.testing.assert_array_equal(apply(model_of(expected, "encoder"), rows), expected.embedding[:])


def model_of(run, part):
    return tuple(Layer(*one) for one in Model.read(in_run(run.store.documents)).layers(part))


def test_fewer_axes_and_none(run, rows):
    few, raw = trained(run, input_axes=3), trained(run, input_axes=None)
    assert few.store.read("encoder/rows").shape == (3000, 3)
    assert 0.2 < few.store.documents.load("facts/encoder")["variance"] < 0.99
    np.testing.assert_array_equal(raw.store.read("encoder/rows")[raw.store.read("rows/vertex")], rows)
    for found in (few, raw):
        assert np.isfinite(found.embedding[:]).all()
        np.testing.assert_array_equal(apply(model_of(found, "encoder"), rows), found.embedding[:])


def test_labels(run, rows):
    """A head learns the classes of the rows that have one, by the user's order of the rows."""
    labels = np.where(rows[:, 0] > np.median(rows[:, 0]), 7, 3)
    labels[::3] = -1
    found = trained(run, labels=labels, steps=400)
    model = Model.read(in_run(found.store.documents))
    assert model.classes == (3, 7)
    hidden = np.maximum(apply(model_of(found, "encoder")[:-1], rows), 0)
    scores = apply(model_of(found, "head"), hidden)
    known = labels >= 0
    assert (np.array(model.classes)[scores.argmax(axis=1)] == labels)[known].mean() > 0.95
    assert found.history[-1]["labels"] < 0.3 * found.history[0]["labels"]


def test_landmarks(run, rows, expected):
    """Rows with a place are pulled there."""
    places = np.full((3000, 2), np.nan)
    chosen = np.arange(0, 3000, 100)
    places[chosen] = rows[chosen, :2] * 3 + 100
    found = trained(run, landmarks=places, landmark_weight=10.0, steps=800)
    far = np.linalg.norm(found.embedding[:][chosen] - places[chosen], axis=1)
    before = np.linalg.norm(expected.embedding[:][chosen] - places[chosen], axis=1)
    assert np.median(far) < 0.1 * np.median(before)
    assert found.history[-1]["landmarks"] < 0.1 * found.history[0]["landmarks"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"labels": np.zeros(3, int)}, r"labels have shape \(3,\) .*; they must be 3,000 integers or"),
        ({"labels": np.arange(-1, 2999) * 4}, None),
        ({"landmarks": np.zeros((3000, 3))}, r"landmarks have shape \(3000, 3\).*must be \(3000, 2\)"),
        ({"landmarks": np.tile([0.0, np.nan], (3000, 1))}, r"3,000 rows with a place that is neither finite"),
    ],
)
def test_what_is_known_of_rows_is_checked(run, words, message):
    if message is None:
        assert (
            len(trained(run, steps=2, **words).store.about["params"]["encoder"]["labels"]["classes"]) == 3000
        )
        return
    with pytest.raises(ParameterError, match=message):
        trained(run, **words)


def test_no_label_at_all(run, expected):
    """No head is trained, and nothing changes; of one class there is a head that says nothing."""
    same(trained(run, labels=np.full(3000, -1), landmarks=np.full((3000, 2), np.nan)), expected)
    one = trained(run, labels=np.where(np.arange(3000) < 9, 5, -1))
    assert Model.read(in_run(one.store.documents)).classes == (5,)
    assert one.history[-1]["labels"] == 0.0


def test_a_decoder(run, rows):
    found = trained(run, decoder=True, autoencoder_weight=1.0, n_components=6, steps=800)
    back = apply(model_of(found, "decoder"), found.embedding[:])
    error = ((back - rows) ** 2).mean()
    assert error < 0.3 * rows.var(axis=0).mean()
    assert found.history[-1]["reconstruction"] < found.history[0]["reconstruction"]


def test_other_parameters_of_the_map(run, expected):
    """Of the curve, of the seed, and of the number of columns."""
    for words in ({"min_dist": 0.5}, {"random_state": 2}, {"repulsion_strength": 2.0}, {"loss": "exact"}):
        assert not np.array_equal(trained(run, **words).embedding[:], expected.embedding[:])
    assert trained(run, n_components=3).embedding.shape == (3000, 3)


# Rows of other kinds.


def test_sparse_rows(rows):
    few = np.where(np.abs(rows) > 1, rows, 0)[:600]
    dense, sparse = (daskumap.fit(X, **FIT) for X in (few, csr_array(few)))
    same(trained(sparse), trained(dense))


def test_another_metric(rows):
    """The network takes rows as they are, whatever the metric makes of them."""
    X = np.abs(rows[:600]) * 50
    run = daskumap.fit(X, metric="cosine", **FIT)
    found = trained(run)
    np.testing.assert_array_equal(apply(model_of(found, "encoder"), X), found.embedding[:])


def test_copies_and_rows_alone(rows):
    """Copies of a row are where it is; a row without edges has a place as well."""
    X = np.concatenate([rows[:600], rows[:200], [rows[0] + 1000]])
    run = daskumap.fit(X, unique=True, disconnection_distance=100.0, **FIT)
    found = trained(run, report=True)
    places = found.embedding[:]
    np.testing.assert_array_equal(places[600:800], places[:200])
    assert np.isfinite(places).all()
    measures = found.report["measures"]
    assert (measures["isolated_rows"], measures["duplicate_rows"]) == (1, 200)


def test_rows_that_are_left_out(rows):
    X = np.abs(rows[:600])
    X[::50] = 0.0
    places = trained(daskumap.fit(X, metric="cosine", undefined="isolate", **FIT)).embedding[:]
    assert np.isnan(places[::50]).all()
    assert np.isfinite(np.delete(places, np.s_[::50], axis=0)).all()


def test_odd_rows():
    """Three rows; and constant columns."""
    X = np.zeros((40, 5), np.float32)
    X[:, 1] = np.arange(40)
    for part, neighbors in ((X, 5), (X[:3], 2)):
        run = daskumap.fit(part, **{**FIT, "n_neighbors": neighbors})
        assert np.isfinite(trained(run).embedding[:]).all()


def test_runs_without_rows(rows, fit):
    distances = np.abs(rows[:50, :1] - rows[:50, 0])
    with pytest.raises(ParameterError, match="was fitted to distances, and a network maps rows"):
        daskumap.train(fit(distances, metric="precomputed"))
    with pytest.raises(ParameterError, match="has output_metric 'haversine'"):
        daskumap.train(fit(rows[:99], output_metric="haversine"))
    with pytest.raises(StoreError, match="kept its embedding alone"):
        daskumap.train(fit(rows[:99], keep="embedding"))


def test_a_start_from_a_map_that_is_not_there(rows, run):
    graph = daskumap.fit(rows[:99], **FIT, transform_mode="graph")
    with pytest.raises(
        ParameterError, match=r"warm_start is above 0, .* ends with its graph. Fit a map of 2"
    ):
        daskumap.train(graph, warm_start=0.5)
    with pytest.raises(ParameterError, match=r"as it is by default where not all rows are held.* 2 columns"):
        daskumap.train(run, window_rows=1024, n_components=3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"hiden": (3,)}, "Unknown parameter 'hiden'. Did you mean 'hidden'"),
        ({"n_neighbors": 3}, "Unknown parameter 'n_neighbors'"),
        ({"hidden": ()}, r"hidden is \(\); it must have the units of each hidden layer"),
        ({"steps": 0}, "steps is 0; it must be an integer from 1 to 1e"),
        ({"warm_start": 1.5}, "warm_start is 1.5; it must be a number from 0 to 1, or None"),
        ({"loss": "l2"}, "loss is 'l2'; allowed are logistic, exact"),
        ({"encoder": "cnn"}, "encoder is 'cnn'; allowed are 'mlp' and a torch.nn.Module"),
        ({"autoencoder_weight": 1.0}, "there is no decoder whose error it weighs"),
        (
            {"window_rows": 200},
            r"window_rows is 200, 6.7% of the 3,000 rows .* below 10% .* Raise it to 512 at",
        ),
        ({"restart": "no"}, "restart is 'no'; it must be True or False"),
    ],
)
def test_mistakes(run, words, message):
    with pytest.raises(ParameterError, match=message):
        daskumap.train(run, **words)


def test_rows_that_changed(rows, tmp_path):
    array = zarr.create_array(str(tmp_path / "x.zarr"), data=rows[:600], chunks=(100, 8))
    run = daskumap.fit(tmp_path / "x.zarr", **FIT)
    array[333] = 0.0  # no row that a fingerprint reads
    with pytest.raises(RunMismatchError, match=r"Rows .* are not those that the run in"):
        trained(run)


# What is kept, and what is planned.


@pytest.mark.parametrize("keep", ["graph", "model", "embedding"])
def test_what_is_kept(run, expected, keep, held):
    found = trained(run, held, keep=keep, report=True)
    same(found, expected)
    assert found.store.has("graph") == (keep == "graph")
    assert not any(found.store.has(name) for name in ("encoder/rows", "encoder/projected", "scan/sample"))
    assert model_of(found, "encoder")
    assert daskumap.verify(held) == {}
    assert found.report["measures"]["trustworthiness"] > 0.7


def test_a_damaged_model_is_made_again(run, expected, held):
    trained(run, held)
    for key in [key for key in held._store_dict if key.startswith("model/weights/encoder.0.bias/c")]:
        del held._store_dict[key]
    assert list(daskumap.verify(held, repair=True)) == ["encoder.weights"]
    same(daskumap.resume(held, **QUICK), expected)
    assert daskumap.verify(held) == {}


def test_the_run_may_go(source, expected, tmp_path):
    run = daskumap.fit(source, tmp_path / "run.zarr", **FIT)
    found = trained(run, tmp_path / "out.zarr")
    shutil.rmtree(tmp_path / "run.zarr")
    assert daskumap.verify(found.path) == {}
    assert daskumap.resume(found.path, **QUICK).finished
    again = daskumap.open(found.path)
    same(again, expected)
    assert again.transform(np.zeros((3, 8), np.float32), **QUICK).embedding.shape == (3, 2)


def test_a_plan(run):
    planned = daskumap.plan(run, encoder={"steps": 90, "window_rows": 1024}, calibrate=False)
    names = [stage.name for stage in planned.stages]
    assert names[4:11] == ["encoder.sample", *STEPS]
    with pytest.raises(ParameterError, match="parameters that encoder names"):
        daskumap.plan(run, encoder={}, min_dist=0.3)


def test_a_plan_that_does_not_fit_says_which_window_does(monkeypatch, run):
    """Large rows: 3,000 are said to be 3,000,000."""
    model = run.model()
    job = dataclasses.replace(model.job, sizes=dataclasses.replace(model.sizes, rows=1_900_000))
    monkeypatch.setattr(model, "job", job)
    request = make_train_request(model, {"report": False}, None, None)
    resources = dataclasses.replace(model.resources, memory=10**9, threads=1)
    request = dataclasses.replace(request, adjust=lambda made: dataclasses.replace(made, rows=1_900_000))
    with pytest.raises(PlanError, match=r"Stage 'encoder.train' needs .* window_rows=(\d|_)+ fits") as error:
        request.plan(resources, ingested=False).check()
    fits = int(str(error.value).split("window_rows=")[1].split()[0])
    for rows, good in ((fits, True), (fits + 4 * 512, False)):
        encoder = dataclasses.replace(request.params.encoder, window_rows=rows)
        smaller = dataclasses.replace(request, params=dataclasses.replace(request.params, encoder=encoder))
        plan = smaller.plan(resources, ingested=False)
        stage = next(stage for stage in plan.stages if stage.name == "encoder.train")
        assert (plan.peak_bytes(stage) <= 10**9) == good


def test_a_reconstruction_by_cross_entropy(rows):
    """The network sees all columns then, and values beyond [0, 1] are no probabilities."""
    words = {"decoder": True, "reconstruction": "bce", "autoencoder_weight": 1.0, "steps": 300}
    X = 1 / (1 + np.exp(-rows[:600]))
    found = trained(daskumap.fit(X, **FIT), **words)
    logits = apply(model_of(found, "decoder"), found.embedding[:])
    assert ((1 / (1 + np.exp(-logits)) - X) ** 2).mean() < 0.5 * X.var(axis=0).mean()
    with pytest.raises(
        SourceError, match=r"'bce', which compares values in \[0, 1\], and 3 rows have others"
    ):
        trained(daskumap.fit(np.concatenate([X, X[:3] + 1]), **FIT), **words)


def test_a_layout_of_a_trained_run(run, expected):
    """It has the neighbours and the graph, and its map is a start as any."""
    found = daskumap.fit(expected, min_dist=0.4, n_epochs=4, **QUICK)
    known = daskumap.fit(run, min_dist=0.4, n_epochs=4, **QUICK)
    np.testing.assert_array_equal(found.embedding[:], known.embedding[:])
    again = trained(expected, warm_start=1.0)
    assert again.history[0]["map"] > 0
