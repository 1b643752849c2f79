"""The probes' nearest rows on the map, and those rows gathered from the source."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.quality import neighbors
from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.distinct import READS
from daskumap.stages.shared.distinct_map import map_of
from daskumap.stages.shared.sample import probe_rows
from daskumap.stages.shared.stored import GATHER_STORED
from daskumap.stages.shared.visitors import Share, Visitor, plan_pass, read_rows
from daskumap.stages.shared.wanted import wanted_rows
from daskumap.store import schema

Array = np.ndarray[Any, Any]


def plan_map_neighbors(context: Context) -> Stage:
    """Plan the one task that searches the map."""
    s, d = context.sizes, context.params.n_components
    twins = {"distinct rows": neighbors.READ_ROWS * (d * 4 + 24)} if context.params.unique else {}
    return Stage(
        task=map_neighbors_task,
        tasks=1,
        memory={"row blocks": (1 << 20) * d * 8 + s.probe_rows * context.job.neighbors * 32, **twins},
        outputs=(context.output(schema.MAP_IDS),),
        read_bytes=s.rows * d * 4,
        work=(costs.MAP_PAIR if context.output_metric is None else costs.MEASURED_PAIR)
        * s.rows
        * s.probe_rows,
    )


def map_neighbors_task(context: Context, number: int) -> Receipt:
    """Find the probes' nearest rows on the map."""
    ids, _ = neighbors.embedding_neighbors(
        map_of(context), probe_rows(context), context.job.neighbors, context.output_metric
    )
    context.write(schema.MAP_IDS, 0, ids)
    return Receipt(len(ids))


def plan_rows(context: Context) -> Stage:
    """Plan one task a row block."""
    return plan_pass(context, (Visitor(gather_rows, _share_of_rows), GATHER_STORED), read_rows)


def _share_of_rows(context: Context) -> Share:
    s = context.sizes
    wanted = s.probe_rows * context.job.neighbors * s.columns * 4
    return Share(
        memory={"gathered": min(wanted, s.row_block * s.columns * 4)},
        made=(schema.MAP_ROWS.name,),
        made_bytes=wanted,
        work=costs.GATHER_VALUE * s.rows * s.columns,
    )


def gather_rows(context: Context, number: int, X: Array) -> dict[str, Any]:
    """Gather the wanted rows of one block."""
    start, stop = context.sizes.block(number)
    wanted = wanted_rows(context)
    wanted = wanted[(wanted >= start) & (wanted < stop)]
    context.send(schema.MAP_ROWS, number, np.array([0, len(wanted)]), rows=X[wanted - start])
    return {"wanted": len(wanted)}


MAP_NEIGHBORS = Step(
    "report.neighbors",
    plan_map_neighbors,
    reads=(schema.EMBEDDING, *READS, schema.PROBE_ROWS),
    writes=(schema.MAP_IDS,),
)
MAP_ROWS = Step(
    "report.rows",
    plan_rows,
    reads=(schema.SOURCE, schema.MAP_IDS, schema.PROBE_ROWS, schema.DOUBTED),
    writes=(schema.MAP_ROWS, schema.STORED_ROWS),
)
