"""`daskumap evaluate | stability`: what a map is worth beside its data, and beside other maps."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import daskumap
from daskumap.cli import options as shared
from daskumap.cli.command import command
from daskumap.cli.output import say, say_json
from daskumap.errors import ParameterError

Neighbors = Annotated[
    int | None,
    typer.Option(
        "--n-neighbors", metavar="N", help="rows of a neighbourhood, the row itself not; 15 if left out"
    ),
]
Probes = Annotated[
    int | None,
    typer.Option("--probe-rows", metavar="N", help="rows whose neighbours are compared; 1,000 if left out"),
]
RandomState = Annotated[
    int | None, typer.Option("--random-state", metavar="N", help="the same one draws the same rows")
]


@command(
    example="daskumap evaluate map.zarr --labels cell_type\n"
    "daskumap evaluate cells.zarr/X other.npy --labels classes.npy --json"
)
def evaluate(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="path or URL of the data (n, D), or of a run alone"),
    ],
    embedding: Annotated[
        str | None,
        typer.Argument(
            metavar="EMBEDDING",
            help="path or URL of the map (n, d): a NumPy file, a Zarr array, a run; default: that of the run",
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|FILE",
            help="classes of the rows: a column of labels of the run or the data; or a .npy, .csv or "
            ".parquet file, with :COLUMN behind it where it has several, or a Zarr array",
        ),
    ] = None,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="of the data; default: that of the run, or euclidean")
    ] = None,
    n_neighbors: Neighbors = None,
    probe_rows: Probes = None,
    sample_rows: Annotated[
        int | None,
        typer.Option(metavar="N", help="rows whose distances are all compared; 1,500 if left out"),
    ] = None,
    random_state: RandomState = None,
    source_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="how SOURCE is read, by its kind; see `daskumap.source`"),
    ] = None,
    json: shared.Json = False,
) -> None:
    """Measure any map beside its data, each figure with an interval of 95 %."""
    from daskumap.evaluation.said import as_json, describe

    given = {
        "metric": metric,
        "n_neighbors": n_neighbors,
        "probe_rows": probe_rows,
        "sample_rows": sample_rows,
        "random_state": random_state,
    }
    data = shared.rows_of(source, source_option)
    found = daskumap.evaluate(data, embedding, labels, **_without_none(given))
    say_json({name: as_json(one) for name, one in found.items()}) if json else say(describe(found))


@command(
    example="daskumap stability seed1.zarr seed2.zarr seed3.zarr\n"
    "daskumap stability seed1.zarr seed2.zarr --displacement moved.npy"
)
def stability(
    maps: Annotated[
        list[str],
        typer.Argument(metavar="MAP...", help="paths or URLs of runs or maps of the same rows, in one order"),
    ],
    displacement: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="a .npy file for how far each row moves, as `daskumap plot --color` draws it",
        ),
    ] = None,
    n_neighbors: Neighbors = None,
    probe_rows: Probes = None,
    random_state: RandomState = None,
    json: shared.Json = False,
) -> None:
    """Compare maps of the same rows: what stays over seeds or parameters."""
    if displacement is not None and not displacement.endswith(".npy"):
        raise ParameterError(f"--displacement is {displacement!r}; the name of the file ends in .npy.")
    given = {"n_neighbors": n_neighbors, "probe_rows": probe_rows, "random_state": random_state}
    found = daskumap.stability(maps, **_without_none(given))
    if displacement is not None:
        _write(found.displacement(), displacement)
    if json:
        return say_json({**found.as_dict(), **({"displacement": displacement} if displacement else {})})
    return say(f"{found}\ndisplacement        {displacement}" if displacement else str(found))


def _write(values: Any, path: str) -> None:
    import numpy as np

    from daskumap.exports.files import whole_file

    with whole_file(path, overwrite=True) as made:
        np.save(made, values)


def _without_none(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
