"""Islands: what short edges join, and how long it is, against plain NumPy and SciPy."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from daskumap.kernels.quality.islands import islands, unite_near


def map_with_edges(d=2, n=600, seed=0):
    """Return three clouds of points, one of them a needle, and a symmetric graph with edges between them."""
    rng = np.random.default_rng(seed)
    scale = np.ones((3, d))
    scale[1] = 0.05
    scale[1, 0] = 2.0
    kind = rng.integers(0, 3, n)
    positions = (rng.normal(size=(n, d)) * scale[kind] * 0.3 + 20 * kind[:, None]).astype(np.float32)
    heads = np.repeat(np.arange(n), 8)
    tails = rng.integers(0, n, 8 * n)
    tails[::2] = np.argsort(((positions[:, None] - positions[None]) ** 2).sum(axis=2), axis=1)[:, 1:5].ravel()
    graph = csr_matrix((np.ones(8 * n), (heads, tails)), (n, n))
    graph = ((graph + graph.T) > 0).tocsr()
    return positions, graph.indptr.astype(np.int64), graph.indices.astype(np.int64)


def expected(positions, indptr, tails, reach, least):
    heads = np.repeat(np.arange(len(positions)), np.diff(indptr))
    near = np.linalg.norm(positions[heads].astype(float) - positions[tails], axis=1) <= reach
    joined = csr_matrix((near[near], (heads[near], tails[near])), (len(positions),) * 2)
    label = connected_components(joined, directed=False)[1]
    found = []
    for island in np.unique(label):
        points = positions[label == island].astype(float)
        if len(points) >= least:
            axes = np.sqrt(np.linalg.eigvalsh(np.cov(points.T)))
            found.append((len(points), axes[-1] / axes[-2]))
    return sorted(found)


def parents_of(positions, indptr, tails, reach, cuts):
    parents = np.arange(len(positions))
    for start, stop in pairwise(cuts):
        part = slice(indptr[start], indptr[stop])
        unite_near(parents, positions, start, indptr[start : stop + 1] - indptr[start], tails[part], reach)
    return parents


@pytest.mark.parametrize("d", [2, 3])
def test_sizes_and_aspects_are_those_of_the_reference(d):
    positions, indptr, tails = map_with_edges(d)
    sizes, aspects = islands(parents_of(positions, indptr, tails, 1.0, [0, 600]), positions, 50)
    reference = expected(positions, indptr, tails, 1.0, 50)
    found = sorted(zip(sizes.tolist(), aspects.tolist(), strict=True))
    assert [size for size, _ in found] == [size for size, _ in reference]
    np.testing.assert_allclose([a for _, a in found], [a for _, a in reference], rtol=1e-9)
    assert len(found) == 3
    assert aspects.max() > 20
    assert sorted(aspects)[1] < 1.5


def test_the_cut_into_blocks_changes_no_bit():
    positions, indptr, tails = map_with_edges()
    whole = islands(parents_of(positions, indptr, tails, 1.0, [0, 600]), positions, 50)
    for cuts in ([0, 1, 250, 600], [0, 400, 401, 599, 600]):
        found = islands(parents_of(positions, indptr, tails, 1.0, cuts), positions, 50)
        for a, b in zip(whole, found, strict=True):
            np.testing.assert_array_equal(a, b)


def test_long_edges_join_nothing_and_small_islands_do_not_count():
    positions, indptr, tails = map_with_edges()
    assert len(islands(parents_of(positions, indptr, tails, 100.0, [0, 600]), positions, 50)[0]) == 1
    assert len(islands(parents_of(positions, indptr, tails, 0.0, [0, 600]), positions, 2)[0]) == 0


def test_points_that_coincide_or_lie_on_a_line_have_an_aspect():
    parents = np.zeros(60, np.int64)
    assert islands(parents, np.ones((60, 2), np.float32), 50)[1] == [1.0]
    line = np.c_[np.arange(60), np.zeros(60)].astype(np.float32)
    assert 1e3 < islands(parents, line, 50)[1][0] <= 1e6


def test_rows_off_the_map_are_in_no_island():
    positions, indptr, tails = map_with_edges()
    lost = np.vstack([positions, np.full((1, 2), np.nan, np.float32)])
    indptr = np.append(indptr, indptr[-1])
    sizes, aspects = islands(parents_of(lost, indptr, tails, 1.0, [0, 601]), lost, 50)
    assert sizes.sum() == 600
    assert np.isfinite(aspects).all()
