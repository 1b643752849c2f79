import os
import pickle
import subprocess
import sys

import numba
import numpy as np
import pytest
from checked import CHECKED

from daskumap.kernels.metrics import metric as metrics
from daskumap.kernels.metrics import names as metric_names
from daskumap.kernels.neighbors import knn, products, scores
from daskumap.testing import reference_knn as reference

K = 10
SPACED = ["euclidean", "sqeuclidean", "cosine", "correlation", "dot", "hellinger"]


def rows(r, columns, seed=0):
    """Return rows near a curved sheet, as data tend to be."""
    rng = np.random.default_rng(seed)
    low = rng.normal(size=(r, 4))
    out = np.tanh(low @ rng.normal(size=(4, columns))) + 0.1 * rng.normal(size=(r, columns))
    return out.astype(np.float32)


def positive(r, columns, seed=0):
    return (np.abs(rows(r, columns, seed)) + 0.05).astype(np.float32)


def check_lists(ids, distances, table, k, tolerance=2e-6):
    """The list is right up to rounding: right distances, each pair's own, in the promised order."""
    expected_ids, expected = reference.neighbors(table, k, np.arange(len(table)))
    np.testing.assert_array_equal(ids == -1, expected_ids == -1)
    found = ids >= 0
    np.testing.assert_allclose(distances[found], expected[found], rtol=tolerance, atol=1e-9)
    own = np.take_along_axis(table, np.maximum(ids, 0), axis=1)
    np.testing.assert_allclose(distances[found], own[found], rtol=tolerance, atol=1e-9)
    assert np.isinf(distances[~found]).all()
    assert (ids != np.arange(len(ids))[:, None]).all()
    before, after = distances[:, :-1], distances[:, 1:]
    tied = (before == after) & found[:, 1:]
    assert (before <= after).all()
    assert (ids[:, :-1][tied] < ids[:, 1:][tied]).all()
    assert ids.dtype == np.int32
    assert distances.dtype == np.float32


@pytest.mark.parametrize("columns", [1, 3, 20, 130])
@pytest.mark.parametrize("metric", SPACED)
def test_brute_force_is_the_reference(metric, columns):
    if columns < 3 and metric not in ("euclidean", "sqeuclidean"):
        pytest.skip("one column has no direction")
    X = positive(900, columns)
    resolved = metrics.resolve(metric)
    ids, distances = knn.cell_neighbors(X, K, resolved, 0)
    # Rounding the unit rows to float32 moves a tiny distance by more than its last bits.
    tolerance = 2e-6 if resolved.space == "identity" else 2e-4
    check_lists(ids, distances, reference.distances(X, X, metric), K, tolerance)


@pytest.mark.parametrize("r", [1, 2, 9, 11, 63, 64, 65, 300])
@pytest.mark.parametrize("columns", [5, 100])
def test_any_number_of_rows(r, columns):
    X = rows(r, columns)
    found = knn.cell_neighbors(X, K, metrics.resolve("euclidean"), 0)
    check_lists(*found, reference.distances(X, X, "euclidean"), K)


def test_no_neighbours_asked():
    ids, distances = knn.cell_neighbors(rows(20, 3), 0, metrics.resolve("euclidean"), 0)
    assert ids.shape == distances.shape == (20, 0)


@pytest.mark.parametrize("k", [1, 40, 150])
def test_any_number_of_neighbours(k):
    X = rows(400, 8)
    found = knn.brute_force(X, k, metrics.resolve("euclidean"))
    check_lists(*found, reference.distances(X, X, "euclidean"), k)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
@pytest.mark.parametrize("columns", [6, 128])
def test_duplicates_are_at_exactly_zero_and_tied_by_id(metric, columns):
    X = np.repeat(rows(20, columns), 30, axis=0)
    X[:, 2] = X[0, 2]
    ids, distances = knn.cell_neighbors(X, K, metrics.resolve(metric), 0)
    assert (distances == 0).all()
    for i in range(len(X)):
        group = i // 30 * 30
        np.testing.assert_array_equal(ids[i], [j for j in range(group, group + 30) if j != i][:K])


