"""The kernels from neighbours to the start, against plain NumPy, umap-learn, and their promises."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from checked import CHECKED
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from daskumap.kernels.graph import spectral
from daskumap.kernels.graph.calibrate import calibrate, memberships
from daskumap.kernels.graph.union import count_components, fuzzy_union, sort_by_tail, unite
from daskumap.kernels.neighbors.lists import cut_off, merge_lists
from daskumap.testing import reference_graph as reference
from daskumap.testing import reference_knn

CONNECTIVITY = [0.0, 0.5, 1.0, 1.5, 3.0]


def knn(n, k, seed=0, duplicates=0.3, missing=0.0, columns=4):
    """Return exact ids and distances of random points, some of them equal, some neighbours missing."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, columns))
    copies = rng.random(n) < duplicates
    X[copies] = X[rng.integers(0, max(1, n // 5), copies.sum())]
    table = reference_knn.distances(X, X, "euclidean")
    ids, distances = reference_knn.neighbors(table, k, np.arange(n))
    gone = np.arange(k) >= rng.integers(0, k + 1, n)[:, None]
    gone &= rng.random((n, 1)) < missing
    return np.where(gone, -1, ids), np.where(gone, np.inf, distances).astype(np.float32)


def mean_distance(distances):
    finite = distances[np.isfinite(distances)].astype(np.float64)
    return finite.sum() / (len(finite) + len(distances))


def graph(ids, distances, cuts, k=None, connectivity=1.0, mix=1.0):
    """Return the (n, n) fuzzy graph, made block of vertices by block of vertices."""
    n = len(ids)
    ranges = list(itertools.pairwise([0, *cuts, n]))
    unit = 7
    weights, reverse = [], []
    for first, last in ranges:
        block = calibrate(
            distances[first:last], k or ids.shape[1] + 1, connectivity, mean_distance(distances)
        )
        weights.append(memberships(distances[first:last], *block))
        reverse.append(sort_by_tail(ids[first:last], weights[-1], first, unit, -(-n // unit)))
    tails, heads, values = (np.concatenate([part[c] for part in reverse]) for c in range(3))
    out = np.zeros((n, n))
    for (first, last), p in zip(ranges, weights, strict=True):
        into = (tails >= first) & (tails < last)
        indptr, to, w, _ = fuzzy_union(
            ids[first:last], p, first, tails[into], heads[into], values[into], mix, 1.0
        )
        for row in range(last - first):
            mine = slice(indptr[row], indptr[row + 1])
            assert (np.diff(to[mine]) > 0).all()
            out[first + row, to[mine]] = w[mine]
    return out


@pytest.mark.parametrize("mix", [1.0, 0.3])
def test_a_vertex_with_1e5_incoming_edges(mix):
    """A hub's row is as long as it has edges; those of its block do not suffer."""
    n, k, block = 100_001, 5, 512
    rng = np.random.default_rng(0)
    ids = (np.arange(n)[:, None] + np.arange(1, k + 1)) % n
    ids[1:, -1] = 0  # all point at vertex 0
    weights = rng.uniform(0.01, 1.0, ids.shape).astype(np.float32)
    ids[-k + 1 :, : k - 1], weights[-k + 1 :, : k - 1] = -1, 0.0  # those that would point at it twice
    tails, heads, values, ends = sort_by_tail(ids, weights, 0, block, -(-n // block))
    here = slice(0, ends[1])
    indptr, to, joined, _ = fuzzy_union(
        ids[:block], weights[:block], 0, tails[here], heads[here], values[here], mix, 1.0
    )
    there = weights > 0
    p = csr_matrix((weights[there].astype("f8"), (np.nonzero(there)[0], ids[there])), (n, n))
    both = p.multiply(p.T)
    expected = (mix * (p + p.T - both) + (1 - mix) * both).tocsr()[:block]
    expected.eliminate_zeros()
    found = csr_matrix((joined, to, indptr), (block, n))
    assert indptr[1] == n - 1
    assert abs(found - expected).max() < 1e-6
    assert found.nnz == expected.nnz


@pytest.mark.parametrize("connectivity", CONNECTIVITY)
@pytest.mark.parametrize("missing", [0.0, 0.5])
def test_calibration_is_the_reference(connectivity, missing):
    _, distances = knn(300, 14, seed=1, missing=missing)
    mean = mean_distance(distances)
    rho, sigma = calibrate(distances, 15, connectivity, mean)
    expected_rho, expected_sigma = reference.calibrate(distances, 15, connectivity, mean)
    np.testing.assert_allclose(rho, expected_rho, rtol=1e-6)
    np.testing.assert_allclose(
        memberships(distances, rho, sigma),
        reference.memberships(distances, expected_rho, expected_sigma),
        atol=2e-4,
    )
    alone = ~np.isfinite(distances).any(axis=1)
    assert alone.any() == bool(missing)
    assert not rho[alone].any()
    assert not sigma[alone].any()


@pytest.mark.parametrize("connectivity", CONNECTIVITY)
def test_calibration_is_that_of_umap_learn(connectivity):
    from umap.umap_ import compute_membership_strengths, smooth_knn_dist

    ids, distances = knn(300, 14, seed=2)
    with_self = np.hstack([np.zeros((300, 1), np.float32), distances])
    sigmas, rhos = smooth_knn_dist(with_self, 15.0, local_connectivity=connectivity)
    rho, sigma = calibrate(distances, 15, connectivity, mean_distance(distances))
    np.testing.assert_allclose(rho, rhos, rtol=1e-6)
    np.testing.assert_allclose(sigma, sigmas, rtol=1e-4)
    own = np.hstack([np.arange(300)[:, None], ids]).astype(np.int32)
    _, _, strengths, _ = compute_membership_strengths(own, with_self, sigmas, rhos)
    np.testing.assert_allclose(
        memberships(distances, rho, sigma), strengths.reshape(300, 15)[:, 1:], atol=5e-5
    )


@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("connectivity", [0.5, 1.0, 3.0])
def test_the_graph_is_that_of_umap_learn(mix, connectivity):
    from umap.umap_ import fuzzy_simplicial_set

    ids, distances = knn(200, 9, seed=3)
    own = np.hstack([np.arange(200)[:, None], ids])
    expected, _, _ = fuzzy_simplicial_set(
        np.zeros((200, 1)),
        10,
        np.random.RandomState(0),
        "euclidean",
        knn_indices=own,
        knn_dists=np.hstack([np.zeros((200, 1), np.float32), distances]),
        set_op_mix_ratio=mix,
        local_connectivity=connectivity,
    )
    got = graph(ids, distances, [50, 51, 120], connectivity=connectivity, mix=mix)
    np.testing.assert_allclose(got, expected.toarray(), atol=2e-5)


@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
def test_the_graph_is_the_reference(mix):
    ids, distances = knn(150, 8, seed=4, missing=0.4)
    rho, sigma = calibrate(distances, 9, 1.0, mean_distance(distances))
    p = reference.dense(ids, reference.memberships(distances, rho, sigma), 150)
    np.testing.assert_allclose(graph(ids, distances, [40], mix=mix), reference.fuzzy_union(p, mix), atol=1e-6)


@st.composite
def neighbor_lists(draw):
    n = draw(st.integers(3, 40))
    k = draw(st.integers(1, min(12, n - 1)))
    seed, duplicates = draw(st.integers(0, 2**16)), draw(st.sampled_from([0.0, 0.3, 0.95]))
    return knn(n, k, seed, duplicates, draw(st.sampled_from([0.0, 0.6])), draw(st.integers(1, 3)))


@given(neighbor_lists(), st.sampled_from(CONNECTIVITY))
@settings(max_examples=60, deadline=None)
def test_memberships_sum_to_log2_k_where_they_can(lists, connectivity):
    _, distances = lists
    k = distances.shape[1] + 1
    mean = mean_distance(distances)
    rho, sigma = calibrate(distances, k, connectivity, mean)
    for row, near, width in zip(distances, rho.astype(float), sigma.astype(float), strict=True):
        if not np.isfinite(row).any():
            continue
        total, wanted = reference.membership_sum(row, near, width), reference.target(row, k)
        assert total >= wanted - 1e-3
        # Neighbours up to rho alone may pass more bits than wanted, and so may those within the floor.
        if (row <= near).sum() < wanted and width > reference.smallest_sigma(row, near, mean) * (1 + 1e-5):
            assert total == pytest.approx(wanted, abs=1e-3)


@given(neighbor_lists(), st.data(), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_the_graph_is_symmetric_and_does_not_depend_on_the_cuts(lists, data, mix):
    n = len(lists[0])
    cuts = sorted(data.draw(st.sets(st.integers(1, n - 1), max_size=5)))
    whole = graph(*lists, [], mix=mix)
    np.testing.assert_array_equal(graph(*lists, cuts, mix=mix), whole)
    np.testing.assert_allclose(whole, whole.T, rtol=1e-6)
    assert ((whole >= 0) & (whole <= 1)).all()
    assert not whole.diagonal().any()
    joined = np.zeros_like(whole, bool)
    for row, ids in enumerate(lists[0]):
        joined[row, ids[ids >= 0]] = True
    assert (joined | joined.T)[whole > 0].all()


@pytest.mark.parametrize(("unit", "n"), [(1, 50), (7, 50), (64, 50)])
def test_sort_by_tail_is_the_reference(unit, n):
    ids, distances = knn(n, 6, seed=5, missing=0.5)
    weights = np.where(np.isfinite(distances), 1 / (1 + distances), 0).astype(np.float32)
    case = (ids[10:30], weights[10:30], 10, unit, -(-n // unit))
    for got, expected in zip(sort_by_tail(*case), reference.sort_by_tail(*case), strict=True):
        np.testing.assert_array_equal(got, expected)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_merged_lists_are_the_best_in_any_order(data):
    rows, k = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    # Few ids and few distances: many repeats, ties, and pairs found twice at distances that differ a little.
    above_one = float(np.nextafter(np.float32(1), np.float32(2)))
    distance = st.sampled_from([0.0, 1.0, above_one, np.inf])
    item = st.tuples(st.integers(0, rows - 1), st.integers(-1, 7), distance)
    found = data.draw(st.lists(item, max_size=30))
    ids, distances = np.full((rows, k), -1), np.full((rows, k), np.inf, np.float32)
    for row, other, distance in found:
        one = (np.array([row]), np.array([[other]]), np.array([[distance]], np.float32))
        merge_lists(*one, ids, distances)
    expected = reference.merge_lists(found, rows, k)
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_array_equal(distances, expected[1])


def test_cut_off_forgets_what_is_at_the_limit():
    ids, distances = np.array([[3, 4, 5], [1, 2, -1]]), np.float32([[0.5, 1, 2], [0, 0.9, np.inf]])
    cut_off(ids, distances, 1.0)
    np.testing.assert_array_equal(ids, [[3, -1, -1], [1, 2, -1]])
    np.testing.assert_array_equal(distances, np.float32([[0.5, np.inf, np.inf], [0, 0.9, np.inf]]))


@given(st.integers(1, 60), st.integers(0, 80), st.integers(0, 2**16), st.integers(0, 59))
@settings(max_examples=60, deadline=None)
def test_components_are_those_of_scipy(n, edges, seed, cut):
    pairs = np.random.default_rng(seed).integers(0, n, (2, edges))
    matrix = csr_matrix((np.ones(edges), pairs), shape=(n, n))
    matrix = (matrix + matrix.T).tocsr()
    count, labels = connected_components(matrix, directed=False)
    for ranges in ([(0, n)], [(min(cut, n), n), (0, min(cut, n))]):
        parents = np.arange(n)
        for first, last in ranges:
            indptr = matrix.indptr[first : last + 1] - matrix.indptr[first]
            tails = matrix.indices[matrix.indptr[first] : matrix.indptr[last]]
            unite(parents, first, indptr.astype(np.int64), tails.astype(np.int32))
        assert count_components(parents) == (count, np.bincount(labels).max())


def symmetric(n, degree=4, seed=0):
    """Return a dense symmetric graph and its blocks (first, indptr, tails, weights)."""
    rng = np.random.default_rng(seed)
    dense = np.triu(np.where(rng.random((n, n)) < degree / n, rng.random((n, n)), 0), 1).astype(np.float32)
    dense = dense + dense.T
    blocks = []
    for first, last in itertools.pairwise([0, n // 3, n // 3 + 1, n]):
        part = csr_matrix(dense[first:last])
        blocks.append((first, part.indptr.astype(np.int64), part.indices.astype(np.int32), part.data))
    return dense, blocks


def test_coarsen_and_smooth_are_the_reference():
    n, size = 120, 9
    dense, blocks = symmetric(n)
    rng = np.random.default_rng(1)
    groups = rng.integers(-1, size, n).astype(np.int32)
    positions, out = rng.random((n, 2)).astype(np.float32), np.full((n, 2), np.nan, np.float32)
    coarse = np.zeros((size, size))
    for first, *edges in blocks:
        spectral.coarsen(groups, first, *edges, coarse)
        spectral.smooth(positions, first, *edges, out[first : first + len(edges[0]) - 1])
    np.testing.assert_allclose(coarse, reference.coarsen(groups, dense.astype(np.float64), size), rtol=1e-6)
    np.testing.assert_allclose(out, reference.smooth(positions, dense), rtol=1e-5)


def test_smoothing_leaves_isolated_vertices_alone():
    positions, out = np.float32([[1, 2], [3, 4]]), np.zeros((2, 2), np.float32)
    none = np.empty(0, np.int32)
    spectral.smooth(positions, 0, np.zeros(3, np.int64), none, none.astype(np.float32), out)
    np.testing.assert_array_equal(out, positions)


def test_embed_solves_the_laplacian():
    """Eigenvectors of D^-1 W, in order, but for the weak edges that tie components together."""
    dense = symmetric(80, degree=12, seed=2)[0].astype(np.float64)
    vectors = spectral.embed(dense, np.ones(80), 3)
    degree = dense.sum(axis=1)
    values = []
    for v in vectors.T:
        image = dense @ v / degree
        value = v @ (degree * image) / (v @ (degree * v))
        assert np.linalg.norm(image - value * v) < 0.01 * np.linalg.norm(v)
        values.append(value)
        assert abs(degree @ v) < 0.02 * np.linalg.norm(degree) * np.linalg.norm(v)  # not the trivial one
    half = np.sqrt(degree)
    expected = np.linalg.eigvalsh(dense / half[:, None] / half)[::-1][1:4]
    np.testing.assert_allclose(values, expected, atol=0.005)


def test_embed_tells_components_apart_and_pads():
    one = np.ones((3, 3)) - np.eye(3)
    apart = np.kron(np.eye(2), one)
    vectors = spectral.embed(apart, np.ones(6), 2)
    assert np.isfinite(vectors).all()
    assert np.ptp(vectors[:3, 0]) < 1e-6 < abs(vectors[0, 0] - vectors[3, 0])
    assert spectral.embed(np.array([[0.0, 1.0], [1.0, 0.0]]), np.ones(2), 3).shape == (2, 3)
    assert np.isfinite(spectral.embed(np.zeros((4, 4)), np.ones(4), 2)).all()


def small_run():
    """Return the numbers of a tiny run of every kernel, one after the other."""
    numbers = []
    for connectivity in CONNECTIVITY:
        numbers.append(graph(*knn(40, 5, missing=0.5), [13, 14], connectivity=connectivity))
    dense, blocks = symmetric(30)
    coarse, out, parents = np.zeros((4, 4)), np.zeros((30, 2), np.float32), np.arange(30)
    groups = (np.arange(30) % 5 - 1).astype(np.int32)
    ids, distances = np.full((30, 3), -1), np.full((30, 3), np.inf, np.float32)
    for first, *edges in blocks:
        spectral.coarsen(groups, first, *edges, coarse)
        spectral.smooth(dense[:, :2].copy(), first, *edges, out[first : first + len(edges[0]) - 1])
        unite(parents, first, *edges[:2])
    for seed in range(3):
        merge_lists(np.arange(30), *knn(30, 4, seed, missing=0.5), ids, distances)
    cut_off(ids, distances, 1.0)
    numbers += [coarse, out, count_components(parents), ids, np.nan_to_num(distances, posinf=-1)]
    return np.concatenate([np.ravel(part) for part in numbers])


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({"NUMBA_DISABLE_JIT": "1"}, id="NUMBA_DISABLE_JIT"),
        pytest.param(CHECKED, id="NUMBA_BOUNDSCHECK", marks=pytest.mark.processes),
    ],
)
def test_same_without_jit_and_with_bounds_checks(variables, tmp_path):
    code = "import numpy, sys, test_graph as t; numpy.save(sys.argv[1], t.small_run())"
    command = [sys.executable, "-W", "ignore::RuntimeWarning", "-c", code, str(tmp_path / "run.npy")]
    env = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command, env=env, check=True, timeout=180, cwd=os.path.dirname(__file__))
    np.testing.assert_allclose(np.load(tmp_path / "run.npy"), small_run(), rtol=1e-4, atol=1e-5)
