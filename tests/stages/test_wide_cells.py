"""Wide cells: small cells compared by products, neighbours of neighbours joined, and how cells are chosen."""

import numpy as np
import pytest
from conftest import sha

from daskumap.kernels.cells import find
from daskumap.kernels.cells.find import find_centroids
from daskumap.kernels.cells.join import LEVELS, widen
from daskumap.kernels.cells.slices import halve, join_cells
from daskumap.kernels.metrics.metric import resolve, to_space
from daskumap.kernels.neighbors import join, products
from daskumap.kernels.neighbors.scores import SQRT, SQUARE
from daskumap.params import make_params
from daskumap.planning.job import Job
from daskumap.planning.sizes import Resources, make_sizes
from daskumap.runtime.context import Context
from daskumap.sources.find import find as find_source
from daskumap.stages.cells import order
from daskumap.stages.shared import choose
from daskumap.testing import reference_knn as reference
from daskumap.testing.datasets import uneven_clusters


def small_cells(X, count, nearest=2):
    """Return the nearest small cells of each row, about centres drawn from the rows."""
    centres = X[np.random.default_rng(0).choice(len(X), count, replace=False)]
    distances = ((X[:, None].astype(np.float64) - centres) ** 2).sum(axis=2)
    return np.argsort(distances, axis=1)[:, :nearest].astype(np.int32)


def exact(X, k):
    return products.search(X, X, k, SQUARE, np.arange(len(X), dtype=np.int32))


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(1).normal(size=(2000, 6)).astype(np.float32)


def test_small_cells_are_compared_exactly(rows):
    X, near = rows[:300], small_cells(rows[:300], 5)
    near[7] = -1
    table = reference.distances(X, X, "sqeuclidean")
    shared = (near[:, None, :, None] == near[None, :, None, :]) & (near >= 0)[:, None, :, None]
    table[~shared.any(axis=(2, 3))] = np.inf
    ids, squares = reference.neighbors(table, 9, np.arange(300))
    got_ids, got = join.compare_small_cells(X, near, 9, 1000)
    np.testing.assert_array_equal(got_ids, ids)
    np.testing.assert_allclose(got, squares, rtol=1e-5)
    assert (got_ids[7] == -1).all()


def test_large_small_cells_are_compared_in_parts(rows):
    ids, _ = join.compare_small_cells(rows[:300], np.zeros((300, 2), np.int32), 9, 150)
    assert ((ids - np.arange(300)[:, None]) % 2 == 0).all()  # two parts: even and odd rows
    assert (ids >= 0).all()


@pytest.mark.parametrize("room", [6, 40])
def test_a_join_is_that_of_the_reference(rows, room):
    X, near = rows[:120], small_cells(rows[:120], 9)
    ids, squares = join.compare_small_cells(X, near, 5, 1000)
    fresh = (ids >= 0).astype(np.uint8)
    for _ in range(3):
        expected = reference.local_join(X, near, ids, squares, fresh, room)
        met = np.empty((120, room), np.int32)
        new, old = np.empty(120, np.int32), np.empty(120, np.int32)
        join.meet(ids, fresh, met, new, old)
        fresh[:] = 0
        changes = join.join(X, near, met, new, old, ids, squares, fresh)
        # Guests meet in another order, fresh ones first: with room for all the outcome is the same.
        if room == 40:
            np.testing.assert_array_equal(ids, expected[0])
            np.testing.assert_array_equal(fresh, expected[2])
            np.testing.assert_allclose(squares, expected[1], rtol=1e-5)
        assert (new + old <= room).all()
        assert changes >= fresh.sum()


def test_joins_find_what_small_cells_miss(rows):
    near, (truth, squares) = small_cells(rows, 40), exact(rows, 14)
    ids, distances = join.wide_neighbors(rows, near, 14, SQRT, 1000)

    def recall(found):
        return np.mean([len(set(a) & set(b)) / 14 for a, b in zip(found, truth, strict=True)])

    assert recall(join.compare_small_cells(rows, near, 14, 1000)[0]) < 0.85
    assert recall(ids) > 0.97
    hit = ids == truth
    np.testing.assert_array_equal(distances[hit], np.sqrt(squares[hit]))  # the same bits as brute force
    assert (np.diff(distances, axis=1) >= 0).all()
    assert (ids != np.arange(len(rows))[:, None]).all()
    assert all(len(set(row)) == 14 for row in ids)


def test_duplicates_and_far_rows_in_a_wide_cell(rows):
    X = rows[:400].copy()
    X[100:250] = X[0]
    X[399] = 1e15
    ids, distances = join.wide_neighbors(X, small_cells(rows[:400], 8), 10, SQRT, 60)
    assert (distances[100:250] == 0).all()
    assert (ids[399] >= 0).all()
    assert not (ids[:399] == 399).any()


def test_widen_names_the_small_cells_of_each_wide_one():
    nearest = np.array([[4, 1, 0, 5], [2, 3, -1, -1]], np.int32)
    wide, small = widen(nearest, np.array([0, 0, 1, 1, 2, 2], np.int32), 2)
    np.testing.assert_array_equal(wide, [[2, 0, -1, -1], [1, -1, -1, -1]])
    np.testing.assert_array_equal(small[0], [[4, 5], [1, 0], [-1, -1], [-1, -1]])
    np.testing.assert_array_equal(small[1, 0], [2, 3])


