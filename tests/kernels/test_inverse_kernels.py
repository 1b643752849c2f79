"""The kernels of the inverse against plain NumPy, and gradients against differences of distances."""

import numpy as np
import pytest
from pynndescent.distances import named_distances
from scipy.spatial import distance as scipy_distances

from daskumap.kernels.layout.inverse import invert, map_weights
from daskumap.kernels.metrics import metric as metrics
from daskumap.kernels.metrics.gradients import CLASSES, gradient_of

D = 6
W, V = np.linspace(0.5, 2, D), np.linspace(1, 3, D)
VI = np.eye(D) + 0.1 * np.arange(D * D).reshape(D, D) / D
KEYWORDS = {
    "minkowski": {"p": 3.0},
    "wminkowski": {"w": W, "p": 1.5},
    "seuclidean": {"V": V},
    "mahalanobis": {"VI": VI},
}


def haversine(x, y):
    a = np.sin((x[0] - y[0]) / 2) ** 2 + np.cos(x[0]) * np.cos(y[0]) * np.sin((x[1] - y[1]) / 2) ** 2
    return 2 * np.arcsin(np.sqrt(a))


def symmetric_kl(x, y):
    eps = np.finfo(np.float32).eps
    p, q = (x + eps) / (x + eps).sum(), (y + eps) / (y + eps).sum()
    return (p * np.log(p / q) + q * np.log(q / p)).sum()


DISTANCES = {
    "euclidean": scipy_distances.euclidean,
    "manhattan": scipy_distances.cityblock,
    "chebyshev": scipy_distances.chebyshev,
    "minkowski": lambda x, y: scipy_distances.minkowski(x, y, 3.0),
    "wminkowski": lambda x, y: scipy_distances.minkowski(x, y, 1.5, W),
    "seuclidean": lambda x, y: scipy_distances.seuclidean(x, y, V),
    "mahalanobis": lambda x, y: scipy_distances.mahalanobis(x, y, VI),
    "canberra": scipy_distances.canberra,
    "cosine": scipy_distances.cosine,
    "correlation": scipy_distances.correlation,
    "hellinger": lambda x, y: np.sqrt(1 - np.sqrt(x * y).sum() / np.sqrt(x.sum() * y.sum())),
    "haversine": haversine,
    "braycurtis": scipy_distances.braycurtis,
    "symmetric_kl": symmetric_kl,
}


def differences(distance, x, y, step=1e-6):
    """Return the gradient at x by central differences."""
    moves = np.eye(len(x)) * step
    return np.array([(distance(x + move, y) - distance(x - move, y)) / (2 * step) for move in moves])


def first_step(metric, x, y):
    """Return the gradient at x from the first step: y pulls alone, and its mean with another row is x."""
    rows, sigma = np.array([y, 2 * x - y], np.float32), 1e4
    start, moved = (
        invert(rows, [[0, 1]], [[0.5, 0.5]], [sigma, 1e30], gradient_of(metric, len(x)), epochs, rate)
        for epochs, rate in ((0, 1.0), (1, 100.0))
    )
    spread = np.linalg.norm(rows[0] - start[0])
    return (start - moved)[0].astype(np.float64) * sigma / (100.0 / 4 * spread * spread * 0.5)


@pytest.mark.parametrize("name", CLASSES)
def test_gradients_are_those_of_the_distance(name):
    columns = 2 if name == "haversine" else D
    metric = metrics.resolve(name, KEYWORDS.get(name))
    rng = np.random.default_rng(3)
    for _ in range(3):
        x, y = rng.uniform(0.9, 1.4, columns), rng.uniform(0.9, 1.4, columns)
        expected = differences(DISTANCES[name], x, y)
        np.testing.assert_allclose(first_step(metric, x, y), expected, atol=0.03 * np.abs(expected).max())


def test_distances_are_those_of_the_fit():
    """Or the gradients would be of others."""
    rng = np.random.default_rng(0)
    for name in ("minkowski", "wminkowski", "canberra", "braycurtis", "symmetric_kl", "haversine"):
        x, y = rng.uniform(0.5, 1.5, (2, 2 if name == "haversine" else D)).astype(np.float32)
        words = [value for _, value in metrics.resolve(name, KEYWORDS.get(name)).keywords]
        expected = DISTANCES[name](x.astype(float), y.astype(float))
        assert named_distances[name].py_func(x, y, *words) == pytest.approx(expected, rel=1e-3)


