"""Choose which cells are searched and how many a row joins: the cheapest that reach the target recall."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.cells import join, slices
from daskumap.kernels.neighbors.join import SEEDS
from daskumap.planning import costs
from daskumap.runtime.context import Context
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# The probes are a sample: two standard errors below the mean still have to reach the target.
SAFETY = 2.0
# Share of the neighbours in its wide cells that the search finds, copies together (measured: .993).
JOIN_RECALL = 0.99
# Rows come to wide cells more than once, so those that a cell owns are half of its limit.
WIDE_COPIES = 2
# As many wide cells as give 16 threads work; fewer count as idle threads.
WIDE_CELLS = 16
# Smaller wide cells would be all border.
MIN_WIDE_ROWS = 16_384
MIN_SMALL_CELLS = 8


class Probes(NamedTuple):
    """The probes, (p,), and their exact neighbours, (p, k), -1 for none.

    Each has its m nearest cells, int32, and the levels from which on it joins them, uint8.
    """

    rows: Array
    cells: Array
    levels: Array
    ids: Array
    found: Array
    found_levels: Array

    def joined(self, level: int) -> tuple[Array, Array]:
        """Return the cells that the probes join at a level, (p, m), and their neighbours, (p, k, m)."""
        return (
            join.joined(self.cells, self.levels, level),
            join.joined(self.found, self.found_levels, level),
        )


class Choice(NamedTuple):
    """Which cells are searched, the level at which rows join small cells, and the recall by level."""

    wide_of: Array | None  # (c,) int32: the wide cell of each small one; None where small cells are searched
    level: int
    recall: Array


def choose_cells(context: Context, probes: Probes, members: Array) -> Choice:
    """Choose the cheapest cells and level, from 1 on, that reach the target recall on the probe rows.

    Small cells cost the square of the rows that join them, wide cells the rows that they share: brute force
    where few rows join more than one or two cells, wide cells for what is more spread out.

    Parameters
    ----------
    members
        (LEVELS, c) int64: rows that join each small cell from that level on.
    """
    joined = np.cumsum(members, axis=0)
    slice_starts = [slices.cut(rows, context.sizes.max_cell_rows) for rows in joined]
    compared = [  # ns a row, by level
        costs.distance_ns(context.sizes.columns)
        * float((rows.astype(float) ** 2 / np.diff(starts)).sum() / joined[0].sum())
        for rows, starts in zip(joined, slice_starts, strict=True)
    ]
    recall, error = _small_recall(probes, slice_starts)
    options = [
        (compared[level], recall[level], error[level], Choice(None, level, recall))
        for level in range(1, join.LEVELS)
    ]
    # Of a row's small cells in a wide one as many as this are compared.
    copies = joined.sum(axis=1) / joined[0].sum()
    seeds = np.minimum(1.0, SEEDS / copies) ** 2 * compared
    for wide_of in _wide_cells(context, members[0]) if context.metric.space is not None else ():
        recall, error = _wide_recall(probes, wide_of)
        idle = max(1.0, WIDE_CELLS / (int(wide_of[-1]) + 1))
        for level in range(1, join.LEVELS):
            wide = join.widen(probes.joined(level)[0], wide_of)[0] >= 0
            cost = (
                seeds[level] + costs.join_ns(context.sizes.columns) * float(wide.sum(axis=1).mean())
            ) * idle
            options.append((cost, recall[level], error[level], Choice(wide_of, level, recall)))
    enough = [option for option in options if option[1] - SAFETY * option[2] >= context.params.target_recall]
    if enough:
        return min(enough, key=lambda option: option[0])[3]
    return max(options, key=lambda option: (option[1], -option[0]))[3]


def fit_wide_cells(
    context: Context, wide_of: Array, level: int, probes: Probes, members: Array
) -> tuple[Array, Choice, Array]:
    """Split wide cells that more rows join than one may hold, and join by more cells where that costs recall.

    Returns the wide cell of each small one, the choice, and the rows that join each wide cell. What remains
    too large is sliced.
    """
    while True:
        recall, error = _wide_recall(probes, wide_of)
        enough = recall - SAFETY * error >= context.params.target_recall
        while level < join.LEVELS - 1 and not enough[level]:
            level += 1
        joined = _count_wide(context, wide_of, level)
        halved = slices.halve(wide_of, members, joined > context.sizes.wide_rows)
        if halved[-1] == wide_of[-1]:
            return wide_of, Choice(wide_of, level, recall), joined
        wide_of = halved


def _wide_cells(context: Context, members: Array) -> Iterator[Array]:
    """Yield the ways to join small cells to wide ones that are worth a try, from many to few."""
    s = context.sizes
    largest = s.wide_rows // WIDE_COPIES
    distinct = int(members.sum())
    if largest < MIN_SMALL_CELLS * distinct / len(members):
        return
    rows = min(largest, max(MIN_WIDE_ROWS, distinct // WIDE_CELLS))
    while rows <= largest and rows < distinct:
        yield slices.join_cells(members, rows)
        rows = min(2 * rows, largest) if rows < largest else largest + 1
    if distinct <= s.wide_rows:
        yield np.zeros(len(members), np.int32)


def _small_recall(probes: Probes, slice_starts: list[Array]) -> tuple[Array, Array]:
    """Return recall and standard error in small cells as sliced, by level."""
    shares = []
    for level, starts in enumerate(slice_starts):
        here, there = probes.joined(level)
        own, others = slices.slices_of(probes.rows, here, starts), slices.slices_of(probes.ids, there, starts)
        shares.append(join.shared_recall(own, others, probes.ids))
    recall, error = np.array(shares).T
    return recall, error


def _wide_recall(probes: Probes, wide_of: Array) -> tuple[Array, Array]:
    """Return recall and standard error in wide cells, by level."""
    shares = []
    for level in range(join.LEVELS):
        here, there = (join.widen(some, wide_of)[0] for some in probes.joined(level))
        shares.append(join.shared_recall(here, there, probes.ids))
    recall, error = np.array(shares).T
    return JOIN_RECALL * recall, error


def _count_wide(context: Context, wide_of: Array, level: int) -> Array:
    """Count the rows that join each wide cell, by block, with the worker's threads: no other task runs."""
    wides = int(wide_of[-1]) + 1

    def count(block: int) -> Array:
        start, stop = context.sizes.block(block)
        near, levels = context.read(schema.NEAREST, start, stop), context.read(schema.LEVELS, start, stop)
        joined = join.joined(near, levels, level)
        wide, _ = join.widen(joined, wide_of)
        return np.bincount(wide[wide >= 0], minlength=wides)

    with ThreadPoolExecutor(context.resources.threads, thread_name_prefix="daskumap-order") as pool:
        return np.asarray(sum(pool.map(count, range(context.sizes.row_blocks))))
