"""`daskumap train | predict`: a network on the graph of a run, and what only such a run can do."""

from __future__ import annotations

from typing import Annotated, Unpack

import typer

import daskumap
from daskumap.cli import options as shared
from daskumap.cli.command import command
from daskumap.cli.results import make, show

Network = Annotated[
    str, typer.Argument(metavar="RUN", help="path or URL of a trained run, or of a saved network")
]


class Train(shared.Settings, shared.Leaves, shared.Start, shared.Machine, shared.Driver, total=False):
    """Options of a training."""

    labels: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN|FILE",
            help="a column of labels or of obs; or a NumPy file or Zarr array: a class a row, -1 for none",
        ),
    ]
    landmarks: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="a NumPy file or Zarr array: a place for each row, NaN for none"),
    ]
    decoder: Annotated[
        bool | None,
        typer.Option("--decoder/--no-decoder", help="train the way back too, for `daskumap inverse`, or not"),
    ]
    steps: Annotated[int | None, typer.Option(metavar="N", help="6,000 if left out")]
    random_state: shared.Seed


@command(example="daskumap train map.zarr trained.zarr --labels classes.npy --decoder")
def train(
    run: Annotated[str, typer.Argument(metavar="RUN", help="path or URL of the run store whose graph it is")],
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT", help="path or URL of the trained run; an unfinished training there goes on"
        ),
    ],
    **options: Unpack[Train],
) -> None:
    """Train a network on the graph of a finished run, to map rows."""
    quiet, json, scheduler = options.pop("quiet"), options.pop("json"), options.pop("scheduler")
    result = daskumap.train(run, out, client=scheduler, progress=not quiet, **shared.as_params(options))
    show(result, out, quiet, json)


@command(example="daskumap predict trained.zarr new.zarr/X classes.zarr")
def predict(run: Network, source: shared.NewRows, out: shared.Out, **options: Unpack[shared.Making]) -> None:
    """Classify rows by a network that was trained with labels."""
    make(daskumap.predict, run, source, out, options)
