"""`daskumap transform | inverse | save`: what a finished run is used for."""

from __future__ import annotations

from typing import Annotated, Unpack

import typer

import daskumap
from daskumap.cli import options as shared
from daskumap.cli.command import command
from daskumap.cli.output import say, say_json
from daskumap.cli.results import make
from daskumap.errors import StoreError


@command(example="daskumap transform map.zarr new.zarr/X placed.zarr")
def transform(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="path or URL of a run store, or of a saved network")
    ],
    source: shared.NewRows,
    out: shared.Out,
    fitted: shared.Fitted = None,
    **options: Unpack[shared.Making],
) -> None:
    """Place new rows into the map of a finished run."""
    make(daskumap.transform, run, source, out, {**options, "fitted": fitted})


@command(example="daskumap inverse map.zarr points.zarr rows.zarr")
def inverse(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="path or URL of a run store, or of a network with a decoder")
    ],
    points: Annotated[
        str, typer.Argument(metavar="POINTS", help="path or URL of a Zarr array (m, n_components)")
    ],
    out: shared.Out,
    fitted: shared.Fitted = None,
    **options: Unpack[shared.Making],
) -> None:
    """Find rows of the data for points of a finished run's map."""
    make(daskumap.inverse_transform, run, points, out, {**options, "fitted": fitted})


@command(example="daskumap save map.zarr model.zarr --rows")
def save(
    run: shared.RunPath,
    path: Annotated[str, typer.Argument(metavar="PATH", help="path or URL of the copy")],
    rows: Annotated[bool, typer.Option("--rows", help="with the rows that were fitted")] = False,
    fitted: shared.Fitted = None,
    json: shared.Json = False,
) -> None:
    """Write what transform needs of a run to a place of its own."""
    found = daskumap.open(run)
    if not isinstance(found, daskumap.Run):
        raise StoreError(
            f"{found.path} was made by a run. Name the run store that the map of the rows is in."
        )
    saved = found.save(path, rows=rows, fitted=fitted)
    say_json({"run": run, "saved": path}) if json else say(repr(saved))
