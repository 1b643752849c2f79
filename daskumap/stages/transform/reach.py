"""Reach: with how many cells of the model a new row is compared, and how far training rows are from theirs.

A training row is in its nearest cell alone here, so that a new row has to reach the cells that hold its
neighbours. The probes of the fit, whose neighbours are known exactly, tell at which level that is so.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from daskumap.kernels.cells import join
from daskumap.kernels.neighbors.lists import mean_distances
from daskumap.planning import memory
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.nearest import nearest_cells
from daskumap.store import schema

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

# The probes are a sample: two standard errors below the mean still have to reach the target.
SAFETY = 2.0
# So many training rows tell what distances are usual, in vertex chunks spread over all; and so many numbers
# are kept of them: a tenth of a percent is told apart.
TYPICAL_ROWS = 1 << 21
QUANTILES = 1 << 12


def plan_reach(context: Context) -> Stage:
    """Plan the one task."""
    model = context.model
    k, most = model.job.neighbors, context.extent("reach")
    return Stage(
        task=reach_task,
        tasks=1,
        memory={
            "probes": model.probes * (model.row_bytes * 3 + most * 13 + k * 48),
            "centroids": 2 * model.cells * model.sizes.columns * 4 + memory.SCORES,
            "vertices": model.sizes.row_block * 16,
            "distances": len(typical_chunks(context)) * model.sizes.vertex_chunk * 8
            + model.sizes.vertex_chunk * k * 8,
        },
        made=(schema.TYPICAL.name,),
        made_bytes=QUANTILES * 4,
        read_bytes=8 * model.sizes.rows + len(typical_chunks(context)) * model.sizes.vertex_chunk * k * 4,
        conclude=keep_reach,
    )


def typical_chunks(context: Context) -> list[int]:
    """Return the vertex chunks whose rows tell what distances are usual."""
    s = context.model.sizes
    count = min(s.vertex_chunks, max(1, TYPICAL_ROWS // s.vertex_chunk))
    return np.unique(np.linspace(0, s.vertex_chunks - 1, count).astype(int)).tolist()  # type: ignore[no-any-return]


def reach_task(context: Context, number: int) -> Receipt:
    """Choose the level, and keep quantiles of the training rows' mean distances to their neighbours."""
    recall, error, cells = _recall_by_level(context)
    enough = np.flatnonzero(recall - SAFETY * error >= context.params.target_recall)
    level = int(enough[enough > 0][0]) if (enough > 0).any() else join.LEVELS - 1
    context.put(schema.TYPICAL, _typical(context))
    return Receipt(
        context.model.probes,
        {
            "level": level,
            "cells": round(float(cells[level]), 3),
            "recall": [round(float(value), 4) for value in recall],
        },
    )


def _recall_by_level(context: Context) -> tuple[Array, Array, Array]:
    """Return the share of the probes' neighbours in cells that they reach, its error, and how many cells."""
    model = context.model
    nearest, levels = nearest_cells(model, model.read(schema.PROBES), context.extent("reach"))
    ids = model.read(schema.PROBE_IDS)
    vertices = model.take(schema.VERTEX, np.maximum(ids, 0).ravel()).reshape(ids.shape)
    owners = np.searchsorted(model.read(schema.CELL_STARTS), vertices, side="right") - 1
    reached = [join.joined(nearest, levels, level) for level in range(join.LEVELS)]
    shares = [join.shared_recall(cells, owners[..., None], ids) for cells in reached]
    recall, error = np.array(shares).T
    return recall, error, np.array([(cells >= 0).sum(axis=1).mean() for cells in reached])


def _typical(context: Context) -> Array:
    """Return quantiles, ascending, of the training rows' mean distances to their neighbours."""
    model, s = context.model, context.model.sizes
    means = []
    for chunk in typical_chunks(context):
        start = chunk * s.vertex_chunk
        stop = min(start + s.vertex_chunk, model.distinct)
        if stop > start:
            means.append(mean_distances(model.read(schema.DISTANCES, start, stop), model.job.neighbors))
    found = np.sort(np.concatenate(means))
    found = found[np.isfinite(found)]
    places = np.linspace(0, max(0, len(found) - 1), min(QUANTILES, len(found))).astype(np.int64)
    return np.append(found, np.float32(0.0))[:1] if not len(found) else found[places]


def keep_reach(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep the level; say so where no reach allowed finds enough."""
    found = receipts[0].found
    context.save_fact(schema.REACH, found)
    if max(found["recall"]) < context.params.target_recall:
        log.warning(
            "New rows are compared with their nearest %d cells, which hold %.1f %% of their neighbours, less "
            "than target_recall %.1f %%.",
            context.extent("reach"),
            100 * max(found["recall"]),
            100 * context.params.target_recall,
        )


REACH = Step(
    "transform.reach",
    plan_reach,
    writes=(schema.REACH, schema.TYPICAL),
    model=(
        schema.CENTROIDS,
        schema.RADII,
        schema.MEMBERS,
        schema.PROBES,
        schema.PROBE_IDS,
        schema.CELL_STARTS,
        schema.VERTEX,
        schema.DISTANCES,
    ),
)