def test_ties_on_a_lattice_go_to_the_lower_id():
    X = np.random.default_rng(1).integers(0, 3, (1500, 4)).astype(np.float32)
    table = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=2))
    ids, distances = knn.brute_force(X, 25, metrics.resolve("euclidean"))
    expected_ids, expected = reference.neighbors(table, 25, np.arange(len(X)))
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(distances, expected.astype(np.float32))


def test_centring_keeps_neighbours_far_from_the_origin():
    X = (1e4 + np.random.default_rng(2).normal(size=(800, 12))).astype(np.float32)
    X[:, 3] = 1e4
    table = reference.distances(X, X, "euclidean")
    check_lists(*knn.brute_force(X, K, metrics.resolve("euclidean")), table, K)


def test_an_outlier_and_tight_clusters_stay_exact():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(5, 1, 10)) * 1e3 + rng.normal(size=(5, 120, 10)) * 1e-2
    X = X.reshape(-1, 10).astype(np.float32)
    X[17] = 1e7
    table = reference.distances(X, X, "euclidean")
    check_lists(*knn.brute_force(X, K, metrics.resolve("euclidean")), table, K)


def test_bits_depend_on_neither_tiles_nor_symmetry_nor_cell(monkeypatch):
    X = rows(1700, 100)
    own = np.arange(len(X), dtype=np.int32)
    whole = products.search(X, X, K, scores.SQRT, own)
    for a, b in zip(products.search_self(X, K, scores.SQRT), whole, strict=True):
        np.testing.assert_array_equal(a, b)
    monkeypatch.setattr(products, "TILE_SELF", 100)
    monkeypatch.setattr(products, "TILE_ROWS", 37)
    monkeypatch.setattr(products, "TILE_COLUMNS", 130)
    for found in (products.search_self(X, K, scores.SQRT), products.search(X, X, K, scores.SQRT, own)):
        for a, b in zip(found, whole, strict=True):
            np.testing.assert_array_equal(a, b)
    pair = knn.brute_force(np.stack([X[5], X[whole[0][5, 3]]]), 1, metrics.resolve("euclidean"))[1]
    assert pair[0, 0] == pair[1, 0] == whole[1][5, 3]


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_nearest_over_blocks_is_one_block(metric):
    X, resolved = rows(1100, 24), metrics.resolve(metric)
    query_ids = np.array([0, 3, 499, 500, 777, 1099, 5000])
    queries = np.concatenate([X[query_ids[:-1]], rows(1, 24, 9)])
    whole = knn.nearest(queries, X, K, resolved, query_ids + 100, 100)
    table = reference.distances(queries, X, metric)
    expected_ids, expected = reference.neighbors(table, K, np.where(query_ids < 1100, query_ids, -1))
    np.testing.assert_array_equal(whole[0], expected_ids + 100)
    np.testing.assert_allclose(whole[1], expected, rtol=2e-6, atol=1e-7)
    assert whole[0].dtype == np.int64
    for size in (1, 7, 100, 640):
        lists = None
        for start in range(0, len(X), size) if size > 1 else (0,):
            block = X[start : start + size] if size > 1 else X
            part = knn.nearest(queries, block, K, resolved, query_ids + 100, 100 + start)
            lists = part if lists is None else knn.merge_nearest(*lists, *part, K)
        np.testing.assert_array_equal(lists[0], whole[0])
        np.testing.assert_array_equal(lists[1], whole[1])


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_merge_is_the_reference(dtype):
    rng = np.random.default_rng(4)

    def lists(k):
        ids = np.argsort(rng.random((300, 20)), axis=1)[:, :k].astype(dtype)
        distances = (rng.integers(0, 6, (300, k)) / 4).astype(np.float32)
        distances[rng.random((300, k)) < 0.2] = np.inf
        ids[np.isinf(distances)] = -1
        order = np.lexsort((ids, distances))
        return np.take_along_axis(ids, order, 1), np.take_along_axis(distances, order, 1)

    a, b = lists(6), lists(9)
    for k in (1, 5, 30):
        ids, distances = knn.merge_nearest(*a, *b, k)
        expected_ids, expected = reference.merge_nearest(*a, *b, k)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_array_equal(distances, expected)
        assert ids.dtype == dtype


