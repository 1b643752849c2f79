"""Assign: one pass over the source for each row's nearest cells, and the probes' nearest rows a block."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.cells import join
from daskumap.kernels.neighbors import knn
from daskumap.planning import costs, memory
from daskumap.planning.stage import Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.checks import find_lost, refuse_lost
from daskumap.stages.shared.distinct import READS, distinct_memory, read_distinct
from daskumap.stages.shared.nearest import nearest_cells
from daskumap.stages.shared.sample import places_of, probe_rows
from daskumap.stages.shared.start import FIND_MICRO, PROJECT
from daskumap.stages.shared.visitors import Share, Visitor, plan_pass
from daskumap.store import schema

Array = np.ndarray[Any, Any]


class Block(NamedTuple):
    """A row block: its rows that take part, (r, D), their places in the block, and what cells they join.

    `nearest`, (b, m) int32, and `levels`, (b, m) uint8, are of all b rows; the others have no cell, -1.
    """

    start: int
    rows: int
    X: Array
    places: Array
    nearest: Array
    levels: Array


def plan_assign(context: Context) -> Stage:
    """Plan one task a row block."""
    visitors = (FIND_LOST, WRITE_NEAREST, COUNT_MEMBERS, FIND_PROBES, PROJECT, FIND_MICRO)
    return plan_pass(context, visitors, read_block, products=True, conclude=refuse_lost)


def read_block(context: Context, number: int) -> Block:
    """Read a row block and find the nearest cells of its rows."""
    start, stop = context.sizes.block(number)
    X, places = read_distinct(context, start, stop)
    shape = (stop - start, context.params.max_overlap)
    nearest, levels = np.full(shape, -1, np.int32), np.zeros(shape, np.uint8)
    nearest[places], levels[places] = nearest_cells(context, X, context.params.max_overlap)
    return Block(start, stop - start, X, places, nearest, levels)


def _share_of_nearest(context: Context) -> Share:
    s, m = context.sizes, context.params.max_overlap
    return Share(
        outputs=(context.output(schema.NEAREST), context.output(schema.LEVELS)),
        memory={
            "transformed rows": s.row_block * s.columns * 4,
            "scores": memory.SCORES,
            "centroids": 2 * context.cells * s.columns * 4,
            "cells": s.row_block * m * 32,
            **distinct_memory(context),
        },
        work=2.0 * s.rows * s.columns * context.cells / costs.FLOPS,
    )


def write_nearest(context: Context, number: int, block: Block) -> dict[str, Any]:
    """Write the nearest cells of a block's rows."""
    context.write(schema.NEAREST, block.start, block.nearest)
    context.write(schema.LEVELS, block.start, block.levels)
    return {}


def find_lost_rows(context: Context, number: int, block: Block) -> dict[str, Any]:
    """Find the rows of a block that the metric measures to no cell at all; twins are not measured."""
    nearest = np.zeros(block.rows, np.int32)
    nearest[block.places] = block.nearest[block.places, 0]
    return find_lost(nearest, block.start)


def _share_of_counts(context: Context) -> Share:
    return Share(
        outputs=(context.output(schema.COUNTS),), memory={"counts": context.cells * join.LEVELS * 12}
    )


def count_members(context: Context, number: int, block: Block) -> dict[str, Any]:
    """Count the rows of a block that join each cell, by the level from which on they do."""
    size = context.cells
    members = (block.levels.astype(np.int64) * size + block.nearest)[block.nearest >= 0]
    counts = np.bincount(members, minlength=join.LEVELS * size).reshape(join.LEVELS, -1)
    context.write(schema.COUNTS, number, counts[None])
    return {}


def _share_of_probes(context: Context) -> Share:
    s, k, m = context.sizes, context.job.neighbors, context.params.max_overlap
    return Share(
        outputs=tuple(map(context.output, schema.BLOCK_PROBES)),
        memory={"probes": s.probe_rows * (s.columns * 4 + k * (16 + 5 * m))},
        work=2.0 * s.rows * s.columns * s.probe_rows / costs.FLOPS,
    )


def find_probes(context: Context, number: int, block: Block) -> dict[str, Any]:
    """Find the probes' nearest rows in a block, and which cells those join."""
    rows = block.places + block.start
    own = places_of(rows, probe_rows(context))
    local, distances = knn.nearest(
        context.read(schema.PROBES), block.X, context.job.neighbors, context.metric, own, 0
    )
    ids = np.where(local >= 0, rows[local], -1) if len(rows) else local
    there = np.maximum(ids - block.start, 0)
    found = np.where(ids[..., None] >= 0, block.nearest[there], -2)
    for item, values in zip(schema.BLOCK_PROBES, (ids, distances, found, block.levels[there]), strict=True):
        context.write(item, number, values[None])
    return {}


FIND_LOST = Visitor(find_lost_rows, lambda context: Share())
WRITE_NEAREST = Visitor(write_nearest, _share_of_nearest)
COUNT_MEMBERS = Visitor(count_members, _share_of_counts)
FIND_PROBES = Visitor(find_probes, _share_of_probes)

ASSIGN = Step(
    "partition.assign",
    plan_assign,
    reads=(
        schema.SOURCE,
        *READS,
        schema.CENTROIDS,
        schema.RADII,
        schema.MEMBERS,
        schema.MICRO,
        schema.MEAN,
        schema.AXES,
        schema.PROBES,
        schema.PROBE_ROWS,
    ),
    writes=(
        schema.NEAREST,
        schema.LEVELS,
        schema.COUNTS,
        *schema.BLOCK_PROBES,
        schema.ON_AXES,
        schema.IN_MICRO,
    ),
)
