"""Weights from simplices against the cliques of plain Python, and what the kernels promise."""

import itertools

import numpy as np
import pytest

from daskumap.kernels.graph.simplices import (
    MAX_SIMPLEX_DEGREE,
    Lists,
    count_halo,
    either,
    fill_halo,
    heaviest,
    mark_needed,
    weigh,
)
from daskumap.testing import reference_graph as reference

NONE = np.empty(0, np.int32)


def near_points(rows, seed=0, columns=3, neighbors=8):
    """Return a dense symmetric graph (n, n) of random points, float32: each joined to its nearest."""
    points = np.random.default_rng(seed).normal(size=(rows, columns))
    squares = ((points[:, None] - points) ** 2).sum(axis=2)
    bound = np.sort(squares, axis=1)[:, neighbors, None]
    joined = ((squares <= bound) | (squares <= bound.T)) & ~np.eye(rows, dtype=bool)
    return np.where(joined, np.exp(-squares), 0.0).astype(np.float32)


def csr(dense, first=0, last=None):
    """Return the CSR rows `first` to `last` - 1 of a dense graph."""
    heads, tails = np.nonzero(dense[first:last])
    weights = dense[first:last][heads, tails]
    indptr = np.searchsorted(heads, np.arange(len(dense[first:last]) + 1))
    return indptr.astype(np.int64), tails.astype(np.int32), weights


def weighed(dense, simplices, least=0.0, most=MAX_SIMPLEX_DEGREE, cuts=()):
    """Return the new weights as a dense graph, and the counts; edges are weighed range by range."""
    edges = csr(dense)
    *lists, capped = heaviest(*edges, least, most)
    out, counts = np.full(len(edges[2]), np.nan, np.float32), np.zeros(2, int)
    for begin, end in itertools.pairwise([0, *cuts, len(edges[2])]):
        counts += weigh(*edges, begin, end, Lists(*lists, 0, NONE), least, simplices == 3, out)
    new = np.zeros_like(dense)
    new[np.repeat(np.arange(len(dense)), np.diff(edges[0])), edges[1]] = out
    return new, counts, capped


@pytest.mark.parametrize("simplices", [2, 3])
@pytest.mark.parametrize("vr_delta", [np.inf, 0.7])
def test_weights_are_those_of_all_cliques(simplices, vr_delta):
    dense = near_points(200)
    found, counts, capped = weighed(dense, simplices, np.exp(-vr_delta))
    expected, sizes = reference.simplex_weights(dense.astype(np.float64), simplices, vr_delta)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (counts.tolist(), capped) == (sizes, 0)
    assert (found == found.T).all()
    assert (found >= dense).all()
    assert (found > dense).any()
    assert found.max() <= 1


def test_triangles_are_as_many_as_the_trace_says():
    dense = near_points(150, seed=3)
    adjacency = (dense > 0).astype(int)
    assert weighed(dense, 2)[1].tolist() == [np.trace(adjacency @ adjacency @ adjacency) // 6, 0]


def test_edges_in_no_triangle_keep_their_weight():
    ring = np.zeros((6, 6), np.float32)
    for i in range(6):
        ring[i, (i + 1) % 6] = ring[(i + 1) % 6, i] = 0.3
    assert np.array_equal(weighed(ring, 3)[0], ring)


def test_one_triangle_by_hand():
    """And small weights keep their digits, which 1 - prod(1 - w) loses."""
    for a, b, c, expected in ((0.5, 0.2, 0.1, 0.64), (1.0, 0.2, 0.1, 1.0), (1e-30, 2e-30, 3e-30, 6e-30)):
        dense = np.array([[0, a, b], [a, 0, c], [b, c, 0]], np.float32)
        found = weighed(dense, 2)[0]
        np.testing.assert_allclose(found[dense > 0], expected, rtol=1e-6)
    assert either(1e-30, 1e-30) == 2e-30


@pytest.mark.parametrize("simplices", [2, 3])
def test_weights_do_not_depend_on_how_edges_are_cut(simplices):
    dense = near_points(60, seed=1)
    whole = weighed(dense, simplices)
    edges = np.count_nonzero(dense)
    cut = weighed(dense, simplices, cuts=sorted(np.random.default_rng(0).integers(0, edges, 9)))
    assert np.array_equal(whole[0], cut[0])
    assert np.array_equal(whole[1], cut[1])


@pytest.mark.parametrize("bounds", [[0, 70, 90], [0, 1, 2, 45, 90], [0, 30, 60, 90]])
def test_a_partition_with_its_halo_finds_the_same(bounds):
    """Any consecutive rows, with the lists of all others that they have neighbours among."""
    dense = near_points(90, seed=2)
    whole = weighed(dense, 3)[0]
    for first, last in itertools.pairwise(bounds):
        indptr, tails, weights = csr(dense, first, last)
        outside = np.setdiff1d(tails, np.arange(first, last))
        rows = np.concatenate([np.arange(first, last), outside])
        lists = Lists(*csr(dense[rows]), first, outside)
        out = np.empty_like(weights)
        weigh(indptr, tails, weights, 0, len(tails), lists, 0.0, True, out)
        assert np.array_equal(out, whole[first:last][dense[first:last] > 0])


def test_lists_are_the_heaviest():
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((40, 40)) < 0.5, rng.integers(1, 6, (40, 40)) / 5, 0).astype(np.float32)
    for least, most in ((0.0, 100), (0.5, 100), (0.0, 7), (0.4, 3), (2.0, 5)):
        indptr, tails, weights, capped = heaviest(*csr(dense), least, most)
        over = 0
        for i, row in enumerate(dense):
            near = np.flatnonzero((row >= least) & (row > 0))
            over += len(near) > most
            expected = np.sort(sorted(near, key=lambda j, row=row: (-row[j], j))[:most])
            here = slice(indptr[i], indptr[i + 1])
            assert tails[here].tolist() == expected.tolist()
            assert np.array_equal(weights[here], row[expected.astype(int)])
        assert capped == over
        assert (over > 0) == (most < 10 and least < 1)


