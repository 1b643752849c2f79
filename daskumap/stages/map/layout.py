"""Layout: synchronous iterations over vertex partitions, in segments that each end in a checkpoint.

Where one worker holds all partitions, a task is a segment, and its threads share each iteration. With several
workers the engine runs the rounds: every worker moves its own partitions against the snapshot that all of
them see. The bits are the same, since a vertex reads nothing but the snapshot, and all randomness is keyed by
(seed, iteration, vertex).

The state after each segment goes to a place of its own, and the segment's record holds its digests. A worker
holds two snapshots and the moments, 24 d bytes a vertex, and the edges; those that do not fit are read every
iteration.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from daskumap.kernels.layout.diagnostics import Sums
from daskumap.kernels.layout.firing import MASKED
from daskumap.kernels.layout.iterations import (
    Forces,
    State,
    adam_iteration,
    forces,
    negative_pool,
    sgd_iteration,
)
from daskumap.kernels.layout.together import Team
from daskumap.planning import costs, memory
from daskumap.planning.stage import Receipt, Rounds, Stage, Step
from daskumap.runtime.context import Context
from daskumap.runtime.listen import tell
from daskumap.stages.shared.graph_facts import strength_of
from daskumap.stages.shared.looks import Course, due, ends, keep_course, look, looks, together
from daskumap.stages.shared.moving_edges import edges_of
from daskumap.stages.shared.positions import listed_segments, segments
from daskumap.store import schema
from daskumap.store.checkpoint import KEPT, Digests

Array = np.ndarray[Any, Any]

# Below it a piece costs more than its rows: a call takes 25 us, a row 0.1 (measured).
LEAST_ROWS = 512
# Vertices for each of the threads that meet after an iteration, 0.1 ms of work.
ROWS_A_THREAD = 1_024
# Bytes of edges that are read at once for that: some 23,000 vertices with 15 neighbors. For more of them the
# hand-over of pieces is little, and a plan would need more memory.
MOST_READ = 20_000_000
ITERATIONS: dict[str, Callable[..., None]] = {"adam": adam_iteration, "sgd": sgd_iteration}


def plan_layout(context: Context) -> Stage:
    """Plan one task a segment of `checkpoint_every` epochs."""
    s, d, k = context.sizes, context.params.n_components, context.params.n_neighbors
    ranges, lasting = segments(context), frozenset(listed_segments(context))
    return Stage(
        task=layout_task,
        tasks=len(ranges),
        memory={"edges read": min(_piece_rows(context), s.rows) * memory.edge_read(context.job.neighbors)},
        shared=memory.positions(s.rows, d) + min(s.rows * memory.layout_edges(k), s.edge_bytes),
        made=(schema.STATE.name,),
        made_bytes=(1 + KEPT + len(lasting)) * len(schema.STATE.parts) * context.output(schema.STATE).nbytes,
        read_bytes=s.rows * (k - 1) * 2 * 8 * len(ranges),  # tails and weights
        work=_iteration_seconds(context) * context.job.iterations,
        ordered=True,
        lasting=lasting,
        rounds=_rounds(context, ranges) if s.layout_partitions > 1 else None,
        conclude=keep_course,
    )


def _iteration_seconds(context: Context) -> float:
    rows, p = context.sizes.rows, context.params
    if context.output_metric is None:
        return costs.iteration_seconds(rows, p.n_neighbors, p.n_components)
    return costs.measured_seconds(rows, p.negative_sample_rate)


def _rounds(context: Context, ranges: list[tuple[int, int]]) -> Rounds:
    return Rounds(
        parts=context.sizes.layout_partitions,
        segments=tuple(tuple(_rounds_of(context, *range_)) for range_ in ranges),
        load=load_partition,
        share=positions_of_partition,
        reduce=np.concatenate,
        step=step_partition,
        save=save_partition,
    )


def _rounds_of(context: Context, first: int, last: int) -> list[tuple[int, int]]:
    """Return the iterations [from, to) of each round of a segment; of a round that only looks, none."""
    every = context.params.reconcile_every
    rounds = [(start, min(start + every, last)) for start in range(first, last, every)]
    return [*rounds, (last, last)] if ends(context, last) else rounds


def layout_task(context: Context, segment: int) -> Receipt:
    """Run the iterations of one segment over all vertices, with the worker's threads."""
    rows = context.sizes.rows
    positions, state = load_state(context, 0, rows, segment)
    started = time.perf_counter()
    move = _move_together if _meet(context) else _move_in_pieces
    positions, course = move(context, *segments(context)[segment], positions, state)
    seconds = time.perf_counter() - started
    digests = save_state(context, 0, segment, positions, state)
    return Receipt(rows, {**digests, "course": course}, kernel_seconds=seconds)


