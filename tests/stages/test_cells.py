"""Cells: slices of those that are too large, and the recall that is predicted before anything is searched."""

import numpy as np
import pytest

from daskumap.kernels.cells.find import find_centroids, measure_cells
from daskumap.kernels.cells.join import LEVELS, MARGINS, joined, rank_margins, shared_recall
from daskumap.kernels.cells.slices import cut, plan_slices, slices_of
from daskumap.kernels.metrics.metric import resolve
from daskumap.kernels.neighbors import knn
from daskumap.testing.datasets import uneven_clusters


def nearest_centres(rows, centres, m):
    """Return the nearest centres and the distances, of rows in double precision."""
    table = np.sqrt(((rows[:, None].astype(float) - centres) ** 2).sum(axis=2))
    near = np.argsort(table, axis=1)[:, :m].astype(np.int32)
    return near, np.take_along_axis(table, near, axis=1).astype(np.float32)


@pytest.mark.parametrize("space", [True, False])
def test_levels_are_those_of_the_distance_from_the_border(space):
    rng = np.random.default_rng(0)
    rows, centres = rng.normal(size=(500, 5)), rng.normal(size=(12, 5)).astype(np.float32)
    radii = rng.uniform(0.5, 2.0, 12).astype(np.float32)
    near, distances = nearest_centres(rows, centres, 4)
    near[::50, 3] = -1
    levels = rank_margins(near, distances, radii, np.full(12, 99.0), 50, centres if space else None)
    assert (levels[:, 0] == 0).all()
    own = centres[near[:, 0]].astype(float)
    for j in range(1, 4):
        there = near[:, j] >= 0
        across = centres[near[there, j]] - own[there]
        middle = own[there] + across / 2  # the border is the plane through it, at right angles
        margin = -((rows[there] - middle) * across).sum(axis=1) / np.linalg.norm(across, axis=1)
        if not space:
            margin = (distances[there, j] - distances[there, 0]) / 2
        share = margin / radii[near[there, 0]]
        clear = np.abs(share[:, None] - MARGINS).min(axis=1) > 1e-5
        expected = 1 + (share[:, None] > MARGINS).sum(axis=1)
        np.testing.assert_array_equal(levels[there, j][clear], expected[clear])
    assert len(np.unique(levels)) > 8
    for level in range(LEVELS):
        np.testing.assert_array_equal(joined(near, levels, level) >= 0, (levels <= level) & (near >= 0))


def test_a_cell_without_extent_has_the_mean_radius():
    owner, distances = np.array([0, 0, 1, 3]), np.array([1.0, 2.0, 0.0, np.inf])
    found = measure_cells(np.zeros((5, 2)), owner, distances)
    assert found.radii.tolist() == [1.5] * 5
    assert found.counts.tolist() == [2, 1, 0, 1, 0]
    assert measure_cells(np.zeros((2, 2)), owner[2:3], distances[2:3]).radii.tolist() == [1.0, 1.0]


def test_rows_of_small_cells_join_more():
    near = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.int32)
    distances = np.array([[1, 9, 10, 11]] * 2, np.float32)
    members, radii = np.array([5.0, 30.0, 40.0, 500.0]), np.ones(4, np.float32)
    levels = rank_margins(near, distances, radii, members, 60, None)
    assert levels[0].tolist() == [0, 1, 1, LEVELS - 1]  # 5 + 30 + 40 are enough
    assert levels[1].tolist() == [0] + 3 * [LEVELS - 1]


def test_no_row_is_alone(fit):
    """Single rows far from all others are cells of their own in the sample."""
    rows = uneven_clusters(4000, 8, 10, seed=3).rows()
    rows[::500] *= np.arange(50, 58, dtype=np.float32)[:, None]
    run = fit(rows, max_cell_rows=600, n_epochs=2, report=True)
    assert run.report["measures"]["isolated_rows"] == 0
    assert (run.knn()[0] >= 0).all()


