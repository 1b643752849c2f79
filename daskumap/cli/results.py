"""What the commands that make something say of it, and where it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import daskumap
from daskumap.cli.output import say


def make(function: Callable[..., Any], options: dict[str, Any], given: str) -> None:
    """Make what a finished run and an input give, and say where it is."""
    run, data, out = (options.pop(name) for name in ("run", given, "out"))
    quiet, scheduler = options.pop("quiet"), options.pop("scheduler")
    result = function(run, data, out, client=scheduler, progress=not quiet, **options)
    if not quiet:
        show(result, out)


def show(result: Any, place: str) -> None:
    """Say what was measured and where the result is, and its picture, which a run without a report lacks."""
    lines = [str(result), "", *(f"{name.replace('_', ' '):<21}{place}/{name}" for name in names_of(result))]
    if result.report["measures"]:
        lines.append(f"picture              {place}/embedding.png")
    say("\n".join(lines))


def names_of(result: Any) -> list[str]:
    """Return what the arrays of a result are called in its run store."""
    if isinstance(result, daskumap.Inverted | daskumap.Decoded):
        return ["inverted"]
    if isinstance(result, daskumap.Predicted):
        return ["predicted", "probabilities"]
    graph = result.params["transform_mode"] == "graph"
    if isinstance(result, daskumap.Transformed):
        return ["new_graph" if graph else "embedding", "fit_distance"]
    return ["graph" if graph else "embedding"]
