"""What it takes to put rows on main axes, as the first stage of a plan."""

from __future__ import annotations

from typing import Any

from daskumap.planning import costs
from daskumap.planning.stage import Output, Stage
from daskumap.sources.axes import AxesSource, OnAxes, threads, without_part
from daskumap.sources.base import Source
from daskumap.store import schema


def axes_stage(source: Source) -> Stage | None:
    """Return the stage in which axes are found and rows are copied on them; None for rows without axes.

    The calling process does it before any task runs, with threads of its own.
    """
    found = without_part(source)
    if not isinstance(found, OnAxes):
        return None
    passes, memory, flops = 1, {"blocks": (threads() + 1) * found.block_bytes()}, 0.0
    if isinstance(found, AxesSource):
        passes, memory = 1 + found.find_passes(), found.find_memory()
        flops = float(found.shape[0]) * found.find_flops()
    flops += 2.0 * source.shape[0] * found.taken * found.shape[1]
    return Stage(
        task=_never,
        tasks=1,
        memory=memory,
        outputs=(Output(schema.SOURCE.name, source.shape, source.shape, "float32"),),
        read_bytes=passes * found.inner.shape[0] * found.inner.shape[1] * found.inner.dtype.itemsize,
        work=flops / costs.FLOPS / threads(),
        products=True,
        name="input.axes",
    )


def _never(context: Any, number: int) -> Any:
    raise AssertionError("the driver finds axes before there are tasks")
