"""The edges that a process holds for the layout: how much they take, and when their masks are made."""

import numpy as np
import pytest

from daskumap.kernels.layout.firing import MASKED, Edges, mask_edges
from daskumap.planning import memory
from daskumap.stages.shared import moving_edges
from daskumap.stages.shared.moving_edges import KeptEdges, RangeEdges

KEY, FIRST, DEGREE = 5, 300, 28


@pytest.fixture
def edges():
    rng = np.random.default_rng(0)
    rates = rng.integers(0, 2**32, 50 * DEGREE, dtype=np.uint32)
    tails = rng.integers(0, 10**6, 50 * DEGREE).astype(np.int32)
    return RangeEdges(Edges(np.arange(51) * DEGREE, tails, rates), FIRST, KEY)


def test_masks_are_made_once_for_the_iterations_that_they_hold(edges, monkeypatch):
    made = []
    monkeypatch.setattr(
        moving_edges, "mask_edges", lambda *arguments: made.append(arguments[-1]) or mask_edges(*arguments)
    )
    for iteration in (*range(13, 13 + 3 * MASKED), 12):  # the last one is that of a segment done again
        masked = edges.masked(iteration)
        expected = mask_edges(edges.edges, FIRST, KEY, iteration).masks & 1
        np.testing.assert_array_equal(masked.masks >> (iteration - masked.since) & 1, expected)
    assert made == [13, 13 + MASKED, 13 + 2 * MASKED, 12]


def test_edges_are_kept_while_they_fit_with_their_masks(edges):
    size = edges.nbytes
    assert size == sum(array.nbytes for array in (*edges.edges, edges.masked(0).masks))
    kept = KeptEdges(2 * size - 1)
    own = kept.keep((0, 50), edges)
    assert kept.keep((50, 100), edges) is edges
    assert kept.ranges == {(0, 50): own}
    assert not np.shares_memory(own.edges.tails, edges.edges.tails)
    np.testing.assert_array_equal(own.masked(0).masks, edges.masked(0).masks)


def test_the_plan_counts_tails_rates_and_masks(edges):
    masked = edges.masked(0)
    held = sum(array.nbytes for array in (edges.edges.tails, edges.edges.rates, masked.masks))
    assert memory.layout_edges(DEGREE // 2 + 1) * 50 == held
