"""`daskumap status | report | diagnose | verify`: commands that look at a run that exists."""

from __future__ import annotations

from typing import Annotated

import typer

import daskumap
from daskumap.cli import options as shared
from daskumap.cli.command import command
from daskumap.cli.output import say, say_json
from daskumap.errors import ParameterError, StoreError

Curve = Annotated[float | None, typer.Option(metavar="X", help="of that map's curve; default: as of the run")]


@command(example="daskumap status map.zarr --json")
def status(run: shared.RunPath, json: shared.Json = False) -> int:
    """Say how far a run is: 0 is finished, 10 unfinished, 11 failed.

    Totals, rate, time left, who works on it, attempts, and what ended the last one.
    """
    from daskumap.standing import CODES, describe, refuse_no_run, standing_of

    found = daskumap.open(run)
    standing = standing_of(refuse_no_run(found, run))
    if json:
        say_json(standing)
    else:
        say(f"{found!r}\n{describe(standing)}")
    return CODES[standing["state"]]


@command(example="daskumap report map.zarr\ndaskumap report near.zarr far.zarr --html maps.html")
def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="path or URL of a run store, or of several")
    ],
    html: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="write it as one page, with a map to explore; several side by side"
        ),
    ] = None,
    color: Annotated[
        str | None,
        typer.Option(metavar="COLUMN|FILE", help="what the map of the page is coloured by, as in `plot`"),
    ] = None,
    json: shared.Json = False,
) -> None:
    """Show what was measured, or write it as a page."""
    found = [daskumap.open(run) for run in runs]
    if html is not None:
        from daskumap.page import write_page

        write_page(found, html, color)
        return say_json({"runs": runs, "page": html}) if json else say(f"page                 {html}")
    if color is not None:
        raise ParameterError("--color is for the page. Add --html FILE, or draw it with daskumap plot.")
    if json:
        reports = [one.report for one in found]
        return say_json(reports[0] if len(reports) == 1 else dict(zip(runs, reports, strict=True)))
    return say("\n\n".join(map(str, found)))


@command(example="daskumap diagnose map.zarr --embedding other.npy")
def diagnose(
    run: shared.RunPath,
    embedding: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="a NumPy file, Zarr array or run with a place for each row; default: the run's own map",
        ),
    ] = None,
    a: Curve = None,
    b: Curve = None,
    json: shared.Json = False,
) -> None:
    """Measure how well a map fits the graph of a run."""
    from daskumap.report.text import render_diagnostics

    found = daskumap.diagnose(run, embedding, a=a, b=b)
    say_json(found) if json else say(render_diagnostics(found))


@command(example="daskumap verify map.zarr --repair")
def verify(
    run: shared.RunPath,
    repair: Annotated[bool, typer.Option("--repair", help="mark what is damaged as not done")] = False,
    json: shared.Json = False,
) -> None:
    """Read a run store against its checksums; damage that is not repaired is an error."""
    damage = daskumap.verify(run, repair=repair)
    if json:
        say_json({"damage": damage, "marked": bool(damage) and repair})
    else:
        for stage, texts in damage.items():
            for text in texts:
                say(f"{stage}: {text}")
    if damage and not repair:
        raise StoreError(f"{run} is damaged. `daskumap verify --repair`, then `resume`, mends it.")
    if not json:
        say("Marked; `daskumap resume` makes it again." if damage else "All is well.")
