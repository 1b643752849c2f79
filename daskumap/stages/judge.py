"""Report: what the map is worth, measured on the probe rows against all rows.

`report.neighbors`  the probes' nearest rows on the map.                     writes report/map_ids
`report.rows`       those rows gathered from the source, a row block a task. writes exchange `report/rows`
`report.distances`  their distances in the data.                             writes report/map_distances
`report.ranks`      how many rows are closer in the data, block by block.    writes report/closer
`report.loss`       attraction and repulsion, a vertex partition a task.
`report.summary`    the figures and the picture.    writes report/measures.json, embedding.png
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from daskumap.kernels import graph, knn, quality
from daskumap.kernels.layout import layout_loss, negative_pool
from daskumap.planning.held import held
from daskumap.planning.job import Job
from daskumap.planning.stage import Output, Receipt, Stage
from daskumap.stages.common import (
    Array,
    distinct_of,
    distinct_places,
    forget_rows,
    key_of,
    metric_of,
    places_of,
    probe_count,
    probe_rows,
    read_distinct,
    read_rows,
    run_of,
    source_of,
    tail_type,
    take_rows,
)
from daskumap.stages.layout import final_bytes, final_positions
from daskumap.stages.partition import FLOPS
from daskumap.stages.symmetrize import read_edges
from daskumap.store.exchange import RunReader, RunWriter

# Repulsion is estimated from as many random pairs a vertex.
LOSS_PAIRS = 16
# What the picture of 900 x 900 pixels takes while it is drawn (measured).
PICTURE_BYTES = 60_000_000


def map_of(job: Job) -> Any:
    """Return the embedding as it is measured: anything that slices, twins left out."""
    return DistinctMap(job) if job.params.unique else run_of(job).array("embedding")


class DistinctMap:
    """The embedding with twins as NaN: it slices, and measures leave them out as they do rows off the map."""

    def __init__(self, job: Job) -> None:
        self.job, self.array = job, run_of(job).array("embedding")
        self.shape = self.array.shape

    def __getitem__(self, rows: slice) -> Array:
        """Return a range of rows."""
        start, stop, _ = rows.indices(self.shape[0])
        out = np.full((stop - start, self.shape[1]), np.nan, np.float32)
        places = distinct_places(self.job, start, stop)
        out[places] = np.asarray(self.array[start:stop])[places]
        return out


def plan_map_neighbors(job: Job) -> Stage:
    """Plan the one task that searches the map."""
    s, d, p = job.sizes, job.params.n_components, probe_count(job)
    return Stage(
        name="report.neighbors",
        task=map_neighbors_task,
        tasks=1,
        memory={
            "row blocks": (1 << 20) * d * 8 + s.probe_rows * job.neighbors * 32,
            **({"distinct rows": quality.READ_ROWS * (d * 4 + 24)} if job.params.unique else {}),
        },
        outputs=(Output("report/map_ids", (p, job.neighbors), (p, job.neighbors), "int64"),),
        read_bytes=s.rows * d * 4,
        work=1.1e-9 * s.rows * s.probe_rows,
    )


def map_neighbors_task(job: Job, number: int) -> Receipt:
    """Find the probes' nearest rows on the map."""
    run = run_of(job)
    ids, _ = quality.embedding_neighbors(map_of(job), probe_rows(job), job.neighbors)
    run.array("report/map_ids")[:] = ids
    return {"rows": len(ids)}


def plan_rows(job: Job) -> Stage:
    """Plan one task a row block."""
    s = job.sizes
    wanted = s.probe_rows * job.neighbors * s.columns * 4
    return Stage(
        name="report.rows",
        task=rows_task,
        tasks=s.row_blocks,
        memory={
            "input block": source_of(job).projected_read_bytes(s.row_block),
            "gathered": min(wanted, s.row_block * s.columns * 4),
        },
        read_bytes=s.rows * s.columns * source_of(job).dtype.itemsize,
        exchange="report/rows",
        exchange_bytes=wanted,
        work=6e-9 * s.rows * s.columns,
    )


def wanted_rows(job: Job) -> Array:
    """Return the ids of all rows that are near a probe on the map, ascending, each once."""
    ids = np.unique(run_of(job).read("report/map_ids"))
    return ids[ids >= 0]


def rows_task(job: Job, number: int) -> Receipt:
    """Gather the wanted rows of one block."""
    start, stop = job.sizes.block(number)
    wanted = wanted_rows(job)
    wanted = wanted[(wanted >= start) & (wanted < stop)]
    X = read_rows(job, start, stop)
    writer = RunWriter(run_of(job), "report/rows", number, len(wanted), {"rows": (str(X.dtype), X.shape[1])})
    writer.write("rows", X[wanted - start])
    writer.close(np.array([0, len(wanted)], np.int64))
    return {"rows": len(wanted)}


