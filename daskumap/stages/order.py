"""Order: which cells are searched, how many of them a row joins, and the numbers of the vertices.

The step `partition.order`, one task. Reads counts/* and assign/*; writes order/*, which `shuffle` follows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from daskumap.kernels import cells, join
from daskumap.planning.job import Job
from daskumap.planning.stage import Output, Receipt, Stage
from daskumap.stages.common import Array, fact, metric_of, probe_rows, run_of, small_cells, take_rows
from daskumap.stages.count import block_groups, blocks_of, merge_probes
from daskumap.store.run import read_rows

log = logging.getLogger(__name__)

# The probes are a sample: two standard errors below the mean still have to reach the target.
SAFETY = 2.0
# What one distance of a matrix product costs with its selection, in ns, and a row of the joins in a wide
# cell, without and for each column (measured on one core: 2.2 ns at D = 64, 8.2 at D = 784; 27 us at D = 32,
# 33 at 64, 46 at 128). Constants, not timings: the choice between small and wide cells is part of the result.
DISTANCE_NS = (1.6, 0.0085)
JOIN_NS = (21_000.0, 200.0)
# Share of the neighbours in its wide cells that the search finds, copies together (measured: .993).
JOIN_RECALL = 0.99
# Rows come to wide cells more than once, so those that a cell owns are half of its limit.
WIDE_COPIES = 2
# As many wide cells as give 16 threads work; fewer count as idle threads.
WIDE_CELLS = 16
# Smaller wide cells would be all border.
MIN_WIDE_ROWS = 16_384
MIN_SMALL_CELLS = 8


def plan_order(job: Job) -> Stage:
    """Plan the one task that chooses the overlap and numbers the vertices."""
    s, m, k = job.sizes, job.params.max_overlap, job.neighbors
    cells_, groups = small_cells(job), block_groups(job)
    return Stage(
        name="partition.order",
        task=order_task,
        tasks=1,
        memory={
            "counts": cells_ * (4 * cells.LEVELS + 4) * 8,
            "rows of wide cells": job.resources.threads * s.row_block * m * 13,
            "probes": s.probe_rows * k * (12 + 5 * m) * 6,
        },
        read_bytes=groups * (cells_ * cells.LEVELS * 4 + s.probe_rows * k * (12 + 5 * m)),
        exchange="order",
        exchange_bytes=groups * cells_ * 8,
        # Mostly the rows of wide cells, which are counted twice as a rule.
        work=0.1 + groups * (0.006 + 6e-9 * cells_ * cells.LEVELS) + 0.2e-6 * s.rows,
        finish=warn_of_recall,
    )


def order_task(job: Job, number: int) -> Receipt:
    """Merge the probes' neighbours, choose cells and overlap, number the vertices, group the cells."""
    run, s = run_of(job), job.sizes
    groups = range(block_groups(job))
    probe_ids, probe_distances, found, found_levels = merge_probes(job, "counts", groups)
    members = sum(run.read("counts/members", group, group + 1)[0].astype(int) for group in groups)
    rows = probe_rows(job)
    near, levels = take_rows(job, "assign/cells", rows), take_rows(job, "assign/levels", rows)
    probes = Probes(rows, near, levels, probe_ids, found, found_levels)
    choice = choose_cells(job, probes, members)
    _number_cells(job, members[0])
    if choice.wide_of is None:
        joined, limit, group = members[: choice.level + 1].sum(axis=0), s.max_cell_rows, s.group_rows
    else:
        choice, joined = fit_wide_cells(job, choice, probes, members[0])
        limit, group = s.wide_rows, min(s.group_rows, s.wide_rows)
    slice_starts, group_starts = cells.plan_slices(joined, limit, group, s.group_cells)
    run.put("order/slice_starts", slice_starts)
    run.put("order/group_starts", group_starts)
    run.put("order/probe_ids", probe_ids)
    run.put("order/probe_distances", probe_distances)
    return {
        "rows": s.rows,
        "distinct": int(members[0].sum()),
        "wide": 0 if choice.wide_of is None else int(choice.wide_of[-1]) + 1,
        "level": choice.level,
        "copies": round(float(joined.sum()) / s.rows, 4),
        "recall": [round(float(r), 4) for r in choice.recall],
        "groups": len(group_starts) - 1,
        "largest_cell": int(joined.max()),
        "sliced_cells": int((np.diff(slice_starts) > 1).sum()),
    }


