"""The layout kernels against plain NumPy, and their promises: any partitioning, any start, no fly-aways."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from checked import CHECKED

from daskumap.kernels.layout import iterations as layout
from daskumap.kernels.layout.diagnostics import UNITS, pair_sums
from daskumap.kernels.layout.iterations import Edges, State
from daskumap.testing import reference_layout as reference

A, B, GAMMA, NEGATIVES, KEY, ITERATIONS = 1.577, 0.895, 1.0, 5, 0xFEDCBA9876543210, 200
FORCES = layout.forces(A, B, GAMMA, NEGATIVES)
ITERATION = {"adam": layout.adam_iteration, "sgd": layout.sgd_iteration}


def graph(n, degree, seed=0):
    """Return `Edges` and weights of n vertices with 0 to 2 `degree` edges each."""
    rng = np.random.default_rng(seed)
    indptr = np.concatenate([[0], np.cumsum(rng.integers(0, 2 * degree + 1, n))]).astype(np.int64)
    weights = (rng.random(indptr[-1]) ** 2).astype(np.float32)
    tails = rng.integers(0, n, indptr[-1]).astype(np.int32)
    return Edges(indptr, tails, layout.edge_rates(weights, 1.0, ITERATIONS)), weights


def start(n, d, seed=0, scale=10):
    return (np.random.default_rng(seed).random((n, d)) * scale).astype(np.float32)


def blocks(edges, cuts):
    """Cut a graph into blocks of vertices."""
    for first, last in itertools.pairwise(cuts):
        lo, hi = edges.indptr[first], edges.indptr[last]
        rows = edges.indptr[first : last + 1] - lo
        yield first, last, Edges(rows, edges.tails[lo:hi], edges.rates[lo:hi])


def run(optimizer, positions, edges, iterations, cuts=None, forces=FORCES, learning_rate=1.0):
    """Run the first iterations over the blocks between `cuts`; return positions and moments."""
    n, d = positions.shape
    cuts = cuts or [0, n]
    mean, variance = np.zeros((n, d), np.float32), np.zeros((n, d), np.float32)
    for iteration in range(iterations):
        pool, after = layout.negative_pool(positions, KEY, iteration), np.empty_like(positions)
        for first, last, part in blocks(edges, cuts):
            part = layout.mask_edges(part, first, KEY, iteration)
            state, rows = State(mean[first:last], variance[first:last]), last - first
            for lo, hi in ((0, rows // 3), (rows // 3, rows)):
                block = (positions, after[first:last], first, lo, hi, part, state)
                ITERATION[optimizer](*block, pool, forces, KEY, iteration, ITERATIONS, learning_rate)
        positions = after
    return positions, mean, variance


@pytest.mark.parametrize("d", [2, 3, 4])
def test_adam_is_the_reference(d):
    edges, _ = graph(150, 12)
    positions = start(150, d)
    state = State(np.zeros((150, d), np.float32), np.zeros((150, d), np.float32))
    masked = layout.mask_edges(edges, 0, KEY, 0)
    for iteration in range(4):
        pool, after = layout.negative_pool(positions, KEY, iteration), np.empty_like(positions)
        np.testing.assert_array_equal(pool, reference.negative_pool(positions, KEY, iteration))
        moved, mean, variance = reference.adam_iteration(
            positions, 0, edges, *state, pool, (A, B, GAMMA), NEGATIVES, KEY, iteration, ITERATIONS, 1.0
        )
        layout.adam_iteration(
            positions, after, 0, 0, 150, masked, state, pool, FORCES, KEY, iteration, ITERATIONS, 1.0
        )
        np.testing.assert_allclose(state.mean, mean, rtol=0.005, atol=0.01)
        np.testing.assert_allclose(state.variance, variance, rtol=0.01, atol=0.01)
        # Adam divides by the gradient's size: where that is next to nothing, so are its leading digits.
        sure = np.sqrt(variance) > 0.03
        assert sure.mean() > 0.5
        np.testing.assert_allclose(after[sure], moved[sure], atol=0.02)
        positions = after


@pytest.mark.parametrize("d", [2, 3, 4])
def test_sgd_is_the_reference(d):
    edges, _ = graph(150, 12)
    positions = start(150, d)
    moved, *_ = run("sgd", positions, edges, 1, learning_rate=0.1)
    pool = reference.negative_pool(positions, KEY, 0)
    expected = reference.sgd_iteration(
        positions, 0, edges, pool, (A, B, GAMMA), NEGATIVES, KEY, 0, ITERATIONS, 0.1
    )
    assert np.abs(expected - positions).max() > 0.5
    np.testing.assert_allclose(moved, expected, atol=0.02)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("d", [2, 3, 5])
def test_any_partitioning_gives_the_same_bits(optimizer, d):
    n = 403
    edges, _ = graph(n, 20)
    uneven = np.sort(np.random.default_rng(1).choice(np.arange(1, n), 15, replace=False)).tolist()
    whole = run(optimizer, start(n, d), edges, 5)
    for cuts in ([0, 100, 101, n], [0, *uneven, n]):
        for one, other in zip(whole, run(optimizer, start(n, d), edges, 5, cuts), strict=True):
            np.testing.assert_array_equal(one, other)


def test_tails_of_64_bits_and_read_only_input_give_the_same_bits():
    edges, _ = graph(50, 10)
    positions = start(50, 2)
    expected, *_ = run("adam", positions, edges, 2)
    positions.flags.writeable = False
    got, *_ = run("adam", positions, edges._replace(tails=edges.tails.astype(np.int64)), 2)
    np.testing.assert_array_equal(got, expected)


def fired_in(edges, iteration):
    """Count the fired edges of each vertex by the pull on it: all edges lead to vertex 0, at distance 1."""
    rows = len(edges.indptr) - 1
    positions = np.zeros((rows, 2), np.float32)
    positions[1:, 0] = 1.0
    state = State(np.zeros((rows, 2), np.float32), np.zeros((rows, 2), np.float32))
    pool, forces = layout.negative_pool(positions, KEY, iteration), FORCES._replace(negatives=0)
    layout.adam_iteration(
        positions,
        np.empty_like(positions),
        0,
        0,
        rows,
        layout.mask_edges(edges, 0, KEY, iteration),
        state,
        pool,
        forces,
        KEY,
        iteration,
        ITERATIONS,
        1.0,
    )
    one = 2 * reference.attraction(np.array([1.0, 0.0]), A, B, reference.LIMIT)[0]
    return state.mean[:, 0] / (0.5 * one)


def test_edges_fire_exactly_in_proportion():
    rng, rows = np.random.default_rng(0), 300
    rates = rng.integers(0, 2**32, rows, dtype=np.uint32)
    rates[1:4] = 0, 1, 2**32 - 1
    edges = Edges(np.arange(rows + 1), np.zeros(rows, np.int32), rates)
    counts = sum(np.rint(fired_in(edges, iteration)).astype(int) for iteration in range(ITERATIONS))
    seed = reference.stream_seed(KEY, reference.PHASE, 0)
    phases = [(reference.vertex_hash(seed, v) * 0x9E3779B1) % 2**32 for v in range(rows)]
    expected = [(phase + int(rate) * ITERATIONS) >> 32 for phase, rate in zip(phases, rates, strict=True)]
    np.testing.assert_array_equal(counts[1:], expected[1:])


def test_rates():
    weights = np.array([0, 0.5 / ITERATIONS, 0.999 / ITERATIONS, 1.001 / ITERATIONS, 0.25, 1, 2], np.float32)
    rates = layout.edge_rates(weights, 1.0, ITERATIONS)
    assert rates.dtype == np.uint32
    np.testing.assert_array_equal(rates[[0, 1, 2, 4, 5, 6]], [0, 0, 0, 2**30, 2**32 - 1, 2**32 - 1])
    assert rates[3] == int(float(weights[3]) * 2**32)
    np.testing.assert_array_equal(layout.edge_rates(weights / 8, 0.125, ITERATIONS), rates)


@pytest.mark.parametrize("tail_type", [np.int32, np.int64])
def test_firing_edges(tail_type):
    """Those with a rate, row by row: NumPy's filter of all edges; some rows have none, before or after it."""
    rng = np.random.default_rng(0)
    indptr = np.concatenate([[0], np.cumsum(rng.integers(0, 5, 200))])
    tails = rng.integers(0, 200, indptr[-1]).astype(tail_type)
    weights = (rng.random(len(tails)) * 4 / ITERATIONS).astype(np.float32)
    rates = layout.edge_rates(weights, 1.0, ITERATIONS)
    fires = rates > 0
    assert 0 < fires.sum() < len(fires)
    got = layout.firing_edges(indptr, tails.copy(), weights.copy(), 1.0, ITERATIONS)
    np.testing.assert_array_equal(got.indptr, np.concatenate([[0], np.cumsum(fires)])[indptr])
    np.testing.assert_array_equal(got.tails, tails[fires])
    np.testing.assert_array_equal(got.rates, rates[fires])
    assert (got.tails.dtype, got.rates.dtype) == (tail_type, np.uint32)


