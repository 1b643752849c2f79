"""A map as tiles to zoom into: `{z}/{x}/{y}.png`, as maps of the world are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.errors import ParameterError, StoreError
from daskumap.params import explicit
from daskumap.plot.colouring import coloured
from daskumap.plot.maps import map_of
from daskumap.plot.pages import theme_of
from daskumap.report.picture import raster
from daskumap.report.png import write_png
from daskumap.report.window import Limits, find_limits

TILE = 256
# 8,192 pixels a side; their sums take 2.7 GB with colours, 0.5 GB without.
MOST_LEVELS = 6


@explicit
def tiles(
    run: Any, folder: str | os.PathLike[str], color: Any = None, *, levels: int = 4, theme: str = "light"
) -> Path:
    """Write a map as tiles of 256 pixels: level 0 is one tile, and each next one twice as fine.

    Any viewer of slippy maps shows them (`L.tileLayer("{z}/{x}/{y}.png")` of Leaflet with its simple CRS);
    `tiles.json` has the limits of the map. A tile without rows is left out.

    Parameters
    ----------
    run, color, theme
        As in `points`.
    folder
        A new one, or one that is empty.
    levels
        1 to 6.

    Returns
    -------
    pathlib.Path
        The folder.
    """
    if levels not in range(1, MOST_LEVELS + 1):
        raise ParameterError(f"levels is {levels!r}; allowed are 1 to {MOST_LEVELS}.")
    out = Path(folder)
    if out.exists() and any(out.iterdir()):
        raise StoreError(f"{out} is not empty. Name a new folder for the tiles.")
    embedding, labels = map_of(run)
    look = theme_of(theme)
    shown = None if color is None else coloured(color, embedding.shape[0], labels, look).colouring
    square = _square(find_limits(embedding)[0])
    for level in range(levels):
        image, _ = raster(embedding, shown, TILE << level, look, square)
        _cut(image, np.array(look.ground), out / str(level))
    (out / "tiles.json").write_text(json.dumps({"levels": levels, "tile": TILE, "limits": square}))
    return out


def _square(limits: Limits) -> Limits:
    """Return limits of one length, with the same middle, of which a view adds its margin."""
    half = max(high - low for low, high in limits) / 2
    return tuple(((low + high) / 2 - half, (low + high) / 2 + half) for low, high in limits)


def _cut(image: Any, ground: Any, folder: Path) -> None:
    for x in range(image.shape[1] // TILE):
        for y in range(image.shape[0] // TILE):
            tile = image[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE]
            empty = not tile[..., 3].any() if tile.shape[2] == 4 else (tile == ground).all()
            if not empty:
                (folder / str(x)).mkdir(parents=True, exist_ok=True)
                write_png(folder / str(x) / f"{y}.png", np.ascontiguousarray(tile))
