"""One iteration of the layout for a range of vertices: the edges that fire pull, negatives push back.

A vertex reads all others from the snapshot taken when the iteration began and moves only itself. What it does
depends on (key, iteration, vertex) and its own edges, so any split of the vertices into ranges gives the same
bits.

The inner loop is the negatives'. In Adam mode they are runs of 16 entries of a pool that is itself drawn at
random: one hash and two contiguous loads for 16 of them, and one gather, from the table of forces. Gathered
one by one from the pool they take twice as long.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.layout.components import (
    LANES,
    TWO,
    attract,
    copy_of,
    displace,
    distance_to,
    moved,
    position_of,
    repel,
    store,
)
from daskumap.kernels.layout.firing import (
    MASKED,
    Edges,
    MaskedEdges,
    edge_rates,
    fired_edges,
    firing_edges,
    longest_row,
    mask_edges,
)
from daskumap.kernels.layout.forces import Forces, forces, pull, push
from daskumap.kernels.layout.measured import positions_on
from daskumap.kernels.layout.optimizers import BETA1, BETA2, EPSILON, MEASURED_SHARE, Adam, Sgd, adam_rate
from daskumap.kernels.layout.sampling import (
    DRAW,
    Array,
    below,
    mix,
    negative_pool,
    readonly,
    stream_seed,
    vertex_hash,
)
from daskumap.kernels.parts import build

__all__ = [
    "Edges",
    "Forces",
    "MaskedEdges",
    "State",
    "adam_iteration",
    "edge_rates",
    "firing_edges",
    "forces",
    "mask_edges",
    "negative_pool",
    "sgd_iteration",
]


class Clock(NamedTuple):
    """The seed of an iteration's draws, and its bit in the masks of the edges."""

    draws: np.uint32
    bit: np.uint8


class State(NamedTuple):
    """Adam's moments of one vertex block, updated in place; SGD leaves them alone, (0, d) will do."""

    mean: Array  # (rows, d) float32
    variance: Array  # (rows, d) float32


def adam_iteration(
    snapshot: Array,
    out: Array,
    first: int,
    start: int,
    stop: int,
    edges: MaskedEdges,
    state: State,
    pool: Array,
    forces: Forces,
    key: int,
    iteration: int,
    n_iterations: int,
    learning_rate: float,
    metric: Any = None,
) -> None:
    """Move the rows [start, stop) of a block by one Adam step along their summed, clipped gradients.

    Parameters
    ----------
    snapshot
        (n, d) float32 positions of all vertices when the iteration began.
    out
        (rows, d) float32, the new positions of this block; must not overlap `snapshot`.
    first
        Global id of the block's row 0.
    start, stop
        Rows of the block to do. Any split gives the same bits.
    edges, state, pool, forces
        The block's graph and moments, `negative_pool` of this iteration, `forces` of this run. The masks of
        the graph hold this iteration.
    key, iteration, n_iterations
        64-bit key of the run; iteration in [0, n_iterations).
    learning_rate
        Factor of all steps.
    metric
        Of the map: an instance of a class of `layout.distances`; None for the Euclidean one.

    References
    ----------
    Kingma, Ba (2015), end of section 2; Melville, uwot, `optimize.h` (batch mode).
    """
    adam = adam_at(state, iteration, n_iterations, learning_rate, metric)
    _run(snapshot, out, first, start, stop, edges, pool, forces, adam, key, iteration, metric)


def sgd_iteration(
    snapshot: Array,
    out: Array,
    first: int,
    start: int,
    stop: int,
    edges: MaskedEdges,
    state: State,
    pool: Array,
    forces: Forces,
    key: int,
    iteration: int,
    n_iterations: int,
    learning_rate: float,
    metric: Any = None,
) -> None:
    """Walk the rows [start, stop) of a block along their fired edges, each step from where the last ended.

    Takes what `adam_iteration` takes; `state` is not used. As umap-learn, but the others stand still
    meanwhile, and the step falls linearly to 0.

    References
    ----------
    McInnes, Healy, Melville (2018), algorithm 5.
    """
    sgd = sgd_at(state, iteration, n_iterations, learning_rate, metric)
    _run(snapshot, out, first, start, stop, edges, pool, forces, sgd, key, iteration, metric)


