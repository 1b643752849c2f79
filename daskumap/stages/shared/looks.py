"""Looks at the loss on the way of a layout: for the report, and on a plane."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from daskumap.kernels.layout.diagnostics import Sums, add_sums, loss_of, pair_sums
from daskumap.kernels.layout.iterations import Edges
from daskumap.params import OPTIMIZERS
from daskumap.planning.stage import Receipt
from daskumap.runtime.context import Context
from daskumap.stages.shared.moving_edges import largest_weight
from daskumap.store import schema

Array = np.ndarray[Any, Any]

# Epochs between two looks: as many as between two checkpoints, unless the user has others. One vertex in so
# many is looked at, with so many partners: .5 % of the time of the iterations (measured).
LOOK_EVERY, LOOKED_AT, PARTNERS = 50, 32, 4
# What the loss was on the way: each time the iteration, and the sums.
Course = list[list[int]]


def looks(context: Context) -> bool:
    """Tell whether the loss is looked at."""
    return context.params.report and context.output_metric is None


def due(context: Context, first: int, last: int) -> list[int]:
    """Return before which of the iterations `first` to `last` - 1 there is a look."""
    every = LOOK_EVERY * max(1, OPTIMIZERS[context.params.optimizer])
    return list(range(first + -first % every, last, every)) if looks(context) else []


def ends(context: Context, last: int) -> bool:
    """Tell whether a look comes after iteration `last` - 1, the last one of all."""
    return last == context.job.iterations and looks(context)


def look(context: Context, positions: Array, start: int, edges: Edges) -> Sums:
    """Return what the vertices from `start` on that these edges are of add to the loss."""
    unit, key = largest_weight(context) / 2**32, context.key("report")
    seen, curve = positions[: context.distinct], context.params.curve()
    return pair_sums(seen, start, *edges, *curve, key, samples=PARTNERS, every=LOOKED_AT, unit=unit)


def together(iteration: int, found: list[Sums | None]) -> Course:
    """Return the look before an iteration, from those at the pieces, if any."""
    sums = [one for one in found if one]
    return [[iteration, *add_sums(sums)]] if sums else []


def keep_course(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep what the loss was on the way, from the looks of all segments and partitions."""
    found = defaultdict[int, list[Sums]](list)
    for receipt in receipts.values():
        for iteration, *sums in receipt.found["course"]:
            found[iteration].append(Sums(*sums))
    an_epoch = max(1, OPTIMIZERS[context.params.optimizer])
    course = [
        {"epoch": iteration // an_epoch, **loss_of(add_sums(found[iteration]), context.distinct)}
        for iteration in sorted(found)
    ]
    context.save_fact(schema.COURSE, course)