@pytest.mark.parametrize("simplices", [2, 3])
def test_of_hubs_the_heaviest_edges_count(simplices):
    """An edge of a hub sees what its capped list and that of its other end have in common."""
    dense, most = near_points(80, seed=4), 6
    found, _, capped = weighed(dense, simplices, most=most)
    assert capped > 0
    order = np.lexsort((np.broadcast_to(np.arange(80), dense.shape), -dense), axis=1)[:, :most]
    lists = [{j for j in row.tolist() if dense[i, j] > 0} for i, row in enumerate(order)]
    wide = dense.astype(np.float64)
    for i, j in zip(*np.nonzero(dense), strict=True):
        common = sorted(lists[i] & lists[j])
        cliques = [(i, j, k) for k in common]
        if simplices == 3:
            cliques += [(i, j, k, m) for k, m in itertools.combinations(common, 2) if m in lists[k]]
        logs = [
            np.log(1 - np.prod([1 - wide[edge] for edge in itertools.combinations(one, 2)]))
            for one in cliques
        ]
        np.testing.assert_allclose(found[i, j], np.exp(np.mean(logs)) if logs else wide[i, j], atol=1e-6)
    assert (found == found.T).all()


@pytest.mark.parametrize("room", [1, 5, 10_000])
def test_each_list_goes_once_to_each_partition_that_needs_it(room):
    dense, rows, own = near_points(50, seed=5), 12, 2
    indptr, tails, weights = csr(dense, 24, 36)
    *lists, _ = heaviest(indptr, tails, weights, 0.0, 6)
    lists = Lists(*lists, 24, NONE)
    offsets = count_halo(indptr, tails, np.diff(lists.indptr), own, rows, 5)
    found = np.empty((offsets[-1], 3))
    for begin in range(0, offsets[-1], room):
        size = min(room, offsets[-1] - begin)
        part = (np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.float32))
        fill_halo(indptr, tails, lists, own, rows, offsets, begin, *part)
        found[begin : begin + size] = np.transpose(part)
    for other in range(5):
        sent = found[offsets[other] : offsets[other + 1]]
        wanted = np.flatnonzero((dense[24:36, other * rows : (other + 1) * rows] > 0).any(axis=1))
        expected = [
            (24 + i, lists.tails[e], lists.weights[e])
            for i in (wanted if other != own else [])
            for e in range(lists.indptr[i], lists.indptr[i + 1])
        ]
        assert sent.tolist() == [[float(value) for value in one] for one in expected]
    assert offsets[own] == offsets[own + 1]


def test_what_is_needed_is_marked():
    heads, needed = np.array([2, 5, 9, 11], np.int32), np.zeros(4, bool)
    mark_needed(np.array([9, 4, 5, 7, 5, 2], np.int32), 1, 5, 6, 9, heads, needed)
    assert needed.tolist() == [False, True, False, False]
    mark_needed(np.array([12, 11, 7], np.int32), 0, 3, 0, 0, heads, needed)
    assert needed.tolist() == [False, True, False, True]
