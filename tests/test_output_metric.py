"""Maps with a metric of their own: as good as umap-learn's, and all that is promised of maps."""

import numpy as np
import pytest
from conftest import QUIET, sha
from sklearn.datasets import load_digits

import daskumap
from daskumap.errors import ParameterError, StoreError
from daskumap.testing.faults import FailingEngine, Fault

TURN = 2 * np.pi
FEW = {"n_epochs": 6, "checkpoint_every": 4}
# Accuracy of ten neighbours on umap-learn 0.5.12's maps of the 1,797 digits, by the true metric, the least of
# random_state 1, 2 and 42; and of its transform of the digits from 1,300 on, with 42:
#   UMAP(output_metric=name, random_state=seed).fit(X), for the torus with its documentation's
#   `torus_euclidean_grad`; ids = argpartition(distances(name, embedding_), 10)[:, :10], and the digit that
#   most of labels[ids] are.
THEIRS = {"haversine": (0.972, 0.926), "torus": (0.812, 0.779), "hyperboloid": (0.983, 0.944)}


def distances(name, Y, Z):
    """Return the distances of rows of two maps, in float64."""
    Y, Z = Y.astype(np.float64)[:, None], Z.astype(np.float64)
    if name == "haversine":
        share = np.sin((Y - Z)[..., 0] / 2) ** 2
        share += np.sin(Y[..., 0]) * np.sin(Z[:, 0]) * np.sin((Y - Z)[..., 1] / 2) ** 2
        return 2 * np.arcsin(np.sqrt(np.clip(share, 0, 1)))
    if name == "torus":
        apart = Y - Z - TURN * np.rint((Y - Z) / TURN)
        return np.sqrt((apart**2).sum(-1))
    last = np.sqrt(1 + (Y**2).sum(-1)) * np.sqrt(1 + (Z**2).sum(-1))
    return np.arccosh(np.maximum(last - (Y * Z).sum(-1), 1.0))


def accuracy(near, labels, expected):
    votes = [np.bincount(labels[row], minlength=10).argmax() for row in near]
    return np.mean(votes == expected)


@pytest.mark.parametrize("name", THEIRS)
def test_digits_on_a_sphere_a_torus_and_a_hyperboloid(name):
    """In 100 or 60 epochs for umap-learn's 500; less than one digit in fifty worse, and mostly better."""
    X, labels = load_digits(return_X_y=True)
    run = daskumap.fit(
        X[:1300], output_metric=name, report=False, **QUIET, n_epochs=100 if name == "haversine" else 60
    )
    map_ = run.embedding[:]
    own = distances(name, map_, map_)
    np.fill_diagonal(own, np.inf)
    near = np.argpartition(own, 10)[:, :10]
    assert accuracy(near, labels, labels[:1300]) > THEIRS[name][0] - 0.02
    new = run.transform(X[1300:], client="sequential", progress=False).embedding[:]
    near = np.argpartition(distances(name, new, map_), 10)[:, :10]
    assert accuracy(near, labels, labels[1300:]) > THEIRS[name][1] - 0.02
    again = run.transform(X[:20], client="sequential", progress=False).embedding[:]
    np.testing.assert_array_equal(again, map_[:20])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_no_bit_depends_on_partitions_threads_or_segments(fit, small, tmp_path, optimizer, client_1x2):
    options = {"output_metric": "haversine", "optimizer": optimizer, "n_epochs": 3}
    bits = sha(fit(small, **options).embedding)
    assert sha(fit(small, tmp_path / "a.zarr", checkpoint_every=2, partitions=3, **options).embedding) == bits
    assert sha(fit(small, client="threads", threads=2, **options).embedding) == bits
    assert sha(fit(small, tmp_path / "b.zarr", client="1x2", **options).embedding) == bits


def test_a_map_without_a_metric_is_the_plane(fit, small):
    plain = sha(fit(small).embedding)
    for words in ({"output_metric": "l2"}, {"output_metric": "minkowski", "output_metric_kwds": {"p": 2}}):
        assert sha(fit(small, **words).embedding) == plain