@pytest.mark.parametrize("metric", ["euclidean", "correlation", "chebyshev"])
@pytest.mark.parametrize("cells", [1, 3, 90, 5000])
def test_assign_cells(metric, cells):
    X, resolved = rows(200, 6), metrics.resolve(metric)
    pivots = rows(cells, 6, 7)
    centroids = metrics.to_space(pivots, resolved) if resolved.space else pivots
    found, distances = knn.assign_cells(X, centroids, 3, resolved)
    expected, far = reference.neighbors(reference.distances(X, pivots, metric), 3)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int32
    # Distances are those of the space: of unit vectors in that of the correlation.
    np.testing.assert_allclose(distances, np.sqrt(2 * far) if metric == "correlation" else far, rtol=1e-5)
    part = knn.assign_cells(X[50:60], centroids, 3, resolved)
    np.testing.assert_array_equal(found[50:60], part[0])
    np.testing.assert_array_equal(distances[50:60], part[1])


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine", "manhattan"])
def test_count_closer(metric):
    X, resolved = rows(1300, 12), metrics.resolve(metric)
    query_ids = np.arange(0, 1300, 130)
    queries = X[query_ids]
    table = reference.distances(queries, X, metric)
    # between two neighbours' distances, so that rounding cannot decide; and beyond everything
    ordered = np.sort(table, axis=1)
    thresholds = 0.5 * (ordered[:, [1, 5, 300, 900]] + ordered[:, [2, 6, 301, 901]])
    thresholds = np.c_[thresholds, np.full(10, 1e9), np.zeros(10)].astype(np.float32)
    counts = sum(
        knn.count_closer(queries, X[start : start + 500], thresholds, resolved, query_ids + 7, start + 7)
        for start in (0, 500, 1000)
    )
    np.testing.assert_array_equal(counts, reference.count_closer(table, thresholds, query_ids))
    assert counts.dtype == np.int64
    # A pair's own distance is not below itself: the counts are the ranks.
    _, distances = knn.nearest(queries, X, 40, resolved, query_ids, 0)
    ranks = knn.count_closer(queries, X, distances, resolved, query_ids, 0)
    np.testing.assert_array_equal(ranks, (distances[:, None, :] < distances[:, :, None]).sum(axis=2))


def test_count_closer_with_ties():
    X = np.random.default_rng(5).integers(0, 3, (700, 3)).astype(np.float32)
    table = reference.distances(X, X, "euclidean")
    limits = np.sqrt(np.tile(np.arange(8, dtype=np.float32), (700, 1)))
    found = knn.count_closer(X, X, limits, metrics.resolve("euclidean"), np.arange(700), 0)
    expected = reference.count_closer(table.astype(np.float32), limits, np.arange(700))
    np.testing.assert_array_equal(found, expected)


def test_names_are_those_of_pynndescent():
    distances = pytest.importorskip("pynndescent.distances")
    ours = {"poincare", "hyperboloid", "ll_dirichlet", "softmax_hellinger"}
    assert set(metrics.names()) == distances.named_distances.keys() | ours


def _search_in_spaces():
    X = np.random.default_rng(0).random((100, 5), np.float32)
    for name in ("euclidean", "cosine", "dot", "correlation"):
        metric = metrics.resolve(name)
        knn.cell_neighbors(X, 5, metric, 0)
        metrics.distance_function(metric)(X[0], X[1])
    assert "pynndescent" not in sys.modules


def test_euclidean_metrics_do_not_import_pynndescent(forks):
    process = forks.Process(target=_search_in_spaces)
    process.start()
    process.join(120)
    assert process.exitcode == 0


