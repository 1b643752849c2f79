"""Maps that go round are drawn within one turn."""

import numpy as np
import pytest

from daskumap.report.unrolled import unrolled


def test_a_sphere_is_drawn_by_longitude_and_latitude():
    polar, longitude = np.meshgrid(np.linspace(0.1, 3, 9), np.linspace(-3, 3, 9))
    places = np.stack([polar.ravel(), longitude.ravel()], axis=1)
    expected = np.stack([longitude.ravel(), np.pi / 2 - polar.ravel()], axis=1)
    for other in (places, places + 4 * np.pi, np.stack([-places[:, 0], places[:, 1] + np.pi], axis=1)):
        drawn = unrolled(other.astype(np.float32), "haversine", None)
        assert drawn.shape == (81, 2)
        np.testing.assert_allclose(drawn[:], expected, atol=1e-4)
    np.testing.assert_allclose(drawn[3:5], expected[3:5], atol=1e-4)


def test_rows_without_a_place_have_none():
    assert np.isnan(unrolled(np.full((2, 2), np.nan, np.float32), "haversine", None)[:]).all()


def test_a_torus_is_drawn_within_its_lengths():
    places = np.array([[7.5, -1.0], [2.0, 11.0]], np.float32)
    drawn = unrolled(places, "torus", {"torus_dimensions": [6.0, 5.0]})
    np.testing.assert_allclose(drawn[:], [[1.5, 4.0], [2.0, 1.0]])
    np.testing.assert_allclose(unrolled(places, "torus", None)[:], np.mod(places, 2 * np.pi), rtol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "hyperboloid", "callable:a.b:1"])
def test_other_maps_are_drawn_as_they_are(metric):
    places = np.ones((2, 2), np.float32)
    assert unrolled(places, metric, None) is places


def test_a_torus_of_recorded_arrays_is_drawn_as_it_is():
    places = np.ones((2, 2), np.float32)
    assert unrolled(places, "torus", {"torus_dimensions": "array(2,):abc"}) is places
