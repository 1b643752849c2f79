"""Find the cells: k-means on the sample, or pivots where the metric has no space; the axes of the start."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.cells import find
from daskumap.kernels.metrics import metric as metrics
from daskumap.kernels.neighbors import knn
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.distinct import READS
from daskumap.stages.shared.micro import has_micro_cells
from daskumap.stages.shared.sample import probe_places
from daskumap.stages.shared.start import distinct_sample, has_axes, put_axes, put_micro
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def plan_cells(context: Context) -> Stage:
    """Plan the one task that finds the cells."""
    s = context.sizes
    block = s.sample_rows * s.columns * 4
    small = min(s.columns, s.sample_rows) if has_axes(context) else 0
    return Stage(
        task=cells_task,
        tasks=1,
        memory={
            # As read, or in the metric's space; and the rows that k-means sees.
            "sample": block * 2,
            # One after the other: k-means with a copy, differences from the mean, and tables of distances;
            # then the centred sample, also in float64, and eigenvectors with what LAPACK works on.
            "k-means, axes": max(
                2 * block + s.sample_rows * 16 + s.cells * (s.columns * 16 + 1024 * 8),
                (2 * block if small else 0) + small * small * 44,
            ),
        },
        read_bytes=block,
        made=tuple(item.name for item in _made(context)),
        made_bytes=s.cells * s.columns * 4,
        work=s.sample_rows
        * s.columns
        * (costs.K_MEANS_FLOPS * min(s.cells, find.FLAT_CELLS) + 2.0 * small)
        / costs.FLOPS,
        products=True,
        conclude=keep_cells,
    )


def cells_task(context: Context, number: int) -> Receipt:
    """Find centroids or pivots, and the main axes of the sample."""
    metric = context.metric
    sample, rows = distinct_sample(context)
    probes = probe_places(context, len(sample))
    context.put(schema.PROBES, sample[probes])
    context.put(schema.PROBE_ROWS, rows[probes])
    flat = metrics.to_space(sample, metric) if metric.space else sample
    del sample  # It may be as large as what follows.
    seed = context.key("cells")
    found = _make_cells(context, flat, probes, seed)
    context.put(schema.CENTROIDS, found.centres)
    context.put(schema.RADII, found.radii)
    context.put(schema.MEMBERS, found.counts * (_distinct_rows(context) / found.counts.sum()))
    put_micro(context, flat)
    if has_axes(context):
        put_axes(context, flat)
    return Receipt(len(flat), {"cells": len(found.centres), "probes": len(probes)})


def _made(context: Context) -> list[schema.Array]:
    """Return the arrays that the run has of those that the step may write."""
    without = [] if has_micro_cells(context) else [schema.MICRO]
    without += [] if has_axes(context) else [schema.MEAN, schema.AXES, schema.LIMITS]
    return [item for item in FIND.writes if isinstance(item, schema.Array) and item not in without]


def _make_cells(context: Context, flat: Array, probes: Array, seed: int) -> find.Cells:
    """Return cells about centroids, or about pivots where the metric has no space.

    Centroids lie nearer to the rows that k-means sees than to others, so it sees no larger share of the
    probes than of all rows. Probes that it saw joined 1.7 cells, other rows 2.8 (1,000,000 x 64, measured).
    """
    wanted, metric = _wanted_cells(context, len(flat)), context.metric
    if metric.space is None:
        pivots = find.find_pivots(flat, wanted, seed)
        owner, distances = knn.assign_cells(flat, pivots, 1, metric)
        return find.measure_cells(pivots, np.maximum(owner[:, 0], 0), distances[:, 0])
    unseen = 1.0 - context.sizes.sample_rows / context.sizes.rows
    hidden = np.diff(np.floor(np.arange(len(probes) + 1) * unseen)) > 0
    others = np.delete(flat, probes[hidden], axis=0)
    return find.find_centroids(others, wanted, 3.0 / wanted, seed)


def _wanted_cells(context: Context, sampled: int) -> int:
    """Return how many cells to make: as many fewer as there are fewer rows that take part."""
    s = context.sizes
    return min(sampled, -(-s.cells * _distinct_rows(context) // s.rows))


def _distinct_rows(context: Context) -> int:
    """Return the number of rows that take part, with `unique` each kind counted once."""
    if context.params.unique:
        return int(context.fact(schema.DISTINCT_ROWS))
    left_out = context.fact(schema.UNDEFINED) if context.params.undefined == "isolate" else 0
    return context.sizes.rows - int(left_out)


def keep_cells(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep the number of cells and of probes."""
    context.save_fact(schema.CELLS, receipts[0].found)


FIND = Step(
    "partition.cells",
    plan_cells,
    reads=(schema.SAMPLE, *READS, schema.DISTINCT_ROWS, schema.UNDEFINED),
    writes=(
        schema.CENTROIDS,
        schema.RADII,
        schema.MEMBERS,
        schema.MICRO,
        schema.MEAN,
        schema.AXES,
        schema.LIMITS,
        schema.PROBES,
        schema.PROBE_ROWS,
        schema.CELLS,
    ),
)
