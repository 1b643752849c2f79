"""Several iterations in one call, by threads of this process that meet after each.

An iteration of a few thousand vertices takes less than the hand-over of its parts to threads from Python. So
each thread calls one kernel for all iterations of a set of masks: it makes the masks of its own vertices,
takes pieces of its own vertices and then of the others', counts that it is done, and waits until all are.
Who moves a vertex does not change its bits.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.address import address_of, call
from daskumap.kernels.atomic import count, counted
from daskumap.kernels.jit import kernel
from daskumap.kernels.layout.firing import MASKED, Edges, MaskedEdges, mask_rows
from daskumap.kernels.layout.forces import Forces
from daskumap.kernels.layout.iterations import (
    AT_ITERATION,
    Clock,
    State,
    built,
    read_only_tables,
)
from daskumap.kernels.layout.measured import positions_on
from daskumap.kernels.layout.sampling import (
    DRAW,
    PHASE,
    POOL,
    Array,
    draw_pool,
    empty_pool,
    readonly,
    stream_seed,
)

# Vertices that a thread takes at a time: 20 us of work, a hundred times what taking them costs.
PIECE = 256
# Looks at the others before a thread that waits lets go of its core: some 50 us, twice a piece.
LOOKS = 50_000
WAIT = 5e-5  # seconds
# Counters lie so many apart that no two share a cache line.
APART = 8


class Turns(NamedTuple):
    """What threads do together: the iterations [since, since + steps), and who begins where."""

    bounds: Array  # (threads + 1,) int64: thread i begins with the vertices [bounds[i], bounds[i + 1])
    piece: int  # vertices that a thread takes at a time
    counters: Array  # int64, from 0
    steps: int
    since: np.uint32
    seeds: Array  # (steps,) uint32, of the pools
    phases: np.uint32
    distinct: int
    first: int  # what the walk takes as the first vertex of a block


class Team:
    """Threads that run iterations over all vertices, to the same bits as one iteration after another.

    Parameters
    ----------
    positions
        (n, d) float32, contiguous, and overwritten.
    distinct
        Vertices from which negatives are drawn, the first ones.
    edges, state, forces, key, n_iterations, learning_rate, metric
        As of `iterations.adam_iteration`, of all vertices; the edges have no masks.
    optimizer
        "adam" or "sgd".
    threads
        How many.

    Attributes
    ----------
    positions
        As the iterations so far have left them.
    """

    def __init__(
        self,
        positions: Array,
        distinct: int,
        edges: Edges,
        state: State,
        forces: Forces,
        optimizer: str,
        key: int,
        n_iterations: int,
        learning_rate: float,
        metric: Any,
        threads: int,
    ) -> None:
        n, dims = positions.shape
        self.positions, self._spare = positions, np.empty_like(positions)
        self._optimizer = partial(
            AT_ITERATION[optimizer],
            state,
            n_iterations=n_iterations,
            learning_rate=learning_rate,
            metric=metric,
        )
        self._key, self._distinct, self.threads = key, distinct, threads
        self._bounds = np.linspace(0, n, threads + 1).astype(np.int64)
        self._piece = n if threads == 1 else PIECE
        self._rates, self._masks = readonly(edges.rates), np.empty(edges.tails.size, np.uint8)
        self._masked = partial(
            MaskedEdges, readonly(edges.indptr), readonly(edges.tails), readonly(self._masks)
        )
        self._tables = read_only_tables(forces)
        self._pools = [empty_pool(distinct, dims) for _ in range(threads)]
        self._components = [positions_on(metric, dims) for _ in range(threads)]
        self._walk = built(self._optimizer(0), self._components[0], forces, metric)
        self._address = address_of(
            self._walk,
            (
                readonly(positions),
                readonly(self._pools[0]),
                self._tables,
                self._masked(0),
                self._spare,
                0,
                0,
                0,
                self._components[0],
                self._optimizer(0),
                Clock(np.uint32(0), np.uint8(0)),
            ),
        )
        self._broken = threading.Event()

    def run(self, iterations: range, run_all: Callable[[Callable[[int], None], range], Any]) -> None:
        """Run up to `MASKED` iterations; `run_all` calls a function for all numbers of a range at once."""
        steps, since = len(iterations), iterations[0]
        turns = Turns(
            self._bounds,
            self._piece,
            np.zeros((steps + 1) * (self.threads + 1) * APART, np.int64),
            steps,
            np.uint32(since),
            np.array([stream_seed(self._key, POOL, iteration) for iteration in iterations], np.uint32),
            stream_seed(self._key, PHASE, 0),
            self._distinct,
            0,
        )
        # As many as a mask has bits, so that one kernel does for any number of iterations.
        padded = [iterations[min(step, steps - 1)] for step in range(MASKED)]
        clocks = tuple(
            Clock(stream_seed(self._key, DRAW, iteration), np.uint8(iteration - since))
            for iteration in padded
        )
        optimizers = tuple(map(self._optimizer, padded))
        try:
            run_all(partial(self._work, turns, optimizers, clocks), range(self.threads))
        except BaseException:
            self._broken.set()  # Who has begun would wait for a thread that has not.
            raise
        if steps % 2:
            self.positions, self._spare = self._spare, self.positions

    def _work(
        self, turns: Turns, optimizers: tuple[Any, ...], clocks: tuple[Clock, ...], member: int
    ) -> None:
        places = self.positions, self._spare
        seen = readonly(places[0]), readonly(places[1])
        pool, components = self._pools[member], self._components[member]
        drawn, step = readonly(pool), -1
        try:
            while True:
                step = _iterate(
                    self._address,
                    places,
                    seen,
                    pool,
                    drawn,
                    self._tables,
                    self._masked(int(turns.since)),
                    self._masks,
                    self._rates,
                    components,
                    optimizers,
                    clocks,
                    turns,
                    member,
                    step,
                )
                if step == turns.steps or self._broken.is_set():
                    return
                time.sleep(WAIT)  # Who is waited for may need this core.
        except BaseException:
            self._broken.set()
            raise


@kernel
def _iterate(  # type: ignore[no-untyped-def]
    walk,
    places,
    seen,
    pool,
    drawn,
    forces,
    edges,
    masks,
    rates,
    components,
    optimizers,
    clocks,
    turns,
    member,
    step,
):
    """Go on with a step, -1 for the masks; return which one cannot begin yet, or how many there are."""
    threads, counters = turns.bounds.size - 1, turns.counters
    if step < 0:
        start, stop = turns.bounds[member], turns.bounds[member + 1]
        mask_rows(edges.indptr, edges.tails, rates, 0, start, stop, turns.phases, turns.since, masks)
        count(counters, threads * APART)
        step = 0
    while step < turns.steps:
        looks, before = 0, (step * (threads + 1) + threads) * APART
        while counted(counters, before) < threads:
            looks += 1
            if looks == LOOKS:
                return step
        snapshot, out = seen[step & 1], places[1 - (step & 1)]
        draw_pool(snapshot[: turns.distinct], turns.seeds[step], pool)
        for turn in range(threads):
            owner = (member + turn) % threads
            taken, last = ((step + 1) * (threads + 1) + owner) * APART, turns.bounds[owner + 1]
            while True:
                start = turns.bounds[owner] + turns.piece * count(counters, taken)
                if start >= last:
                    break
                stop = min(start + turns.piece, last)
                call(
                    walk,
                    (
                        snapshot,
                        drawn,
                        forces,
                        edges,
                        out,
                        turns.first,
                        start,
                        stop,
                        components,
                        optimizers[step],
                        clocks[step],
                    ),
                )
        step += 1
        count(counters, (step * (threads + 1) + threads) * APART)
    return step
