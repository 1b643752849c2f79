"""`daskumap clean`: what finished runs take, and no more of it than is needed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

import daskumap
from daskumap.cli import options as shared
from daskumap.cli.command import command
from daskumap.cli.output import say, say_json

# What is left at each level, for whoever chooses one.
LEFT = {
    "all": "all, scratch too",
    "graph": "neighbours and their graph, for other fits of them, and all below",
    "model": "what places new rows, and all below",
    "embedding": "the map and the report",
}


@command(example="daskumap clean map.zarr\ndaskumap clean --keep model map.zarr other.zarr")
def clean(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="path or URL of a run store, or of several")
    ],
    keep: Annotated[
        Literal["all", "graph", "model", "embedding"] | None,
        typer.Option(
            help="what stays, as of `fit`; default: nothing is deleted, and the bytes of each are said"
        ),
    ] = None,
    json: shared.Json = False,
) -> None:
    """Say what finished runs take on disk; with --keep, delete the rest."""
    found = {run: daskumap.clean(run) for run in runs}  # One that is refused leaves all as they are.
    if keep is not None:
        found = {run: daskumap.clean(run, keep) for run in runs}
    if json:
        say_json([{"run": run, **kept._asdict()} for run, kept in found.items()])
    else:
        say("\n".join(line for run, kept in found.items() for line in _lines(run, kept, keep is not None)))


def _lines(run: str, kept: Any, cleaned: bool) -> list[str]:
    freed = f", {_size(kept.freed)} freed" if cleaned else ""
    head = f"{run}: {_size(kept.bytes)}, keeps {kept.keep!r}{freed}"
    lower = kept.levels if not cleaned else {}
    return [head, *(f"  --keep {keep:<10}{_size(size):>12}  {LEFT[keep]}" for keep, size in lower.items())]


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
