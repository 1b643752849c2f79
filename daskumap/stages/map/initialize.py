"""Initialize: where every vertex starts, each column scaled to 0..10, with noise of 1e-4; or the given map.

The one task holds positions of all vertices twice; for the spectral start also a dense graph of micro-cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.graph import spectral
from daskumap.kernels.graph.regions import grow
from daskumap.kernels.random import uniform
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.micro import EXACT_ROWS, MICRO_CELLS
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# umap-learn's: starts span 0 to 10 in each column, and noise separates what coincides.
EXTENT = 10.0
NOISE = 1e-4
# Passes of averaging over the graph after the coarse spectral start (measured: more change nothing).
SMOOTHING = 3
# Regions of the graph for the vertices that no seed reaches.
SEEDLESS = 200


def plan_initialize(context: Context) -> Stage:
    """Plan the one task."""
    s, d = context.sizes, context.params.n_components
    memory = {"positions": 3 * s.rows * d * 4, "row block": s.row_block * (d * 12 + 16)}
    if context.job.start == "spectral":
        memory |= _graph_memory(context)
    return Stage(
        task=initialize_task,
        tasks=1,
        memory=memory,
        outputs=(context.output(schema.INITIAL),),
        read_bytes=s.rows * (d * 4 + 8),
        work=costs.INITIALIZE_VERTEX * s.rows,
    )


def _graph_memory(context: Context) -> dict[str, int]:
    """Return the terms of memory of the graph whose eigenvectors are the start."""
    s, k = context.sizes, context.job.neighbors
    if s.rows <= EXACT_ROWS:
        # As read, symmetric, scaled, and on the way; an edge takes 12 bytes, and each is there twice.
        return {"graph": 6 * 2 * s.rows * k * 12}
    return {
        "dense graph": 8 * MICRO_CELLS**2 * 8,
        "micro-cells": s.rows * (12 if context.metric.is_given else 4),
        "edges": min(s.partition_rows, s.rows) * 24 * k,
    }


def initialize_task(context: Context, number: int) -> Receipt:
    """Write the start of all vertices."""
    positions = START[context.job.start](context)
    distinct = context.distinct
    if context.params.optimizer != "none":
        rescale(positions[:distinct])
        add_noise(context, positions, NOISE)
    positions[distinct:] = 0  # Nothing reads the places of twins.
    context.write(schema.INITIAL, 0, positions)
    return Receipt(len(positions))


def array_start(context: Context) -> Array:
    """Return the start that the user gave."""
    return by_vertex(context, schema.INIT)


def pca_start(context: Context) -> Array:
    """Return the places of the rows on the sample's main axes, as far out as the sample's own rows."""
    limits = context.read(schema.LIMITS).astype(np.float32)
    return np.clip(by_vertex(context, schema.ON_AXES), *limits)


def random_start(context: Context) -> Array:
    """Return places that only the seed decides."""
    positions = np.zeros((context.sizes.rows, context.params.n_components), np.float32)
    add_noise(context, positions, EXTENT)
    return positions


def spectral_start(context: Context) -> Array:
    """Return the Laplacian's eigenvectors, projected on micro-cells and smoothed over the graph."""
    s, d = context.sizes, context.params.n_components
    distinct = context.distinct  # Twins have no edges: they are in some micro-cell, but do not count.
    if s.rows <= EXACT_ROWS:
        positions = np.zeros((s.rows, d), np.float32)
        positions[:distinct] = spectral.embed(whole_graph(context), np.ones(distinct), d)
        return positions
    micro = coarse_vertices(context)
    np.minimum(micro, distinct - 1, out=micro)
    size = int(micro.max()) + 1
    sizes = np.bincount(micro[:distinct], minlength=size)
    coarse = np.zeros((size, size))
    for start, stop in map(s.partition, range(s.partitions)):
        spectral.coarsen(micro, start, *context.edges(start, stop), coarse)
    return smoothed(context, spectral.embed(coarse, sizes, d)[micro].astype(np.float32))


