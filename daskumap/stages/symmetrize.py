"""Symmetrize: the fuzzy union of the kNN graph with its transpose.

Reads knn/*, calibration/* and the exchange `reverse`. Writes graph/<partition>/{indptr, tails, weights}: one
CSR block row a vertex partition, and graph/degrees.
Memory: the partition's lists, the edges that point at it, and the joined rows. Hubs have in-degrees in the
thousands, so the incoming edges are counted before they are read.
"""

from __future__ import annotations

import numpy as np

from daskumap.kernels.graph import fuzzy_union
from daskumap.planning.job import Job
from daskumap.planning.sizes import edge_row_bytes
from daskumap.planning.stage import Output, Receipt, Stage
from daskumap.stages.calibrate import read_memberships
from daskumap.stages.common import Array, run_of, tail_type
from daskumap.store.exchange import RunReader


def plan_symmetrize(job: Job) -> Stage:
    """Plan one task a vertex partition."""
    s, k = job.sizes, job.neighbors
    largest = min(s.partition_rows, s.rows)
    edges = s.rows * k * 2
    return Stage(
        name="symmetrize",
        task=symmetrize_task,
        tasks=s.partitions,
        memory={
            "lists and edges": largest * edge_row_bytes(job.params.n_neighbors),
            "offsets": s.partitions * (largest // s.vertex_chunk + 2) * 8,
        },
        outputs=(Output("graph/degrees", (s.rows,), (s.vertex_chunk,), "int32"),),
        read_bytes=s.rows * k * 32,
        exchange="graph",
        exchange_bytes=edges * (8 if tail_type(job) == "int32" else 12) + s.rows * 8,
        work=0.28e-6 * s.rows * k,
        finish=save_largest_weight,
    )


def symmetrize_task(job: Job, number: int) -> Receipt:
    """Join the edges of a partition with those that point at it."""
    run, s = run_of(job), job.sizes
    start, stop = s.partition(number)
    chunks = s.chunks(start, stop)
    reader = RunReader(run, "reverse", s.partitions, ("tails", "heads", "weights"), *chunks)
    incoming = reader.read(*chunks)
    indices, weights = read_memberships(job, start, stop)
    indptr, tails, joined = fuzzy_union(
        indices, weights, start, *incoming, float(job.params.set_op_mix_ratio)
    )
    run.put(f"graph/{number:08d}/indptr", indptr)
    run.put(f"graph/{number:08d}/tails", tails.astype(tail_type(job)))
    run.put(f"graph/{number:08d}/weights", joined)
    degrees = np.diff(indptr).astype(np.int32)
    run.array("graph/degrees")[start:stop] = degrees
    return {
        "rows": stop - start,
        "edges": len(tails),
        "largest_weight": float(joined.max(initial=0.0)),
        "largest_degree": int(degrees.max()),
        "isolated": int((degrees == 0).sum()),
    }


def save_largest_weight(job: Job, receipts: dict[int, Receipt]) -> None:
    """Keep the largest weight of the graph, to which the sampling of edges is relative."""
    run_of(job).save_json(
        "facts/largest_weight", max(receipt["largest_weight"] for receipt in receipts.values())
    )


def read_edges(job: Job, start: int, stop: int) -> tuple[Array, Array, Array]:
    """Return indptr, tails and weights of a range of vertices, which may cross partitions."""
    run, s = run_of(job), job.sizes
    parts = []
    for number in range(start // s.partition_rows, -(-stop // s.partition_rows)):
        first, last = s.partition(number)
        low, high = max(start, first) - first, min(stop, last) - first
        indptr = run.read(f"graph/{number:08d}/indptr", low, high + 1)
        edges = (int(indptr[0]), int(indptr[-1]))
        parts.append(
            [
                np.diff(indptr),
                *(run.read(f"graph/{number:08d}/{name}", *edges) for name in ("tails", "weights")),
            ]
        )
    sizes, tails, weights = (
        np.concatenate(column) if len(parts) > 1 else column[0] for column in zip(*parts, strict=True)
    )
    return np.concatenate([[0], np.cumsum(sizes)]), tails, weights
