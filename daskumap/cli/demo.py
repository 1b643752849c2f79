"""`daskumap demo`: digits from the array to the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import daskumap
from daskumap.cli import options as shared
from daskumap.cli.command import command
from daskumap.cli.output import say, say_json
from daskumap.errors import DependencyError, ParameterError


@command(example="daskumap demo")
def demo(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="where; daskumap-demo if left out")
    ] = "daskumap-demo",
    json: shared.Json = False,
) -> None:
    """Embed scikit-learn's digits; leaves a run store and a picture."""
    from daskumap.testing.datasets import digits

    place = Path(folder)
    _refuse_zarr(place)
    place.mkdir(parents=True, exist_ok=True)
    data = digits()
    source, run, picture = place / "digits.zarr", place / "run.zarr", place / "digits.png"
    data.write_zarr(source, chunks=512)
    result = daskumap.fit(source, run, random_state=42)
    _draw(result, data.labels(0, data.shape[0]), picture)
    if json:
        say_json({"embedding": f"{run}/embedding", "picture": str(picture), "report": result.report})
    else:
        say(f"{result}\n\nembedding            {run}/embedding\npicture              {picture}")


def _draw(run: Any, labels: Any, picture: Path) -> None:
    """Draw the map with a legend; where matplotlib is missing, without one."""
    from daskumap import plot
    from daskumap.report.picture import embedding_png

    title = "handwritten digits (scikit-learn), 1,797 x 64, by what is written"
    try:
        plot.save(plot.points(run, labels, title=title), picture)
    except DependencyError as missing:
        embedding_png(run.embedding, picture, labels=labels)
        say(f"The picture has no legend. {missing}\n")


def _refuse_zarr(place: Path) -> None:
    """Refuse to write into a Zarr group of somebody else's, such as an AnnData."""
    from daskumap.store.places import find_enclosing, find_place

    group = find_enclosing(find_place(place / "digits.zarr"))
    if group is not None:
        raise ParameterError(f"{group} is a Zarr array or group. Name another folder for the demo.")
