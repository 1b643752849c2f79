"""`daskumap cluster check`: what a cluster file says, before anything is submitted."""

from __future__ import annotations

from typing import Annotated

import typer

from daskumap.cli import options as shared
from daskumap.cli.command import command, group
from daskumap.cli.output import say, say_json

cluster = group("Look at cluster files, which say where tasks run.")


@command(
    group=cluster,
    example="daskumap cluster check slurm.yaml\ndaskumap fit X.zarr map.zarr --cluster slurm.yaml",
)
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="a cluster file, as of --cluster")],
    json: shared.Json = False,
) -> None:
    """Explain a cluster file, and show what would be submitted; starts nothing."""
    from daskumap.clusters.files import read

    found = read(file)
    shown = found.shown()
    if json:
        settings = found.model_dump(mode="json", exclude_defaults=True)
        say_json({"file": file, **settings, "explained": found.explain(), "submitted": shown})
    else:
        # As comments, so that the output is a script or a manifest as it stands.
        about = [f"{file} is a cluster of kind {found.kind}.", *found.explain()]
        say("\n".join([*(f"# {line}" for line in about), shown.strip()]))
