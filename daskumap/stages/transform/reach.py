"""Reach: with how many cells of the model a new row is compared, and how far training rows are from theirs.

A training row is in its nearest cell alone here, so that a new row has to reach the cells that hold its
neighbours. The probes of the fit, whose neighbours are known exactly, tell at which level that is so.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from daskumap.kernels.cells import join
from daskumap.planning import memory
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.nearest import nearest_cells
from daskumap.stages.shared.typical import QUANTILES, typical_bytes, typical_of, typical_read_bytes
from daskumap.store import schema

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]

# The probes are a sample: two standard errors below the mean still have to reach the target.
SAFETY = 2.0


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
            "distances": typical_bytes(model),
        },
        made=(schema.TYPICAL.name,),
        made_bytes=QUANTILES * 4,
        read_bytes=8 * model.sizes.rows + typical_read_bytes(model),
        conclude=keep_reach,
    )


def reach_task(context: Context, number: int) -> Receipt:
    """Choose the level, and keep quantiles of the training rows' mean distances to their neighbours."""
    recall, error, cells = _recall_by_level(context)
    enough = np.flatnonzero(recall - SAFETY * error >= context.params.target_recall)
    level = int(enough[enough > 0][0]) if (enough > 0).any() else join.LEVELS - 1
    context.put(schema.TYPICAL, typical_of(context.model))
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
        schema.TYPICAL,
    ),
)