def whole_graph(context: Context) -> Any:
    """Return the graph of all distinct rows, (m, m) sparse, in memory."""
    from scipy.sparse import csr_array

    s, distinct = context.sizes, context.distinct
    blocks = [context.edges(start, stop) for start, stop in map(s.partition, range(s.partitions))]
    counts = np.concatenate([np.diff(indptr) for indptr, _, _ in blocks])
    tails = np.concatenate([tails for _, tails, _ in blocks])
    weights = np.concatenate([weights for _, _, weights in blocks]).astype(np.float64)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    graph = csr_array((weights, tails, indptr), shape=(s.rows, s.rows))
    return graph[:distinct, :distinct]


def coarse_vertices(context: Context) -> Array:
    """Return the micro-cell of each vertex: of its vector, or where there are none a region of the graph."""
    return regions_of_graph(context) if context.metric.is_given else by_vertex(context, schema.IN_MICRO)


def regions_of_graph(context: Context) -> Array:
    """Return for each vertex which of MICRO_CELLS seeds, evenly spread, reaches it first along the edges.

    A piece of the graph without a seed is spread over the last few regions: where it lies says nothing.
    """
    s, seeds = context.sizes, MICRO_CELLS - SEEDLESS
    regions = np.full(s.rows, -1, np.int32)
    regions[seeded_vertices(context, seeds)] = np.arange(seeds)
    joined = 1
    while joined:
        before, joined = regions.copy(), 0
        for start, stop in map(s.partition, range(s.partitions)):
            joined += grow(before, start, *context.edges(start, stop), regions[start:stop])
    alone = np.flatnonzero(regions < 0)
    regions[alone] = seeds + alone * SEEDLESS // s.rows
    return regions


def seeded_vertices(context: Context, seeds: int) -> Array:
    """Return one hashed vertex of each of so many equal stretches, ascending."""
    share = uniform(context.key("regions"), 0, seeds, 1)[:, 0]
    places: Array = (np.arange(seeds) + share) * (context.sizes.rows / seeds)
    return np.minimum(places.astype(np.int64), context.sizes.rows - 1)


def smoothed(context: Context, positions: Array) -> Array:
    """Return the positions after a few passes of averaging: steps towards the graph's smooth eigenvectors."""
    s = context.sizes
    for _ in range(SMOOTHING):
        out = np.empty_like(positions)
        for start, stop in map(s.partition, range(s.partitions)):
            spectral.smooth(positions, start, *context.edges(start, stop), out[start:stop])
        positions = out
    return positions


START = {"array": array_start, "pca": pca_start, "random": random_start, "spectral": spectral_start}


def by_vertex(context: Context, item: schema.Array) -> Array:
    """Return an array that is in row order, in vertex order; block by block."""
    s, source = context.sizes, context.array(item)
    out = np.empty(source.shape, source.dtype)
    for start, stop in map(s.block, range(s.row_blocks)):
        out[context.read(schema.VERTEX, start, stop)] = source[start:stop]
    return out


def rescale(positions: Array) -> None:
    """Scale each column to 0..10, in place; a constant column becomes 0."""
    low = positions.min(axis=0)
    extent = positions.max(axis=0) - low
    positions -= low
    positions *= np.float32(EXTENT) / np.where(extent > 0, extent, np.float32(1.0))


def add_noise(context: Context, positions: Array, scale: float) -> None:
    """Add uniform noise in [0, scale) keyed by the vertex, in place."""
    key, step = context.key("start" if scale == EXTENT else "noise"), 1 << 16
    for at in range(0, len(positions), step):
        block = positions[at : at + step]
        block += (uniform(key, at, *block.shape) * scale).astype(np.float32)


INITIALIZE = Step(
    "initialize",
    plan_initialize,
    reads=(
        schema.INIT,
        schema.LIMITS,
        schema.ON_AXES,
        schema.IN_MICRO,
        schema.GRAPH,
        schema.VERTEX,
    ),
    writes=(schema.INITIAL,),
)
