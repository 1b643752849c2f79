"""Layout: synchronous epochs over vertex partitions, in segments that each end in a checkpoint.

Reads `initial` and graph/*. Writes layout/<slot>/{positions, mean, variance}: two slots, used in turn, so
that the last checkpoint is whole while the next one is written; the ledger's record of a segment switches to
it.

Where one worker holds all partitions, a task is a segment, and its threads share each epoch. With several
workers the engine runs the rounds: every worker moves its own partitions against the snapshot that all of
them see. The bits are the same, since a vertex reads nothing but the snapshot, and all randomness is keyed by
(seed, epoch, vertex).
Memory: two snapshots and the moments, 24 d bytes a vertex, and the edges; those that do not fit are read
every epoch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import numpy as np

from daskumap.errors import StoreError
from daskumap.kernels.layout import Edges, State, adam_epoch, firing_edges, forces, negative_pool, sgd_epoch
from daskumap.planning.held import held
from daskumap.planning.job import Job
from daskumap.planning.progress import tell
from daskumap.planning.sizes import edge_read_bytes, epoch_seconds, layout_edge_bytes, position_bytes
from daskumap.planning.stage import Output, Receipt, Rounds, Stage
from daskumap.stages.common import Array, distinct_of, key_of, run_of
from daskumap.stages.symmetrize import read_edges

SLOTS = ("layout/even", "layout/odd")
PARTS = ("positions", "mean", "variance")
EPOCHS: dict[str, Callable[..., None]] = {"adam": adam_epoch, "sgd": sgd_epoch}

# One partition's share of the work: new positions and moments, updated in place.
Move = Callable[[Array, Array, State, int, int], None]


def plan_layout(job: Job) -> Stage:
    """Plan one task a segment of `checkpoint_every` epochs."""
    s, d, k = job.sizes, job.params.n_components, job.params.n_neighbors
    graph = s.rows * layout_edge_bytes(k)
    edges = min(graph, s.edge_bytes)
    segments = epoch_ranges(job)
    state = tuple(
        Output(f"{slot}/{part}", (s.rows, d), (s.state_chunk, d), "float32")
        for slot in SLOTS
        for part in PARTS
    )
    return Stage(
        name="layout",
        task=layout_task,
        tasks=len(segments),
        memory={"edges read": min(_piece_rows(job), s.rows) * edge_read_bytes(job.neighbors)},
        shared=position_bytes(s.rows, d) + edges,
        outputs=state,
        read_bytes=graph * len(segments),
        work=epoch_seconds(s.rows, k, d) * job.n_epochs,
        ordered=True,
        rounds=Rounds(
            load_partition,
            step_partition,
            positions_of_partition,
            save_partition,
            tuple((first, last) for first, last in segments),
        )
        if s.layout_partitions > 1
        else None,
    )


def epoch_ranges(job: Job) -> list[tuple[int, int]]:
    """Return the epochs [first, last) of each segment; segments end between two reconciliations."""
    every = -(-job.params.checkpoint_every // job.params.reconcile_every) * job.params.reconcile_every
    return [(first, min(first + every, job.n_epochs)) for first in range(0, job.n_epochs, every)]


def layout_task(job: Job, segment: int) -> Receipt:
    """Run the epochs of one segment over all vertices, with the worker's threads."""
    first, last = epoch_ranges(job)[segment]
    positions, state = load_state(job, 0, job.sizes.rows, segment)
    spare = np.empty_like(positions)
    started = time.perf_counter()
    every = job.params.reconcile_every
    with workers(job) as run_all:
        for epoch in range(first, last, every):
            round_ = _Round(job, positions, epoch, min(epoch + every, last))
            run_all(partial(_move, round_, spare, state, 0), _pieces(job))
            positions, spare = spare, positions
            tell((min(epoch + every, last) - first) / (last - first))
    seconds = time.perf_counter() - started
    save_state(job, 0, segment, positions, state)
    return {"rows": job.sizes.rows, "epochs": last - first, "kernel_seconds": seconds}


_forces = lru_cache(maxsize=4)(forces)  # tables of a megabyte, the same for all rounds


class _Round:
    """The epochs between two reconciliations, from one snapshot."""

    def __init__(self, job: Job, snapshot: Array, first: int, last: int) -> None:
        p = job.params
        self.job, self.snapshot, self.epochs = job, snapshot, range(first, last)
        self.forces = _forces(*p.curve(), p.repulsion_strength, p.negative_sample_rate)
        self.key = key_of(job, "negatives")
        seen = snapshot[: distinct_of(job)]  # twins have no place of their own, and come last
        self.pools = [negative_pool(seen, self.key, epoch) for epoch in self.epochs]

    def move(self, start: int, stop: int, out: Array, state: State) -> None:
        """Move the vertices start to stop - 1, from the snapshot to `out`."""
        p = self.job.params
        edges = edges_of(self.job, start, stop)
        # With one epoch a round everyone reads the snapshot itself; with more, a private copy follows the own
        # rows.
        seen = self.snapshot if len(self.epochs) == 1 else self.snapshot.copy()
        for epoch, pool in zip(self.epochs, self.pools, strict=True):
            EPOCHS[p.optimizer](
                seen,
                out,
                start,
                0,
                stop - start,
                edges,
                state,
                pool,
                self.forces,
                self.key,
                epoch,
                self.job.n_epochs,
                float(p.learning_rate),
            )
            if len(self.epochs) > 1:
                seen[start:stop] = out


def _move(round_: _Round, out: Array, state: State, first: int, piece: tuple[int, int]) -> None:
    """Move one piece of the vertices; `out` and `state` begin with vertex `first`."""
    start, stop = piece
    rows = slice(start - first, stop - first)
    round_.move(start, stop, out[rows], State(state.mean[rows], state.variance[rows]))


