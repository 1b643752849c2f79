"""Partition: cells, each row's nearest cells, the overlap, and the rows brought together cell by cell.

Five steps, each a stage of its own in the ledger:

`cells`    k-means on the sample; the axes of the start.    writes cells/*
`assign`   each row's nearest cells; exact neighbours of the probe rows, block by block.    writes assign/*
`count`    what the blocks counted, summed over groups of them: in stages/count.py
`order`    which cells are searched, how many a row joins, the vertex numbers: in stages/order.py
`shuffle`  each row into its cells.    writes rows/vertex and the exchange `shuffle`, one run a row block: the
           rows, or their ids where the one worker holds all rows
"""

from __future__ import annotations

import numpy as np

from daskumap.kernels import cells, join, knn, metrics, spaces
from daskumap.planning.job import Job
from daskumap.planning.stage import Output, Receipt, Stage
from daskumap.stages.common import (
    Array,
    holds_rows,
    key_of,
    metric_of,
    places_of,
    probe_count,
    probe_places,
    probe_rows,
    read_distinct,
    read_rows,
    row_bytes,
    run_of,
    sample_rows,
    small_cells,
    source_of,
    take_rows,
)
from daskumap.stages.count import first_vertices
from daskumap.stages.order import copies_of, level_of, wide_cells_of
from daskumap.stages.scan import read_sample
from daskumap.store.exchange import RunWriter

# Micro-cells of the spectral start: a dense eigenproblem of this size takes about two seconds.
MICRO_CELLS = 2_000
# What a core of the reference machine (`kernels.speed`) does in a second.
FLOPS = 55e9
# Up to this many rows each row is a micro-cell of its own, and the start is the exact one.
EXACT_ROWS = 3_000
# A row is compared with so many lists of neighbours, or with such a share of a usual cell, at least.
ENOUGH_LISTS, ENOUGH_SHARE = 3, 0.25


def plan_cells(job: Job) -> Stage:
    """Plan the one task that finds the cells."""
    s = job.sizes
    block = s.sample_rows * s.columns * 4
    small = min(s.columns, s.sample_rows)
    return Stage(
        name="partition.cells",
        task=cells_task,
        tasks=1,
        memory={
            "sample": block * 2,
            # One after the other: k-means with its tables of distances, then the centred sample.
            "k-means, axes": max(
                block + s.sample_rows * 16 + s.cells * (s.columns * 16 + 1024 * 8),
                s.sample_rows * s.columns * 4 + small * small * 24,
            ),
        },
        read_bytes=block,
        exchange="cells",
        exchange_bytes=s.cells * s.columns * 4,
        work=s.sample_rows * s.columns * (24.0 * min(s.cells, cells.FLAT_CELLS) + 2.0 * small) / FLOPS,
        products=True,
    )


def cells_task(job: Job, number: int) -> Receipt:
    """Find centroids or pivots, and the main axes of the sample."""
    run, s, metric = run_of(job), job.sizes, metric_of(job)
    sample, rows = _distinct_sample(job)
    flat = metrics.to_space(sample, metric) if metric.space else sample
    seed = key_of(job, "cells")
    probes = probe_places(job, len(sample))
    found = _make_cells(job, flat, probes, seed)
    run.put("cells/centroids", found.centres)
    run.put("cells/radii", found.radii)
    run.put("cells/members", found.counts * (_distinct_rows(job) / found.counts.sum()))
    if job.start == "spectral" and s.rows > EXACT_ROWS:
        micro = cells.find_pivots(flat, min(MICRO_CELLS, len(flat)), seed + 1)
        run.put("cells/micro", micro)
    mean, axes, limits = cells.principal_axes(flat, job.params.n_components)
    run.put("cells/mean", mean)
    run.put("cells/probes", sample[probes])
    run.put("cells/probe_rows", rows[probes])
    run.put("cells/axes", axes)
    run.put("cells/limits", limits)
    return {"rows": len(sample), "cells": len(found.centres), "probes": len(probes)}


def _make_cells(job: Job, flat: Array, probes: Array, seed: int) -> cells.Cells:
    """Return cells about centroids, or about pivots where the metric has no space.

    Centroids lie nearer to the rows that k-means sees than to others, so it sees no larger share of the
    probes than of all rows. Probes that it saw joined 1.7 cells, other rows 2.8 (1,000,000 x 64, measured).
    """
    wanted, metric = _wanted_cells(job, len(flat)), metric_of(job)
    if metric.space is None:
        pivots = cells.find_pivots(flat, wanted, seed)
        owner, distances = knn.assign_cells(flat, pivots, 1, metric)
        return cells.measure_cells(pivots, np.maximum(owner[:, 0], 0), distances[:, 0])
    unseen = 1.0 - job.sizes.sample_rows / job.sizes.rows
    hidden = np.diff(np.floor(np.arange(len(probes) + 1) * unseen)) > 0
    others = np.delete(flat, probes[hidden], axis=0)
    return cells.find_centroids(others, wanted, 3.0 / wanted, seed)