def adam_at(state: State, iteration: int, n_iterations: int, learning_rate: float, metric: Any) -> Adam:
    """Return what takes the steps of one iteration along the summed forces."""
    share = 1.0 if metric is None else MEASURED_SHARE
    alpha = share * learning_rate * adam_rate(iteration, n_iterations)
    unbias = (1 - BETA2 ** (iteration + 1)) ** 0.5
    return Adam(
        *state, np.float32(alpha * unbias / (1 - BETA1 ** (iteration + 1))), np.float32(EPSILON * unbias)
    )


def sgd_at(state: State, iteration: int, n_iterations: int, learning_rate: float, metric: Any) -> Sgd:
    """Return what takes the steps of one iteration along one force after the other."""
    return Sgd(np.float32(learning_rate * (1 - iteration / n_iterations)))


def _run(
    snapshot: Array,
    out: Array,
    first: int,
    start: int,
    stop: int,
    edges: MaskedEdges,
    pool: Array,
    forces: Forces,
    optimizer: Any,
    key: int,
    iteration: int,
    metric: Any,
) -> None:
    if pool.shape[1] < LANES:  # compiled code would read beyond it
        has = f"The pool has {pool.shape[1]} columns, runs of negatives take {LANES}"
        raise ValueError(f"{has}: draw it with negative_pool.")
    if not edges.holds(iteration):
        has = f"The edges have masks of the {MASKED} iterations from {edges.since} on, this is {iteration}"
        raise ValueError(f"{has}: make new ones with mask_edges.")
    clock = Clock(stream_seed(key, DRAW, iteration), np.uint8(iteration - edges.since))
    tables = read_only_tables(forces)
    snapshot, pool = readonly(snapshot, np.float32), readonly(pool, np.float32)
    components = positions_on(metric, snapshot.shape[1])
    kernel = built(optimizer, components, forces, metric)
    kernel(snapshot, pool, tables, edges, out, first, start, stop, components, optimizer, clock)


def read_only_tables(forces: Forces) -> Forces:
    """Return forces as the kernels take them."""
    return forces._replace(attraction=readonly(forces.attraction), repulsion=readonly(forces.repulsion))


def built(optimizer: Any, components: Any, forces: Forces, metric: Any) -> Any:
    """Return the kernel that moves a range of vertices in one iteration."""
    classes = (type(optimizer), type(components), type(forces), *(() if metric is None else (type(metric),)))
    return build(WALKS[type(optimizer)], *classes)


def _along_gradient(  # type: ignore[no-untyped-def]
    snapshot, pool, forces, edges, out, first, start, stop, components, optimizer, clock
):
    fired = np.empty(longest_row(edges.indptr, start, stop), edges.tails.dtype)
    for row in range(start, stop):
        vertex = first + row
        count = fired_edges(edges, row, clock.bit, fired)
        position = position_of(components, snapshot, vertex)
        gradient = attract(components, position, snapshot, vertex, fired, count, forces.attraction)
        draw_hash, negatives = vertex_hash(clock.draws, vertex), count * forces.negatives
        gradient = repel(components, position, pool, negatives, draw_hash, forces.repulsion, gradient)
        displace(components, position, gradient, optimizer, out, row)


def _force_by_force(  # type: ignore[no-untyped-def]
    snapshot, pool, forces, edges, out, first, start, stop, components, optimizer, clock
):
    fired = np.empty(longest_row(edges.indptr, start, stop), edges.tails.dtype)
    everyone, alpha = snapshot.T, optimizer.alpha
    for row in range(start, stop):
        vertex = first + row
        count = fired_edges(edges, row, clock.bit, fired)
        position, draw = copy_of(components, snapshot, vertex), vertex_hash(clock.draws, vertex)
        for k in range(count):
            tail = np.uint64(fired[k])
            pulled = pull(forces.attraction, distance_to(components, position, everyone, tail), vertex, tail)
            position = moved(components, position, everyone, tail, pulled, TWO * alpha)
            for _ in range(forces.negatives):
                draw = np.uint32(draw + np.uint32(1))
                at = below(mix(draw), pool.shape[1])
                pushed = push(forces.repulsion, distance_to(components, position, pool, at))
                position = moved(components, position, pool, at, pushed, alpha)
        store(components, position, out, row)


# How an optimizer of each class goes through the forces of a vertex.
WALKS = {Adam: _along_gradient, Sgd: _force_by_force}
# What takes the steps of one iteration, by the name of the optimizer.
AT_ITERATION: dict[str, Callable[..., Any]] = {"adam": adam_at, "sgd": sgd_at}
