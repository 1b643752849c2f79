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

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from daskumap.kernels.layout.firing import MASKED
from daskumap.kernels.layout.iterations import (
    Edges,
    Forces,
    MaskedEdges,
    State,
    adam_iteration,
    firing_edges,
    forces,
    mask_edges,
    negative_pool,
    sgd_iteration,
)
from daskumap.kernels.layout.together import Team
from daskumap.planning import costs, memory
from daskumap.planning.stage import Receipt, Rounds, Stage, Step
from daskumap.runtime.context import Context
from daskumap.runtime.listen import tell
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
    )


def _iteration_seconds(context: Context) -> float:
    rows, p = context.sizes.rows, context.params
    if context.output_metric is None:
        return costs.iteration_seconds(rows, p.n_neighbors, p.n_components)
    return costs.measured_seconds(rows, p.negative_sample_rate)


def _rounds(context: Context, ranges: list[tuple[int, int]]) -> Rounds:
    every = context.params.reconcile_every
    return Rounds(
        parts=context.sizes.layout_partitions,
        segments=tuple(
            tuple((iteration, min(iteration + every, last)) for iteration in range(first, last, every))
            for first, last in ranges
        ),
        load=load_partition,
        share=positions_of_partition,
        reduce=np.concatenate,
        step=step_partition,
        save=save_partition,
    )


def layout_task(context: Context, segment: int) -> Receipt:
    """Run the iterations of one segment over all vertices, with the worker's threads."""
    rows = context.sizes.rows
    positions, state = load_state(context, 0, rows, segment)
    started = time.perf_counter()
    move = _move_together if _meet(context) else _move_in_pieces
    positions = move(context, range(*segments(context)[segment]), positions, state)
    seconds = time.perf_counter() - started
    digests = save_state(context, 0, segment, positions, state)
    return Receipt(rows, dict(digests), kernel_seconds=seconds)


def _meet(context: Context) -> bool:
    """Tell whether threads run several iterations in one call: where all edges are few, and stay."""
    s, k = context.sizes, context.params.n_neighbors
    read = s.rows * memory.edge_read(k)
    fits = read <= MOST_READ and read + s.rows * memory.layout_edges(k) <= s.edge_bytes
    return fits and context.params.reconcile_every == 1 and s.layout_partitions == 1


