"""Values that the metric cannot measure, or that float32 cannot hold: saved exactly, or refused by row."""

import numpy as np
import pytest

from daskumap.errors import SourceError

QUICK = {"n_epochs": 3}


@pytest.fixture(scope="module")
def places():
    """400 places in degrees, latitude first, all over the globe."""
    rng = np.random.default_rng(0)
    return np.stack([rng.uniform(-85, 85, 400), rng.uniform(-180, 180, 400)], axis=1)


def test_degrees_under_haversine_are_refused_with_the_conversion(fit, places):
    with pytest.raises(SourceError, match=r"rows are no latitude .* in radians.*Pass numpy\.radians\(data\)"):
        fit(places, metric="haversine", **QUICK)
    swapped = np.radians(places)[:, ::-1]
    count = int((np.abs(swapped[:, 0]) > np.pi / 2).sum())
    with pytest.raises(
        SourceError, match=rf"^{count} of 400 rows are no.*\[:, ::-1\] where longitude is first"
    ):
        fit(swapped, metric="haversine", **QUICK)
    edges = np.radians(places)
    edges[:4] = [[np.pi / 2, np.pi], [-np.pi / 2, -np.pi], [0, 2 * np.pi], [0, 0]]
    assert np.isfinite(fit(edges, metric="haversine", **QUICK).embedding[:]).all()
    assert fit(places, metric="euclidean", **QUICK).finished