def torus_grad(x, y, size):
    """umap-learn's documentation has this one, which writes to nothing; here x is written to."""
    squared, gradient = 0.0, np.zeros_like(x)
    for i in range(x.shape[0]):
        x[i] -= y[i]
        x[i] -= size * np.rint(x[i] / size)
        squared += x[i] ** 2
        gradient[i] = x[i]
    distance = np.sqrt(squared)
    return distance, gradient / (1e-6 + distance)


OWN = {"output_metric": torus_grad, "output_metric_kwds": {"size": TURN}, **FEW}


@pytest.fixture(scope="module")
def by_function(small):
    return daskumap.fit(small, report=True, **QUIET, **OWN)


def test_a_function_with_gradient_is_a_metric(fit, small, by_function, tmp_path):
    """The same map as by name, within what float32 does in a few iterations; also on a cluster."""
    map_ = by_function.embedding[:]
    assert sha(fit(small, tmp_path / "run.zarr", client="1x1", partitions=2, **OWN).embedding) == sha(map_)
    first, named = {**OWN, "n_epochs": 1}, {"output_metric": "torus", "n_epochs": 1}
    apart = np.abs(fit(small, **first).embedding[:] - fit(small, **named).embedding[:])
    assert np.median(apart) < 1e-3
    assert by_function.report["measures"]["output_metric"] == "torus_grad"


def test_only_a_fit_goes_on_with_a_function(fit, small, by_function, sequential, tmp_path):
    engine = FailingEngine(sequential, tmp_path / "w", {("layout", 1): [Fault("power")]})
    with pytest.raises(daskumap.TaskError, match="power"):
        fit(small, tmp_path / "run.zarr", client=engine, **OWN)
    with pytest.raises(
        StoreError, match=r"a function or an array that it does not hold\. Call daskumap\.fit"
    ):
        daskumap.resume(tmp_path / "run.zarr", client="sequential", progress=False)
    assert sha(fit(small, tmp_path / "run.zarr", **OWN).embedding) == sha(by_function.embedding)


def test_a_run_by_name_is_resumed(fit, small, sequential, tmp_path):
    options = {"output_metric": "torus", "output_metric_kwds": {"torus_dimensions": [5.0, 7.0]}, **FEW}
    engine = FailingEngine(sequential, tmp_path / "w", {("layout", 1): [Fault("power")]})
    with pytest.raises(daskumap.TaskError, match="power"):
        fit(small, tmp_path / "run.zarr", client=engine, **options)
    run = daskumap.resume(tmp_path / "run.zarr", client="sequential", progress=False)
    assert sha(run.embedding) == sha(fit(small, **options).embedding)


def test_the_report_leaves_out_what_is_of_a_plane(by_function):
    measures = by_function.report["measures"]
    assert not measures.keys() & {"flyaway_ratio", "longest_aspect", "islands", "attractive_loss"}
    assert {"trustworthiness", "knn_preservation", "components", "cut_edge_share"} <= measures.keys()
    line = next(line for line in str(by_function).splitlines() if line.startswith("output metric"))
    assert line.endswith("fly-away ratio, islands and loss are those of a plane: left out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_metric": "hellinger"}, "needs coordinates that are not negative"),
        ({"output_metric": "haversine", "n_components": 3}, "n_components is 3"),
        ({"output_metric": 3}, "output_metric is a int; it must be a name, or a function"),
        ({"output_metric_kwds": 3}, "output_metric_kwds is a int; it must be a dict"),
        ({"output_metric": np.abs}, "output_metric is a ufunc"),
    ],
)
def test_refused_before_anything_is_written(fit, small, tmp_path, options, message):
    with pytest.raises(ParameterError, match=message):
        fit(small, tmp_path / "run.zarr", **options)
    assert not (tmp_path / "run.zarr").exists()


def test_odd_rows_have_finite_maps(fit, small):
    """Copies, rows without neighbours, and a start in one place."""
    rows = np.concatenate([small[:60], small[:60], small[:1] + 1e4])
    for options in ({"unique": True}, {"disconnection_distance": 1e3}, {"init": np.zeros((121, 2))}):
        map_ = fit(rows, output_metric="haversine", n_neighbors=10, **FEW, **options).embedding[:]
        assert np.isfinite(map_[:120]).all()
        assert np.isnan(map_[120]).all() == ("disconnection_distance" in options)
