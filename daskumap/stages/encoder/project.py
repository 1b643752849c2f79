"""Project: each row as the network sees it, and what is known of it, to its vertex.

A row block of the source becomes a batch of the exchange by vertex chunk; `encoder.rows` puts a vertex
partition together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.checks import find_beyond, refuse_beyond
from daskumap.stages.shared.compare import COMPARE
from daskumap.stages.shared.encoding import has_axes, known_bytes, known_items, on_axes
from daskumap.stages.shared.visitors import Share, Visitor, plan_pass, read_rows
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def plan_project(context: Context) -> Stage:
    """Plan one task a row block."""
    visitors = (COMPARE, Visitor(project, _share_of_projection))
    return plan_pass(
        context, visitors, read_rows, products=has_axes(context), conclude=refuse_beyond_probabilities
    )


def _share_of_projection(context: Context) -> Share:
    s, axes = context.sizes, context.extent("axis")
    sent = axes * 4 + known_bytes(context) + 8
    return Share(
        memory={
            "rows about their mean": s.row_block * s.columns * 4,
            # As projected, and in the order of the vertices.
            "projected rows": 2 * s.row_block * sent,
            "axes": s.columns * axes * 4,
        },
        work=2.0 * s.rows * s.columns * axes / costs.FLOPS if has_axes(context) else 0.0,
        made=(schema.PROJECTED.name,),
        made_bytes=s.rows * sent,
    )


def project(context: Context, number: int, X: Array) -> dict[str, Any]:
    """Send the rows of a block as the network sees them to their vertices."""
    s = context.sizes
    start, stop = s.block(number)
    vertices = context.read(schema.VERTEX, start, stop)
    order = np.argsort(vertices)
    known = {
        name: context.model.read(schema.EMBEDDING, start, stop)
        if given is None
        else context.read(given, start, stop)
        for name, (_, given) in known_items(context).items()
    }
    offsets = np.searchsorted(vertices[order], np.arange(s.vertex_chunks + 1) * s.vertex_chunk)
    sent = {"vertices": vertices, "rows": _seen(context, X), **known}
    context.send(schema.PROJECTED, number, offsets, **{name: values[order] for name, values in sent.items()})
    return find_beyond(X, start) if by_entropy(context) else {}


def refuse_beyond_probabilities(context: Context, receipts: dict[int, Receipt]) -> None:
    """Refuse rows with values outside [0, 1] where the reconstruction is by cross-entropy."""
    if by_entropy(context):
        refuse_beyond(receipts)


def by_entropy(context: Context) -> bool:
    """Tell whether a decoder is trained by cross-entropy."""
    return bool(context.params.encoder.reconstruction == "bce")


def _seen(context: Context, X: Array) -> Array:
    """Return rows as the network sees them."""
    if not has_axes(context):
        return X.astype(np.float32, copy=False)
    about = X - context.read(schema.ENCODER_MEAN)
    about /= np.float32(context.fact(schema.ENCODER_SCALE)["scale"])
    return on_axes(about, context.read(schema.ENCODER_AXES))


def plan_rows(context: Context) -> Stage:
    """Plan one task a vertex partition."""
    s, items = context.sizes, [item for item, _ in known_items(context).values()]
    row = context.extent("axis") * 4 + known_bytes(context)
    return Stage(
        task=rows_task,
        tasks=s.partitions,
        # As read, of which several batches may be on their way, and put together.
        memory={"rows": 3 * min(s.partition_rows, s.rows) * (row + 8)},
        outputs=tuple(map(context.output, (schema.ENCODER_ROWS, *items))),
        read_bytes=s.rows * (row + 8),
        work=costs.SHUFFLE_VALUE * s.rows * row / 4,
    )


def rows_task(context: Context, number: int) -> Receipt:
    """Put the rows of a partition together, and what is known of them."""
    start, stop = context.sizes.partition(number)
    items = {"rows": schema.ENCODER_ROWS}
    items |= {name: item for name, (item, _) in known_items(context).items()}
    outputs = {name: context.output(item) for name, item in items.items()}
    parts = {name: np.empty((stop - start, *one.shape[1:]), one.dtype) for name, one in outputs.items()}
    chunks = context.sizes.chunks(start, stop)
    for found in context.reader(schema.PROJECTED, *chunks, "vertices", *items).slices(*chunks):
        places = found["vertices"] - start
        for name, values in parts.items():
            values[places] = found[name]
    for name, item in items.items():
        context.write(item, start, parts[name])
    return Receipt(stop - start)


PROJECT = Step(
    "encoder.project",
    plan_project,
    reads=(
        schema.SOURCE,
        schema.VERTEX,
        schema.ENCODER_MEAN,
        schema.ENCODER_AXES,
        schema.ENCODER_SCALE,
        schema.LABELS,
        schema.LANDMARKS,
    ),
    writes=(schema.PROJECTED,),
    model=(schema.EMBEDDING,),
)
ROWS = Step(
    "encoder.rows",
    plan_rows,
    reads=(schema.PROJECTED,),
    writes=(
        schema.ENCODER_ROWS,
        schema.ENCODER_LABELS,
        schema.ENCODER_LANDMARKS,
        schema.ENCODER_PLACES,
    ),
)
