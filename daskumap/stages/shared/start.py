"""What the start is made of: axes and micro-cells of the sample, and where each row is among them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from daskumap.kernels.cells import find
from daskumap.kernels.metrics import metric as metrics
from daskumap.kernels.metrics import spaces
from daskumap.kernels.neighbors import knn
from daskumap.planning import memory
from daskumap.runtime.context import Context
from daskumap.stages.shared.distinct import distinct_memory
from daskumap.stages.shared.micro import MICRO_CELLS, has_micro_cells
from daskumap.stages.shared.sample import sample_rows
from daskumap.stages.shared.visitors import Share, Visitor
from daskumap.store import schema

Array = np.ndarray[Any, Any]


class Distinct(Protocol):
    """A row block of so many rows from row `start` on: those without twins, and their places in it."""

    start: int
    rows: int
    X: Array
    places: Array


def distinct_sample(context: Context) -> tuple[Array, Array]:
    """Return the sampled rows that take part, and their ids; with `unique` each kind once, by its first."""
    sample, rows = context.reader(schema.SAMPLE, 0, 1).read(0, 1)["rows"], sample_rows(context)
    if context.params.undefined == "isolate":
        taken = context.take(schema.LEFT_OUT, rows) == 0
        sample, rows = sample[taken], rows[taken]
    if not context.params.unique:
        return sample, rows
    rows, places = np.unique(context.take(schema.FIRST, rows), return_index=True)
    return sample[places], rows


def put_micro(context: Context, flat: Array) -> None:
    """Write the micro-cells, where the start needs them: pivots of a sample in the metric's space."""
    if has_micro_cells(context):
        seed = context.key("cells") + 1
        context.put(schema.MICRO, find.find_pivots(flat, min(MICRO_CELLS, len(flat)), seed))


def put_axes(context: Context, flat: Array) -> None:
    """Write the main axes of a sample in the metric's space, its mean, and how far out its rows lie."""
    whole = flat if context.params.ensure_all_finite is True else find.fill_missing(flat)
    mean, axes, limits = find.principal_axes(whole, context.params.n_components)
    context.put(schema.MEAN, mean)
    context.put(schema.AXES, axes)
    context.put(schema.LIMITS, limits)


def has_axes(context: Context) -> bool:
    """Return whether the start is where rows lie on the main axes."""
    return context.job.start == "pca"


def _share_of_axes(context: Context) -> Share:
    return Share(outputs=(context.output(schema.ON_AXES),), memory=_transformed(context))


def project(context: Context, number: int, block: Distinct) -> dict[str, Any]:
    """Write where the rows of a block lie on the main axes; twins at 0."""
    axes = np.zeros((block.rows, context.params.n_components), np.float32)
    flat = metrics.to_space(block.X, context.metric) if context.metric.space else block.X
    about = flat - context.read(schema.MEAN)
    if context.params.ensure_all_finite is not True:
        about[~np.isfinite(about)] = 0.0
    axes[block.places] = spaces.linear(about, context.read(schema.AXES))
    context.write(schema.ON_AXES, block.start, axes)
    return {}


def _share_of_micro(context: Context) -> Share:
    return Share(outputs=(context.output(schema.IN_MICRO),), memory=_transformed(context))


def find_micro(context: Context, number: int, block: Distinct) -> dict[str, Any]:
    """Write the micro-cell of each row of a block; twins have the first one."""
    micro = np.zeros(block.rows, np.int32)
    nearest, _ = knn.assign_cells(block.X, context.read(schema.MICRO), 1, context.metric)
    micro[block.places] = nearest[:, 0]
    context.write(schema.IN_MICRO, block.start, micro)
    return {}


def _transformed(context: Context) -> dict[str, int]:
    s = context.sizes
    micro = {"micro-cells": 2 * MICRO_CELLS * s.columns * 4} if has_micro_cells(context) else {}
    return {
        "transformed rows": s.row_block * s.columns * 4,
        "scores": memory.SCORES,
        **micro,
    } | distinct_memory(context)


PROJECT = Visitor(project, _share_of_axes, when=has_axes)
FIND_MICRO = Visitor(find_micro, _share_of_micro, when=has_micro_cells)
