"""Partition: cells, each row's nearest cells, the overlap, and the rows brought together cell by cell.

Four steps, each a stage of its own in the ledger:

`cells`    k-means on the sample; the axes of the start.    writes cells/*
`assign`   each row's nearest cells; exact neighbours of the probe rows, block by block.    writes assign/*
`order`    the smallest overlap that reaches the target recall; the vertex numbers.    writes order/*
`shuffle`  each row into its cells.    writes rows/vertex and the exchange `shuffle`, one run a row block
"""

from __future__ import annotations

import logging

import numpy as np

from daskumap.kernels import cells, knn, metrics
from daskumap.kernels.random import mix_rows
from daskumap.plan.job import Job
from daskumap.plan.stage import Output, Receipt, Stage
from daskumap.stages.common import (
    Array,
    fact,
    key_of,
    metric_of,
    probe_places,
    read_rows,
    run_of,
    sample_rows,
    source_of,
)
from daskumap.stages.scan import read_sample
from daskumap.store.exchange import RunWriter

log = logging.getLogger(__name__)

# Micro-cells of the spectral start: a dense eigenproblem of this size takes about two seconds.
MICRO_CELLS = 2_000
# The probes are a sample: two standard errors below the mean still have to reach the target.
SAFETY = 2.0
# Above this overlap, NN-descent in wide cells costs less than brute force in small ones.
MAX_BRUTE_OVERLAP = 4
# Wide cells differ in size: this much above the mean still stays whole.
WIDE_SLACK = 1.25
# Up to this many rows each row is a micro-cell of its own, and the start is the exact one.
EXACT_ROWS = 3_000


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
            "k-means": s.sample_rows * 16 + s.cells * s.columns * 16 + min(s.cells, 8192) * 8192 * 4,
            "principal axes": s.sample_rows * s.columns * 16 + small * small * 24,
        },
        read_bytes=block,
        exchange="cells",
        exchange_bytes=s.cells * s.columns * 4,
        work=60.0 * s.sample_rows * s.columns * s.cells + 2.0 * s.sample_rows * s.columns * small,
    )


def cells_task(job: Job, number: int) -> Receipt:
    """Find centroids or pivots, and the main axes of the sample."""
    run, s, metric = run_of(job), job.sizes, metric_of(job)
    sample = read_sample(job)
    flat = metrics.to_space(sample, metric) if metric.space else sample
    seed = key_of(job, "cells")
    share = 3.0 / s.cells
    run.put(
        "cells/centroids",
        cells.find_centroids(flat, s.cells, share, seed)
        if metric.space
        else cells.find_pivots(sample, s.cells, seed),
    )
    if job.start == "spectral" and s.rows > EXACT_ROWS:
        micro = cells.find_pivots(flat, min(MICRO_CELLS, len(flat)), seed + 1)
        run.put("cells/micro", micro)
    mean, axes, limits = cells.principal_axes(flat, job.params.n_components)
    run.put("cells/mean", mean)
    run.put("cells/probes", sample[probe_places(job)])
    run.put("cells/axes", axes)
    run.put("cells/limits", limits)
    return {"rows": len(sample), "cells": run.array("cells/centroids").shape[0]}


def plan_assign(job: Job) -> Stage:
    """Plan one task a row block."""
    s, m, k = job.sizes, job.params.max_overlap, job.neighbors
    cells_ = _cells(job)
    out = [
        Output("assign/cells", (s.rows, m), (s.row_block, m), "int32"),
        Output("assign/counts", (s.row_blocks, m, cells_), (1, m, cells_), "int64"),
        Output("assign/probe_ids", (s.row_blocks, s.probe_rows, k), (1, s.probe_rows, k), "int64"),
        Output("assign/probe_distances", (s.row_blocks, s.probe_rows, k), (1, s.probe_rows, k), "float32"),
        Output("assign/probe_cells", (s.row_blocks, s.probe_rows, k, m), (1, s.probe_rows, k, m), "int32"),
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
            "output": s.row_block * m * 8 + s.probe_rows * k * (16 + 4 * m),
        },
        outputs=tuple(out),
        read_bytes=s.rows * s.columns * source_of(job).dtype.itemsize,
        work=2.0 * s.rows * s.columns * (cells_ + s.probe_rows),
    )


