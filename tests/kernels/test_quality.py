"""Quality measures against brute force and scikit-learn."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.manifold import trustworthiness
from sklearn.neighbors import KNeighborsClassifier

from daskumap.kernels.quality import figures, neighbors
from daskumap.kernels.quality.figures import (
    flyaway_ratio,
    knn_accuracy,
    preservation,
    recall,
    trustworthiness_from_ranks,
)
from daskumap.kernels.quality.neighbors import embedding_neighbors, exact_neighbors, exact_ranks


class Recorder:
    """Slices like a Zarr array, refuses everything else, and remembers the longest read."""

    def __init__(self, array):
        self.array, self.shape, self.longest = array, array.shape, 0

    def __getitem__(self, key):
        assert isinstance(key, slice)
        assert key.step is None
        block = self.array[key]
        self.longest = max(self.longest, len(block))
        return block


def brute_distances(points, rows):
    points = np.asarray(points, dtype=np.float64)
    distances = np.sqrt(((points[rows][:, None, :] - points[None]) ** 2).sum(axis=2))
    distances[np.arange(len(rows)), rows] = np.inf
    return distances


def brute_neighbors(points, rows, k):
    return np.argsort(brute_distances(points, rows), axis=1, kind="stable")[:, :k]


def test_recall_counts_exact_neighbours_in_any_order():
    exact = np.array([[1, 2, 3], [4, 5, 6]])
    assert recall(exact[:, ::-1], exact) == 1.0
    assert recall(np.array([[1, 9, 8, 3], [-1, -1, -1, 4]]), exact) == pytest.approx(3 / 6)


def test_recall_ignores_missing_entries():
    assert recall(np.array([[7, -1, -1]]), np.array([[7, 8, -1]])) == pytest.approx(1 / 2)
    assert np.isnan(recall(np.array([[-1]]), np.array([[-1]])))


def test_recall_in_blocks_equals_recall_at_once():
    rng = np.random.default_rng(0)
    found, exact = (np.argsort(rng.random((200, 300)), axis=1)[:, :250] for _ in range(2))
    expected = np.mean([len(set(f) & set(e)) / 250 for f, e in zip(found, exact, strict=True)])
    assert recall(np.tile(found, (2, 1)), np.tile(exact, (2, 1))) == pytest.approx(expected)


def test_preservation_needs_equal_shapes():
    with pytest.raises(ValueError, match="shapes differ"):
        preservation(np.zeros((3, 4), np.int64), np.zeros((3, 5), np.int64))


@pytest.mark.parametrize("d", [1, 2, 3, 7])
def test_embedding_neighbors_is_exact(d, monkeypatch):
    # Small blocks and tiles, so that the seams between them are crossed.
    monkeypatch.setattr(neighbors, "READ_ROWS", 1000)
    points = np.random.default_rng(d).normal(size=(5003, d)).astype(np.float32)
    rows = np.array([5002, 0, 17, 999, 1000, 17])
    ids, distances = embedding_neighbors(points, rows, 15)
    np.testing.assert_array_equal(ids, brute_neighbors(points, rows, 15))
    np.testing.assert_allclose(distances, np.sort(brute_distances(points, rows), axis=1)[:, :15])


def test_embedding_neighbors_breaks_ties_by_id():
    points = np.repeat(np.float32([[0, 0], [5, 5]]), 3000, axis=0)
    ids, distances = embedding_neighbors(points, np.array([2, 4000]), 4)
    np.testing.assert_array_equal(ids, [[0, 1, 3, 4], [3000, 3001, 3002, 3003]])
    assert not distances.any()


def test_embedding_neighbors_skips_nan_and_pads():
    points = np.float32([[0, 0], [np.nan, 0], [1, 0], [3, 0]])
    ids, distances = embedding_neighbors(points, np.array([0, 1]), 3)
    np.testing.assert_array_equal(ids, [[2, 3, -1], [-1, -1, -1]])
    np.testing.assert_array_equal(distances[0], [1, 3, np.inf])


def test_only_blocks_are_read(monkeypatch):
    for module in (figures, neighbors):
        monkeypatch.setattr(module, "READ_ROWS", 128)
    monkeypatch.setattr(neighbors, "PRODUCT_CELLS", 128 * 5)
    points = np.random.default_rng(1).normal(size=(1000, 5))
    rows = np.array([3, 500, 999])
    source = Recorder(points)
    ids, _ = embedding_neighbors(source, rows, 5)
    exact_ranks(source, rows, ids)
    flyaway_ratio(source)
    knn_accuracy(source, np.zeros(1000, int), 5, rows)
    np.testing.assert_array_equal(exact_neighbors(source, rows, 5)[0], brute_neighbors(points, rows, 5))
    assert source.longest <= 128


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_exact_neighbors_far_from_zero(offset):
    points = np.random.default_rng(2).normal(size=(800, 20)) + offset
    rows = np.arange(0, 800, 40)
    ids, distances = exact_neighbors(points, rows, 15)
    np.testing.assert_array_equal(ids, brute_neighbors(points, rows, 15))
    np.testing.assert_allclose(distances, np.sort(brute_distances(points, rows), axis=1)[:, :15], rtol=1e-6)


def test_exact_neighbors_of_integers_break_ties_by_id():
    points = np.random.default_rng(3).integers(0, 3, size=(500, 4)).astype(np.uint8)
    rows = np.arange(0, 500, 7)
    ids, _ = exact_neighbors(points, rows, 10)
    np.testing.assert_array_equal(ids, brute_neighbors(points, rows, 10))
    # The rank of the c-th neighbour is c: both break ties the same way.
    np.testing.assert_array_equal(exact_ranks(points, rows, ids), np.tile(np.arange(1, 11), (72, 1)))


def test_exact_ranks_by_argsort(monkeypatch):
    monkeypatch.setattr(neighbors, "PRODUCT_CELLS", 40 * 100)
    rng = np.random.default_rng(4)
    points = rng.normal(size=(300, 6))
    rows = rng.choice(300, 40, replace=False)
    order = np.argsort(brute_distances(points, rows), axis=1, kind="stable")
    columns = rng.integers(0, 299, size=(40, 5))
    ids = np.take_along_axis(order, columns, axis=1)
    np.testing.assert_array_equal(exact_ranks(points, rows, ids), columns + 1)
    assert exact_ranks(points, rows[:1], np.array([[-1]])) == 299


def digits_and_a_poor_map():
    data = load_digits().data[:600]
    noise = np.random.default_rng(5).normal(scale=3.0, size=(600, 2))
    return data + np.random.default_rng(6).normal(scale=1e-3, size=data.shape), data[:, [20, 43]] + noise


@pytest.mark.parametrize("k", [5, 15])
def test_trustworthiness_is_sklearns(k):
    data, embedding = digits_and_a_poor_map()
    rows = np.arange(len(data))
    ids, _ = embedding_neighbors(embedding, rows, k)
    ours = trustworthiness_from_ranks(exact_ranks(data, rows, ids), len(data), k)
    expected = trustworthiness(data, embedding.astype(np.float32), n_neighbors=k)
    assert ours == pytest.approx(expected, abs=1e-12)
    assert 0.5 < ours < 0.95


def test_trustworthiness_of_a_sample_is_close():
    data, embedding = digits_and_a_poor_map()
    rows = np.arange(0, len(data), 3)
    ids, _ = embedding_neighbors(embedding, rows, 15)
    ours = trustworthiness_from_ranks(exact_ranks(data, rows, ids), len(data), 15)
    assert ours == pytest.approx(trustworthiness(data, embedding, n_neighbors=15), abs=0.02)


def test_trustworthiness_of_perfect_ranks_is_one():
    assert trustworthiness_from_ranks(np.tile(np.arange(1, 6), (7, 1)), 100, 5) == 1.0


@pytest.mark.parametrize(("n", "k"), [(8, 5), (100, 4)])
def test_trustworthiness_refuses(n, k):
    with pytest.raises(ValueError, match=r"needs 2 n > 3 k|must be"):
        trustworthiness_from_ranks(np.ones((3, 5), np.int64), n, k)


def test_flyaway_ratio():
    rng = np.random.default_rng(7)
    points = rng.normal(size=(20_000, 2)).astype(np.float32) + 100
    radius = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    compact = flyaway_ratio(points)
    assert compact == pytest.approx(radius.max() / np.percentile(radius, 99), rel=1e-4)
    points[5] = [400, 100]
    points[6] = np.nan
    points[7, 1] = np.nan
    assert flyaway_ratio(points) == pytest.approx(300 / np.percentile(radius, 99), rel=1e-2)


@pytest.mark.parametrize(
    ("points", "expected"),
    [(np.full((4, 2), np.nan), np.nan), (np.empty((0, 2)), np.nan), (np.ones((9, 2)), 1.0)],
)
def test_flyaway_ratio_of_nothing(points, expected):
    np.testing.assert_equal(flyaway_ratio(points), expected)


def test_flyaway_ratio_of_one_row_away():
    points = np.zeros((1000, 2))
    points[3] = 1
    assert flyaway_ratio(points) == np.inf


def test_knn_accuracy_is_sklearns_leave_one_out():
    bunch = load_digits()
    embedding = bunch.data[:500, [20, 43]] + np.random.default_rng(8).normal(size=(500, 2))
    embedding, labels = embedding.astype(np.float32), bunch.target[:500]
    rows = np.arange(0, 500, 5)
    hits = [
        KNeighborsClassifier(15)
        .fit(np.delete(embedding, row, 0), np.delete(labels, row))
        .predict(embedding[[row]])
        == labels[row]
        for row in rows
    ]
    assert knn_accuracy(embedding, labels, 15, rows) == pytest.approx(np.mean(hits))


def test_knn_accuracy_leaves_unlabelled_rows_out():
    embedding = np.float32([[0, 0], [1, 0], [2, 0], [10, 0], [11, 0], [12, 0]])
    labels = np.array([0, 0, -1, 1, 1, 1])
    assert knn_accuracy(embedding, labels, 2) == 1.0
    assert np.isnan(knn_accuracy(embedding, np.full(6, -1), 2))
