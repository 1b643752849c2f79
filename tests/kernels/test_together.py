"""Threads that meet after each iteration move vertices to the bits of one iteration after another."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from daskumap.kernels.layout import iterations as layout
from daskumap.kernels.layout import output_metrics, together
from daskumap.kernels.layout.together import Team

ROWS, KEY, ITERATIONS, DISTINCT = 700, 77, 40, 690
FORCES = layout.forces(1.577, 0.895, 1.0, 5)
STEP = {"adam": layout.adam_iteration, "sgd": layout.sgd_iteration}


@pytest.fixture
def edges() -> layout.Edges:
    """Between random vertices; the first is a hub."""
    rng = np.random.default_rng(0)
    indptr = np.concatenate([[0, 300], 300 + np.cumsum(rng.integers(0, 12, ROWS - 1))])
    tails = rng.integers(0, ROWS, indptr[-1]).astype(np.int32)
    return layout.firing_edges(indptr, tails, rng.random(len(tails), np.float32), 1.0, ITERATIONS)


def start(dims: int) -> tuple[np.ndarray, layout.State]:
    positions = np.random.default_rng(1).random((ROWS, dims), np.float32) * 10
    return positions, layout.State(np.zeros_like(positions), np.zeros_like(positions))


def one_by_one(edges: layout.Edges, optimizer: str, dims: int, last: int, metric: object) -> np.ndarray:
    positions, state = start(dims)
    for iteration in range(last):
        pool = layout.negative_pool(positions[:DISTINCT], KEY, iteration)
        masked, out = layout.mask_edges(edges, 0, KEY, iteration), np.empty_like(positions)
        block = (out, 0, 0, ROWS, masked, state, pool, FORCES, KEY, iteration, ITERATIONS, 1.0, metric)
        STEP[optimizer](positions, *block)
        positions = out
    return positions


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("optimizer", "dims", "metric"),
    [("adam", 2, None), ("adam", 5, None), ("sgd", 2, None), ("adam", 2, "haversine")],
)
def test_the_bits_are_those_of_one_iteration_after_another(
    edges, optimizer, dims, metric, threads, monkeypatch
) -> None:
    monkeypatch.setattr(together, "PIECE", 64)
    measure = metric and output_metrics.resolve(metric, None, dims)
    positions, state = start(dims)
    team = Team(positions, DISTINCT, edges, state, FORCES, optimizer, KEY, ITERATIONS, 1.0, measure, threads)
    with ThreadPoolExecutor(threads) as pool:
        for part in (range(8), range(8, 13), range(13, 21)):
            team.run(part, lambda function, items: list(pool.map(function, items)))
    np.testing.assert_array_equal(team.positions, one_by_one(edges, optimizer, dims, 21, measure))


def test_a_thread_that_comes_late_is_waited_for(edges, monkeypatch) -> None:
    monkeypatch.setattr(together, "WAIT", 0.001)
    positions, state = start(2)
    team = Team(positions, DISTINCT, edges, state, FORCES, "adam", KEY, ITERATIONS, 1.0, None, 2)
    gate = threading.Event()

    def late(function, member):  # type: ignore[no-untyped-def]
        if member == 1:
            assert not gate.wait(0.05)
        function(member)
        gate.set()

    with ThreadPoolExecutor(2) as pool:
        team.run(range(8), lambda function, items: list(pool.map(late, [function] * 2, items)))
    np.testing.assert_array_equal(team.positions, one_by_one(edges, "adam", 2, 8, None))


def test_an_error_in_one_thread_ends_the_others(edges, monkeypatch) -> None:
    positions, state = start(2)
    team = Team(positions, DISTINCT, edges, state, FORCES, "adam", KEY, ITERATIONS, 1.0, None, 2)
    iterate = together._iterate

    def fails(*arguments):  # type: ignore[no-untyped-def]
        if arguments[-2] == 1:
            raise MemoryError("no room")
        return iterate(*arguments)

    monkeypatch.setattr(together, "_iterate", fails)
    with ThreadPoolExecutor(2) as pool, pytest.raises(MemoryError, match="no room"):
        team.run(range(8), lambda function, items: list(pool.map(function, items)))


def test_a_thread_that_cannot_begin_is_not_waited_for(edges) -> None:
    positions, state = start(2)
    team = Team(positions, DISTINCT, edges, state, FORCES, "adam", KEY, ITERATIONS, 1.0, None, 2)

    def only_one(function, members):  # type: ignore[no-untyped-def]
        threads.append(threading.Thread(target=function, args=(members[0],), daemon=True))
        threads[0].start()
        raise RuntimeError("can't start new thread")

    threads: list[threading.Thread] = []
    with pytest.raises(RuntimeError, match="can't start"):
        team.run(range(8), only_one)
    threads[0].join(30)
    assert not threads[0].is_alive()