def _number_cells(job: Job, members: Array) -> None:
    """Write where each cell's vertices start, and where each group of row blocks has its part of each cell.

    Rows without a cell, which are twins, come last, as if they had a cell of their own.
    """
    run, groups = run_of(job), block_groups(job)
    starts = np.concatenate([[0], np.cumsum(members)])
    run.put("order/cell_starts", starts)
    run.create(Output("order/first_vertices", (groups, len(starts)), (1, len(starts)), "int64"))
    free, first, counted = starts.copy(), run.array("order/first_vertices"), run.array("counts/members")
    for group in range(groups):
        first[group] = free
        counts = read_rows(counted, group, group + 1)[0, 0]
        rows = sum(stop - start for start, stop in map(job.sizes.block, blocks_of(job, group)))
        free += np.append(counts, rows - counts.sum())


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
            cells.joined(self.cells, self.levels, level),
            cells.joined(self.found, self.found_levels, level),
        )


class Choice(NamedTuple):
    """Which cells are searched, the level at which rows join small cells, and the recall by level."""

    wide_of: Array | None  # (c,) int32: the wide cell of each small one; None where small cells are searched
    level: int
    recall: Array


def choose_cells(job: Job, probes: Probes, members: Array) -> Choice:
    """Choose the cheapest cells and level, from 1 on, that reach the target recall on the probe rows.

    Small cells cost the square of the rows that join them, wide cells the rows that they share: brute force
    where few rows join more than one or two cells, wide cells for what is more spread out.

    Parameters
    ----------
    members
        (LEVELS, c) int64: rows that join each small cell from that level on.
    """
    joined = np.cumsum(members, axis=0)
    slice_starts = [cells.cut(rows, job.sizes.max_cell_rows) for rows in joined]
    compared = [  # ns a row, by level
        distance_ns(job) * float((rows.astype(float) ** 2 / np.diff(starts)).sum() / joined[0].sum())
        for rows, starts in zip(joined, slice_starts, strict=True)
    ]
    recall, error = _small_recall(probes, slice_starts)
    options = [
        (compared[level], recall[level], error[level], Choice(None, level, recall))
        for level in range(1, cells.LEVELS)
    ]
    # Of a row's small cells in a wide one as many as this are compared.
    copies = joined.sum(axis=1) / joined[0].sum()
    seeds = np.minimum(1.0, join.SEEDS / copies) ** 2 * compared
    for wide_of in _wide_cells(job, members[0]) if metric_of(job).space is not None else ():
        recall, error = _wide_recall(probes, wide_of)
        idle = max(1.0, WIDE_CELLS / (int(wide_of[-1]) + 1))
        for level in range(1, cells.LEVELS):
            wide = cells.widen(probes.joined(level)[0], wide_of)[0] >= 0
            cost = (seeds[level] + join_ns(job) * float(wide.sum(axis=1).mean())) * idle
            options.append((cost, recall[level], error[level], Choice(wide_of, level, recall)))
    enough = [option for option in options if option[1] - SAFETY * option[2] >= job.params.target_recall]
    if enough:
        return min(enough, key=lambda option: option[0])[3]
    return max(options, key=lambda option: (option[1], -option[0]))[3]


def distance_ns(job: Job) -> float:
    """Return what one distance of a matrix product costs with its selection, in ns."""
    return DISTANCE_NS[0] + DISTANCE_NS[1] * job.sizes.columns


def join_ns(job: Job) -> float:
    """Return what the joins in a wide cell cost for a row, in ns."""
    return JOIN_NS[0] + JOIN_NS[1] * job.sizes.columns