def test_cells_by_margin_need_fewer_pairs_than_cells_by_rank():
    """At equal recall, on uneven clusters: the reason for levels."""
    rows = uneven_clusters(6000, 16, 12, seed=3).rows()
    centroids, radii, members = find_centroids(rows, 60, 0.1, 0)
    near, distances = nearest_centres(rows, centroids, 6)
    ids, _ = knn.cell_neighbors(rows, 14, resolve("euclidean", None), 0)

    def recall_and_pairs(ranks):
        found = []
        for level in range(ranks.max() + 1):
            cells = joined(near, ranks, level)
            members = np.bincount(cells[cells >= 0]).astype(float)
            found.append((shared_recall(cells, cells[ids], ids)[0], (members**2).sum()))
        return np.array(found).T

    margin = recall_and_pairs(rank_margins(near, distances, radii, members, 25, centroids))
    rank = recall_and_pairs(np.broadcast_to(np.arange(6, dtype=np.uint8), near.shape))
    assert np.interp(0.96, *margin) < 0.8 * np.interp(0.96, *rank)


@pytest.mark.parametrize("rows", [8_000, 24_000])  # k-means sees all rows, or a third
def test_the_probes_are_like_all_other_rows(fit, rows):
    """Rows that k-means fits its centroids to lie deeper in their cells, and join fewer others."""
    noise = np.random.default_rng(0).normal(size=(rows, 32)).astype(np.float32)
    store = fit(noise, max_cell_rows=800, n_epochs=1, max_overlap=4).store
    joined = (store.read("assign/levels") <= 3).sum(axis=1)
    probes = joined[store.read("cells/probe_rows")]
    assert probes.mean() == pytest.approx(joined.mean(), abs=2 * probes.std() / np.sqrt(len(probes)))


def test_neighbours_that_share_a_cell_are_found():
    probes = np.array([[0, 1], [2, -1]])
    found = np.array([[[1, 5], [5, 6], [-1, -1]], [[-1, -1], [3, 2], [4, 5]]])
    ids = np.array([[7, 8, -1], [-1, 9, 3]])
    recall, error = shared_recall(probes, found, ids)
    assert recall == 0.5
    assert error == 0.0  # one of two for both probes
    assert shared_recall(probes, found, np.full_like(ids, -1)) == (1.0, 0.0)


def test_groups_hold_their_rows_and_their_cells():
    members = np.array([50, 60, 5, 0, 0, 0, 0, 5, 5, 120])
    assert plan_slices(members, 1_000, 100, 64)[1].tolist() == [0, 1, 9, 10]
    assert plan_slices(members, 1_000, 100, 3)[1].tolist() == [0, 1, 4, 7, 9, 10]


def test_slices_hold_their_limit_and_each_row_has_one():
    members = np.array([10, 2_000, 600])
    starts = cut(members, 600)
    assert starts.tolist() == [0, 1, 5, 6]
    joined = np.repeat(np.arange(3), members)
    slices = slices_of(np.arange(len(joined)), joined[:, None], starts)[:, 0]
    assert ((slices >= starts[joined]) & (slices < starts[joined + 1])).all()
    assert np.bincount(slices, minlength=6).max() <= 600
    assert slices_of(np.array([3]), np.array([[-1]]), starts) == -1


def test_rows_that_are_parted_in_one_cell_meet_in_another():
    """Of two rows that join three cells of two slices each, one pair in eight meets nowhere."""
    joined = np.tile(np.arange(3), (20_000, 1))
    slices = slices_of(np.arange(20_000), joined, np.array([0, 2, 4, 6]))
    met = (slices[::2] == slices[1::2]).any(axis=1).mean()
    assert met == pytest.approx(7 / 8, abs=0.015)


@pytest.mark.parametrize("cap", [300, 600])
def test_the_predicted_recall_knows_of_slices(fit, clustered, cap):
    """Brute force finds all that share a slice, so on the same probes both are one number."""
    report = fit(clustered, max_cell_rows=cap, n_epochs=1, report=True).report
    measures = report["measures"]
    assert measures["sliced_cells"] > 0
    assert measures["recall"] == pytest.approx(measures["probe_recall"], abs=0.001)


def test_a_recall_that_cannot_be_reached_is_said(fit, caplog):
    """Noise of 16 dimensions in cells of 64 rows."""
    noise = np.random.default_rng(0).normal(size=(1500, 16)).astype(np.float32)
    fit(noise, max_cell_rows=64, n_epochs=2)
    assert "less than target_recall 95.0 %. Raise max_overlap (now 6) or max_cell_rows (" in caplog.text
