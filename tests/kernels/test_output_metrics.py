"""Metrics of the map: distances and gradients beside umap-learn's, and forces beside those of the plane."""

import numpy as np
import pytest
import umap.distances
from test_layout import FORCES, KEY, graph, start
from test_transform_kernels import rows

from daskumap.kernels.layout import iterations as layout
from daskumap.kernels.layout.distances import Chebyshev, Minkowski, Torus, measure
from daskumap.kernels.layout.fixed import place_rows
from daskumap.kernels.layout.iterations import State
from daskumap.kernels.layout.optimizers import MEASURED_SHARE
from daskumap.kernels.layout.output_metrics import CLASSES, COMPONENTS, resolve
from daskumap.kernels.quality.neighbors import embedding_neighbors

FORM = np.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 1.5]])
KEYWORDS = {
    "minkowski": {"p": 3.0},
    "wminkowski": {"w": np.array([1.0, 2.0, 0.5]), "p": 1.5},
    "weighted_minkowski": {"w": np.array([1.0, 2.0, 0.5]), "p": 1.5},
    "seuclidean": {"sigma": np.array([1.0, 2.0, 0.5])},
    "standardised_euclidean": {"sigma": np.array([1.0, 2.0, 0.5])},
    "mahalanobis": {"vinv": FORM},
    "torus": {"torus_dimensions": np.array([6.0, 7.0, 8.0])},
}
# umap-learn folds angles into a range in which they mean another ellipse, and leaves out a part of the
# gradient; leaves out the sign of a sum; has no torus; and takes three seconds to compile a softmax.
NOT_THEIRS = {"gaussian_energy", "braycurtis", "torus", "softmax_hellinger"}
# The general class with the values of the plane.
PLANE = Minkowski(np.ones(2), 2.0)


def pairs(name, n=50):
    d = COMPONENTS.get(name, 3)
    points = np.random.default_rng(0).normal(scale=2, size=(n, 2, d))
    return np.abs(points) if name == "haversine" else points


def measured(metric, x, y):
    """Run the version of a metric as it is written, without compiling it."""
    gradient = np.empty(len(x))
    return measure.versions[type(metric)](metric, x, y, gradient), gradient


@pytest.mark.parametrize("name", CLASSES)
def test_gradients_are_those_of_the_distances(name):
    metric, step = resolve(name, KEYWORDS.get(name), COMPONENTS.get(name, 3)), 1e-6
    for x, y in pairs(name):
        gradient = measured(metric, x, y)[1]
        for c, shift in enumerate(np.eye(len(x)) * step):
            slope = (measured(metric, x + shift, y)[0] - measured(metric, x - shift, y)[0]) / (2 * step)
            assert gradient[c] == pytest.approx(slope, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - NOT_THEIRS))
def test_distances_and_gradients_are_those_of_umap_learn(name):
    words, d = KEYWORDS.get(name, {}), COMPONENTS.get(name, 3)
    theirs = umap.distances.named_distances_with_gradients[name].py_func
    for x, y in pairs(name):
        distance, gradient = measured(resolve(name, words, d), x, y)
        expected = theirs(x.copy(), y.copy(), *words.values())
        assert distance == pytest.approx(expected[0], rel=1e-5, abs=1e-6)
        np.testing.assert_allclose(gradient, expected[1][:d], rtol=1e-4, atol=1e-5)


def test_points_in_one_place_are_finite():
    for name in CLASSES:
        point = np.full(COMPONENTS.get(name, 3), 0.5)
        distance, gradient = measured(resolve(name, KEYWORDS.get(name), len(point)), point, point.copy())
        assert np.isfinite(distance), name
        assert np.isfinite(gradient).all(), name


def test_every_gradient_of_umap_learn_is_there():
    """But for those of distributions, which need coordinates that are not negative."""
    theirs = set(umap.distances.named_distances_with_gradients)
    assert theirs - CLASSES.keys() == {"euclidean", "l2", "hellinger", "symmetric_kl"}


def iterate(optimizer, metric, rate):
    """Return positions after one iteration whose negatives are all one vertex: any draws are the same."""
    edges, _ = graph(150, 12)
    positions, after = start(150, 2), np.empty((150, 2), np.float32)
    pool = np.tile(positions[:1].T, 1024)
    state = State(np.zeros((150, 2), np.float32), np.zeros((150, 2), np.float32))
    masked = layout.mask_edges(edges, 0, KEY, 0)
    step = {"adam": layout.adam_iteration, "sgd": layout.sgd_iteration}[optimizer]
    # As two pieces: a vertex moves alone.
    for piece in ((0, 40), (40, 150)):
        step(positions, after, 0, *piece, masked, state, pool, FORCES, KEY, 0, 200, rate, metric)
    return after, state


