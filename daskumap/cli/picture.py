"""`daskumap plot | watch`: pictures of maps, finished or as they form."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

import daskumap
from daskumap.cli import options as shared
from daskumap.cli.command import command
from daskumap.cli.output import say, say_json
from daskumap.errors import ParameterError


@command(
    example="daskumap plot run.zarr map.png --color cell_type\n"
    "daskumap plot near.zarr far.zarr compared.pdf --color labels.npy --theme dark"
)
def plot(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="path or URL of a run store, or of several")
    ],
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="the picture to write: .png, .svg, .pdf or .jpg")
    ],
    color: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|FILE",
            help="a column of labels of the run; or a .npy, .csv or .parquet file, with :COLUMN behind it "
            "where it has several, or a Zarr array such as rows.zarr/batch; default: the density",
        ),
    ] = None,
    kind: Annotated[
        Literal["points", "connectivity", "diagnostic"],
        typer.Option(help="the map, the edges of its graph, or what was measured of each row"),
    ] = "points",
    theme: Annotated[
        Literal["light", "dark", "transparent"], typer.Option(help="what it is drawn on")
    ] = "light",
    legend: Annotated[
        Literal["beside", "centres", "none"] | None,
        typer.Option(help="where classes are named; default: beside the map up to 12, on it beyond"),
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="default: rows and parameters")] = None,
    json: shared.Json = False,
) -> None:
    """Draw the map of a finished run, or several beside one another."""
    from daskumap import plot as draw
    from daskumap.plot.pages import check_format

    check_format(file)
    found = [daskumap.open(run) for run in runs]
    if kind != "points" and (len(found) > 1 or color is not None):
        raise ParameterError(
            f"--kind {kind} draws one run, in its own colours. Leave out --color and other runs."
        )
    if kind != "points":
        made = (draw.connectivity if kind == "connectivity" else draw.diagnostic)(found[0], theme=theme)
    elif len(found) > 1:
        made = draw.multiples(found, color, theme=theme, legend=legend)
    else:
        made = draw.points(found[0], color, theme=theme, legend=legend, title=title)
    draw.save(made, file)
    say_json({"runs": runs, "picture": file}) if json else say(f"picture              {file}")


@command(example="daskumap watch map.zarr --png map.png\ndaskumap watch map.zarr --port 8080")
def watch(
    run: shared.RunPath,
    png: Annotated[
        str | None, typer.Option("--png", metavar="FILE", help="the picture that is renewed, a .png")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="N", help="of a page of this machine alone; 0: a free one"),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="warnings only", rich_help_panel="Everywhere")
    ] = False,
    json: shared.Json = False,
) -> int:
    """Show the map of a run as it forms, until the run is over; exit codes as of `status`.

    What is seen is the newest checkpoint of the layout: --set checkpoint_every=10 of the fit shows more of
    them. It takes 2 % of a core at most, and the run does not hear of it.
    """
    from daskumap.standing import CODES, refuse_no_run
    from daskumap.watching import watch as look

    last = look(refuse_no_run(daskumap.open(run), run), png, port)
    if json:
        say_json({"run": run, "state": last.state, "picture": png})
    elif not quiet:
        say(f"{run}: {last.text}")
    return CODES[last.state]
