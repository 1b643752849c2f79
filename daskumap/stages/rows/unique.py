"""Unique: which rows are copies of an earlier one. Only with the parameter `unique`.

`unique.twins`  a bucket of hashes a task: the first of each kind among the blocks
`unique.rows`   a row block a task: the first row equal to each, or the row itself
"""

from __future__ import annotations

import numpy as np

from daskumap.errors import SourceError
from daskumap.kernels.neighbors.equal import first_of_equal
from daskumap.planning import costs, sizes
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.distinct import distinct_places
from daskumap.store import schema

HASH_BYTES = 24  # Two words and the row id.


def plan_twins(context: Context) -> Stage:
    """Plan one task a bucket."""
    s = context.sizes
    # Hashes spread evenly but for chance; a row that is in every block counts once for each.
    records = min(s.rows, sizes.BUCKET_ROWS + sizes.BUCKET_ROWS // 16 + 16 * s.row_blocks)
    return Stage(
        task=twins_task,
        tasks=s.buckets,
        memory={"hashes": records * HASH_BYTES * 4, "offsets": s.row_blocks * 40},
        read_bytes=s.rows * HASH_BYTES,
        made=(schema.TWINS.name,),
        made_bytes=s.rows * 16,
        work=costs.HASH_ROW * s.rows,
    )


def twins_task(context: Context, number: int) -> Receipt:
    """Find the rows of one bucket that an earlier block holds already; send each to its block."""
    s = context.sizes
    hashes = context.reader(schema.HASHES, number, number + 1).read(number, number + 1)
    rows = hashes["rows"]
    first = first_of_equal(hashes["high"], hashes["low"], rows)
    twins = np.flatnonzero(first != rows)
    twins = twins[np.argsort(rows[twins])]
    offsets = np.searchsorted(rows[twins], np.arange(s.row_blocks + 1) * s.row_block)
    context.send(schema.TWINS, number, offsets, rows=rows[twins], firsts=first[twins])
    return Receipt(len(rows), {"twins": len(twins)})


def plan_rows(context: Context) -> Stage:
    """Plan one task a row block."""
    s = context.sizes
    return Stage(
        task=rows_task,
        tasks=s.row_blocks,
        memory={"row ids": s.row_block * 96, "offsets": s.buckets * 40},
        outputs=(context.output(schema.FIRST),),
        read_bytes=s.rows * 24,
        work=costs.FIRST_ROW * s.rows,
        conclude=count_distinct,
    )


def rows_task(context: Context, number: int) -> Receipt:
    """Write the first row equal to each row of a block."""
    start, stop = context.sizes.block(number)
    first = context.read(schema.BLOCK_FIRST, start, stop)
    twins = context.reader(schema.TWINS, number, number + 1).read(number, number + 1)
    moved = np.arange(start, stop)
    moved[twins["rows"] - start] = twins["firsts"]
    first = moved[first - start]
    context.write(schema.FIRST, start, first)
    return Receipt(stop - start, {"distinct": len(distinct_places(context, start, stop))})


def count_distinct(context: Context, receipts: dict[int, Receipt]) -> None:
    """Keep the number of distinct rows; raise where there are too few of them.

    Raises
    ------
    SourceError
        With the number of distinct rows and the largest n_neighbors allowed.
    """
    rows, k = context.sizes.rows, context.params.n_neighbors
    distinct = Receipt.total(receipts, "distinct")
    if distinct <= k:
        raise SourceError(
            f"n_neighbors is {k} and {distinct:,} of the {rows:,} rows are distinct; unique=True needs more "
            f"distinct rows than n_neighbors. Lower n_neighbors to at most {distinct - 1}."
            if distinct > 2
            else f"{distinct:,} of the {rows:,} rows are distinct; unique=True needs at least 3 of them."
        )
    context.save_fact(schema.DISTINCT_ROWS, distinct)


TWINS = Step("unique.twins", plan_twins, reads=(schema.HASHES,), writes=(schema.TWINS,))
ROWS = Step(
    "unique.rows",
    plan_rows,
    reads=(schema.BLOCK_FIRST, schema.TWINS, schema.LEFT_OUT),
    writes=(schema.FIRST, schema.DISTINCT_ROWS),
)