def _cells(job: Job) -> int:
    """Return the number of cells: as found, or before the run as planned."""
    return fact(job, "partition.cells", "cells", job.sizes.cells)


def _has_micro(job: Job) -> bool:
    return job.start == "spectral" and job.sizes.rows > EXACT_ROWS


def assign_task(job: Job, number: int) -> Receipt:
    """Find the nearest cells of each row of a block, and the probes' nearest rows in it."""
    run, metric, m = run_of(job), metric_of(job), job.params.max_overlap
    start, stop = job.sizes.block(number)
    X = read_rows(job, start, stop)
    centroids = run.read("cells/centroids")
    nearest = knn.assign_cells(X, centroids, min(m, len(centroids)), metric)
    nearest = np.pad(nearest, ((0, 0), (0, m - nearest.shape[1])), constant_values=-1)
    places = probe_places(job)
    ids, distances = knn.nearest(
        run.read("cells/probes"), X, job.neighbors, metric, sample_rows(job)[places], start
    )
    found = np.where(ids[..., None] >= 0, nearest[np.maximum(ids - start, 0)], -2)
    counts = [np.bincount(level[level >= 0], minlength=len(centroids)) for level in nearest.T]
    if job.start == "pca":
        flat = metrics.to_space(X, metric) if metric.space else X
        run.array("assign/axes")[start:stop] = (flat - run.read("cells/mean")) @ run.read("cells/axes")
    if _has_micro(job):
        run.array("assign/micro")[start:stop] = knn.assign_cells(X, run.read("cells/micro"), 1, metric)[:, 0]
    run.array("assign/cells")[start:stop] = nearest
    run.array("assign/counts")[number] = np.array(counts)
    run.array("assign/probe_ids")[number] = ids
    run.array("assign/probe_distances")[number] = distances
    run.array("assign/probe_cells")[number] = found
    return {"rows": stop - start}


def plan_order(job: Job) -> Stage:
    """Plan the one task that chooses the overlap and numbers the vertices."""
    s, m, k = job.sizes, job.params.max_overlap, job.neighbors
    cells_ = _cells(job)
    return Stage(
        name="partition.order",
        task=order_task,
        tasks=1,
        memory={
            "counts": s.row_blocks * cells_ * (m + 2) * 8,
            "probes": s.row_blocks * s.probe_rows * k * (12 + 4 * m),
        },
        exchange="order",
        exchange_bytes=s.row_blocks * cells_ * 8,
        finish=warn_of_recall,
    )


def order_task(job: Job, number: int) -> Receipt:
    """Merge the probes' neighbours, choose the overlap, number the vertices, slice and group the cells."""
    run, s = run_of(job), job.sizes
    probe_ids, probe_distances, found = _merge_probes(job)
    blocks, places = sample_rows(job)[probe_places(job)] // s.row_block, sample_rows(job)[probe_places(job)]
    probe_cells = np.concatenate(
        [
            run.read("assign/cells", *s.block(b))[places[blocks == b] - b * s.row_block]
            for b in np.unique(blocks).tolist()
        ]
    )
    span, overlap, recall = choose_cells(job, probe_cells, found, probe_ids)
    counts = run.read("assign/counts")
    primary = counts[:, 0, :]
    starts = np.concatenate([[0], np.cumsum(primary.sum(axis=0))])
    run.put("order/block_starts", starts[:-1] + np.cumsum(primary, axis=0) - primary)
    run.put("order/cell_starts", starts)
    members = counts[:, :overlap, :].sum(axis=(0, 1)) if span == 1 else _count_wide(job, span, overlap)
    limit = s.max_cell_rows if span == 1 else s.wide_rows
    slice_starts, group_starts = cells.plan_slices(members, limit, s.group_rows)
    run.put("order/slice_starts", slice_starts)
    run.put("order/group_starts", group_starts)
    run.put("order/probe_ids", probe_ids)
    run.put("order/probe_distances", probe_distances)
    return {
        "rows": s.rows,
        "span": span,
        "overlap": overlap,
        "recall": [round(float(r), 4) for r in recall],
        "groups": len(group_starts) - 1,
        "largest_cell": int(members.max()),
        "sliced_cells": int((np.diff(slice_starts) > 1).sum()),
    }


