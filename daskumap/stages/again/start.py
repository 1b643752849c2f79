"""Start: the axes or micro-cells that the model lacks, by the sample, and where each row is among them.

`start.sample`  a pass over the input: its rows are those of the model, and some of them are sampled
`start.axes`    one task: the main axes of the sample, or its micro-cells
`start.places`  a pass over the input: where each row lies
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from daskumap.kernels.metrics import metric as metrics
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.compare import COMPARE
from daskumap.stages.shared.distinct import READS, read_distinct
from daskumap.stages.shared.micro import has_micro_cells
from daskumap.stages.shared.sample import TAKE_SAMPLE
from daskumap.stages.shared.start import (
    FIND_MICRO,
    PROJECT,
    distinct_sample,
    has_axes,
    put_axes,
    put_micro,
)
from daskumap.stages.shared.visitors import plan_pass, read_rows
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def plan_sample(context: Context) -> Stage:
    """Plan one task a row block."""
    return plan_pass(context, (COMPARE, TAKE_SAMPLE), read_rows)


def plan_axes(context: Context) -> Stage:
    """Plan the one task."""
    s = context.sizes
    block, small = s.sample_rows * s.columns * 4, min(s.columns, s.sample_rows)
    axes = (schema.MEAN, schema.AXES, schema.LIMITS) if has_axes(context) else (schema.MICRO,)
    return Stage(
        task=axes_task,
        tasks=1,
        memory={"sample": 2 * block, "axes": block + small * small * 24},
        read_bytes=block,
        made=tuple(item.name for item in axes),
        made_bytes=s.columns * (context.params.n_components + 1) * 4,
        work=2.0 * s.sample_rows * s.columns * small / costs.FLOPS,
        products=True,
    )


def axes_task(context: Context, number: int) -> Receipt:
    """Find the axes or the micro-cells, as the fit of the data does."""
    sample, _ = distinct_sample(context)
    flat = metrics.to_space(sample, context.metric) if context.metric.space else sample
    if has_axes(context):
        put_axes(context, flat)
    put_micro(context, flat)
    return Receipt(len(sample))


class Block(NamedTuple):
    """A row block of so many rows from row `start` on: those without twins, and their places in it."""

    start: int
    rows: int
    X: Array
    places: Array


def plan_places(context: Context) -> Stage:
    """Plan one task a row block."""
    return plan_pass(context, (PROJECT, FIND_MICRO), read_block, products=has_micro_cells(context))


def read_block(context: Context, number: int) -> Block:
    """Read the rows of a block without twins."""
    start, stop = context.sizes.block(number)
    return Block(start, stop - start, *read_distinct(context, start, stop))


SAMPLE = Step(
    "start.sample",
    plan_sample,
    reads=(schema.SOURCE,),
    writes=(schema.SAMPLE,),
)
AXES = Step(
    "start.axes",
    plan_axes,
    reads=(schema.SAMPLE, *READS),
    writes=(schema.MEAN, schema.AXES, schema.LIMITS, schema.MICRO),
)
PLACES = Step(
    "start.places",
    plan_places,
    reads=(schema.SOURCE, *READS, schema.MEAN, schema.AXES, schema.MICRO),
    writes=(schema.ON_AXES, schema.IN_MICRO),
)
