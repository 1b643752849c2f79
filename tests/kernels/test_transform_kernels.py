"""The kernels of the transform against plain NumPy and umap-learn."""

import numpy as np
import pytest
from umap.umap_ import smooth_knn_dist

from daskumap.kernels.graph.calibrate import calibrate_new, memberships
from daskumap.kernels.layout.fixed import place_rows
from daskumap.kernels.layout.iterations import forces, negative_pool
from daskumap.kernels.neighbors.lists import drop, mean_distances
from daskumap.testing import reference_graph, reference_layout

CURVE, KEY = (1.577, 0.895, 1.0), 0xFEDCBA9876543210
FORCES = forces(*CURVE, 5)


def rows(r=40, n=200, k=8, d=2, seed=0):
    """Return a map and neighbours of new rows: row 0 has none, row 1 three, row 2 was fitted."""
    rng = np.random.default_rng(seed)
    places = (rng.random((n, d)) * 10).astype(np.float32)
    ids = rng.permuted(np.tile(np.arange(n), (r, 1)), axis=1)[:, :k].astype(np.int64)
    distances = np.sort(rng.random((r, k)).astype(np.float32) + 0.1, axis=1)
    ids[0], ids[1, 3:], distances[0], distances[1, 3:], distances[2, 0] = -1, -1, np.inf, np.inf, 0.0
    weights = np.where(ids >= 0, np.exp(-distances * 2), 0).astype(np.float32)
    digests = rng.integers(0, 2**64, r, np.uint64, endpoint=False)
    return places, ids, distances, weights, digests


@pytest.mark.parametrize("d", [1, 2, 3, 5])
@pytest.mark.parametrize("epochs", [0, 1, 20])
def test_placing_is_the_reference(d, epochs):
    given = rows(d=d)
    pool = negative_pool(given[0], KEY, 0)
    found = place_rows(*given, pool, FORCES, KEY, epochs, 1.0)
    expected = reference_layout.place_rows(*given, pool, CURVE, 5, KEY, epochs, 1.0)
    # Forces come from a table with 0.3 % of error.
    np.testing.assert_allclose(found, expected, atol=1e-5 if epochs == 0 else 0.02)
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[2], given[0][given[1][2, 0]])


def test_placing_moves_rows():
    given = rows()
    pool = negative_pool(given[0], KEY, 0)
    still, moved = (place_rows(*given, pool, FORCES, KEY, epochs, 1.0) for epochs in (0, 50))
    assert (np.abs(moved - still)[3:].max(axis=1) > 1e-3).all()
    assert np.isfinite(moved[1:]).all()


def test_placing_takes_any_split():
    given = rows()
    pool = negative_pool(given[0], KEY, 0)
    whole = place_rows(*given, pool, FORCES, KEY, 30, 1.0)
    for cut in (slice(3, 4), slice(7, 30), slice(None, None, -1)):
        part = (given[0], *(array[cut] for array in given[1:]))
        np.testing.assert_array_equal(place_rows(*part, pool, FORCES, KEY, 30, 1.0), whole[cut])


@pytest.mark.parametrize("connectivity", [0.0, 1.0, 1.5, 2.0, 3.5])
def test_calibration_is_the_reference(connectivity):
    distances = rows(k=10)[2]
    found = calibrate_new(distances, 10, connectivity, 0.5)
    expected = reference_graph.calibrate_new(distances, 10, connectivity, 0.5)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("connectivity", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("k", [5, 15, 50])
def test_calibration_is_that_of_umap_learn(connectivity, k):
    distances = np.sort(np.random.default_rng(k).gamma(9, size=(300, k)).astype(np.float32), axis=1)
    expected = smooth_knn_dist(distances, float(k), local_connectivity=connectivity - 1.0)
    sigma, rho = expected
    found = calibrate_new(distances, k, connectivity, float(distances.mean()))
    np.testing.assert_allclose(found[0], rho, rtol=1e-5)
    np.testing.assert_allclose(found[1], sigma, rtol=1e-4)
    weights = memberships(distances, *found)
    np.testing.assert_allclose(weights, memberships(distances, rho, sigma), rtol=1e-4)


def test_lists_close_up_where_neighbours_are_dropped():
    ids = np.array([[3, 1, 2, -1], [0, 1, 2, 3], [1, -1, -1, -1]])
    distances = np.array([[1, 2, 3, np.inf], [1, 2, 3, 4], [0, np.inf, np.inf, np.inf]], np.float32)
    drop(ids, distances, np.array([False, True, False, True]))
    np.testing.assert_array_equal(ids, [[2, -1, -1, -1], [0, 2, -1, -1], [-1] * 4])
    inf = np.inf
    np.testing.assert_array_equal(distances, [[3, inf, inf, inf], [1, 3, inf, inf], [inf] * 4])


def test_mean_distances():
    distances = np.array([[1, 2, 6], [1, np.inf, np.inf], [np.inf] * 3], np.float32)
    np.testing.assert_array_equal(mean_distances(distances, 3), np.array([3, 1, np.inf], np.float32))
    np.testing.assert_array_equal(mean_distances(distances, 2), np.array([1.5, 1, np.inf], np.float32))