@pytest.mark.processes
def test_kernels_stay_within_bounds():
    code = (
        "import numpy as np; from daskumap.kernels.neighbors import knn\n"
        "from daskumap.kernels.metrics import metric as metrics\n"
        "X = np.random.default_rng(0).random((900, 101), np.float32); i = np.arange(900)\n"
        "for name in ('euclidean', 'spearmanr', 'hellinger', 'true_angular'):\n"
        "    m = metrics.resolve(name)\n"
        "    for D in (7, 101):\n"
        "        Y = np.ascontiguousarray(X[:, :D]); knn.cell_neighbors(Y, 5, m, 0)\n"
        "        a = knn.nearest(Y[:9], Y, 4, m, i[:9], 0); knn.merge_nearest(*a, *a, 6)\n"
        "        knn.count_closer(Y[:9], Y, a[1], m, i[:9], 0); knn.assign_cells(Y, Y[:3], 2, m)\n"
        "knn.cell_neighbors(X, 5, metrics.resolve('mahalanobis', {'VI': np.eye(101)}), 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **CHECKED})


def valid(name, r=60):
    """Return rows and keywords on which a metric is defined."""
    rng = np.random.default_rng(6)
    if name.startswith("bit_"):
        return rng.integers(1, 255, (r, 6)).astype(np.uint8), {}
    columns = 2 if name == "haversine" else 8
    X = positive(r, columns)
    canonical = metric_names.OTHERS.get(name, metric_names.SPACES.get(name, ("",))[0])
    if canonical in (
        "hamming",
        "jaccard",
        "dice",
        "matching",
        "kulsinski",
        "rogerstanimoto",
        "russellrao",
        "sokalsneath",
        "sokalmichener",
        "yule",
    ):
        X = (rng.random((r, columns)) < 0.5).astype(np.float32)
    A = rng.normal(size=(columns, columns))
    cost = np.abs(np.subtract.outer(np.arange(columns), np.arange(columns))).astype(float)
    keywords = {
        "minkowski": {"p": 3.0},
        "wminkowski": {"w": rng.random(columns) + 0.5, "p": 3.0},
        "seuclidean": {"V": rng.random(columns) + 0.5},
        "mahalanobis": {"VI": A @ A.T + np.eye(columns)},
        "kantorovich": {"cost": cost},
        "sinkhorn": {"cost": cost},
    }
    return X, keywords.get(canonical, {})


def check_against_pynndescent(name):
    from pynndescent.distances import named_distances

    X, keywords = valid(name)
    metric = metrics.resolve(name, keywords)
    assert not metrics.invalid_rows(X, metric).any()
    metrics.check_shape(metric, X.shape[1])
    ids, distances = knn.cell_neighbors(X, 5, metric, 0)
    assert (ids >= 0).all()
    direct = named_distances[name]
    if name in ("dot", "direct_cosine"):  # NNDescent hands them unit rows
        X = X / np.linalg.norm(X, axis=1, keepdims=True)
    arguments = tuple(np.asarray(v) if np.ndim(v) else v for v in keywords.values())
    table = np.array([[direct(x, y, *arguments) for y in X] for x in X], np.float64)
    if name == "true_angular":  # theirs falls with the angle
        table = 1.0 - table
    expected = reference.neighbors(table, 5, np.arange(len(X)))[1]
    np.testing.assert_allclose(distances, expected, rtol=2e-5, atol=2e-6)
    bound = metrics.distance_function(metric)
    Y = np.ascontiguousarray(X, metric.dtype)
    assert bound(Y[0], Y[ids[0, 0]]) == pytest.approx(distances[0, 0], rel=2e-5, abs=2e-6)
    assert metrics.distance_function(metrics.resolve(name, keywords)) is bound


@pytest.mark.parametrize(
    "name",
    [
        "euclidean",
        "cosine",
        "correlation",
        pytest.param("spearmanr", marks=pytest.mark.processes),  # compiles for 5 s
        "seuclidean",
        pytest.param("mahalanobis", marks=pytest.mark.processes),  # and for 1.5 s
        "hellinger",
        "dot",
        "manhattan",
        "wminkowski",
        "bit_hamming",
        "jaccard",
        "haversine",
    ],
)
def test_distance_is_that_of_pynndescent(name):
    check_against_pynndescent(name)


# A metric compiles for a second or more, so the rest is not in the default run.
@pytest.mark.slow
@pytest.mark.parametrize("name", metrics.names())
def test_every_distance_is_that_of_pynndescent(name):
    check_against_pynndescent(name)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot", "correlation", "hellinger"])
def test_distance_is_that_of_the_neighbor_graph(metric):
    """Not NNDescent itself, which compiles for 20 s: its distance and its correction."""
    from pynndescent.distances import fast_distance_alternatives, named_distances

    X = positive(50, 9)
    ids, distances = knn.cell_neighbors(X, 5, metrics.resolve(metric), 0)
    if metric in ("cosine", "dot"):
        X = X / np.linalg.norm(X, axis=1, keepdims=True)
    pair = fast_distance_alternatives.get(metric)
    for i in range(10):
        for j, d in zip(ids[i], distances[i], strict=True):
            if pair is None:
                theirs = named_distances[metric](X[i], X[j])
            else:
                theirs = pair["correction"](pair["dist"](X[i], X[j]))
            assert d == pytest.approx(theirs, rel=1e-3 if metric == "hellinger" else 1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "keywords", "message"),
    [
        ("euclidian", {}, "Did you mean 'euclidean'"),
        ("nonsense", {}, "Allowed: .*cosine"),
        ("seuclidean", {}, "needs the keyword 'V'"),
        ("wminkowski", {"p": 2}, "needs the keyword 'w'"),
        ("mahalanobis", {}, "needs the keyword 'VI'"),
        ("mahalanobis", {"VI": np.ones((2, 3))}, r"shape \(2, 3\)"),
        ("minkowski", {"p": 0.5}, "at least 1"),
        ("euclidean", {"p": 3}, "does not take 'p'"),
        ("seuclidean", {"V": [1.0, 0.0]}, "must be positive"),
    ],
)
def test_refusals(metric, keywords, message):
    with pytest.raises(ValueError, match=message):
        metrics.resolve(metric, keywords)