def plan_distances(job: Job) -> Stage:
    """Plan the one task that measures the map's neighbours in the data."""
    s, k, p = job.sizes, job.neighbors, probe_count(job)
    return Stage(
        name="report.distances",
        task=distances_task,
        tasks=1,
        memory={"probes and their neighbours": s.probe_rows * (k + 2) * s.columns * 4},
        outputs=(Output("report/map_distances", (p, k), (p, k), "float32"),),
        read_bytes=s.probe_rows * k * s.columns * 4,
    )


def distances_task(job: Job, number: int) -> Receipt:
    """Measure the distances in the data of the probes' neighbours on the map; 0 where one is missing."""
    run, metric = run_of(job), metric_of(job)
    probes, ids, known = (
        run_of(job).read("cells/probes"),
        run.read("report/map_ids"),
        wanted_rows(job),
    )
    (rows,) = RunReader(run, "report/rows", job.sizes.row_blocks, ("rows",), 0, 1).read(0, 1)
    out = np.zeros(ids.shape, np.float32)
    for i, there in enumerate(ids >= 0):
        near = rows[np.searchsorted(known, ids[i, there])]
        order, distances = knn.nearest(probes[i : i + 1], near, len(near), metric, np.array([-1]), 0)
        out[i, np.flatnonzero(there)[order[0]]] = distances[0]
    run.array("report/map_distances")[:] = out
    return {"rows": len(ids)}


def plan_ranks(job: Job) -> Stage:
    """Plan one task a row block."""
    s, k, p = job.sizes, job.neighbors, probe_count(job)
    return Stage(
        name="report.ranks",
        task=ranks_task,
        tasks=s.row_blocks,
        memory={
            "input block": source_of(job).projected_read_bytes(s.row_block),
            "transformed rows": s.row_block * s.columns * 4,
            "probes": s.probe_rows * (s.columns * 8 + k * 12),
            "scores": 16_000_000,
            **({"distinct rows": s.row_block * (s.columns * 4 + 24)} if job.params.unique else {}),
        },
        outputs=(Output("report/closer", (s.row_blocks, p, k), (1, p, k), "int64"),),
        read_bytes=s.rows * s.columns * source_of(job).dtype.itemsize,
        work=s.rows * s.probe_rows * (8e-9 + 2.0 * s.columns / FLOPS),
        products=True,
    )


def ranks_task(job: Job, number: int) -> Receipt:
    """Count the rows of one block that are closer to each probe than its neighbours on the map are."""
    start, stop = job.sizes.block(number)
    probes, metric = run_of(job).read("cells/probes"), metric_of(job)
    thresholds = run_of(job).read("report/map_distances")
    X, places = read_distinct(job, start, stop)
    own = places_of(places + start, probe_rows(job))
    counts = knn.count_closer(probes, X, thresholds, metric, own, 0)
    run_of(job).array("report/closer")[number] = counts
    return {"rows": stop - start}


def plan_loss(job: Job) -> Stage:
    """Plan one task a vertex partition."""
    s, d = job.sizes, job.params.n_components
    return Stage(
        name="report.loss",
        task=loss_task,
        tasks=s.partitions,
        memory={
            # As read and joined, and while those that leave a cell are counted.
            "edges": min(s.partition_rows, s.rows) * job.neighbors * 2 * 44,
            "pool": 65_536 * d * 4,
        },
        shared=final_bytes(job),
        read_bytes=s.rows * job.neighbors * 16,
        work=0.17e-6 * s.rows * job.neighbors,
    )


def loss_task(job: Job, number: int) -> Receipt:
    """Sum the loss over one partition's vertices, and count its edges that leave the vertex' own cell."""
    s = job.sizes
    start, stop = s.partition(number)
    distinct = distinct_of(job)  # the rest are twins, which are no vertices of the graph
    if start >= distinct:
        return {"rows": stop - start, "attractive": 0.0, "repulsive": 0.0, "cut_edges": 0, "edges": 0}
    stop = min(stop, distinct)
    positions = held(job, "positions", lambda: np.nan_to_num(final_positions(job), copy=False)[:distinct])
    indptr, tails, weights = read_edges(job, start, stop)
    key = key_of(job, "report")
    pool = negative_pool(positions, key, 0)
    a, b = job.params.curve()
    attractive, repulsive = layout_loss(positions, start, indptr, tails, weights, pool, a, b, LOSS_PAIRS, key)
    return {
        "rows": stop - start,
        "attractive": attractive,
        "repulsive": repulsive,
        "cut_edges": cut_edges(job, start, indptr, tails),
        "edges": len(tails),
    }


def cut_edges(job: Job, first: int, indptr: Array, tails: Array) -> int:
    """Count the edges between vertices whose nearest cells differ: what a layout by cells would cut."""
    starts = run_of(job).read("order/cell_starts")
    heads = np.repeat(np.arange(first, first + len(indptr) - 1), np.diff(indptr))
    cell = np.searchsorted(starts, heads, side="right")
    return int(np.count_nonzero((tails < starts[cell - 1]) | (tails >= starts[cell])))