def test_phases_are_spread():
    """In any iteration about p of the edges fire, for tails as regular as they come."""
    n = 1000
    for iteration in range(4):
        fired = [
            reference.fires(KEY, head, tail, 2**30, iteration) for head in range(n) for tail in range(10)
        ]
        assert abs(np.mean(fired) - 0.25) < 0.02


@pytest.mark.parametrize(("a", "b"), [(1.93, 0.79), (A, B), (0.115, 1.93)])
def test_tables_are_within_half_a_percent(a, b):
    tables = layout.forces(a, b, 0.7, 5)
    d2 = np.geomspace(1.2e-38, 3e38, 400_000).astype(np.float32)
    entry = d2.view(np.uint32) >> np.uint32(14)
    exact = d2.astype(np.float64)
    pull = -2 * a * b * exact ** (b - 1) / (1 + a * exact**b)
    push = 2 * 0.7 * b / ((0.001 + exact) * (1 + a * exact**b))
    for table, truth in ((tables.attraction, pull), (tables.repulsion, push)):
        seen = (np.abs(truth) > 1e-30) & (np.abs(truth) < 1e29)
        assert np.abs(table[entry] / truth - 1)[seen].max() <= 0.005
        assert np.isfinite(table).all()
    special = np.array([0, 1e-45, np.inf, np.nan], np.float32).view(np.uint32) >> np.uint32(14)
    assert (tables.repulsion[special[2:]] == 0).all()
    assert tables.repulsion[0] == pytest.approx(2 * 0.7 * b / 0.001, rel=0.005)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("d", [2, 3, 4])
