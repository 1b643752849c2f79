"""In which iterations edges fire: the masks against plain Python, whatever they begin with."""

import numpy as np
import pytest
from numba import config

from daskumap.kernels.layout import firing
from daskumap.kernels.layout import iterations as layout
from daskumap.kernels.layout.firing import MASKED
from daskumap.kernels.layout.iterations import Edges, State
from daskumap.testing import reference_layout as reference

KEY, ROWS = 0xFEDCBA9876543210, 40
# They fire never, nearly never, every second time, nearly always.
RATES = np.array([0, 1, 2**31, 2**32 - 1], np.uint32)
LARGEST = {np.int32: 2**31, np.int64: 2**40}


def graph(tail_type=np.int32):
    """Return edges of rows with none to many of them."""
    rng = np.random.default_rng(0)
    indptr = np.concatenate([[0], np.cumsum(rng.integers(0, 40, ROWS))])
    rates = rng.integers(0, 2**32, indptr[-1], dtype=np.uint32)
    rates[: len(RATES)] = RATES
    return Edges(indptr, rng.integers(0, LARGEST[tail_type], indptr[-1], tail_type), rates)


def expected(edges, first, iteration):
    """Return which edges fire in an iteration, by the reference."""
    heads = first + np.repeat(np.arange(ROWS), np.diff(edges.indptr))
    ends = zip(heads.tolist(), edges.tails.tolist(), edges.rates.tolist(), strict=True)
    return np.array([reference.fires(KEY, head, tail, rate, iteration) for head, tail, rate in ends])


@pytest.mark.parametrize("tail_type", [np.int32, np.int64])
@pytest.mark.parametrize("first", [0, 2**32 + 7])
@pytest.mark.parametrize("since", [0, 13, 399])
def test_masks_are_the_reference(first, since, tail_type):
    edges = graph(tail_type)
    masked = layout.mask_edges(edges, first, KEY, since)
    assert (masked.since, masked.masks.dtype, masked.tails.dtype) == (since, np.uint8, tail_type)
    for t in range(MASKED):
        np.testing.assert_array_equal(masked.masks >> t & 1, expected(edges, first, since + t))


def test_masks_of_many_iterations_do_not_depend_on_where_they_begin():
    """As those of segments that begin anywhere, and of several drivers."""
    edges = graph()
    whole = [layout.mask_edges(edges, 3, KEY, 0).masks, layout.mask_edges(edges, 3, KEY, MASKED).masks]
    bits = np.concatenate([np.unpackbits(mask[:, None], axis=1, bitorder="little") for mask in whole], axis=1)
    for since in range(1, MASKED):
        masks = layout.mask_edges(edges, 3, KEY, since).masks
        seen = np.unpackbits(masks[:, None], axis=1, bitorder="little")
        np.testing.assert_array_equal(seen, bits[:, since : since + MASKED])


@pytest.mark.parametrize("optimizer", [layout.adam_iteration, layout.sgd_iteration])
@pytest.mark.parametrize("iteration", [9, 18, 400])
def test_masks_of_other_iterations_are_refused(optimizer, iteration):
    positions = np.zeros((ROWS, 2), np.float32)
    edges, state = layout.mask_edges(graph(), 0, KEY, 10), State(positions.copy(), positions.copy())
    pool, forces = layout.negative_pool(positions, KEY, iteration), layout.forces(1.6, 0.9, 1.0, 5)
    with pytest.raises(ValueError, match=f"of the 8 iterations from 10 on, this is {iteration}: make new"):
        optimizer(
            positions, positions.copy(), 0, 0, ROWS, edges, state, pool, forces, KEY, iteration, 500, 1.0
        )


def test_the_heaviest_edges_fire_most_without_the_compiler_too():
    """In 32 bits their rate would be 2**32, of which 32 bits hold nothing."""
    rate = firing._rate if config.DISABLE_JIT else firing._rate.py_func
    assert (
        rate(np.float32(1.0), 1.0, 10) == firing.edge_rates(np.ones(1, np.float32), 1.0, 10)[0] == 2**32 - 1
    )
    third = np.float32(1) / np.float32(3)
    assert rate(third, 1.0, 10) == firing.edge_rates(np.array([third]), 1.0, 10)[0]
