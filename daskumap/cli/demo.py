"""`daskumap demo`: digits from the array to the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import daskumap
from daskumap.cli import options as shared
from daskumap.cli.command import command
from daskumap.cli.output import say, say_json
from daskumap.errors import ParameterError


@command(example="daskumap demo")
def demo(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="where; daskumap-demo if left out")
    ] = "daskumap-demo",
    json: shared.Json = False,
) -> None:
    """Embed scikit-learn's digits; leaves a run store and a picture."""
    from daskumap.report.picture import embedding_png
    from daskumap.testing.datasets import digits

    place = Path(folder)
    _refuse_zarr(place)
    place.mkdir(parents=True, exist_ok=True)
    data = digits()
    source, run, picture = place / "digits.zarr", place / "run.zarr", place / "digits.png"
    data.write_zarr(source, chunks=512)
    result = daskumap.fit(source, run, random_state=42)
    embedding_png(result.embedding, picture, labels=data.labels(0, data.shape[0]))
    if json:
        say_json({"embedding": f"{run}/embedding", "picture": str(picture), "report": result.report})
    else:
        say(f"{result}\n\nembedding            {run}/embedding\npicture              {picture}")


def _refuse_zarr(place: Path) -> None:
    """Refuse to write into a Zarr group of somebody else's, such as an AnnData."""
    from daskumap.store.places import find_enclosing, find_place

    group = find_enclosing(find_place(place / "digits.zarr"))
    if group is not None:
        raise ParameterError(f"{group} is a Zarr array or group. Name another folder for the demo.")
