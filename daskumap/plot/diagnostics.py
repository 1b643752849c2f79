"""Maps coloured by what was measured of each row, in the manner of `umap.plot.diagnostic`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from daskumap.errors import ParameterError
from daskumap.kernels.quality.neighbors import READ_ROWS, blocks
from daskumap.plot.maps import multiples, points
from daskumap.plot.pages import theme_of
from daskumap.run import Run
from daskumap.sources.base import Source

Array = np.ndarray[Any, Any]

# Levels of red, green and blue for three components.
CUBE = 6


def diagnostic(run: Run, kind: str = "all", *, fitted: Any = None, theme: str = "light", **options: Any) -> Any:
    """Draw a map coloured by what each row is like in the data; options as in `points`.

    Parameters
    ----------
    run
        A finished run that kept its neighbours.
    kind
        "neighborhood": the share of a row's neighbours in the data that are among as many on the map;
        "local_dim": how many dimensions the data have around it, by the distances to its neighbours;
        "radius": the distance to its last neighbour; "pca": the first three principal components of the data as red,
        green and blue; "all": all four beside one another.
    fitted
        Path or URL of the rows, for "pca", where they are no longer where the run found them.

    Returns
    -------
    matplotlib.axes.Axes, or a Figure for "all"

    References
    ----------
    Levina and Bickel (2004), "Maximum likelihood estimation of intrinsic dimension".
    """
    if not isinstance(run, Run):
        raise ParameterError(f"run is {type(run).__name__}; a diagnostic needs a run, which has the neighbours.")
    if kind == "all":
        columns = [_column(run, name, fitted, theme) for name in KINDS]
        made = multiples([run] * len(KINDS), theme=theme, titles=list(KINDS), **options)
        for ax, column, name in zip(list(made.axes), columns, KINDS, strict=True):
            ax.clear()
            points(run, column, ax=ax, theme=theme, title=name, legend="none" if name == "pca" else None, **options)
        return made
    column = _column(run, kind, fitted, theme)
    options.setdefault("title", kind)
    if kind == "pca":
        options.setdefault("legend", "none")
    return points(run, column, theme=theme, **options)


def _column(run: Run, kind: str, fitted: Any, theme: str) -> Any:
    if kind not in KINDS:
        raise ParameterError(f"kind is {kind!r}; allowed are {', '.join(KINDS)}, all.")
    return KINDS[kind](run, fitted)
