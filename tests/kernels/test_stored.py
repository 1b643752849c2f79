"""Probes as stored, against plain NumPy, and of which rows float32 may not tell the neighbours."""

import numpy as np
import pytest

from daskumap.kernels.metrics import exact
from daskumap.kernels.metrics import metric as metrics
from daskumap.kernels.quality.stored import StoredProbes

KEYWORDS = {
    "seuclidean": {"V": np.arange(1.0, 7.0)},
    "mahalanobis": {"VI": np.diag(np.arange(1.0, 7.0)) + 0.1},
    "minkowski": {"p": 3},
    "wminkowski": {"w": np.arange(1.0, 7.0), "p": 3},
}
SPACES = ("euclidean", "seuclidean", "mahalanobis", "cosine", "correlation", "spearmanr", "hellinger")
K = 5


@pytest.fixture(scope="module")
def rows():
    """300 x 6 positive float64, of which each third is there twice: ties."""
    X = np.random.default_rng(0).random((300, 6)) + 0.1
    X[1::3] = X[::3]
    return X


def distances(X, metric):
    """Return (r, r) distances, squared where there is a space, NaN from a row to itself."""
    flat = exact.to_space(X, metric)
    difference = flat[:, None] - flat
    if metric.space is not None:
        # In the order of columns, as ties are those of equal bits.
        found = sum(difference[:, :, column] ** 2 for column in range(X.shape[1]))
    else:
        found = exact.norms(difference.reshape(-1, X.shape[1]), metric).reshape(len(X), -1)
    np.fill_diagonal(found, np.nan)
    return found


@pytest.mark.parametrize("name", [*SPACES, *exact.NORMS])
@pytest.mark.parametrize("step", [300, 77])
def test_probes_are_compared_with_all_rows(rows, name, step):
    metric = metrics.resolve(name, KEYWORDS.get(name))
    ids, left_out = np.array([0, 7, 150, 299]), np.array([3, 151, 160])
    near = np.array([[1, 9, 200, 4, 298]] * len(ids))
    probes = StoredProbes(metric, rows[ids], ids, (rows[some] for some in near))
    starts = range(0, len(rows), step)
    found, best, closer = probes.compare(
        (start, rows[start : start + step], left_out[(left_out >= start) & (left_out < start + step)] - start)
        for start in starts
    )
    true = distances(rows, metric)[ids]
    limits = np.take_along_axis(true, near, axis=1)
    true[:, left_out] = np.nan
    wanted = np.argsort(true, axis=1, kind="stable")[:, :K]
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(best, np.take_along_axis(true, wanted, axis=1))
    np.testing.assert_array_equal(closer, (true[:, None, :] < limits[:, :, None]).sum(axis=2))


def test_too_few_rows(rows):
    probes = StoredProbes(metrics.resolve("euclidean"), rows[:1], np.array([0]), [rows[1:6]])
    found, best, _ = probes.compare([(0, rows[:3], np.array([1]))])
    assert found.tolist() == [[2, -1, -1, -1, -1]]
    assert np.isinf(best[0, 1:]).all()


def test_norms_are_those_of_the_metric(rows):
    for name in exact.NORMS:
        metric = metrics.resolve(name, KEYWORDS.get(name))
        distance = metrics.distance_function(metric)
        wanted = [
            distance(a, b) for a, b in zip(rows[::2].astype("f4"), rows[1::2].astype("f4"), strict=True)
        ]
        np.testing.assert_allclose(exact.norms(rows[::2] - rows[1::2], metric), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [*SPACES, *exact.NORMS, "canberra"])
def test_rows_are_in_doubt_where_neighbours_are_nearer_than_rounding(rows, name):
    metric = metrics.resolve(name, KEYWORDS.get(name))
    X = rows.astype("f4")
    far, near = np.full(len(X), 0.1, "f4"), np.full(len(X), 1e-9, "f4")
    if name in ("correlation", "spearmanr", "mahalanobis"):
        # Of these no bound is known once the cast has changed the values.
        assert exact.in_doubt(X, far, metric, whole=False).all()
    else:
        assert not exact.in_doubt(X, far, metric, whole=False).any()
        assert exact.in_doubt(X, near, metric, whole=False).all() == (name != "canberra")
    assert not exact.in_doubt(X, far, metric, whole=True).any()
    unmoved = metric.space in ("identity", None)
    assert exact.in_doubt(X, near, metric, whole=True).all() == (not unmoved)


def test_the_bound_of_rounding_holds():
    """A row and its neighbour, both rounded, are no farther from each other than the bound says."""
    rng = np.random.default_rng(1)
    X = rng.random((500, 6)) * 10.0 ** rng.integers(-3, 4, (500, 1)) + 1e-4
    for name in ("euclidean", "seuclidean", "cosine", "hellinger"):
        metric = metrics.resolve(name, KEYWORDS.get(name))
        moved = metrics.to_space(X.astype("f4"), metric) - exact.to_space(X, metric)
        length = np.linalg.norm(exact.to_space(X, metric), axis=1)
        assert (2 * np.linalg.norm(moved, axis=1) <= exact.ROUNDING * length).all()
        assert (np.linalg.norm(moved, axis=1) > 0).any()