def choose_cells(job: Job, probe_cells: Array, found: Array, probe_ids: Array) -> tuple[int, int, Array]:
    """Choose how many cells make one, how many of those each row joins, and the recall by overlap.

    Small cells with brute force are cheapest where few of them find the neighbours. Where the data are too
    spread out for that, as embeddings of text are, wide cells with NN-descent find more for less: brute force
    costs the square of the overlap (100,000 word vectors x 384: 17 s for a recall of .90 in 6 cells, against
    .99 in about 12 s once compiled, measured).
    """

    def measure(span: int) -> tuple[Array, Array]:
        here, there = cells.widen(probe_cells, span), cells.widen(found, span)
        here, there = np.where(here < 0, -1, here), np.where(there < 0, -2, there)
        recall, error = cells.overlap_recall(here, there, probe_ids)
        return recall, recall - SAFETY * error

    recall, sure = measure(1)
    reached = np.flatnonzero(sure >= job.params.target_recall)
    most = min(job.params.max_overlap, _cells(job))
    best = 1, int(reached[0]) + 1 if len(reached) else most, recall
    if metric_of(job).space is None or (len(reached) and best[1] <= MAX_BRUTE_OVERLAP):
        return best
    for overlap, span in wide_spans(job):
        recall, sure = measure(span)
        if recall[overlap - 1] > best[2][best[1] - 1]:
            best = span, overlap, recall
        if sure[overlap - 1] >= job.params.target_recall:
            return span, overlap, recall
    return best


def wide_spans(job: Job) -> list[tuple[int, int]]:
    """Return (overlap, span) of the wide cells worth a try: as many cells in one as its limit allows."""
    s, count = job.sizes, _cells(job)
    if s.rows <= s.wide_rows:
        return [(1, count)]
    room = s.wide_rows / WIDE_SLACK / (s.rows / count)
    return [(m, int(room / m)) for m in range(2, job.params.max_overlap + 1) if room / m >= 4]


