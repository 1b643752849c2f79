"""Cells: slices of those that are too large, and the recall that is predicted before anything is searched."""

import numpy as np
import pytest

from daskumap.kernels import cells


def test_neighbours_that_share_a_cell_are_found():
    probes = np.array([[0, 1], [2, -1]])
    found = np.array([[[1, 5], [5, 6], [-1, -1]], [[-1, -1], [3, 2], [4, 5]]])
    ids = np.array([[7, 8, -1], [-1, 9, 3]])
    recall, error = cells.shared_recall(probes, found, ids)
    assert recall == 0.5
    assert error == 0.0  # one of two for both probes
    assert cells.shared_recall(probes, found, np.full_like(ids, -1)) == (1.0, 0.0)


def test_slices_hold_their_limit_and_each_row_has_one():
    members = np.array([10, 2_000, 600])
    starts = cells.cut(members, 600)
    assert starts.tolist() == [0, 1, 5, 6]
    joined = np.repeat(np.arange(3), members)
    slices = cells.slices_of(np.arange(len(joined)), joined[:, None], starts)[:, 0]
    assert ((slices >= starts[joined]) & (slices < starts[joined + 1])).all()
    assert np.bincount(slices, minlength=6).max() <= 600
    assert cells.slices_of(np.array([3]), np.array([[-1]]), starts) == -1


def test_rows_that_are_parted_in_one_cell_meet_in_another():
    """Of two rows that join three cells of two slices each, one pair in eight meets nowhere."""
    joined = np.tile(np.arange(3), (20_000, 1))
    slices = cells.slices_of(np.arange(20_000), joined, np.array([0, 2, 4, 6]))
    met = (slices[::2] == slices[1::2]).any(axis=1).mean()
    assert met == pytest.approx(7 / 8, abs=0.015)


@pytest.mark.parametrize("cap", [300, 1024])
def test_the_predicted_recall_knows_of_slices(fit, clustered, cap):
    """Brute force finds all that share a slice, so on the same probes both are one number."""
    report = fit(clustered, max_cell_rows=cap, n_epochs=5).report
    measures = report["measures"]
    assert measures["sliced_cells"] > 0
    assert measures["recall"] == pytest.approx(measures["probe_recall"][measures["overlap"] - 1], abs=0.001)


def test_a_recall_that_cannot_be_reached_is_said(fit, caplog):
    """Noise of 16 dimensions in cells of 64 rows."""
    noise = np.random.default_rng(0).normal(size=(1500, 16)).astype(np.float32)
    fit(noise, max_cell_rows=64, n_epochs=2)
    assert "less than target_recall 95.0 %. Raise max_overlap (now 6) or max_cell_rows (" in caplog.text