def test_forces_are_those_of_the_plane():
    """Along the gradient of half the squared distance, which is a difference there."""
    here, plane = iterate("sgd", PLANE, 1.0)[0], iterate("sgd", None, 1.0)[0]
    np.testing.assert_allclose(here, plane, atol=2e-3)
    (here, state), (plane, expected) = (
        iterate("adam", PLANE, 1.0 / MEASURED_SHARE),
        iterate("adam", None, 1.0),
    )
    np.testing.assert_allclose(state.mean, expected.mean, rtol=5e-3, atol=0.02)
    assert np.median(np.abs(here - plane)) < 1e-4
    assert np.abs(plane - start(150, 2)).max() > 0.1


def test_new_rows_start_from_their_nearest():
    places, ids, distances, weights, digests = rows()
    pool, given = layout.negative_pool(places, KEY, 0), (distances, weights, digests)
    still = place_rows(places, ids, *given, pool, FORCES, KEY, 0, 1.0, PLANE)
    np.testing.assert_array_equal(still[1:], places[ids[1:, 0]])
    assert np.isnan(still[0]).all()
    alone = ids[:, :1], distances[:, :1], weights[:, :1], digests
    moved = place_rows(places, *alone, pool, FORCES, KEY, 3, 1.0 / MEASURED_SHARE, PLANE)
    np.testing.assert_allclose(moved, place_rows(places, *alone, pool, FORCES, KEY, 3, 1.0), atol=2e-3)


def test_neighbors_across_the_seam():
    """The metric of the map says who is near; a row without a place is nobody's neighbour."""
    points = np.random.default_rng(0).uniform(0, 20, (300, 2)).astype(np.float32)
    points[7] = np.nan
    size = np.array([5.0, 9.0])
    ids, distances = embedding_neighbors(points, np.arange(20, 40), 5, Torus(size))
    apart = points[20:40, None].astype(np.float64) - points
    apart -= size * np.rint(apart / size)
    true = np.nan_to_num(np.hypot(*np.moveaxis(apart, 2, 0)), nan=np.inf)
    true[np.arange(20), np.arange(20, 40)] = np.inf
    np.testing.assert_array_equal(ids, np.argsort(true, axis=1, kind="stable")[:, :5])
    np.testing.assert_allclose(distances, np.sort(true, axis=1)[:, :5], rtol=1e-6)
    # Neither has it any: the largest difference to it would be none.
    assert (embedding_neighbors(points, np.array([7]), 5, Chebyshev())[0] == -1).all()


def no_gradient(x, y):
    return np.abs(x - y).sum()


def too_long(x, y):
    return 1.0, np.zeros(3)


def not_finite(x, y):
    return np.nan, x - y


def not_compiled(x, y):
    return open(x), y


@pytest.mark.parametrize(
    ("metric", "words", "components", "message"),
    [
        ("havrsine", None, 2, r"'havrsine'\. Did you mean 'haversine'\? Allowed: braycurtis, .* or a numba"),
        ("precomputed", None, 2, "Allowed: braycurtis"),
        ("hellinger", None, 2, "needs coordinates that are not negative"),
        ("haversine", None, 3, "n_components is 3; with output_metric='haversine' it must be 2"),
        ("correlation", None, 2, "n_components is 2; .* it must be at least 3"),
        ("minkowski", {"q": 1}, 2, r"does not take 'q'\. Allowed: p\."),
        ("euclidean", {"p": 1}, 2, r"does not take 'p'\. Allowed: none\."),
        ("minkowski", {"p": 0.5}, 2, "p is 0.5; it must .* at least 1"),
        ("minkowski", {"p": "x"}, 2, "p is a str, it must be numbers"),
        ("mahalanobis", {"vinv": [[1, 2], [2, 1]]}, 2, "symmetric and positive definite"),
        ("torus", {"torus_dimensions": (1, 2, 3)}, 2, r"it must have the shape \(2,\)"),
        (
            no_gradient,
            None,
            2,
            r"no_gradient returns float32\. Pass a function .* returns \(distance, gradient\)",
        ),
        (too_long, None, 2, "too_long returns 1.0, .* an array of 2 numbers"),
        (not_finite, None, 2, "not_finite returns nan"),
        (not_compiled, None, 2, r"not_compiled cannot be compiled\. .* Numba says"),
        (no_gradient, {"p": 2}, 2, r"does not take 'p'\. Allowed keywords: none\."),
    ],
)
def test_what_is_no_metric_of_a_map_is_refused(metric, words, components, message):
    with pytest.raises(ValueError, match=message):
        resolve(metric, words, components)


def test_what_is_euclidean_is_the_plane():
    assert all(resolve(name, None, 2) is None for name in ("euclidean", "l2", "minkowski", "seuclidean"))