def _piece_rows(job: Job) -> int:
    """Return how many vertices a thread moves at a time: several pieces for each, so that none waits."""
    s = job.sizes
    if job.params.reconcile_every > 1:
        return s.layout_rows
    return min(s.partition_rows, max(1, -(-s.rows // (8 * job.resources.threads))))


def _pieces(job: Job, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
    stop = job.sizes.rows if stop is None else stop
    return [(at, min(at + _piece_rows(job), stop)) for at in range(start, stop, _piece_rows(job))]


@contextmanager
def workers(job: Job) -> Iterator[Callable[[Callable[[Any], None], list[Any]], Any]]:
    """Yield a function that maps over the task's threads and raises what they raise."""
    if job.resources.threads == 1:
        yield lambda function, items: list(map(function, items))
        return
    with ThreadPoolExecutor(job.resources.threads, thread_name_prefix="daskumap-layout") as pool:
        yield lambda function, items: list(pool.map(function, items))


# One partition between two rounds: positions, moments, and the seconds that its kernels took so far.
PartitionState = tuple[Array, State, float]


def load_partition(job: Job, partition: int, segment: int) -> PartitionState:
    """Return one partition's positions and moments as the last segment left them."""
    return *load_state(job, *job.sizes.layout_partition(partition), segment), 0.0


def positions_of_partition(state: PartitionState) -> Array:
    """Return the part of a state that the other partitions see."""
    return state[0]


def step_partition(
    job: Job, partition: int, epochs: tuple[int, int], state: PartitionState, blocks: list[Array]
) -> PartitionState:
    """Return one partition's next state from the positions of all partitions; nothing given is changed."""
    started = time.perf_counter()
    start, stop = job.sizes.layout_partition(partition)
    snapshot = np.concatenate(blocks)
    out, moments = np.empty_like(state[0]), State(state[1].mean.copy(), state[1].variance.copy())
    round_ = _Round(job, snapshot, *epochs)
    pieces = [(start, stop)] if len(round_.epochs) > 1 else _pieces(job, start, stop)
    with workers(job) as run_all:
        run_all(partial(_move, round_, out, moments, start), pieces)
    return out, moments, state[2] + time.perf_counter() - started


def save_partition(job: Job, partition: int, segment: int, state: PartitionState) -> Receipt:
    """Write one partition's state."""
    start, stop = job.sizes.layout_partition(partition)
    save_state(job, start, segment, *state[:2])
    return {"rows": stop - start, "kernel_seconds": state[2]}


def load_state(job: Job, start: int, stop: int, segment: int) -> tuple[Array, State]:
    """Read the positions and moments of a range of vertices before a segment."""
    if segment == 0:
        zeros = [np.zeros((stop - start, job.params.n_components), np.float32) for _ in range(2)]
        return run_of(job).read("initial", start, stop), State(*zeros)
    positions, mean, variance = (
        _read_state(job, f"{SLOTS[(segment - 1) % 2]}/{part}", start, stop) for part in PARTS
    )
    if not np.isfinite(positions).all():  # a missing chunk reads as NaN, and no layout makes one
        raise StoreError(
            f"The layout's checkpoint before segment {segment} is damaged. Run `daskumap verify --repair`."
        )
    return positions, State(mean, variance)


def _read_state(job: Job, name: str, start: int, stop: int) -> Array:
    """Read one part of the state, a chunk at a time: together they would be held as read and as decoded."""
    out = np.empty((stop - start, job.params.n_components), np.float32)
    for at in range(start, stop, job.sizes.state_chunk):
        end = min(stop, at + job.sizes.state_chunk)
        out[at - start : end - start] = run_of(job).read(name, at, end)
    return out


def save_state(job: Job, start: int, segment: int, positions: Array, state: State) -> None:
    """Write the positions and moments of a range of vertices after a segment."""
    for part, values in zip(PARTS, (positions, *state), strict=True):
        run_of(job).array(f"{SLOTS[segment % 2]}/{part}")[start : start + len(values)] = values


def final_positions(job: Job) -> Array:
    """Return the finished positions, (n, d) in vertex order, NaN for vertices without edges.

    A row that nothing joins to the others has no place on the map; umap-learn gives NaN too.
    """
    positions = _read_state(job, f"{SLOTS[(len(epoch_ranges(job)) - 1) % 2]}/positions", 0, job.sizes.rows)
    positions[run_of(job).read("graph/degrees") == 0] = np.nan
    return positions


def final_bytes(job: Job) -> int:
    """Return what reading the finished positions takes: with the degrees, or a chunk as read and decoded."""
    s, d = job.sizes, job.params.n_components
    return s.rows * d * 4 + max(s.rows * 5, s.state_chunk * d * 8)


_lock = threading.Lock()


def edges_of(job: Job, start: int, stop: int) -> Edges:
    """Return the edges of a range of vertices, from this process' memory while they fit, else from disk."""
    kept: dict[tuple[int, int], Edges] = held(job, "edges", dict)
    edges = kept.get((start, stop))
    if edges is None:
        edges = load_edges(job, start, stop)
        with _lock:
            size = sum(array.nbytes for some in (*kept.values(), edges) for array in some)
            if size <= job.sizes.edge_bytes:
                # Copied, or the memory of the edges that never fire would be kept as well.
                edges = kept[start, stop] = Edges(*map(np.copy, edges))
    return edges


def load_edges(job: Job, start: int, stop: int) -> Edges:
    """Read the edges of a range of vertices, without those that would never fire."""
    largest = float(run_of(job).load_json("facts/largest_weight") or 1.0)
    return firing_edges(*read_edges(job, start, stop), largest, job.n_epochs)