def test_cells_are_joined_in_order_and_halved():
    members = np.array([10, 10, 500, 10, 10, 10, 10, 10])
    wide = join_cells(members, 100)
    assert wide[0] == 0
    assert (np.diff(wide) >= 0).all()
    assert (np.diff(wide) <= 1).all()
    halved = halve(wide, members, np.bincount(wide, members) > 30)
    assert halved[-1] > wide[-1]
    single = np.arange(8, dtype=np.int32)
    np.testing.assert_array_equal(halve(single, members, np.ones(8, bool)), single)


@pytest.fixture
def wide(monkeypatch):
    """Search wide cells where small ones are cheaper, on three thousand rows."""

    def choose_wide(context, probes, members):
        return choose.Choice(join_cells(members[0], 750), 6, np.ones(LEVELS))

    monkeypatch.setattr(order, "choose_cells", choose_wide)
    return {"n_epochs": 10, "max_cell_rows": 1500}


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "correlation"])
def test_a_fit_in_wide_cells(fit, clustered, wide, metric):
    X = clustered[:3000]
    run = fit(X, metric=metric, report=True, **wide)
    found = run.store.ledger.records("partition.order")[0].found
    assert found["wide"] > 1
    assert 1 < found["copies"] <= 2
    assert found["largest_cell"] <= 1500
    points = to_space(X, resolve(metric, None))
    truth, _ = exact(points, 14)
    ids, _ = run.knn()
    recall = np.mean([len(set(a) & set(b)) / 14 for a, b in zip(ids, truth, strict=True)])
    assert recall > 0.95
    assert run.report["measures"]["recall"] == pytest.approx(recall, abs=0.03)


def test_wide_cells_have_the_same_bits_whatever_the_blocks(fit, clustered, wide, block_sizes, write):
    X = clustered[:3000]
    whole = sha(fit(X, **wide).embedding)
    block_sizes(row_block=601, window_rows=150, group_rows=450, chunks=1)
    source = write(X, chunks=(167, 7))
    assert sha(fit(source, client="1x2", partitions=3, **wide).embedding) == whole


def context_of(rows, columns=64):
    """Return a context that is planned for so many rows, with a source of other ones."""
    resources = Resources(4 * 10**9)
    sizes = make_sizes(rows, columns, 15, 2, resources)
    job = Job("", "job", None, make_params({"random_state": 0}), sizes, resources)
    return Context(job, find_source(np.zeros((20, columns), np.float32)))


def probes_where(shared, k=14):
    """Return probes that share their m nearest cells with a share `shared[m - 1]` of their neighbours."""
    p, m = 400, len(shared)
    near = np.tile(np.arange(m, dtype=np.int32) * 8, (p, 1))  # near in number: all in one wide cell
    found = np.full((p, k, m), 999, np.int32)
    for row in range(p):
        for i in range(k):
            level = np.searchsorted(shared, (row * k + i) / (p * k), side="right")
            if level < m:
                found[row, i] = near[row, level]
    levels = np.arange(m, dtype=np.uint8)  # of the m nearest cells, one more at each level
    own, theirs = np.broadcast_to(levels, near.shape), np.broadcast_to(levels, found.shape)
    return choose.Probes(np.zeros(p, np.int64), near, own, np.ones((p, k), np.int64), found, theirs)


@pytest.mark.parametrize(
    ("shared", "expected"),
    [
        # Where two small cells a row find enough, brute force costs least.
        ((0.8, 0.99, 0.995, 0.999, 1.0, 1.0), (False, 1)),
        # Where five are needed, one wide cell holds them all and costs less.
        ((0.4, 0.6, 0.7, 0.8, 0.999, 1.0), (True, 1)),
        # Where nothing is enough: what finds most.
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (False, 5)),
    ],
)
def test_the_cheapest_cells_that_find_enough_are_chosen(shared, expected):
    context, members = context_of(1_000_000), np.full((LEVELS, 1000), 1000)
    members[6:] = 0
    choice = choose.choose_cells(context, probes_where(shared), members)
    assert (choice.wide_of is not None, choice.level) == expected


def test_k_means_in_two_levels_is_as_good_as_flat(monkeypatch):
    X = uneven_clusters(3000, 16, 12, seed=3).rows()

    def scatter():
        centroids = find_centroids(X, 100, 0.1, 0).centres
        table = ((X[:, None] - centroids) ** 2).sum(axis=2)
        return len(centroids), float(table.min(axis=1).mean()), int(np.bincount(table.argmin(axis=1)).max())

    flat = scatter()
    monkeypatch.setattr(find, "FLAT_CELLS", 50)
    count, mean, largest = scatter()
    assert mean != flat[1]  # or else it was flat
    assert 80 <= count <= 120
    assert mean < 1.15 * flat[1]
    assert largest <= 0.1 * len(X)