def test_coincident_and_far_points_stay_finite(optimizer, d):
    edges, _ = graph(200, 10)
    positions = np.zeros((200, d), np.float32)
    still, *_ = run(optimizer, positions, edges, 3)
    np.testing.assert_array_equal(still, positions)  # no distance, no direction, no force
    positions[100:] = 1e25  # the square overflows
    assert np.isfinite(run(optimizer, positions, edges, 3)[0]).all()


def test_a_pool_shorter_than_a_run_is_refused():
    edges = layout.mask_edges(graph(20, 5)[0], 0, KEY, 0)
    short, moments = start(20, 2)[:8].T, State(np.zeros((20, 2), np.float32), np.zeros((20, 2), np.float32))
    block = (start(20, 2), start(20, 2), 0, 0, 20, edges, moments)
    with pytest.raises(ValueError, match="has 8 columns, runs of negatives take 16"):
        layout.adam_iteration(*block, short, FORCES, KEY, 0, ITERATIONS, 1.0)


def test_a_hub_stays_in_the_map():
    n = 5001
    spokes = np.arange(1, n, dtype=np.int32)
    indptr = np.concatenate([[0], np.arange(n - 1, 2 * n - 1)])
    tails = np.concatenate([spokes, np.zeros(n - 1, np.int32)])
    edges = Edges(indptr, tails, np.full(2 * (n - 1), 2**31, np.uint32))
    moved, *_ = run("adam", start(n, 2), edges, 60)
    radius = np.linalg.norm(moved - np.median(moved, 0), axis=1)
    assert radius[0] < np.quantile(radius, 0.99)
    assert radius.max() < 3 * np.quantile(radius, 0.99)


@pytest.mark.parametrize("n", [7, 3000, 70_000])
def test_the_pool_holds_all_vertices(n):
    ids = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    pools = [layout.negative_pool(ids, KEY, iteration) for iteration in range(15)]
    assert pools[0].shape == (2, min(max(n, 1024), 8_192))
    assert pools[0].flags.c_contiguous
    assert not np.array_equal(pools[0], pools[1])
    drawn = np.bincount(np.concatenate([pool[0] for pool in pools]).astype(int) // 2, minlength=n)
    assert (drawn > 0).mean() == pytest.approx(1 - np.exp(-drawn.mean()), abs=0.01)
    # Draws with replacement: counts are Poisson, the mean of a slice is the mean of all.
    assert abs(drawn.var() / drawn.mean() - 1) < (0.2 if n > 100 else 3)
    assert abs(pools[0][0, :512].mean() / (n - 1) - 1) < 0.1


def small_run():
    """Return the numbers of a tiny run of every kernel, one after the other."""
    edges, weights = graph(40, 6)
    numbers = []
    for d in (2, 3, 4):
        positions = start(40, d)
        numbers += [run(way, positions, edges, 2, learning_rate=0.1)[0].ravel() for way in ITERATION]
        block = (positions, 0, edges.indptr, edges.tails, weights)
        numbers.append(np.asarray(pair_sums(*block, A, B, KEY)) / UNITS)
    return np.concatenate(numbers)


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({"NUMBA_DISABLE_JIT": "1"}, id="NUMBA_DISABLE_JIT"),
        pytest.param(CHECKED, id="NUMBA_BOUNDSCHECK", marks=pytest.mark.processes),
    ],
)
def test_same_without_jit_and_with_bounds_checks(variables, tmp_path):
    env = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = "import numpy, sys, test_layout as t; numpy.save(sys.argv[1], t.small_run())"
    # NumPy's scalars warn where a hash wraps around.
    command = [sys.executable, "-W", "ignore::RuntimeWarning", "-c", code, str(tmp_path / "run.npy")]
    subprocess.run(command, env=env, check=True, timeout=120, cwd=os.path.dirname(__file__))
    np.testing.assert_allclose(np.load(tmp_path / "run.npy"), small_run(), rtol=1e-4, atol=1e-4)
