"""`daskumap export | convert`: results for other programs, and inputs as Zarr."""

from __future__ import annotations

from typing import Annotated

import typer

import daskumap
from daskumap.cli import options as shared
from daskumap.cli.command import command
from daskumap.cli.output import say, say_json

Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what is there")]


@command(example="daskumap export map.zarr map.parquet\ndaskumap export trained.zarr encoder.onnx")
def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="path or URL of a run store, or of a saved network")
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="what to write: its ending says what it is, such as .parquet, .csv, .npy"
        ),
    ],
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="what is written, where no ending says so")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help='an option of the kind, such as columns=\'["x", "y"]\''),
    ] = None,
    overwrite: Overwrite = False,
    json: shared.Json = False,
) -> None:
    """Write a map with its labels, or a network, for other programs."""
    options = dict(shared.parse_setting(text) for text in set or ())
    made = daskumap.export(run, target, overwrite=overwrite, kind=kind, **options)
    files = [str(one) for one in (made if isinstance(made, list) else [made])]
    if json:
        say_json({"run": run, "exported": files})
    else:
        say("\n".join(f"{'exported':<21}{one}" for one in files))


@command(example="daskumap convert rows.parquet rows.zarr --source-option columns=embedding")
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="path or URL of any input of a fit")],
    out: Annotated[str, typer.Argument(metavar="OUT", help="path or URL of the Zarr group to write")],
    source_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="how IN is read, such as columns=embedding"),
    ] = None,
    overwrite: Overwrite = False,
    json: shared.Json = False,
) -> None:
    """Write any input as Zarr, with its labels, to read its rows at little cost."""
    made = daskumap.convert(shared.rows_of(source, source_option), out, overwrite=overwrite)
    if json:
        say_json({"converted": out, "rows": made.shape[0], "columns": made.shape[1]})
    else:
        say(f"{'converted':<21}{out}: {made.shape[0]:,} x {made.shape[1]:,} {made.dtype}")
