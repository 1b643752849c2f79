"""Embed: where the trained network maps the rows, a row block a task."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from daskumap.kernels.encoder.network import BLOCK_ROWS
from daskumap.planning import costs
from daskumap.planning.stage import Stage, Step
from daskumap.runtime.context import Context
from daskumap.runtime.networks import row_bytes
from daskumap.runtime.trained import Trained
from daskumap.stages.shared.visitors import Share, Visitor, plan_pass, read_rows
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def plan_embed(context: Context) -> Stage:
    """Plan one task a row block."""
    return plan_pass(context, (Visitor(embed, _share_of_places),), read_rows, products=True)


def _share_of_places(context: Context) -> Share:
    s, e = context.sizes, context.params.encoder
    size = s.columns * e.hidden[0] + context.network.size
    block = BLOCK_ROWS * row_bytes(context.params, context.network, s.columns)
    return Share(
        outputs=(context.output(schema.EMBEDDING),),
        memory={"places": s.row_block * (context.params.n_components * 8 + 1), "model": 3 * size * 4 + block},
        work=2.0 * s.rows * size / costs.FLOPS,
    )


def embed(context: Context, number: int, X: Array) -> dict[str, Any]:
    """Write the places of the rows of a block; rows on which the metric is not defined are not on the map."""
    start, _ = context.sizes.block(number)
    network = context.held("network", lambda: Trained.of(context.encoder, context.params))
    places = network.encode(X)
    context.write(schema.EMBEDDING, start, places)
    return {"crc32": zlib.crc32(places.tobytes())}


EMBED = Step(
    "encoder.embed",
    plan_embed,
    reads=(schema.SOURCE, schema.ENCODER),
    writes=(schema.EMBEDDING,),
)