def _distinct_sample(job: Job) -> tuple[Array, Array]:
    """Return the sampled rows and their ids; with `unique` each kind once, under the id of its first row."""
    sample, rows = read_sample(job), sample_rows(job)
    if not job.params.unique:
        return sample, rows
    rows, places = np.unique(take_rows(job, "rows/first", rows), return_index=True)
    return sample[places], rows


def _wanted_cells(job: Job, sampled: int) -> int:
    """Return how many cells to make: with `unique` as many fewer as there are fewer rows."""
    s = job.sizes
    return min(sampled, -(-s.cells * _distinct_rows(job) // s.rows)) if job.params.unique else s.cells


def _distinct_rows(job: Job) -> int:
    """Return the number of rows, with `unique` each kind counted once."""
    return int(run_of(job).load_json("facts/distinct_rows")) if job.params.unique else job.sizes.rows


def plan_assign(job: Job) -> Stage:
    """Plan one task a row block."""
    s, m, k, p = job.sizes, job.params.max_overlap, job.neighbors, probe_count(job)
    cells_, levels = small_cells(job), cells.LEVELS
    out = [
        Output("assign/cells", (s.rows, m), (s.row_block, m), "int32"),
        Output("assign/levels", (s.rows, m), (s.row_block, m), "uint8"),
        Output("assign/counts", (s.row_blocks, levels, cells_), (1, levels, cells_), "int32"),
        Output("assign/probe_ids", (s.row_blocks, p, k), (1, p, k), "int64"),
        Output("assign/probe_distances", (s.row_blocks, p, k), (1, p, k), "float32"),
        Output("assign/probe_cells", (s.row_blocks, p, k, m), (1, p, k, m), "int32"),
        Output("assign/probe_levels", (s.row_blocks, p, k, m), (1, p, k, m), "uint8"),
    ]
    if job.start == "pca":
        d = job.params.n_components
        out.append(Output("assign/axes", (s.rows, d), (s.row_block, d), "float32"))
    if _has_micro(job):
        out.append(Output("assign/micro", (s.rows,), (s.row_block,), "int32"))
    block = s.row_block * s.columns * 4
    return Stage(
        name="partition.assign",
        task=assign_task,
        tasks=s.row_blocks,
        memory={
            "input block": source_of(job).projected_read_bytes(s.row_block),
            "transformed rows": block,
            "scores": 16_000_000,
            "probe rows and centroids": (s.probe_rows + 2 * cells_) * s.columns * 4,
            "output": s.row_block * m * 32 + s.probe_rows * k * (16 + 5 * m) + cells_ * levels * 12,
            **({"distinct rows": s.row_block * (row_bytes(job) + 24)} if job.params.unique else {}),
        },
        outputs=tuple(out),
        read_bytes=s.rows * s.columns * source_of(job).dtype.itemsize,
        work=2.0 * s.rows * s.columns * (cells_ + s.probe_rows) / FLOPS,
        products=True,
    )


def _has_micro(job: Job) -> bool:
    return job.start == "spectral" and job.sizes.rows > EXACT_ROWS


def assign_task(job: Job, number: int) -> Receipt:
    """Find the nearest cells of each row of a block, and the probes' nearest rows in it; twins have none."""
    run, metric, m = run_of(job), metric_of(job), job.params.max_overlap
    start, stop = job.sizes.block(number)
    X, places = read_distinct(job, start, stop)
    rows = places + start
    nearest, levels = np.full((stop - start, m), -1, np.int32), np.zeros((stop - start, m), np.uint8)
    nearest[places], levels[places] = _nearest_cells(job, X)
    local, distances = knn.nearest(
        run.read("cells/probes"), X, job.neighbors, metric, places_of(rows, probe_rows(job)), 0
    )
    ids = np.where(local >= 0, rows[local], -1) if len(rows) else local
    found = np.where(ids[..., None] >= 0, nearest[np.maximum(ids - start, 0)], -2)
    found_levels = levels[np.maximum(ids - start, 0)]
    members = (levels.astype(np.int64) * small_cells(job) + nearest)[nearest >= 0]
    counts = np.bincount(members, minlength=cells.LEVELS * small_cells(job)).reshape(cells.LEVELS, -1)
    if job.start == "pca":
        axes = np.zeros((stop - start, job.params.n_components), np.float32)
        flat = metrics.to_space(X, metric) if metric.space else X
        axes[places] = spaces.linear(flat - run.read("cells/mean"), run.read("cells/axes"))
        run.array("assign/axes")[start:stop] = axes
    if _has_micro(job):
        micro = np.zeros(stop - start, np.int32)
        micro[places] = knn.assign_cells(X, run.read("cells/micro"), 1, metric)[0][:, 0]
        run.array("assign/micro")[start:stop] = micro
    run.array("assign/cells")[start:stop] = nearest
    run.array("assign/levels")[start:stop] = levels
    run.array("assign/counts")[number] = counts
    run.array("assign/probe_ids")[number] = ids
    run.array("assign/probe_distances")[number] = distances
    run.array("assign/probe_cells")[number] = found
    run.array("assign/probe_levels")[number] = found_levels
    return {"rows": stop - start}


def _nearest_cells(job: Job, X: Array) -> tuple[Array, Array]:
    """Return the nearest cells of some rows, (r, m) int32, and from which level on they join them, uint8."""
    run, metric, m = run_of(job), metric_of(job), job.params.max_overlap
    centroids = run.read("cells/centroids")
    nearest, distances = knn.assign_cells(X, centroids, m, metric)
    radii, members = run.read("cells/radii"), run.read("cells/members")
    enough = max(ENOUGH_LISTS * (job.neighbors + 1), ENOUGH_SHARE * members.mean())
    centres = centroids if metric.space else None
    return nearest, cells.rank_margins(nearest, distances, radii, members, enough, centres)


def plan_shuffle(job: Job) -> Stage:
    """Plan one task a row block."""
    s, vectors = job.sizes, not holds_rows(job)
    row = row_bytes(job) if vectors else 8
    return Stage(
        name="partition.shuffle",
        task=shuffle_task,
        tasks=s.row_blocks,
        memory={
            "input block": source_of(job).projected_read_bytes(s.row_block) if vectors else 0,
            "records": s.row_block * job.params.max_overlap * 64,
            "output window": 16 * (1 << 20),
            "offsets": small_cells(job) * 32,
        },
        outputs=(Output("rows/vertex", (s.rows,), (s.row_block,), "int64"),),
        read_bytes=s.rows * s.columns * source_of(job).dtype.itemsize if vectors else 0,
        exchange="shuffle",
        exchange_bytes=int(s.rows * copies_of(job) * (row + 8 + 4 * join.SEEDS)),
        work=s.rows * copies_of(job) * (0.4e-6 + (12e-9 * s.columns if vectors else 0.0)),
    )


def shuffle_task(job: Job, number: int) -> Receipt:
    """Give a block's rows their numbers and write each once for every cell it joins, cell after cell."""
    run = run_of(job)
    start, stop = job.sizes.block(number)
    nearest, levels = run.read("assign/cells", start, stop), run.read("assign/levels", start, stop)
    vertices = number_vertices(nearest[:, 0], first_vertices(job, number))
    run.array("rows/vertex")[start:stop] = vertices
    joined, small = _joined(job, cells.joined(nearest, levels, level_of(job)))
    slice_starts = run.read("order/slice_starts")
    slices = cells.slices_of(np.arange(start, stop), joined, slice_starts).ravel()
    order = np.argsort(slices, kind="stable")[np.count_nonzero(slices < 0) :]
    offsets = np.searchsorted(slices[order], np.arange(slice_starts[-1] + 1))
    vectors = {"rows": (metric_of(job).dtype, job.sizes.columns)}
    columns = {"vertices": ("int64", 0), **({"ids": ("int64", 0)} if holds_rows(job) else vectors)}
    if wide_cells_of(job):
        columns["cells"] = ("int32", join.SEEDS)
    writer = RunWriter(run, "shuffle", number, len(order), columns)
    rows = order // joined.shape[1]
    if holds_rows(job):
        writer.write("ids", start + rows)
    else:
        _write_vectors(writer, read_rows(job, start, stop), rows)
    writer.write("vertices", vertices[rows])
    if wide_cells_of(job):
        writer.write("cells", small.reshape(-1, join.SEEDS)[order])
    writer.close(offsets)
    return {"rows": stop - start, "written": len(rows)}


def _write_vectors(writer: RunWriter, X: Array, rows: Array) -> None:
    step = writer.step("rows") * 16
    for at in range(0, len(rows), step):
        writer.write("rows", X[rows[at : at + step]], at)


def _joined(job: Job, nearest: Array) -> tuple[Array, Array]:
    """Return the cells that each row joins, (r, m), and for each the small cells that it is compared in."""
    if not wide_cells_of(job):
        return nearest, np.empty((*nearest.shape, 0), np.int32)
    return cells.widen(nearest, run_of(job).read("order/wide_of"), join.SEEDS)


def number_vertices(cell: Array, first: Array) -> Array:
    """Return each row's vertex number: its cell's first free number in this block, then in row order.

    The last number of `first` is that of rows without a cell, -1.
    """
    cell = np.where(cell < 0, len(first) - 1, cell)
    order = np.argsort(cell, kind="stable")
    ordered = cell[order]
    rank = np.arange(len(cell)) - np.searchsorted(ordered, ordered, side="left")
    vertices = np.empty(len(cell), np.int64)
    vertices[order] = first[ordered] + rank
    return vertices