def _meet(context: Context) -> bool:
    """Tell whether threads run several iterations in one call: where all edges are few, and stay."""
    s, k = context.sizes, context.params.n_neighbors
    read = s.rows * memory.edge_read(k)
    fits = read <= MOST_READ and read + s.rows * memory.layout_edges(k) <= s.edge_bytes
    one = context.params.reconcile_every == 1 and s.layout_partitions == 1
    return fits and one and context.job.iterations > 0


def _move_together(
    context: Context, first: int, last: int, positions: Array, state: State
) -> tuple[Array, Course]:
    """Return the positions after some iterations, and the looks: a set of masks at a time, up to a look."""
    p, resources, rows = context.params, context.resources, len(positions)
    threads = min(max(resources.threads, resources.cores), max(1, rows // ROWS_A_THREAD))
    edges, due_before, course = edges_of(context, 0, rows).edges, due(context, first, last), Course()
    team = Team(
        positions,
        context.distinct,
        edges,
        state,
        forces_of(context),
        p.optimizer,
        context.key("negatives"),
        context.job.iterations,
        float(p.learning_rate),
        context.output_metric,
        threads,
    )
    with workers(threads) as run_all:
        for start, stop in pairwise(sorted({*range(first, last, MASKED), *due_before, last})):
            if start in due_before:
                course += together(start, [look(context, team.positions, 0, edges)])
            team.run(range(start, stop), run_all)
            tell((stop - first) / (last - first))
    if ends(context, last):
        course += together(last, [look(context, team.positions, 0, edges)])
    return team.positions, course


def _move_in_pieces(
    context: Context, first: int, last: int, positions: Array, state: State
) -> tuple[Array, Course]:
    """Return the positions after some iterations, whose pieces threads share; and the looks."""
    pieces, spare, course = _pieces(context, 0, len(positions)), np.empty_like(positions), Course()
    with workers(context.resources.threads) as run_all:
        for start, stop in _rounds_of(context, first, last):
            round_ = _Round(context, positions, range(start, stop))
            course += together(start, run_all(partial(_move, round_, spare, state, 0), pieces))
            positions, spare = spare, positions
            tell((stop - first) / max(1, last - first))
    return positions, course


def forces_of(context: Context) -> Forces:
    """Return the tables of forces, a megabyte."""
    p = context.params
    return context.held("forces", lambda: forces(*p.curve(), strength_of(context), p.negative_sample_rate))


class _Round:
    """The iterations between two reconciliations, from one snapshot."""

    def __init__(self, context: Context, snapshot: Array, iterations: range) -> None:
        self.context, self.snapshot, self.iterations = context, snapshot, iterations
        self.looks = bool(due(context, iterations.start, iterations.stop)) if iterations else looks(context)
        self.forces = forces_of(context)
        self.key = context.key("negatives")
        seen = snapshot[: context.distinct]  # Twins have no place of their own, and come last.
        self.pools = [negative_pool(seen, self.key, iteration) for iteration in self.iterations]

    def move(self, start: int, stop: int, out: Array, state: State) -> Sums | None:
        """Move the vertices start to stop - 1, from the snapshot to `out`; return their look, if any."""
        p = self.context.params
        edges = edges_of(self.context, start, stop)
        found = look(self.context, self.snapshot, start, edges.edges) if self.looks else None
        if not self.iterations:
            out[:] = self.snapshot[start:stop]
        # With one iteration a round everyone reads the snapshot itself; with more, a private copy follows the
        # own rows.
        seen = self.snapshot if len(self.iterations) == 1 else self.snapshot.copy()
        for iteration, pool in zip(self.iterations, self.pools, strict=True):
            ITERATIONS[p.optimizer](
                seen,
                out,
                start,
                0,
                stop - start,
                edges.masked(iteration),
                state,
                pool,
                self.forces,
                self.key,
                iteration,
                self.context.job.iterations,
                float(p.learning_rate),
                self.context.output_metric,
            )
            if len(self.iterations) > 1:
                seen[start:stop] = out
        return found


def _move(round_: _Round, out: Array, state: State, first: int, piece: tuple[int, int]) -> Sums | None:
    """Move one piece of the vertices, and return its look; `out` and `state` begin with vertex `first`."""
    start, stop = piece
    rows = slice(start - first, stop - first)
    return round_.move(start, stop, out[rows], State(state.mean[rows], state.variance[rows]))


def _piece_rows(context: Context) -> int:
    """Return how many vertices a thread moves at a time: several pieces for each, so that none waits."""
    s, threads = context.sizes, context.resources.threads
    if _meet(context):
        return s.rows
    if context.params.reconcile_every > 1:
        return s.layout_rows
    if threads == 1:
        return s.partition_rows
    return min(s.partition_rows, max(LEAST_ROWS, -(-s.rows // (8 * threads))))


def _pieces(context: Context, start: int, stop: int) -> list[tuple[int, int]]:
    step = _piece_rows(context)
    return [(at, min(at + step, stop)) for at in range(start, stop, step)]


@contextmanager
def workers(threads: int) -> Iterator[Callable[[Callable[[Any], Any], Iterable[Any]], Any]]:
    """Yield a function that maps over so many threads and raises what they raise."""
    if threads == 1:
        yield lambda function, items: list(map(function, items))
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="daskumap-layout") as pool:
        yield lambda function, items: list(pool.map(function, items))


# One partition between two rounds: positions, moments, and so far the seconds of its kernels, and its looks.
PartitionState = tuple[Array, State, float, Course]


def load_partition(context: Context, partition: int, segment: int) -> PartitionState:
    """Return one partition's positions and moments as the last segment left them."""
    return *load_state(context, *context.sizes.layout_partition(partition), segment), 0.0, []


def positions_of_partition(state: PartitionState) -> Array:
    """Return the part of a state that the other partitions see."""
    return state[0]


def step_partition(
    context: Context, partition: int, iterations: tuple[int, int], state: PartitionState, snapshot: Array
) -> PartitionState:
    """Return one partition's next state from the positions of all partitions; nothing given is changed."""
    started = time.perf_counter()
    start, stop = context.sizes.layout_partition(partition)
    out, moments = np.empty_like(state[0]), State(state[1].mean.copy(), state[1].variance.copy())
    round_ = _Round(context, snapshot, range(*iterations))
    pieces = [(start, stop)] if len(round_.iterations) > 1 else _pieces(context, start, stop)
    with workers(context.resources.threads) as run_all:
        found = run_all(partial(_move, round_, out, moments, start), pieces)
    seconds = state[2] + time.perf_counter() - started
    return out, moments, seconds, [*state[3], *together(iterations[0], found)]


def save_partition(context: Context, partition: int, segment: int, state: PartitionState) -> Receipt:
    """Write one partition's state."""
    start, stop = context.sizes.layout_partition(partition)
    digests = save_state(context, start, segment, *state[:2])
    return Receipt(stop - start, {**digests, "course": state[3]}, kernel_seconds=state[2])


def load_state(context: Context, start: int, stop: int, segment: int) -> tuple[Array, State]:
    """Read the positions and moments of a range of vertices before a segment."""
    if segment == 0:
        zeros = [np.zeros((stop - start, context.params.n_components), np.float32) for _ in range(2)]
        return context.read(schema.INITIAL, start, stop), State(*zeros)
    before = context.checkpoint(schema.STATE, segment - 1)
    positions, *moments = (before.read(part, start, stop) for part in schema.STATE.parts)
    return positions, State(*moments)


def save_state(context: Context, start: int, segment: int, positions: Array, state: State) -> Digests:
    """Write the positions and moments of a range of vertices after a segment; return their digests."""
    parts = dict(zip(schema.STATE.parts, (positions, *state), strict=True))
    return context.checkpoint(schema.STATE, segment, writing=True).write(start, parts)


LAYOUT = Step(
    "layout",
    plan_layout,
    reads=(schema.INITIAL, schema.GRAPH, schema.GRAPH_FACTS, schema.REPULSION),
    writes=(schema.STATE, schema.COURSE),
)
