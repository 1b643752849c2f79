"""Rows, or points of a map, through a trained network: one pass that checks, digests and maps each block.

`encode`    rows to their places
`decode`    places to rows
`predict`   rows to the probabilities of classes

What becomes of a row depends on the row and the model alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from daskumap.planning import costs
from daskumap.planning.stage import ITEM_BYTES, Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.runtime.trained import Trained, isolating, metric_of
from daskumap.stages.shared.checks import (
    DIGEST,
    count_missing,
    digest_block,
    find_broken,
    find_undefined,
    refuse_missing,
    refuse_not_finite,
    refuse_undefined,
)
from daskumap.stages.shared.visitors import Share, Visitor, plan_pass, read_rows
from daskumap.store import schema
from daskumap.store.model import Model

Array = np.ndarray[Any, Any]
# Writes what becomes of a row block, and returns what goes with the receipt.
Maps = Callable[[Context, int, Array], dict[str, Any]]


def plan(maps: Maps, items: tuple[schema.Array, ...], context: Context) -> Stage:
    """Plan one task a row block; each worker holds the weights, twice while it reads them."""
    shared = 2 * context.encoder.nbytes
    visitors = (READ, Visitor(partial(map_good, maps), partial(_share, items)))
    return plan_pass(context, visitors, read_rows, shared=shared, products=True, conclude=refuse)


def plan_reread(context: Context) -> Stage:
    """Plan the digests of all row blocks once more, to compare them with those of the pass."""
    return plan_pass(context, (DIGEST,), read_rows)


def trained(context: Context) -> Trained:
    """Return the network, made once a process."""
    return context.held("network", lambda: Trained.of(context.encoder, context.params))


def _share(items: tuple[schema.Array, ...], context: Context) -> Share:
    outputs = tuple(map(context.output, items))
    # As the network gives them, and as they are written.
    written = sum(4 + ITEM_BYTES[output.dtype] for output in outputs for _ in range(_width(output.shape)))
    return Share(
        outputs=outputs,
        memory={
            "results": context.sizes.row_block * written,
            "network": Trained.of(context.encoder, context.params).block_bytes,
        },
        work=2.0 * context.sizes.rows * context.encoder.nbytes / 4 / costs.FLOPS,
    )


def _width(shape: tuple[int, ...]) -> int:
    return shape[1] if len(shape) > 1 else 1


def digest_read(context: Context, number: int, X: Array) -> dict[str, Any]:
    """Return what a row block is known by, beside the checksum of what becomes of it."""
    return {"input_crc32": digest_block(context, number, X)["crc32"]}


def map_good(maps: Maps, context: Context, number: int, X: Array) -> dict[str, Any]:
    """Find the rows of a block that are refused; write what becomes of the block if there is none."""
    encodes = str(context.job.encodes)
    found = find_bad(context.encoder, encodes, X, context.sizes.block(number)[0])
    return found if is_bad(found) else found | maps(context, number, X)


def find_bad(model: Model, encodes: str, X: Array, start: int) -> dict[str, Any]:
    """Return the rows that a fit would refuse: those that are not finite or not defined, unless left out."""
    found, metric = find_broken(X, start), None if isolating(model) else metric_of(model)
    if encodes == "decode" or metric is None:
        return found
    return found | find_undefined(X, metric, start)


def is_bad(found: dict[str, Any]) -> bool:
    """Return whether a block has a row that is refused."""
    return bool(found["broken"] or found.get("undefined"))


def refuse_bad(model: Model, rows: int, receipts: dict[int, Receipt]) -> None:
    """Raise where one of so many rows is refused."""
    refuse_not_finite(rows, receipts)
    if any("undefined" in receipt.found for receipt in receipts.values()):
        refuse_undefined(str(model.params["metric"]), rows, receipts)


def encode(context: Context, number: int, X: Array) -> dict[str, Any]:
    """Write the places of a block of rows."""
    places = trained(context).encode(X)
    return _write(context, number, schema.EMBEDDING, places)


def decode(context: Context, number: int, Z: Array) -> dict[str, Any]:
    """Write the rows of a block of places."""
    return _write(context, number, schema.ROWS, trained(context).decode(Z))


def predict(context: Context, number: int, X: Array) -> dict[str, Any]:
    """Write the probabilities of a block of rows, and the label of the greatest."""
    network = trained(context)
    probabilities = network.probabilities(X)
    labels = network.labels(probabilities)
    start, _ = context.sizes.block(number)
    context.write(schema.PREDICTED, start, labels)
    found = {"predicted_crc32": zlib.crc32(labels.tobytes())}
    return found | _write(context, number, schema.PROBABILITIES, probabilities)


def _write(context: Context, number: int, item: schema.Array, values: Array) -> dict[str, Any]:
    context.write(item, context.sizes.block(number)[0], values)
    return {"crc32": zlib.crc32(values.tobytes())}


def refuse(context: Context, receipts: dict[int, Receipt]) -> None:
    """Raise where a row is refused: what was written of others goes with the run."""
    refuse_missing(context, count_missing(context) if context.params.missing == "refuse" else 0)
    refuse_bad(context.encoder, context.sizes.rows, receipts)


READ = Visitor(digest_read, lambda context: Share())
READS = (schema.SOURCE, schema.ENCODER)


def _step(name: str, maps: Maps, *items: schema.Array) -> Step:
    return Step(name, partial(plan, maps, items), reads=READS, writes=items)


ENCODE = _step("encode", encode, schema.EMBEDDING)
DECODE = _step("decode", decode, schema.ROWS)
PREDICT = _step("predict", predict, schema.PREDICTED, schema.PROBABILITIES)
# No step of a pipeline: it leaves no record. What it found is compared when such a run goes on.
REREAD = Step("encode.reread", plan_reread, reads=READS)