def _move_together(context: Context, iterations: range, positions: Array, state: State) -> Array:
    """Return the positions after some iterations, a set of masks at a time."""
    p, resources, rows = context.params, context.resources, len(positions)
    threads = min(max(resources.threads, resources.cores), max(1, rows // ROWS_A_THREAD))
    team = Team(
        positions,
        context.distinct,
        edges_of(context, 0, rows).edges,
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
        for done in range(0, len(iterations), MASKED):
            part = iterations[done : done + MASKED]
            team.run(part, run_all)
            tell((done + len(part)) / len(iterations))
    return team.positions


def _move_in_pieces(context: Context, iterations: range, positions: Array, state: State) -> Array:
    """Return the positions after some iterations, of each of which threads share the pieces."""
    rows, every, spare = len(positions), context.params.reconcile_every, np.empty_like(positions)
    with workers(context.resources.threads) as run_all:
        for done in range(0, len(iterations), every):
            part = iterations[done : done + every]
            round_ = _Round(context, positions, part)
            run_all(partial(_move, round_, spare, state, 0), _pieces(context, 0, rows))
            positions, spare = spare, positions
            tell((done + len(part)) / len(iterations))
    return positions


def forces_of(context: Context) -> Forces:
    """Return the tables of forces, a megabyte."""
    p = context.params
    return context.held("forces", lambda: forces(*p.curve(), p.repulsion_strength, p.negative_sample_rate))


class _Round:
    """The iterations between two reconciliations, from one snapshot."""

    def __init__(self, context: Context, snapshot: Array, iterations: range) -> None:
        self.context, self.snapshot, self.iterations = context, snapshot, iterations
        self.forces = forces_of(context)
        self.key = context.key("negatives")
        seen = snapshot[: context.distinct]  # Twins have no place of their own, and come last.
        self.pools = [negative_pool(seen, self.key, iteration) for iteration in self.iterations]

    def move(self, start: int, stop: int, out: Array, state: State) -> None:
        """Move the vertices start to stop - 1, from the snapshot to `out`."""
        p = self.context.params
        edges = edges_of(self.context, start, stop)
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


def _move(round_: _Round, out: Array, state: State, first: int, piece: tuple[int, int]) -> None:
    """Move one piece of the vertices; `out` and `state` begin with vertex `first`."""
    start, stop = piece
    rows = slice(start - first, stop - first)
    round_.move(start, stop, out[rows], State(state.mean[rows], state.variance[rows]))


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
def workers(threads: int) -> Iterator[Callable[[Callable[[Any], None], Iterable[Any]], Any]]:
    """Yield a function that maps over so many threads and raises what they raise."""
    if threads == 1:
        yield lambda function, items: list(map(function, items))
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="daskumap-layout") as pool:
        yield lambda function, items: list(pool.map(function, items))


# One partition between two rounds: positions, moments, and the seconds that its kernels took so far.
PartitionState = tuple[Array, State, float]


def load_partition(context: Context, partition: int, segment: int) -> PartitionState:
    """Return one partition's positions and moments as the last segment left them."""
    return *load_state(context, *context.sizes.layout_partition(partition), segment), 0.0


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
        run_all(partial(_move, round_, out, moments, start), pieces)
    return out, moments, state[2] + time.perf_counter() - started


def save_partition(context: Context, partition: int, segment: int, state: PartitionState) -> Receipt:
    """Write one partition's state."""
    start, stop = context.sizes.layout_partition(partition)
    digests = save_state(context, start, segment, *state[:2])
    return Receipt(stop - start, dict(digests), kernel_seconds=state[2])


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


class RangeEdges:
    """The edges of a range of vertices, and the masks that were made of them last."""

    def __init__(self, edges: Edges, first: int, key: int) -> None:
        self.edges, self.first, self.key = edges, first, key
        self._masked: MaskedEdges | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the edges and one set of masks."""
        return sum(array.nbytes for array in self.edges) + len(self.edges.tails)

    def masked(self, iteration: int) -> MaskedEdges:
        """Return the edges with masks that hold an iteration, made anew if the last ones do not."""
        masked = self._masked
        if masked is None or not masked.holds(iteration):
            self._masked = masked = None  # or the old masks would stay in memory beside the new ones
            self._masked = masked = mask_edges(self.edges, self.first, self.key, iteration)
        return masked


class KeptEdges:
    """The edges that a process has read, by range of vertices, while they fit."""

    def __init__(self, room: int) -> None:
        self.room, self.ranges = room, dict[tuple[int, int], RangeEdges]()
        self._lock = threading.Lock()

    def keep(self, place: tuple[int, int], edges: RangeEdges) -> RangeEdges:
        """Keep the edges of a range if there is room; return them."""
        with self._lock:
            if edges.nbytes > self.room:
                return edges
            self.room -= edges.nbytes
            # Copied, or the memory of the edges that never fire would be kept as well.
            copied = Edges(*map(np.copy, edges.edges))
            kept = self.ranges[place] = RangeEdges(copied, edges.first, edges.key)
            return kept


def edges_of(context: Context, start: int, stop: int) -> RangeEdges:
    """Return the edges of a range of vertices, from this process while they fit, else from the store."""
    kept = context.held("edges", lambda: KeptEdges(context.sizes.edge_bytes))
    place = (start, stop)
    return kept.ranges.get(place) or kept.keep(place, load_edges(context, start, stop))


def load_edges(context: Context, start: int, stop: int) -> RangeEdges:
    """Read the edges of a range of vertices, without those that would never fire."""
    largest = float(context.fact(schema.GRAPH_FACTS)["largest_weight"] or 1.0)
    edges = firing_edges(*context.edges(start, stop), largest, context.job.iterations)
    return RangeEdges(edges, start, context.key("negatives"))


LAYOUT = Step(
    "layout",
    plan_layout,
    reads=(schema.INITIAL, schema.GRAPH, schema.GRAPH_FACTS),
    writes=(schema.STATE,),
)
