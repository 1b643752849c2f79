"""Kernels from parts: the version is that of the class, and a new class needs no other change."""

from typing import NamedTuple

import numpy as np
import pytest

from daskumap.kernels.cache import cached_names
from daskumap.kernels.layout import forces, iterations
from daskumap.kernels.layout.forces import entry, pull, push
from daskumap.kernels.parts import build, element_part, part


class Circle(NamedTuple):
    radius: float


class Square(NamedTuple):
    side: float


@part
def area(shape):
    """Return the area of a shape."""


@element_part
def scaled(x):
    """Return a number by the scale of its kind of shape."""


@area.version(Circle)
def _circle(shape):
    return scaled(3.0 * shape.radius**2)


@area.version(Square)
def _square(shape):
    return scaled(shape.side**2)


@scaled.version(Circle)
def _same(x):
    return x


@scaled.version(Square)
def _tenfold(x):
    return 10.0 * x


def total(shape, count):
    out = 0.0
    for _ in range(count):
        out += area(shape)
    return out


def test_classes_choose_versions():
    assert build(total, Circle)(Circle(2.0), 3) == 36.0
    assert build(total, Square)(Square(2.0), 3) == 120.0
    assert build(total, Square) is build(total, Square)


def test_a_class_without_a_version_is_named():
    with pytest.raises(TypeError, match="'area' has versions for Circle, Square, not for int: register one"):
        build(total, int)


class Halved(NamedTuple):
    """Forces of a user's: an edge pulls half as much."""

    attraction: np.ndarray
    repulsion: np.ndarray
    negatives: int


@pull.version(Halved)
def _pull_half(attraction, d2, vertex, tail):
    return np.float32(0.5) * attraction[entry(d2)]


@push.version(Halved)
def _push_as_ever(repulsion, d2):
    return repulsion[entry(d2)]


@pytest.mark.parametrize("d", [2, 3, 4])
@pytest.mark.parametrize("iteration", [iterations.adam_iteration, iterations.sgd_iteration])
def test_a_term_is_added_once(iteration, d):
    n = 100
    rng = np.random.default_rng(0)
    positions = (rng.random((n, d)) * 3).astype(np.float32)
    rates = iterations.edge_rates(rng.random(6 * n, np.float32), 1.0, 10)
    edges = iterations.Edges(np.arange(n + 1) * 6, rng.integers(0, n, 6 * n).astype(np.int32), rates)
    edges = iterations.mask_edges(edges, 0, 1, 0)
    table, pool = forces.forces(1.6, 0.9, 1.0, 5), iterations.negative_pool(positions, 1, 0)

    def moved(term):
        state = iterations.State(np.zeros_like(positions), np.zeros_like(positions))
        out = np.empty_like(positions)
        iteration(positions, out, 0, 0, n, edges, state, pool, term, 1, 0, 10, 1.0)
        return out

    by_table = moved(table._replace(attraction=np.float32(0.5) * table.attraction))
    np.testing.assert_allclose(moved(Halved(*table)), by_table, rtol=1e-5, atol=1e-5)
    assert np.abs(moved(table) - by_table).max() > 1e-3
    # The cache knows the source of the package alone, so it keeps nothing that was built with a user's class.
    assert not [name for name in cached_names() if "Halved" in name]