def fit_wide_cells(job: Job, choice: Choice, probes: Probes, members: Array) -> tuple[Choice, Array]:
    """Split wide cells that more rows join than one may hold, and join by more cells where that costs recall.

    Returns the choice and the rows that join each wide cell. What remains too large is sliced.
    """
    wide_of, level = choice.wide_of, choice.level
    assert wide_of is not None
    while True:
        recall, error = _wide_recall(probes, wide_of)
        enough = recall - SAFETY * error >= job.params.target_recall
        while level < cells.LEVELS - 1 and not enough[level]:
            level += 1
        joined = _count_wide(job, wide_of, level)
        halved = cells.halve(wide_of, members, joined > job.sizes.wide_rows)
        if halved[-1] == wide_of[-1]:
            run_of(job).put("order/wide_of", wide_of)
            return Choice(wide_of, level, recall), joined
        wide_of = halved


def _wide_cells(job: Job, members: Array) -> Iterator[Array]:
    """Yield the ways to join small cells to wide ones that are worth a try, from many to few."""
    s = job.sizes
    largest = s.wide_rows // WIDE_COPIES
    distinct = int(members.sum())
    if largest < MIN_SMALL_CELLS * distinct / len(members):
        return
    rows = min(largest, max(MIN_WIDE_ROWS, distinct // WIDE_CELLS))
    while rows <= largest and rows < distinct:
        yield cells.join_cells(members, rows)
        rows = min(2 * rows, largest) if rows < largest else largest + 1
    if distinct <= s.wide_rows:
        yield np.zeros(len(members), np.int32)


def _small_recall(probes: Probes, slice_starts: list[Array]) -> tuple[Array, Array]:
    """Return recall and standard error in small cells as sliced, by level."""
    shares = []
    for level, starts in enumerate(slice_starts):
        here, there = probes.joined(level)
        slices = cells.slices_of(probes.rows, here, starts), cells.slices_of(probes.ids, there, starts)
        shares.append(cells.shared_recall(*slices, probes.ids))
    recall, error = np.array(shares).T
    return recall, error


def _wide_recall(probes: Probes, wide_of: Array) -> tuple[Array, Array]:
    """Return recall and standard error in wide cells, by level."""
    shares = []
    for level in range(cells.LEVELS):
        here, there = (cells.widen(some, wide_of)[0] for some in probes.joined(level))
        shares.append(cells.shared_recall(here, there, probes.ids))
    recall, error = np.array(shares).T
    return JOIN_RECALL * recall, error


def _count_wide(job: Job, wide_of: Array, level: int) -> Array:
    """Count the rows that join each wide cell, by block, with the worker's threads: no other task runs."""
    near, levels = run_of(job).array("assign/cells"), run_of(job).array("assign/levels")
    wides = int(wide_of[-1]) + 1

    def count(block: int) -> Array:
        start, stop = job.sizes.block(block)
        joined = cells.joined(read_rows(near, start, stop), read_rows(levels, start, stop), level)
        wide, _ = cells.widen(joined, wide_of)
        return np.bincount(wide[wide >= 0], minlength=wides)

    with ThreadPoolExecutor(job.resources.threads, thread_name_prefix="daskumap-order") as pool:
        return np.asarray(sum(pool.map(count, range(job.sizes.row_blocks))))


def warn_of_recall(job: Job, receipts: dict[int, Receipt]) -> None:
    """Say so where no overlap allowed reaches the target."""
    recall = receipts[0]["recall"]
    if max(recall) < job.params.target_recall:
        log.warning(
            "Joining up to %d cells a row finds %.1f %% of the neighbours, less than target_recall %.1f %%. "
            "Raise max_overlap (now %d) or max_cell_rows (now %d), or accept the recall.",
            job.params.max_overlap,
            100 * max(recall),
            100 * job.params.target_recall,
            job.params.max_overlap,
            job.sizes.max_cell_rows,
        )


def level_of(job: Job) -> int:
    """Return the level at which rows join cells: as chosen, or before the run the highest."""
    return fact(job, "partition.order", "level", cells.LEVELS - 1)


def copies_of(job: Job) -> float:
    """Return how often a row is written for the search: as counted, or before the run as most data need."""
    return fact(job, "partition.order", "copies", float(min(2, job.params.max_overlap, job.sizes.cells)))


def wide_cells_of(job: Job) -> int:
    """Return the number of wide cells that are searched; 0 where small cells are, or before the run."""
    return fact(job, "partition.order", "wide", 0)
