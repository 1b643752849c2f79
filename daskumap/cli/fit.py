"""`daskumap plan | fit | resume`: what makes a run, or says what it would be."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Unpack

import typer

import daskumap
from daskumap.cli import options as shared
from daskumap.cli.command import command
from daskumap.cli.defaults import sources_of
from daskumap.cli.output import say, say_json
from daskumap.cli.results import show
from daskumap.errors import ParameterError

# Of the help.
CELLS = "Into an AnnData"


class Fit(shared.Rows, shared.Params, shared.Driver, shared.Start, total=False):
    """Options of a fit."""


class Plan(shared.Rows, shared.Params, total=False):
    """Options of a plan."""

    cluster: Annotated[
        str | None,
        shared.of_machine(
            metavar="FILE", help="plan for the workers of this cluster file; one that runs already is asked"
        ),
    ]


class Resume(shared.Rows, shared.Machine, shared.Driver, shared.GoOn, total=False):
    """Options of going on."""


@command(
    example="daskumap fit cells.zarr/X map.zarr --metric cosine --seed 42\n"
    "daskumap fit map.zarr wider.zarr --min-dist 0.5\n"
    "daskumap fit cells.zarr --write-back --graph"
)
def fit(
    source: shared.Input,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="path or URL of the run store; an unfinished run of the same input goes on. May be left out "
            "with --write-back",
        ),
    ] = None,
    write_back: Annotated[
        bool,
        typer.Option(
            "--write-back",
            help="write the map into SOURCE, an AnnData: obsm/X_umap, uns/umap",
            rich_help_panel=CELLS,
        ),
    ] = False,
    graph: Annotated[
        bool,
        typer.Option(
            "--graph", help="and the neighbours, for leiden and PAGA: obsp, uns", rich_help_panel=CELLS
        ),
    ] = False,
    key_added: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="name of the map there instead", rich_help_panel=CELLS),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace such keys there", rich_help_panel=CELLS)
    ] = False,
    live: shared.Live = None,
    **options: Unpack[Fit],
) -> None:
    """Embed an array into a run store."""
    back: dict[str, Any] = {"graph": graph, "key_added": key_added, "overwrite": overwrite}
    _check_back(source, run, write_back, back)
    quiet, json, scheduler = options.pop("quiet"), options.pop("json"), options.pop("scheduler")
    rows = shared.rows_of(source, options.pop("source_option"))
    params = shared.as_params(options)
    with showing(live, run):
        result = daskumap.fit(rows, run, client=scheduler, progress=not quiet, **params)
    if write_back:
        daskumap.export(result, source, **back)
    show(result, source if run is None else run, quiet, json, run is not None)
    if write_back and not (quiet or json):
        say(f"{'written back':<21}{source}/obsm/{key_added or 'X_umap'}")


def showing(live: str | None, run: str | None) -> contextlib.AbstractContextManager[None]:
    """Return what shows the map of a run while it is made, if it is wanted."""
    if live is None:
        return contextlib.nullcontext()
    if run is None:
        raise ParameterError("--live looks at a run store, and RUN is missing. Name its place: map.zarr.")
    from daskumap.watching.show import alongside

    return alongside(run, live)


def _check_back(source: str, run: str | None, write_back: bool, back: dict[str, Any]) -> None:
    """Refuse a fit without a place for its map, or with one that is taken, before anything is done."""
    if write_back:
        from daskumap.exports.cells import refuse_no_room

        refuse_no_room(source, **back)
        return
    if any(back.values()):
        raise ParameterError("--graph, --key-added and --overwrite are about --write-back. Give that too.")
    if run is None:
        raise ParameterError(
            "RUN is missing: the place of the run store, such as map.zarr. Of an AnnData: daskumap fit "
            f"{source} --write-back."
        )


@command(example="daskumap resume map.zarr")
def resume(
    run: shared.RunPath,
    data: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="PATH", help="path or URL of the input; default: what the run names"
        ),
    ] = None,
    live: shared.Live = None,
    **options: Unpack[Resume],
) -> None:
    """Go on with an unfinished run, from what its run store says."""
    quiet, json, scheduler = options.pop("quiet"), options.pop("json"), options.pop("scheduler")
    rows = shared.rows_of(data, options.pop("source_option"))
    where = shared.as_params(options)
    with showing(live, run):
        result = daskumap.resume(run, data=rows, client=scheduler, progress=not quiet, **where)
    show(result, run, quiet, json)


@command(
    example="daskumap plan cells.zarr/X --memory 8GB --workers 4\n"
    "daskumap plan cells.zarr/X --cluster slurm.yaml\ndaskumap plan new.zarr/X --run map.zarr"
)
def plan(
    ctx: typer.Context,
    source: shared.Input,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="worker processes; 1 by default", rich_help_panel="Where it runs"),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="plan the transform of SOURCE into the map of this run"),
    ] = None,
    inverse: Annotated[
        bool, typer.Option("--inverse", help="plan the rows of SOURCE, points of the map of RUN")
    ] = False,
    json: shared.Json = False,
    **options: Unpack[Plan],
) -> None:
    """Say what a fit would do; starts nothing."""
    which = {"workers": workers, "run": run, "inverse": inverse or None}
    rows = shared.rows_of(source, options.pop("source_option"))
    planned = daskumap.plan(rows, **shared.as_params({**options, **which}))
    given = sources_of(ctx)
    if json:
        say_json({**planned.as_dict(), "options": given})
        return
    say(str(planned))
    # What is on the command line is in sight; what is from elsewhere may surprise.
    elsewhere = {name: one for name, one in given.items() if one["from"] != "command line"}
    if elsewhere:
        say("\n".join(["", *(f"{n:<21}{one['value']}  from {one['from']}" for n, one in elsewhere.items())]))
