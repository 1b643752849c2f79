"""A pass over the source: each row block is read once, and several visitors look at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from daskumap.planning.stage import Output, Receipt, Stage
from daskumap.runtime.context import Context

Array = np.ndarray[Any, Any]


class Share(NamedTuple):
    """What a visitor adds to the plan of a pass."""

    outputs: tuple[Output, ...] = ()
    memory: dict[str, int] = {}  # noqa: RUF012, a named tuple's default, which nobody changes
    work: float = 0.0
    made: tuple[str, ...] = ()
    made_bytes: int = 0


@dataclass(frozen=True)
class Visitor:
    """One of the jobs of a pass.

    Attributes
    ----------
    visit
        `visit(context, number, block) -> dict`: looks at a row block, writes what it alone owns, and returns
        what it found for the receipt. `block` is what the pass makes of the block, once for all.
    share
        `share(context) -> Share`, for the plan.
    when
        `when(context)` tells whether the run needs it.
    """

    visit: Callable[[Context, int, Any], dict[str, Any]]
    share: Callable[[Context], Share]
    when: Callable[[Context], bool] = lambda context: True


def plan_pass(
    context: Context,
    visitors: tuple[Visitor, ...],
    read: Callable[[Context, int], Any],
    **options: Any,
) -> Stage:
    """Plan one task a row block; `read(context, number)` returns what the visitors look at."""
    s = context.sizes
    active = tuple(visitor for visitor in visitors if visitor.when(context))
    shares = [visitor.share(context) for visitor in active]
    memory = {"input block": context.input_bytes(s.row_block)}
    for share in shares:
        memory |= share.memory
    return Stage(
        task=partial(visit_block, tuple(visitor.visit for visitor in active), read),
        tasks=s.row_blocks,
        memory=memory,
        outputs=tuple(output for share in shares for output in share.outputs),
        read_bytes=s.rows * s.columns * context.source.dtype.itemsize,
        made=tuple(name for share in shares for name in share.made),
        made_bytes=sum(share.made_bytes for share in shares),
        work=sum(share.work for share in shares),
        **options,
    )


def visit_block(
    visits: tuple[Callable[[Context, int, Any], dict[str, Any]], ...],
    read: Callable[[Context, int], Any],
    context: Context,
    number: int,
) -> Receipt:
    """Read one row block and show it to the visitors, in order."""
    start, stop = context.sizes.block(number)
    block, found = read(context, number), {}
    for visit in visits:
        found.update(visit(context, number, block))
    return Receipt(stop - start, found)


def read_rows(context: Context, number: int) -> Array:
    """Return the rows of a block, as the simplest passes look at them."""
    return context.rows.read(*context.sizes.block(number))
