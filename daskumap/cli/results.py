"""What the commands that make something say of it, and where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import daskumap
from daskumap.cli.options import rows_of
from daskumap.cli.output import say, say_json


def make(function: Callable[..., Any], run: str, data: str, out: str, options: Mapping[str, Any]) -> None:
    """Make what a finished run and an input give, and say where it is."""
    given = {name: value for name, value in options.items() if name not in ("quiet", "json", "scheduler")}
    quiet, scheduler = options["quiet"], options["scheduler"]
    rows = rows_of(data, given.pop("source_option"))
    result = function(run, rows, out, client=scheduler, progress=not quiet, **given)
    show(result, out, quiet, options["json"])


def show(result: Any, place: str, quiet: bool, json: bool, stays: bool = True) -> None:
    """Say what was measured and where the result is, and its picture, which a run without a report lacks.

    A run that goes with this process has no place to tell.
    """
    if quiet and not json:
        return
    arrays = {name: f"{place}/{name}" for name in names_of(result)} if stays else {}
    picture = {"picture": f"{place}/embedding.png"} if stays and result.report["measures"] else {}
    if json:
        say_json({"run": place, **arrays, **picture, "report": result.report})
    else:
        lines = [f"{name.replace('_', ' '):<21}{where}" for name, where in (arrays | picture).items()]
        say("\n".join([str(result), "", *lines]))


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
