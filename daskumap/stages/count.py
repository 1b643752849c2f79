"""Count: how many rows join each cell at each level, and the probes' neighbours, over many row blocks.

The step `partition.count`, a group of consecutive row blocks a task, so that `partition.order` reads a few
sums instead of what each block counted, which is 75 GB at 10^9 rows. Reads assign/*; writes counts/*.
"""

from __future__ import annotations

import math

import numpy as np

from daskumap.kernels import cells
from daskumap.planning.job import Job
from daskumap.planning.stage import Output, Receipt, Stage
from daskumap.stages.common import Array, probe_count, run_of, small_cells
from daskumap.store.run import read_rows

# Below it a second task costs more than it saves.
LEAST_BLOCKS = 16
PROBES = ("ids", "distances", "cells", "levels")


def group_blocks(job: Job) -> int:
    """Return how many row blocks a task counts: about as many as there are tasks."""
    return max(LEAST_BLOCKS, math.ceil(math.sqrt(job.sizes.row_blocks)))


def block_groups(job: Job) -> int:
    """Return the number of groups of row blocks."""
    return math.ceil(job.sizes.row_blocks / group_blocks(job))


def blocks_of(job: Job, group: int) -> range:
    """Return the row blocks of a group."""
    first = group * group_blocks(job)
    return range(first, min(job.sizes.row_blocks, first + group_blocks(job)))


def plan_count(job: Job) -> Stage:
    """Plan one task a group of row blocks."""
    s, m, k, p = job.sizes, job.params.max_overlap, job.neighbors, probe_count(job)
    groups, levels, cells_ = block_groups(job), cells.LEVELS, small_cells(job)
    probe_bytes = p * k * (12 + 5 * m)
    return Stage(
        name="partition.count",
        task=count_task,
        tasks=groups,
        memory={"counts": cells_ * (levels * 4 * 4 + 16), "probes": probe_bytes * 6},
        outputs=(
            Output("counts/members", (groups, levels, cells_), (1, levels, cells_), "int32"),
            Output("counts/before", (s.row_blocks, cells_ + 1), (1, cells_ + 1), "int32"),
            Output("counts/probe_ids", (groups, p, k), (1, p, k), "int64"),
            Output("counts/probe_distances", (groups, p, k), (1, p, k), "float32"),
            Output("counts/probe_cells", (groups, p, k, m), (1, p, k, m), "int32"),
            Output("counts/probe_levels", (groups, p, k, m), (1, p, k, m), "uint8"),
        ),
        read_bytes=s.row_blocks * (cells_ * levels * 4 + probe_bytes),
        work=s.row_blocks * (0.01 + 3e-9 * cells_ * levels),
    )


def count_task(job: Job, group: int) -> Receipt:
    """Sum the counts of a group's blocks, those before each block kept, and merge the probes' neighbours."""
    run, s = run_of(job), job.sizes
    members = np.zeros((cells.LEVELS, small_cells(job)), np.int32)
    twins, before, counted = 0, run.array("counts/before"), run.array("assign/counts")
    for block in blocks_of(job, group):
        before[block] = np.append(members[0], np.int32(twins))
        counts = read_rows(counted, block, block + 1)[0]
        members += counts
        start, stop = s.block(block)
        twins += stop - start - int(counts[0].sum())
    run.array("counts/members")[group] = members
    for name, values in zip(PROBES, merge_probes(job, "assign", blocks_of(job, group)), strict=True):
        run.array(f"counts/probe_{name}")[group] = values
    return {"rows": int(members[0].sum()) + twins}


def merge_probes(job: Job, folder: str, places: range) -> tuple[Array, ...]:
    """Return the probes' nearest of what tasks found: (p, k) ids, distances, (p, k, m) cells and levels."""
    found = [run_of(job).array(f"{folder}/probe_{name}") for name in PROBES]
    best: tuple[Array, ...] = ()
    for place in places:
        new = tuple(read_rows(array, place, place + 1)[0] for array in found)
        both = tuple(map(np.concatenate, zip(best, new, strict=True), [1] * len(new))) if best else new
        order = np.lexsort((both[0], both[1]), axis=1)[:, : job.neighbors]
        best = tuple(
            np.take_along_axis(part, order if part.ndim == 2 else order[..., None], 1) for part in both
        )
    return best


def first_vertices(job: Job, block: int) -> Array:
    """Return where a row block's part of each cell starts, (c + 1,) int64; at the end, where its twins do."""
    run, group = run_of(job), block // group_blocks(job)
    parts = run.read("order/first_vertices", group, group + 1), run.read("counts/before", block, block + 1)
    return np.add(*parts)[0]  # type: ignore[no-any-return]
