"""Axes: the main axes of the data, on which the built-in network sees the rows.

`encoder.sample`  a pass over the input: some of its rows are sampled
`encoder.axes`    one task: the main axes of the sample, its mean, and its unit

Rows on 64 of 784 axes take a twelfth of the memory and a third of the steps' time. In the unit of the sample
the mean variance of the axes is 1, since the learning rate suits weights that see values of about that size.
"""

from __future__ import annotations

import numpy as np

from daskumap.kernels.cells import find
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.distinct import READS
from daskumap.stages.shared.encoding import on_axes
from daskumap.stages.shared.sample import TAKE_SAMPLE
from daskumap.stages.shared.start import distinct_sample
from daskumap.stages.shared.visitors import plan_pass, read_rows
from daskumap.store import schema


def plan_sample(context: Context) -> Stage:
    """Plan one task a row block."""
    return plan_pass(context, (TAKE_SAMPLE,), read_rows)


def plan_axes(context: Context) -> Stage:
    """Plan the one task."""
    s, axes = context.sizes, context.extent("axis")
    block, small = s.sample_rows * s.columns * 4, min(s.columns, s.sample_rows)
    return Stage(
        task=axes_task,
        tasks=1,
        memory={"sample": 3 * block, "axes": block + small * small * 24 + s.sample_rows * axes * 20},
        read_bytes=block,
        made=(schema.ENCODER_MEAN.name, schema.ENCODER_AXES.name),
        made_bytes=s.columns * (axes + 1) * 4,
        work=2.0 * s.sample_rows * s.columns * small / costs.FLOPS,
        products=True,
        conclude=keep_scale,
    )


def axes_task(context: Context, number: int) -> Receipt:
    """Find the main axes of the sample, and the unit in which their mean variance is 1."""
    sample = distinct_sample(context)[0].astype(np.float32, copy=False)
    mean, axes, _ = find.principal_axes(sample, context.extent("axis"))
    about = sample - mean
    variances = on_axes(about, axes).var(axis=0, dtype=np.float64)
    total = float(about.var(axis=0, dtype=np.float64).sum())
    scale = float(np.float32(np.sqrt(variances.mean()))) or 1.0
    context.put(schema.ENCODER_MEAN, mean)
    context.put(schema.ENCODER_AXES, axes)
    share = float(variances.sum()) / total if total else 1.0
    found = {"axes": axes.shape[1], "variance": min(1.0, share), "scale": scale}
    return Receipt(len(sample), found)


def keep_scale(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep what was found."""
    context.save_fact(schema.ENCODER_SCALE, receipts[0].found)


SAMPLE = Step("encoder.sample", plan_sample, reads=(schema.SOURCE,), writes=(schema.SAMPLE,))
AXES = Step(
    "encoder.axes",
    plan_axes,
    reads=(schema.SAMPLE, *READS),
    writes=(schema.ENCODER_MEAN, schema.ENCODER_AXES, schema.ENCODER_SCALE),
)
