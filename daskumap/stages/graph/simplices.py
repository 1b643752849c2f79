"""Simplices: each edge weighed anew by the triangles and tetrahedra that it is in, a vertex partition a task.

`simplices.halo`  sends each vertex' list of neighbours once to each other partition that has one of them
`simplices`       weighs the edges, as many at a time as the lists that they need fit beside

An edge sees the lists of its two ends, and for tetrahedra those of their common neighbours: so its weight
does not depend on the partitions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.graph.simplices import (
    MAX_SIMPLEX_DEGREE,
    Lists,
    count_halo,
    fill_halo,
    heaviest,
    mark_needed,
    weigh,
)
from daskumap.planning import costs
from daskumap.planning.stage import ITEM_BYTES, Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.graph_facts import facts_of, keep_graph
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# Edges of lists from other partitions for which a task has room at least: what one edge needs.
LEAST_ROOM = MAX_SIMPLEX_DEGREE * (MAX_SIMPLEX_DEGREE + 1)


def plan_halo(context: Context) -> Stage:
    """Plan one task a vertex partition."""
    s, edges = context.sizes, partition_edges(context)
    return Stage(
        task=halo_task,
        tasks=s.partitions,
        memory={
            "edges and lists": edges * 2 * edge_bytes(context),
            "records": edges * record_bytes(context),
            "offsets": min(s.partition_rows, s.rows) * 24 + s.partitions * 16,
        },
        read_bytes=graph_bytes(context),
        made=(schema.HALO.name,),
        made_bytes=halo_bytes(context),
        work=costs.HALO_NEIGHBOR * s.rows * context.job.neighbors,
    )


def plan_simplices(context: Context) -> Stage:
    """Plan one task a vertex partition."""
    s, k, edges = context.sizes, context.job.neighbors, partition_edges(context)
    of_pair = costs.TRIANGLE_PAIR + k * costs.TETRAHEDRON_TRIPLE * (context.params.simplices == 3)
    return Stage(
        task=simplices_task,
        tasks=s.partitions,
        memory={
            "edges and weights": edges * (edge_bytes(context) + 4),
            # As sent, as needed, and joined to those of the partition.
            "lists": edges * (3 * edge_bytes(context) + record_bytes(context))
            + most_needed(context) * 2 * edge_bytes(context),
            "offsets": min(s.partition_rows, s.rows) * 24 + s.partitions * 16,
        },
        outputs=(context.output(schema.DEGREES),),
        read_bytes=graph_bytes(context) + halo_bytes(context),
        made=(schema.GRAPH.name,),
        made_bytes=graph_bytes(context),
        work=of_pair * s.rows * k * k,
        conclude=keep_weighed,
    )


def partition_edges(context: Context) -> int:
    """Return how many edges a partition has, as planned."""
    return min(context.sizes.partition_rows, context.sizes.rows) * context.job.neighbors * 2


def most_needed(context: Context) -> int:
    """Return how many edges the lists from elsewhere have that a task holds at a time."""
    return max(partition_edges(context), LEAST_ROOM) if context.sizes.partitions > 1 else 0


def edge_bytes(context: Context) -> int:
    """Return the bytes of an edge in CSR rows."""
    return ITEM_BYTES[context.dtype("vertex")] + 4


def record_bytes(context: Context) -> int:
    """Return the bytes of an edge on its way."""
    return 2 * ITEM_BYTES[context.dtype("vertex")] + 4


def graph_bytes(context: Context) -> int:
    """Return what the graph takes on disk."""
    return context.sizes.rows * (context.job.neighbors * 2 * edge_bytes(context) + 8)


def halo_bytes(context: Context) -> int:
    """Return what the halos take on disk, as most data need: a list a vertex where there are partitions."""
    lists = context.sizes.rows if context.sizes.partitions > 1 else 0
    return lists * context.job.neighbors * 2 * record_bytes(context)


def least_weight(context: Context) -> float:
    """Return the weight of an edge as long as `vr_delta`, by its local distance -log(w)."""
    return math.exp(-float(context.params.vr_delta))


class Own(NamedTuple):
    """The edges of a partition, as CSR rows, their lists, and how many of these are capped."""

    indptr: Array
    tails: Array
    weights: Array
    lists: Lists
    capped: int


def read_own(context: Context, number: int) -> Own:
    """Read the edges of a partition, and make its lists."""
    start, stop = context.sizes.partition(number)
    edges = context.edges(start, stop, schema.UNION)
    indptr, tails, weights, capped = heaviest(*edges, least_weight(context), MAX_SIMPLEX_DEGREE)
    return Own(*edges, Lists(indptr, tails, weights, start, np.empty(0, edges[1].dtype)), capped)


def halo_task(context: Context, number: int) -> Receipt:
    """Send the lists of a partition's vertices to the other partitions that have neighbours of them."""
    s, own = context.sizes, read_own(context, number)
    cut = (number, s.partition_rows)
    offsets = count_halo(own.indptr, own.tails, np.diff(own.lists.indptr), *cut, s.partitions)
    writer = context.writer(schema.HALO, number, int(offsets[-1]))
    types = {name: array.dtype for name, array in writer.arrays.items()}
    unit = min(map(writer.step, types))
    step = max(1, partition_edges(context) // unit) * unit
    for begin in range(0, int(offsets[-1]), step):
        size = min(step, int(offsets[-1]) - begin)
        records = {name: np.empty(size, dtype) for name, dtype in types.items()}
        fill_halo(own.indptr, own.tails, own.lists, *cut, offsets, begin, *records.values())
        for name, values in records.items():
            writer.write(name, values, begin)
    writer.close(offsets)
    return Receipt(len(own.indptr) - 1, {"sent": int(offsets[-1])})


def simplices_task(context: Context, number: int) -> Receipt:
    """Weigh the edges of a partition."""
    start, stop = context.sizes.partition(number)
    own, halo = read_own(context, number), Halo(context, number)
    weights = np.empty_like(own.weights)
    rule = (least_weight(context), context.params.simplices == 3)
    counts = np.zeros(2, np.int64)
    for begin, end, needed in ranges(own, halo, most_needed(context)):
        lists = halo.joined(own.lists, needed)
        counts += weigh(own.indptr, own.tails, own.weights, begin, end, lists, *rule, weights)
    context.send(schema.GRAPH, number, own.indptr, tails=own.tails, weights=weights)
    degrees = np.diff(own.indptr).astype(np.int32)
    context.write(schema.DEGREES, start, degrees)
    simplices = {"triangles": int(counts[0]), "tetrahedra": int(counts[1]), "capped_rows": own.capped}
    return Receipt(stop - start, facts_of(weights, degrees, context.sizes.vertex_chunk) | simplices)


class Halo:
    """The lists that a partition gets from others.

    Attributes
    ----------
    heads, sizes
        (h,) the vertices whose lists they are, ascending; and how long each is.
    """

    def __init__(self, context: Context, number: int) -> None:
        self.place = (number, number + 1)
        self.reader = context.reader(schema.HALO, *self.place)
        slices = self.reader.slices(*self.place, "heads")
        found = [np.unique(records["heads"], return_counts=True) for records in slices]
        none = np.empty(0, context.dtype("vertex"))
        self.heads = np.concatenate([none, *(heads for heads, _ in found)])
        self.sizes = np.concatenate([np.empty(0, np.int64), *(sizes for _, sizes in found)])
        self.starts = [0, *itertools.accumulate(len(heads) for heads, _ in found)]

    def needed(self, own: Own, begin: int, end: int) -> Array:
        """Return whether each list is needed for a range of a partition's edges, (h,) bool."""
        first, rows = own.lists.first, len(own.indptr) - 1
        found = np.zeros(len(self.heads), np.bool_)
        low, high = np.searchsorted(own.indptr, (begin, end - 1), side="right")
        mark_needed(own.tails, begin, end, first, first + rows, self.heads, found)
        near = own.lists.indptr[low - 1], own.lists.indptr[high]
        mark_needed(own.lists.tails, *near, first, first + rows, self.heads, found)
        return found

    def joined(self, own: Lists, needed: Array) -> Lists:
        """Return the lists of a partition's vertices together with those that are needed."""
        tails, weights = [own.tails], [own.weights]
        for (first, last), records in zip(
            itertools.pairwise(self.starts), self.reader.slices(*self.place, "tails", "weights"), strict=True
        ):
            kept = np.repeat(needed[first:last], self.sizes[first:last])
            tails.append(records["tails"][kept])
            weights.append(records["weights"][kept])
        ends = own.indptr[-1] + np.cumsum(self.sizes[needed])
        return Lists(
            np.concatenate([own.indptr, ends]),
            np.concatenate(tails),
            np.concatenate(weights),
            own.first,
            self.heads[needed],
        )


def ranges(own: Own, halo: Halo, most: int) -> Iterator[tuple[int, int, Array]]:
    """Yield ranges of a partition's edges for which the lists from elsewhere have so many edges at most."""
    waiting = [(0, len(own.tails))]
    while waiting:
        begin, end = waiting.pop()
        needed = halo.needed(own, begin, end)
        if end - begin <= 1 or halo.sizes[needed].sum() <= most:
            yield begin, end, needed
        else:
            middle = (begin + end) // 2
            waiting += [(middle, end), (begin, middle)]


def keep_weighed(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep what is known of the whole graph, and how many simplices it has."""
    keep_graph(context, receipts, dropped=0)  # Memberships in [0, 1] have no union below 0.
    wanted = ("triangles", "capped_rows", *(("tetrahedra",) if context.params.simplices == 3 else ()))
    context.save_fact(schema.SIMPLICES, {name: Receipt.total(receipts, name) for name in wanted})


HALO = Step("simplices.halo", plan_halo, reads=(schema.UNION,), writes=(schema.HALO,))
SIMPLICES = Step(
    "simplices",
    plan_simplices,
    reads=(schema.UNION, schema.HALO),
    writes=(schema.GRAPH, schema.DEGREES, schema.GRAPH_FACTS, schema.REPULSION, schema.SIMPLICES),
)