def test_minkowski_defaults_to_two_like_everywhere():
    assert metrics.resolve("minkowski").space == "identity"
    assert metrics.resolve("minkowski", {"p": 1.5}).space is None


def test_shape_refusals():
    with pytest.raises(ValueError, match="takes 2 columns"):
        metrics.check_shape(metrics.resolve("haversine"), 3)
    with pytest.raises(ValueError, match="is for 2 columns"):
        metrics.check_shape(metrics.resolve("seuclidean", {"V": [1.0, 2.0]}), 3)


def test_invalid_rows():
    X = np.array([[0, 0, 0], [2, 2, 2], [1, -1, 0], [1, 2, 3]], np.float32)
    expected = {
        "euclidean": [0, 0, 0, 0],
        "cosine": [1, 0, 0, 0],
        "dot": [1, 0, 0, 0],
        "correlation": [1, 1, 0, 0],
        "hellinger": [1, 0, 1, 0],
        "jensen_shannon": [0, 0, 1, 0],
        "sinkhorn": [1, 0, 1, 0],
    }
    for name, mask in expected.items():
        keywords = {"cost": np.ones((3, 3))} if name == "sinkhorn" else {}
        np.testing.assert_array_equal(metrics.invalid_rows(X, metrics.resolve(name, keywords)), mask)


@pytest.mark.parametrize(
    "name", ["cosine", "correlation", "spearmanr", "hellinger", "mahalanobis", "seuclidean"]
)
def test_space_of_a_row_does_not_depend_on_its_block(name):
    X, keywords = valid(name)
    metric = metrics.resolve(name, keywords)
    whole = metrics.to_space(X, metric)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole[13:20], metrics.to_space(X[13:20], metric))


