"""Initialize: where every vertex starts.

Reads assign/axes (pca), the graph and assign/micro (spectral), or the user's array `input/init`. Writes
`initial`, (n, d) float32 in vertex order, each column scaled to 0..10, with noise of 1e-4.
Memory: positions of all vertices twice; for the spectral start also a dense graph of micro-cells.
"""

from __future__ import annotations

import numpy as np

from daskumap.kernels import spectral
from daskumap.kernels.random import uniform
from daskumap.planning.job import Job
from daskumap.planning.stage import Output, Receipt, Stage
from daskumap.stages.common import Array, distinct_of, key_of, run_of
from daskumap.stages.partition import EXACT_ROWS, MICRO_CELLS
from daskumap.stages.symmetrize import read_edges

# umap-learn's: starts span 0 to 10 in each column, and noise separates what coincides.
EXTENT = 10.0
NOISE = 1e-4
# Passes of averaging over the graph after the coarse spectral start (measured: more change nothing).
SMOOTHING = 3


def plan_initialize(job: Job) -> Stage:
    """Plan the one task."""
    s, d = job.sizes, job.params.n_components
    memory = {"positions": 3 * s.rows * d * 4, "row block": s.row_block * (d * 12 + 16)}
    if job.start == "spectral":
        g = min(s.rows, EXACT_ROWS if s.rows <= EXACT_ROWS else MICRO_CELLS)
        memory |= {
            "dense graph": 4 * g * g * 8,
            "micro-cells": s.rows * 4,
            "edges": min(s.partition_rows, s.rows) * 24 * job.neighbors,
        }
    return Stage(
        name="initialize",
        task=initialize_task,
        tasks=1,
        memory=memory,
        outputs=(Output("initial", (s.rows, d), (s.vertex_chunk, d), "float32"),),
        read_bytes=s.rows * (d * 4 + 8),
        work=0.12e-6 * s.rows,
    )


def initialize_task(job: Job, number: int) -> Receipt:
    """Write the start of all vertices."""
    init = job.params.init
    if isinstance(init, np.ndarray):
        positions = by_vertex(job, "input/init")
    elif init == "pca":
        positions = np.clip(
            by_vertex(job, "assign/axes"), *run_of(job).read("cells/limits").astype(np.float32)
        )
    elif init == "spectral":
        positions = spectral_start(job)
    else:
        positions = np.zeros((job.sizes.rows, job.params.n_components), np.float32)
        add_noise(job, positions, EXTENT)
    rescale(positions[: distinct_of(job)])
    positions[distinct_of(job) :] = 0  # twins: nothing reads them
    add_noise(job, positions, NOISE)
    run_of(job).array("initial")[:] = positions
    return {"rows": len(positions)}


def by_vertex(job: Job, name: str) -> Array:
    """Return an array of the run store, which is in row order, in vertex order; block by block."""
    run, s = run_of(job), job.sizes
    source = run.array(name)
    out = np.empty(source.shape, source.dtype)
    for block in range(s.row_blocks):
        start, stop = s.block(block)
        out[run.read("rows/vertex", start, stop)] = source[start:stop]
    return out


def rescale(positions: Array) -> None:
    """Scale each column to 0..10, in place; a constant column becomes 0."""
    low = positions.min(axis=0)
    extent = positions.max(axis=0) - low
    positions -= low
    positions *= np.float32(EXTENT) / np.where(extent > 0, extent, np.float32(1.0))


def add_noise(job: Job, positions: Array, scale: float) -> None:
    """Add uniform noise in [0, scale) keyed by the vertex, in place."""
    key, step = key_of(job, "start" if scale == EXTENT else "noise"), 1 << 16
    for at in range(0, len(positions), step):
        block = positions[at : at + step]
        block += (uniform(key, at, *block.shape) * scale).astype(np.float32)


def spectral_start(job: Job) -> Array:
    """Return the Laplacian's eigenvectors, projected on micro-cells and smoothed over the graph."""
    s, d = job.sizes, job.params.n_components
    exact = s.rows <= EXACT_ROWS
    distinct = distinct_of(job)  # twins have no edges: they are in some group, but do not count
    groups = np.arange(s.rows, dtype=np.int32) if exact else by_vertex(job, "assign/micro")
    np.minimum(groups, distinct - 1, out=groups)
    size = int(groups.max()) + 1
    sizes = np.bincount(groups[:distinct], minlength=size)
    coarse = np.zeros((size, size))
    for start, stop in map(s.partition, range(s.partitions)):
        spectral.coarsen(groups, start, *read_edges(job, start, stop), coarse)
    positions = spectral.embed(coarse, sizes, d)[groups].astype(np.float32)
    return positions if exact else smoothed(job, positions)


def smoothed(job: Job, positions: Array) -> Array:
    """Return the positions after a few passes of averaging: steps towards the graph's smooth eigenvectors."""
    s = job.sizes
    for _ in range(SMOOTHING):
        out = np.empty_like(positions)
        for start, stop in map(s.partition, range(s.partitions)):
            spectral.smooth(positions, start, *read_edges(job, start, stop), out[start:stop])
        positions = out
    return positions