def _count_wide(job: Job, span: int, overlap: int) -> Array:
    """Count the rows that join each wide cell, block by block."""
    run, s = run_of(job), job.sizes
    members = np.zeros(-(-_cells(job) // span), np.int64)
    for start, stop in map(s.block, range(s.row_blocks)):
        joined = cells.widen(run.read("assign/cells", start, stop), span)[:, :overlap]
        members += np.bincount(joined[joined >= 0], minlength=len(members))
    return members


def _merge_probes(job: Job) -> tuple[Array, Array, Array]:
    """Return the probes' exact neighbours, (p, k) ids and distances and (p, k, m) cells."""
    run = run_of(job)
    ids, distances, found = (run.read(f"assign/probe_{name}") for name in ("ids", "distances", "cells"))
    probes, k = ids.shape[1:]
    flat_ids = ids.transpose(1, 0, 2).reshape(probes, -1)
    flat = distances.transpose(1, 0, 2).reshape(probes, -1)
    order = np.lexsort((flat_ids, flat), axis=1)[:, :k]
    cells_ = found.transpose(1, 0, 2, 3).reshape(probes, -1, found.shape[3])
    return (
        np.take_along_axis(flat_ids, order, 1),
        np.take_along_axis(flat, order, 1),
        np.take_along_axis(cells_, order[..., None], 1),
    )


def warn_of_recall(job: Job, receipts: dict[int, Receipt]) -> None:
    """Say so where no overlap allowed reaches the target."""
    recall = receipts[0]["recall"]
    if max(recall) < job.params.target_recall:
        log.warning(
            "Joining %d cells a row finds %.1f %% of the neighbours, less than target_recall %.1f %%. "
            "Raise max_overlap (now %d) or max_cell_rows (now %d), or accept the recall.",
            job.params.max_overlap, 100 * max(recall), 100 * job.params.target_recall,
            job.params.max_overlap, job.sizes.max_cell_rows,
        )  # fmt: skip


def overlap_of(job: Job) -> int:
    """Return how many cells each row joins: as chosen, or before the run the 2 that most data need."""
    return fact(job, "partition.order", "overlap", min(2, job.params.max_overlap, job.sizes.cells))


def span_of(job: Job) -> int:
    """Return how many small cells make one cell of the search: 1 for brute force, more for NN-descent."""
    return fact(job, "partition.order", "span", 1)


def plan_shuffle(job: Job) -> Stage:
    """Plan one task a row block."""
    s, m = job.sizes, overlap_of(job)
    return Stage(
        name="partition.shuffle",
        task=shuffle_task,
        tasks=s.row_blocks,
        memory={
            "input block": source_of(job).projected_read_bytes(s.row_block),
            "records": s.row_block * job.params.max_overlap * 40,
            "output window": 16 * (1 << 20),
            "offsets": _cells(job) * 32,
        },
        outputs=(Output("rows/vertex", (s.rows,), (s.row_block,), "int64"),),
        read_bytes=s.rows * s.columns * source_of(job).dtype.itemsize,
        exchange="shuffle",
        exchange_bytes=s.rows * m * (s.columns * np.dtype(metric_of(job).dtype).itemsize + 8),
        work=20.0 * s.rows * s.columns * m,
    )


def shuffle_task(job: Job, number: int) -> Receipt:
    """Give a block's rows their numbers and write each once for every cell it joins, cell after cell."""
    run = run_of(job)
    start, stop = job.sizes.block(number)
    X = read_rows(job, start, stop)
    nearest = run.read("assign/cells", start, stop)
    vertices = number_vertices(nearest[:, 0], run.read("order/block_starts", number, number + 1)[0])
    run.array("rows/vertex")[start:stop] = vertices
    slice_starts = run.read("order/slice_starts")
    joined = cells.widen(nearest, span_of(job))[:, : overlap_of(job)]
    pieces = np.diff(slice_starts)[joined]
    slices = slice_starts[joined] + mix_rows(np.arange(start, stop))[:, None] % pieces
    slices = np.where(joined >= 0, slices, -1).T.ravel()
    order = np.argsort(slices, kind="stable")[np.count_nonzero(slices < 0) :]
    slices = slices[slices >= 0]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(slices, minlength=slice_starts[-1]))])
    columns = {"rows": (str(X.dtype), X.shape[1]), "vertices": ("int64", 0)}
    writer = RunWriter(run, "shuffle", number, len(order), columns)
    rows = order % (stop - start)
    step = writer.step("rows") * 16
    for at in range(0, len(rows), step):
        writer.write("rows", X[rows[at : at + step]], at)
    writer.write("vertices", vertices[rows])
    writer.close(offsets)
    return {"rows": stop - start, "written": len(rows)}


def number_vertices(cell: Array, first: Array) -> Array:
    """Return each row's vertex number: its cell's first free number in this block, then in row order."""
    order = np.argsort(cell, kind="stable")
    ordered = cell[order]
    rank = np.arange(len(cell)) - np.searchsorted(ordered, ordered, side="left")
    vertices = np.empty(len(cell), np.int64)
    vertices[order] = first[ordered] + rank
    return vertices
