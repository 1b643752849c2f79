"""Typical: which distances are usual, for a model that does not keep the distances themselves."""

from __future__ import annotations

from daskumap.planning import costs
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.runtime.context import Context
from daskumap.stages.shared.typical import QUANTILES, typical, typical_bytes, typical_read_bytes
from daskumap.store import schema


def plan_typical(context: Context) -> Stage:
    """Plan the one task."""
    read = typical_read_bytes(context)
    return Stage(
        task=typical_task,
        tasks=1,
        memory={"distances": typical_bytes(context)},
        read_bytes=read,
        made=(schema.TYPICAL.name,),
        made_bytes=QUANTILES * 4,
        work=costs.CALIBRATE_NEIGHBOR * read / 4,
    )


def typical_task(context: Context, number: int) -> Receipt:
    """Write the quantiles."""
    found = typical(context)
    context.put(schema.TYPICAL, found)
    return Receipt(len(found))


TYPICAL = Step("calibrate.typical", plan_typical, reads=(schema.DISTANCES,), writes=(schema.TYPICAL,))