def plan_summary(job: Job) -> Stage:
    """Plan the one task that puts the report together."""
    s, d = job.sizes, job.params.n_components
    edges = min(s.partition_rows, s.rows) * job.neighbors * 2 * (12 if tail_type(job) == "int32" else 16)
    return Stage(
        name="report.summary",
        task=summary_task,
        tasks=1,
        memory={
            "components": s.rows * 16,
            "edges": edges,
            "radii": s.rows * (8 + d * 4),
            "picture": PICTURE_BYTES,
            "counts": s.row_blocks * s.probe_rows * job.neighbors * 8,
        },
        read_bytes=s.rows * (d * 4 + job.neighbors * 16),
        work=0.06e-6 * s.rows * job.neighbors,
    )


def summary_task(job: Job, number: int) -> Receipt:
    """Measure the map, draw it, and write both down."""
    from daskumap.report.picture import embedding_png

    run, s, k, distinct = run_of(job), job.sizes, job.neighbors, distinct_of(job)
    probes = probe_rows(job)
    map_ids = run.read("report/map_ids")
    exact = run.read("order/probe_ids")
    ranks = run.read("report/closer").sum(axis=0) + 1
    ranks[map_ids < 0] = distinct - 1  # a probe off the map is as wrong as can be
    losses = run.records("report.loss").values()
    measures: dict[str, Any] = {
        "rows": s.rows,
        "n_neighbors": job.params.n_neighbors,
        "probe_rows": len(probes),
        "recall": quality.recall(_found(job, probes), exact),
        "trustworthiness": _trustworthiness(ranks, distinct, k),
        "knn_preservation": quality.preservation(exact, map_ids),
        "flyaway_ratio": quality.flyaway_ratio(map_of(job)),
        "cut_edge_share": sum(loss["cut_edges"] for loss in losses)
        / max(1, sum(loss["edges"] for loss in losses)),
        "attractive_loss": math.fsum(loss["attractive"] for loss in losses),
        "repulsive_loss": math.fsum(loss["repulsive"] for loss in losses),
        **_graph_measures(job),
    }
    if job.params.unique:
        measures["duplicate_rows"] = s.rows - distinct
    run.save_json("report/measures", measures)
    embedding_png(run.array("embedding"), picture := io.BytesIO())
    run.save_bytes("embedding.png", picture.getvalue())
    forget_rows()
    return {"rows": s.rows}


def _trustworthiness(ranks: Array, rows: int, k: int) -> float | None:
    """Return trustworthiness, None where it is not defined: fewer than 1.5 rows for each neighbour."""
    return quality.trustworthiness_from_ranks(ranks, rows, k) if 2 * rows - 3 * k - 1 > 0 else None


def _found(job: Job, probes: Array) -> Array:
    """Return the neighbours that the run found for the probes, as row ids."""
    run, s = run_of(job), job.sizes
    vertices = take_rows(job, "rows/vertex", probes)
    found = np.empty((len(probes), job.neighbors), np.int64)
    for chunk in np.unique(vertices // s.vertex_chunk):
        start = int(chunk) * s.vertex_chunk
        here = np.flatnonzero(vertices // s.vertex_chunk == chunk)
        found[here] = run.read("knn/indices", start, start + s.vertex_chunk)[vertices[here] - start]
    return to_rows(job, found)


def to_rows(job: Job, vertices: Array) -> Array:
    """Return the rows of some vertices (any shape, -1 stays -1), by one pass over the numbering."""
    run, s = run_of(job), job.sizes
    wanted, inverse = np.unique(vertices, return_inverse=True)
    rows = np.full(len(wanted), -1, np.int64)
    for block in range(s.row_blocks):
        start, stop = s.block(block)
        numbers = run.read("rows/vertex", start, stop)
        order = np.argsort(numbers)
        place = np.minimum(np.searchsorted(numbers[order], wanted), len(numbers) - 1)
        hit = numbers[order][place] == wanted
        rows[hit] = order[place[hit]] + start
    return rows[inverse].reshape(vertices.shape)


def _graph_measures(job: Job) -> dict[str, Any]:
    """Count edges, components and rows without neighbours; twins are none of these."""
    run, s, distinct = run_of(job), job.sizes, distinct_of(job)
    parents = np.arange(distinct)
    for start, stop in map(s.partition, range(s.partitions)):
        graph.unite(parents, start, *read_edges(job, start, stop)[:2])
    count, largest = graph.count_components(parents)
    receipts = run.records("symmetrize").values()
    order = run.records("partition.order")[0]
    return {
        "components": count,
        "largest_component": largest,
        "isolated_rows": sum(receipt["isolated"] for receipt in receipts) - (s.rows - distinct),
        "edges": sum(receipt["edges"] for receipt in receipts),
        "largest_degree": max(receipt["largest_degree"] for receipt in receipts),
        "cells_a_row": round(order["copies"] * s.rows / distinct, 2),
        "probe_recall": order["recall"][order["level"]],
        "largest_cell": order["largest_cell"],
        "sliced_cells": order["sliced_cells"],
    }
