"""`daskumap demo`: digits from the array to the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import daskumap
from daskumap.cli.output import say


def add_commands(commands: Any) -> None:
    """Add this command to the parser's."""
    demo = commands.add_parser("demo", help="embed scikit-learn's digits; leaves a run store and a picture")
    demo.add_argument("folder", nargs="?", default="daskumap-demo", help="where (default: %(default)s)")
    demo.set_defaults(command=run_demo)


def run_demo(options: dict[str, Any]) -> None:
    """Write digits to a Zarr array, fit it, draw it."""
    from daskumap.report.picture import embedding_png
    from daskumap.testing.datasets import digits

    folder = Path(options["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    data = digits()
    source, run, picture = folder / "digits.zarr", folder / "run.zarr", folder / "digits.png"
    data.write_zarr(source, chunks=512)
    result = daskumap.fit(source, run, random_state=42)
    embedding_png(result.embedding, picture, labels=data.labels(0, data.shape[0]))
    say(f"{result}\n\nembedding            {run}/embedding\npicture              {picture}")