def test_identity_space_is_the_array_itself():
    X = rows(5, 3)
    assert metrics.to_space(X, metrics.resolve("euclidean")) is X


@numba.njit
def weighted(x, y, scale=1.0):
    total = 0.0
    for c in range(x.shape[0]):
        total += abs(x[c] - y[c])
    return total * scale


def plain(x, y):
    return np.abs(x - y).sum()


def uncompilable(x, y):
    return open("nothing")


def test_callables():
    X = rows(300, 6)
    expected_ids, expected = reference.neighbors(reference.distances(X, X, "manhattan"), 5, np.arange(300))
    for function, keywords in ((weighted, {"scale": 2.0}), (plain, {})):
        metric = metrics.resolve(function, keywords)
        assert metric.name.startswith("callable:")
        ids, distances = knn.cell_neighbors(X, 5, metric, 0)
        np.testing.assert_array_equal(ids, expected_ids)
        np.testing.assert_allclose(distances, expected * keywords.get("scale", 1.0), rtol=1e-5)
    once, again = (metrics.distance_function(metrics.resolve(plain)) for _ in range(2))
    assert once is again
    with pytest.raises(ValueError, match="cannot be compiled"):
        metrics.resolve(uncompilable)
    with pytest.raises(ValueError, match="does not take"):
        metrics.resolve(plain, {"scale": 1.0})


def test_metric_travels():
    X = rows(50, 4)
    for metric in (metrics.resolve("cosine"), metrics.resolve("seuclidean", {"V": np.ones(4)})):
        there = pickle.loads(pickle.dumps(metric))
        assert there.key == metric.key
        np.testing.assert_array_equal(metrics.to_space(X, there), metrics.to_space(X, metric))


class Proposals:
    """Proposes the nearest neighbours out of order, as NN-descent may."""

    def __init__(self, data, metric, n_neighbors, n_jobs, random_state):
        assert (metric, n_neighbors, n_jobs) == ("manhattan", 30, 1)
        self.order = np.random.default_rng(random_state).permutation(n_neighbors)
        table = np.abs(data[:, None] - data[None]).sum(axis=2)
        self.neighbor_graph = (np.argsort(table, axis=1)[:, :n_neighbors][:, self.order], None)


def test_large_cells_are_searched_by_nn_descent(monkeypatch):
    """What it proposes is evaluated and ordered here; the search itself is in the run of processes."""
    monkeypatch.setattr("pynndescent.NNDescent", Proposals)
    monkeypatch.setattr(knn, "MAX_PAIRWISE_ROWS", 299)
    X, metric = rows(300, 6), metrics.resolve("manhattan")
    found = knn.cell_neighbors(X, 14, metric, 2**63 + 5)
    for one, other in zip(found, knn.brute_force(X, 14, metric), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.processes
def test_nn_descent():
    """One test for everything about NN-descent: it compiles for 20 s."""
    rng = np.random.default_rng(8)
    X = (rng.normal(size=(40, 1, 16)) * 3 + rng.normal(size=(40, 150, 16))).reshape(-1, 16).astype(np.float32)
    X[100:130] = X[100]
    metric = metrics.resolve("manhattan")
    ids, distances = knn.cell_neighbors(X, 14, metric, 2**63 + 5)
    assert (ids >= 0).all()
    assert (ids != np.arange(len(X))[:, None]).all()
    assert (np.diff(distances, axis=1) >= 0).all()
    assert all(len(set(row)) == 14 for row in ids)
    assert (distances[100:130] == 0).all()
    exact_ids, exact = knn.brute_force(X, 14, metric)
    assert (distances <= exact[:, -1:]).mean() >= 0.95
    both = ids[0] == exact_ids[0]
    np.testing.assert_array_equal(distances[0][both], exact[0][both])
    again = knn.nn_descent(X, 14, metric, 2**63 + 5)
    np.testing.assert_array_equal(again[0], ids)
    np.testing.assert_array_equal(again[1], distances)
