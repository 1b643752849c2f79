"""The probes' rows of distances once more: their nearest rows, and who is closer than those on the map."""

from __future__ import annotations

import numpy as np

from daskumap.kernels.neighbors.distances import Distances, nearest_given
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.distances import GIVEN_VALUE
from daskumap.stages.shared.sample import probe_rows
from daskumap.store import schema


def plan_ranks(context: Context) -> Stage:
    """Plan the one task, which reads a row for each probe."""
    s, k = context.sizes, context.job.neighbors
    return Stage(
        task=ranks_task,
        tasks=1,
        memory={
            "input block": context.input_bytes(1),
            "row": s.columns * 12,
            "probes": s.probe_rows * k * 32,
        },
        outputs=(context.output(schema.GIVEN_CLOSER),),
        read_bytes=s.probe_rows * s.columns * context.source.dtype.itemsize,
        made=(schema.PROBE_IDS.name,),
        made_bytes=s.probe_rows * k * 8,
        work=GIVEN_VALUE * s.probe_rows * s.columns,
    )


def ranks_task(context: Context, number: int) -> Receipt:
    """Write the probes' nearest rows, and how many rows are closer to each than its nearest on the map.

    Where no distance is given to a row, -1 says that its rank is not known.
    """
    probes, on_map = probe_rows(context), context.read(schema.MAP_IDS)
    nearest, closer = np.empty_like(on_map), np.zeros_like(on_map)
    for i, probe in enumerate(probes.tolist()):
        rows = context.rows.read(probe, probe + 1)
        nearest[i] = nearest_given(*Distances.whole(rows), probes[i : i + 1], context.job.neighbors)[0][0]
        row = np.delete(rows[0], probe)  # It is not closer to itself than another row is.
        there = rows[0, np.maximum(on_map[i], 0)]
        closer[i] = np.searchsorted(np.sort(row), there)
        closer[i][(there == np.inf) & (on_map[i] >= 0)] = -1
    context.put(schema.PROBE_IDS, nearest)
    context.write(schema.GIVEN_CLOSER, 0, closer)
    return Receipt(len(probes))


RANKS = Step(
    "report.ranks",
    plan_ranks,
    reads=(schema.SOURCE, schema.PROBE_ROWS, schema.MAP_IDS),
    writes=(schema.GIVEN_CLOSER, schema.PROBE_IDS),
)
