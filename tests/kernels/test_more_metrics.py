"""Metrics that umap-learn has and pynndescent has not: beside its functions, and where these are wrong."""

import numpy as np
import pytest

from daskumap.errors import SourceError
from daskumap.kernels.metrics import exact
from daskumap.kernels.metrics import metric as metrics
from daskumap.kernels.metrics.names import OTHERS, SPACES
from daskumap.kernels.neighbors import knn


def in_ball(rows, columns, seed=0):
    """Return points of the open unit ball, some of them near its border."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, columns))
    X *= (rng.uniform(0.1, 0.999, rows) / np.linalg.norm(X, axis=1))[:, None]
    return X.astype(np.float32)


def counts(rows, columns, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.poisson(rng.choice([0.3, 3.0, 20.0], columns), (rows, columns))
    X[:, 0] += 1
    return X.astype(np.float32)


def normal(rows, columns, seed=0):
    return (3 * np.random.default_rng(seed).normal(size=(rows, columns))).astype(np.float32)


def poincare_table(X):
    room = 1 - (X**2).sum(axis=1)
    apart = ((X[:, None] - X[None]) ** 2).sum(axis=2)
    return np.arccosh(1 + 2 * apart / np.outer(room, room))


def hyperboloid_table(X):
    first = np.sqrt(1 + (X**2).sum(axis=1))
    return np.arccosh(np.maximum(np.outer(first, first) - X @ X.T, 1.0))


def softmax_hellinger_table(X):
    p = np.exp(X) / np.exp(X).sum(axis=1, keepdims=True)
    return np.sqrt(np.maximum(1 - np.sqrt(p[:, None] * p[None]).sum(axis=2), 0))


MADE = {
    "poincare": (in_ball, poincare_table),
    "hyperboloid": (normal, hyperboloid_table),
    "softmax_hellinger": (normal, softmax_hellinger_table),
}


@pytest.mark.parametrize("name", MADE)
def test_distances_are_those_of_the_definition(name):
    make, table = MADE[name]
    X = make(12, 6)
    distance = metrics.distance_function(metrics.resolve(name))
    found = np.array([[distance(x, y) for y in X] for x in X])
    np.testing.assert_allclose(found, table(X.astype(np.float64)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found, found.T)
    assert (np.diag(found) == 0).all()


@pytest.mark.parametrize("name", ["poincare", "softmax_hellinger", "ll_dirichlet"])
def test_distances_are_those_of_umap_learn(name):
    """Of rows that differ: umap-learn's hold rounding of float32."""
    from umap.distances import named_distances

    X = {"poincare": in_ball, "softmax_hellinger": normal, "ll_dirichlet": counts}[name](8, 20)
    distance = metrics.distance_function(metrics.resolve(name))
    theirs = named_distances[name].py_func if name == "softmax_hellinger" else named_distances[name]
    for i, j in np.argwhere(~np.eye(8, dtype=bool)):
        assert distance(X[i], X[j]) == pytest.approx(theirs(X[i], X[j]), rel=1e-4)


def test_equal_counts_are_at_distance_0():
    """umap-learn takes the root of a number below 0: NaN, and so copies of a row are no neighbours there."""
    from umap.distances import ll_dirichlet

    distance = metrics.distance_function(metrics.resolve("ll_dirichlet"))
    X = counts(40, 20)
    assert any(np.isnan(ll_dirichlet(x, x)) for x in X)
    assert max(distance(x, x) for x in X) < 1e-3


def test_near_points_of_the_hyperboloid_keep_their_distance():
    """Far out the product of Minkowski cancels: of 1e8 float64 keeps no digit of 1e-9."""
    distance = metrics.distance_function(metrics.resolve("hyperboloid"))
    x = np.array([1e4, 0.0], np.float32)
    y = np.array([1e4, 0.1], np.float32)
    assert distance(x, y) == pytest.approx(0.1, rel=2e-3)
    assert distance(x, x) == 0.0


def test_softmax_hellinger_has_a_space():
    """Neighbours come from a matrix product, and values in float64 agree."""
    metric, X = metrics.resolve("softmax_hellinger"), normal(300, 10)
    ids, distances = knn.cell_neighbors(X, 5, metric, 0)
    table = softmax_hellinger_table(X.astype(np.float64))
    np.testing.assert_allclose(np.take_along_axis(table, ids.astype(int), 1), distances, atol=1e-5)
    np.fill_diagonal(table, np.inf)
    np.testing.assert_allclose(np.sort(table, axis=1)[:, :5], distances, atol=1e-5)
    there = metrics.to_space(X, metric)
    np.testing.assert_allclose(exact.to_space(X.astype(np.float64), metric), there, atol=1e-7)
    assert np.isfinite(metrics.to_space(1e30 * X, metric)).all()


def test_names_of_umap_learn_are_there():
    from umap.distances import named_distances

    labels = {"categorical", "hierarchical_categorical", "ordinal", "count", "string", "myers"}
    assert named_distances.keys() - SPACES.keys() - OTHERS.keys() == labels


@pytest.mark.parametrize(
    ("metric", "change", "needs"),
    [
        ("poincare", lambda X: X / X.min(), "rows whose length is below 1"),
        ("ll_dirichlet", lambda X: X, "rows without negative values and with a positive sum"),
        ("ll_dirichlet", np.zeros_like, "rows without negative values and with a positive sum"),
    ],
)
def test_rows_outside_the_domain_are_refused(small, fit, metric, change, needs):
    X = np.abs(small)
    X = (0.5 * X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)
    X[7] = change(-X[7:8])[0]
    message = f"'{metric}' is not defined on 1 of 400 rows; the first: row 7. It needs {needs}"
    with pytest.raises(SourceError, match=message):
        fit(X, metric=metric)


@pytest.mark.parametrize("metric", ["poincare", "ll_dirichlet"])
def test_a_map(fit, metric):
    """Of two groups: neighbours on it are of the same one."""
    rng = np.random.default_rng(0)
    if metric == "poincare":
        X = np.concatenate([rng.normal(x, 0.05, (60, 3)) for x in (-0.5, 0.5)])
    else:
        X = np.concatenate([rng.poisson(mean, (60, 30)) for mean in rng.gamma(0.5, 10, (2, 30))])
    Y = fit(X, metric=metric, n_neighbors=8, n_epochs=100, init="random").embedding[:]
    table = np.linalg.norm(Y[:, None] - Y[None], axis=2) + np.diag(np.full(120, np.inf))
    assert (np.argmin(table, axis=1) // 60 == np.arange(120) // 60).mean() > 0.95