def test_a_metric_without_gradient():
    with pytest.raises(ValueError, match=r"Metric 'jaccard' has no gradient\. Allowed: braycurtis, canberra"):
        gradient_of(metrics.resolve("jaccard"), 5)


def given(r=30, n=50, k=5, seed=0):
    """Return rows, neighbours, weights and bandwidths: point 0 has no neighbour, point 1 two."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, D)).astype(np.float32)
    places = rng.permuted(np.tile(np.arange(n), (r, 1)), axis=1)[:, :k]
    distances = np.sort(rng.random((r, k)) * 3, axis=1)
    places[0], places[1, 2:], distances[0], distances[1, 2:] = -1, -1, np.inf, np.inf
    return rows, places, map_weights(distances, 1.577, 0.895), rng.uniform(0.1, 2, n).astype(np.float32)


def reference(rows, places, weights, sigmas, epochs, rate):
    """Return what `invert` does under the Euclidean metric."""
    out = np.full((len(places), rows.shape[1]), np.nan)
    for point, at in enumerate(places):
        near, w, sigma = rows[at[at >= 0]].astype(float), weights[point][at >= 0], sigmas[at[at >= 0]]
        if len(near):
            x = w @ near
            spread = np.sqrt(w @ ((near - x) ** 2).sum(axis=1))
            for epoch in range(epochs):
                pulls = (x - near) / np.linalg.norm(x - near, axis=1)[:, None]
                sizes = w * np.minimum(spread / sigma, 4.0)
                x = x - rate / 4 * (1 - epoch / epochs) * spread * sizes @ pulls
            out[point] = x
    return out


@pytest.mark.parametrize("epochs", [0, 1, 40])
def test_the_descent_is_the_reference(epochs):
    data = given()
    found = invert(*data, gradient_of(metrics.resolve("euclidean"), D), epochs, 1.0)
    np.testing.assert_allclose(found, reference(*data, epochs, 1.0), atol=2e-4)
    assert np.isnan(found[0]).all()


@pytest.mark.parametrize("name", ["euclidean", "cosine"])
def test_a_point_depends_on_itself_alone(name):
    rows, places, weights, sigmas = given()
    metric = gradient_of(metrics.resolve(name), D)
    whole = invert(rows, places, weights, sigmas, metric, 40, 1.0)
    for cut in (slice(3, 4), slice(7, 30), slice(None, None, -1)):
        part = invert(rows, places[cut], weights[cut], sigmas, metric, 40, 1.0)
        np.testing.assert_array_equal(part, whole[cut])


def test_the_unit_of_the_data_is_none_of_it():
    """Twice the values are twice the row, to the bit."""
    rows, places, weights, sigmas = given()
    metric = gradient_of(metrics.resolve("euclidean"), D)
    found = invert(rows, places, weights, sigmas, metric, 40, 1.0)
    np.testing.assert_array_equal(invert(rows * 8, places, weights, sigmas * 8, metric, 40, 1.0), found * 8)


def test_one_neighbour_or_equal_ones_are_the_row():
    rows = np.repeat(given()[0][:1], 3, axis=0)
    for places in ([[1]], [[0, 1, 2]]):
        weights = map_weights(np.ones((1, len(places[0]))), 1.0, 1.0)
        found = invert(rows, places, weights, np.ones(3), gradient_of(metrics.resolve("l1"), D), 40, 1.0)
        np.testing.assert_allclose(found, rows[:1], rtol=1e-6)


def test_distributions_stay_distributions():
    rng = np.random.default_rng(0)
    rows = np.where(rng.random((20, D)) < 0.5, 0, rng.random((20, D))).astype(np.float32)
    places, weights = rng.integers(0, 20, (40, 4)), np.full((40, 4), 0.25)
    for name in ("hellinger", "symmetric_kl"):
        metric = gradient_of(metrics.resolve(name), D)
        found = invert(rows, places, weights, np.full(20, 0.1), metric, 40, 4.0)
        assert (found >= 0).all()


def test_weights_are_the_curve():
    distances = np.array([[0.0, 1.0, 2.0], [3.0, 5.0, np.inf], [1e30, 2e30, 4e30], [np.inf] * 3])
    found = map_weights(distances, 1.5, 0.9)
    curve = 1 / (1 + 1.5 * distances[:2] ** 1.8)
    np.testing.assert_allclose(found[:2], curve / curve.sum(axis=1, keepdims=True), rtol=1e-6)
    ratios = 2.0 ** np.array([0, -1.8, -3.6])
    np.testing.assert_allclose(found[2], ratios / ratios.sum(), rtol=1e-6)
    assert (found[3] == 0).all()
