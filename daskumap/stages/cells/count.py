"""Count: how many rows join each cell at each level, and the probes' neighbours, over bundles of row blocks.

So `partition.order` reads a few sums instead of what each block counted, which is 75 GB at 10^9 rows.
"""

from __future__ import annotations

import numpy as np

from daskumap.kernels.cells.join import LEVELS
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.probes import merge_probes
from daskumap.store import schema


def plan_count(context: Context) -> Stage:
    """Plan one task a bundle of row blocks."""
    s, cells = context.sizes, context.cells
    probe_bytes = context.probes * context.job.neighbors * (12 + 5 * context.params.max_overlap)
    return Stage(
        task=count_task,
        tasks=s.bundles,
        memory={"counts": cells * (LEVELS * 4 * 4 + 16), "probes": probe_bytes * 6},
        outputs=tuple(map(context.output, COUNT.writes)),
        read_bytes=s.row_blocks * (cells * LEVELS * 4 + probe_bytes),
        work=s.row_blocks * (costs.COUNT_BLOCK + costs.COUNT_CELL * cells * LEVELS),
    )


def count_task(context: Context, number: int) -> Receipt:
    """Sum the counts of a bundle's blocks, those before each block kept, and merge the probes' neighbours."""
    blocks = context.sizes.bundle(number)
    members = np.zeros((LEVELS, context.cells), np.int32)
    twins = 0
    for block in blocks:
        context.write(schema.COUNTS_BEFORE, block, np.append(members[0], np.int32(twins))[None])
        counts = context.read(schema.COUNTS, block, block + 1)[0]
        members += counts
        start, stop = context.sizes.block(block)
        twins += stop - start - int(counts[0].sum())
    context.write(schema.BUNDLE_COUNTS, number, members[None])
    found = merge_probes(context, schema.BLOCK_PROBES, blocks)
    for item, values in zip(schema.BUNDLE_PROBES, found, strict=True):
        context.write(item, number, values[None])
    return Receipt(int(members[0].sum()) + twins)


COUNT = Step(
    "partition.count",
    plan_count,
    reads=(schema.COUNTS, *schema.BLOCK_PROBES),
    writes=(schema.BUNDLE_COUNTS, schema.COUNTS_BEFORE, *schema.BUNDLE_PROBES),
)
