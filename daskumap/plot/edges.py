"""The edges of a run's graph, drawn on its map."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskumap.kernels.layout.lines import add_lines
from daskumap.params import explicit
from daskumap.planning.sizes import Sizes
from daskumap.plot.maps import PIXELS, place, refuse_no_fit
from daskumap.plot.pages import axes_of, dress, theme_of
from daskumap.report.colours import ramp
from daskumap.report.picture import Picture, level_of
from daskumap.report.window import View, find_limits
from daskumap.store import schema
from daskumap.store.graph import read_edges
from daskumap.views import Mapped

INCHES = 6.0


@explicit
def connectivity(
    run: Any,
    *,
    ax: Any = None,
    theme: str = "light",
    title: str | None = None,
    frame: bool = True,
    size: int = PIXELS,
) -> Any:
    """Draw the edges of the fuzzy graph between the places of their rows: what the layout pulled together.

    The weight of an edge is spread over its line: long dense bundles are neighbours that the map has torn
    apart.
    Edges are read a partition at a time; the map is in memory, 8 bytes a row.

    Parameters
    ----------
    run
        A finished run with a plane map, which kept its graph.
    ax, theme, title, frame, size
        As in `points`.

    Returns
    -------
    matplotlib.axes.Axes
    """
    refuse_no_fit(run)
    run.curve()  # refuses a map that is no plane
    look = theme_of(theme)
    limits, count = find_limits(run.embedding)
    view = View.fit(limits, size, False)
    weights = np.zeros((view.height, view.width))
    edges = 0
    x, y = _in_order_of_vertices(run, view)
    sizes = Sizes(**run.store.about["sizes"])
    for start, stop in map(sizes.partition, range(sizes.partitions)):
        indptr, tails, values = read_edges(run.store, sizes, start, stop)
        heads = np.repeat(np.arange(start, start + len(indptr) - 1), np.diff(indptr))
        # Each edge stands there twice.
        once = tails < heads
        heads, tails, values = heads[once], tails[once], values[once]
        edges += len(values)
        add_lines(weights, x[heads], y[heads], x[tails], y[tails], values)
    image = np.empty((*weights.shape, 3))
    image[:] = look.ground
    drawn = weights > 0
    image[drawn] = ramp(look.density, level_of(weights[drawn]))
    info = Picture(view.width, view.height, count, 0, 0, view.limits)
    ax = axes_of(ax, theme, INCHES, INCHES * view.height / view.width + 0.3)
    place(ax, np.rint(image).astype(np.uint8), info)
    dress(ax, theme, f"{edges:,} edges of {count:,} rows" if title is None else title, frame)
    return ax


def _in_order_of_vertices(run: Mapped, view: View) -> tuple[Any, Any]:
    """Return x and y in pixels of each vertex."""
    places = np.empty((run.embedding.shape[0], 2))
    places[run.store.read(schema.VERTEX.name)] = run.embedding[:][:, :2]
    return view.pixels(places)
