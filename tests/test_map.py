"""What the map looks like: no needles, whatever the epochs and the distances."""

import numpy as np
import pytest

from daskumap.testing.cell_types import aspects, rare_types


@pytest.fixture(scope="module")
def cells():
    """8,000 cells, of which the layout of record 8 draws rare types 24 to 58 times as long as wide."""
    return rare_types(8_000, genes=800)


@pytest.mark.parametrize(
    "options",
    [{}, {"n_epochs": 500, "min_dist": 0.0}, {"n_epochs": 50, "min_dist": 0.5}, {"random_state": 2}],
    ids=str,
)
def test_rare_types_are_no_needles(fit, cells, options):
    map_ = fit(cells.rows(), **{"n_epochs": None, **options}).embedding[:]
    assert max(aspects(map_, cells.labels()).values()) <= 5


def test_aspects():
    """Of the main island: a far group of the class does not count."""
    rng = np.random.default_rng(0)
    stretched = rng.normal(size=(600, 2)) * [0.1, 0.4]
    stretched[:100] += 50
    assert aspects(stretched, np.zeros(600))[0] == pytest.approx(4, rel=0.2)
