"""Metrics under scaling and moving, and distances in float64 that judge what float32 makes of rows."""

import numpy as np
import pytest

from daskumap.kernels.metrics import exact
from daskumap.kernels.metrics import metric as metrics
from daskumap.kernels.metrics.names import DEGREES, OTHERS, SPACES, TRANSLATED

KEYWORDS = {
    "seuclidean": {"V": np.arange(1.0, 7.0)},
    "mahalanobis": {"VI": np.diag(np.arange(1.0, 7.0)) + 0.1},
    "wminkowski": {"w": np.arange(1.0, 7.0), "p": 3},
    "minkowski": {"p": 3},
}


@pytest.fixture(scope="module")
def rows():
    """Multiples of 1/16, some zero: sums and differences are exact."""
    rng = np.random.default_rng(0)
    return (rng.integers(1, 64, (6, 6)) * (rng.random((6, 6)) < 0.8) / 16).astype("f4")


def distances(X, name):
    """Return the distances of the rows in pairs, without compiling more than must be."""
    metric = metrics.resolve(name, KEYWORDS.get(name))
    if metric.space is not None:
        flat = metrics.to_space(X, metric)
        squared = ((flat[::2] - flat[1::2]) ** 2).sum(axis=1, dtype="f8")
        return squared if name == "sqeuclidean" else np.sqrt(squared)
    from pynndescent.distances import named_distances

    function = getattr(named_distances[name], "py_func", named_distances[name])
    values = [value for _, value in metric.keywords]
    return np.array([function(x, y, *values) for x, y in zip(X[::2], X[1::2], strict=True)])


@pytest.mark.parametrize("name", DEGREES)
def test_distances_scale_by_the_power_that_is_said(rows, name):
    plain = distances(rows, name)
    for factor in (2.0**-9, 2.0**7):
        scaled = distances(rows * np.float32(factor), name)
        np.testing.assert_allclose(scaled, plain * factor ** DEGREES[name], rtol=1e-5, atol=1e-30)
    assert plain.any()


@pytest.mark.parametrize("name", sorted(TRANSLATED))
def test_distances_stay_when_all_rows_move(rows, name):
    np.testing.assert_allclose(
        distances(rows + np.arange(6, dtype="f4"), name), distances(rows, name), rtol=1e-6
    )


def test_tables_know_the_names():
    known = {entry[0] for entry in SPACES.values()} | set(OTHERS.values())
    assert TRANSLATED <= set(DEGREES) <= known


@pytest.mark.parametrize("name", sorted({entry[0] for entry in SPACES.values()}))
def test_spaces_in_float64_are_those_of_float32(rows, name):
    metric = metrics.resolve(name, KEYWORDS.get(name))
    X = rows + np.arange(6, dtype="f4")[:, None] / 64
    np.testing.assert_allclose(
        exact.to_space(X.astype("f8"), metric), metrics.to_space(X, metric), rtol=1e-5, atol=1e-6
    )


def test_kept_neighbours():
    X = np.random.default_rng(0).normal(size=(200, 3))
    probes = np.arange(0, 200, 7)
    kept, farthest = exact.kept_neighbors(X, X, probes, 5)
    assert (kept == 1).all()
    true = np.sqrt(((X[probes, None] - X[None]) ** 2).sum(axis=2))
    np.testing.assert_allclose(farthest, np.sort(true, axis=1)[:, 5])
    other = exact.kept_neighbors(X, np.random.default_rng(1).normal(size=(200, 3)), probes, 5)[0]
    assert other.mean() < 0.2
    tiny = exact.kept_neighbors(X * 1e-300, X, probes, 5)
    assert (tiny[0] == 1).all()
    np.testing.assert_allclose(tiny[1], farthest * 1e-300)
