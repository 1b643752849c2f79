"""One map as points or as a density, and several maps beside one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from daskumap.errors import ParameterError
from daskumap.params import explicit
from daskumap.plot.colouring import Coloured, coloured
from daskumap.plot.pages import INK, axes_of, dress, figure, theme_of
from daskumap.report.picture import Picture, raster
from daskumap.report.unrolled import unrolled
from daskumap.report.window import points_of
from daskumap.views import Mapped

Array = np.ndarray[Any, Any]

PIXELS = 900
# Up to so many classes a legend beside the map names them, more are named on it.
LEGEND_CLASSES = 12
# Rows from which the centre of a class is taken.
CENTRE_ROWS = 200_000
SHOWN = ("n_neighbors", "min_dist", "metric")
INCHES = 6.0


@explicit
def points(
    run: Any,
    color: Any = None,
    *,
    ax: Any = None,
    theme: str = "light",
    legend: str | None = None,
    title: str | None = None,
    frame: bool = True,
    size: int = PIXELS,
) -> Any:
    """Draw a map, coloured by a class or a value of each row, or by its density.

    Parameters
    ----------
    run
        A run, the result of a transform, or an embedding (n, d) of anything that slices.
    color
        (n,) texts, booleans, integers or floats; the name of a column of `run.columns`: a label, or of an
        AnnData a column of its `obs`; or the path of a `.npy`, `.csv` or `.parquet` file, with `:COLUMN`
        where it has several. Up to 256 texts, and up to 64
        different integers, are classes, negative and missing ones grey. None for the density.
    ax
        Axes of matplotlib; None for a new figure.
    theme
        "light", "dark" or "transparent".
    legend
        "beside" lists the classes, "centres" writes their names on the map, "none" names none. None for
        beside up to 12 classes.
    title
        None for the number of rows and the parameters of the run; "" for none.
    frame
        Whether a line goes round the map.
    size
        Pixels of the longer side of the raster.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    DependencyError
        If matplotlib is not installed.
    ParameterError
        If an argument is none of those allowed.
    """
    if legend not in (None, "beside", "centres", "none"):
        raise ParameterError(f"legend is {legend!r}; allowed are 'beside', 'centres', 'none' and None.")
    embedding, labels = map_of(run)
    look = theme_of(theme)
    shown = None
    if color is not None:
        shown = coloured(color, embedding.shape[0], labels, look)
    image, info = raster(embedding, None if shown is None else shown.colouring, size, look)
    if legend is None and shown is not None:
        legend = "beside" if len(shown.names) <= LEGEND_CLASSES else "centres"
    inches = INCHES / max(info.width, info.height)
    ax = axes_of(ax, theme, inches * info.width + _room(shown, legend), inches * info.height + 0.3)
    place(ax, image, info)
    dress(ax, theme, _title(run, info) if title is None else title, frame)
    if shown is not None:
        _explain(ax, shown, embedding, theme, legend)
    return ax


def _room(shown: Coloured | None, legend: str | None) -> float:
    """Return the inches that a legend takes beside a map."""
    if shown is None or legend == "none":
        return 0.0
    if shown.span is not None:
        return 0.9
    letters = max(
        (len(f"{name} ({n:,})") for name, n in zip(shown.names, shown.counts, strict=True)), default=0
    )
    return (0.4 + 0.075 * letters) * _legend_columns(shown) if legend == "beside" else 0.0


def _legend_columns(shown: Coloured) -> int:
    return math.ceil(len(shown.names) / 30)


def density(run: Any, **options: Any) -> Any:
    """Draw how densely rows lie on a map; options as in `points`."""
    return points(run, None, **options)


def multiples(
    runs: Sequence[Any],
    color: Any = None,
    *,
    theme: str = "light",
    titles: Sequence[str] | None = None,
    **options: Any,
) -> Any:
    """Draw several maps beside one another, each with what tells it from the others; options as in `points`.

    Parameters
    ----------
    runs
        Runs, or embeddings.
    color
        For all of them, of as many rows; or a list of one for each map.
    titles
        One each; None for the parameters in which the runs differ.

    Returns
    -------
    matplotlib.figure.Figure
    """
    if not runs:
        raise ParameterError("runs is empty; pass at least one run.")
    if titles is not None and len(titles) != len(runs):
        raise ParameterError(f"There are {len(titles)} titles for {len(runs)} maps. Give one each.")
    columns = len(runs) if len(runs) <= 3 else math.ceil(math.sqrt(len(runs)))
    lines = math.ceil(len(runs) / columns)
    made = figure(theme, 4.0 * columns, 3.7 * lines)
    names = titles if titles is not None else differences(runs)
    legend = options.pop("legend", None)
    # One column for all maps has one legend, at the last of them.
    each = color if isinstance(color, list) and len(color) == len(runs) else [color] * len(runs)
    shared = each is not color
    for number, (run, column, name) in enumerate(zip(runs, each, names, strict=True)):
        ax = made.add_subplot(lines, columns, number + 1)
        shown = legend if not shared or number == len(runs) - 1 else "none"
        points(run, column, ax=ax, theme=theme, title=name, legend=shown, **options)
    return made


def differences(runs: Sequence[Any]) -> list[str]:
    """Return for each run the parameters in which it differs from others, as a text."""
    every = [run.params if isinstance(run, Mapped) else {} for run in runs]
    names = [
        name
        for name in dict.fromkeys(name for params in every for name in params)
        if any(params.get(name) != every[0].get(name) for params in every)
    ]
    return [", ".join(f"{name} {params.get(name)}" for name in names[:4]) for params in every]


def map_of(run: Any) -> tuple[Any, Any]:
    """Return the map of a run as it is drawn, and its columns of labels."""
    if not isinstance(run, Mapped):
        if not hasattr(run, "shape"):
            run = np.asarray(run)
        if len(run.shape) != 2:
            raise ParameterError(f"The embedding has the shape {run.shape}; (rows, columns) is needed.")
        return run, None
    drawn = unrolled(run.embedding, run.params["output_metric"], run.params["output_metric_kwds"])
    return drawn, run.columns


def refuse_no_fit(run: Any) -> None:
    """Refuse what has no neighbours and no graph.

    Raises
    ------
    ParameterError
        If it is not the run of a fit.
    """
    if not (isinstance(run, Mapped) and hasattr(run, "knn")):
        raise ParameterError(
            f"run is {type(run).__name__}; the run of a fit is needed, which has neighbours."
        )


def place(ax: Any, image: Array, info: Picture) -> None:
    """Put a raster into axes, in the units of the map."""
    (left, right), (low, high) = info.limits if len(info.limits) == 2 else (*info.limits, (0.0, 1.0))
    ax.imshow(image, extent=(left, right, low, high), aspect="equal" if len(info.limits) == 2 else "auto")


def _title(run: Any, info: Picture) -> str:
    rows = f"{info.rows + info.outside:,} rows"
    if not isinstance(run, Mapped):
        return rows
    return ", ".join([rows, *(f"{name} {run.params[name]}" for name in SHOWN if name in run.params)])


def _explain(ax: Any, shown: Coloured, embedding: Any, theme: str, legend: str | None) -> None:
    """Say what the colours mean."""
    if legend == "none" or not (shown.names or shown.span):
        return
    if shown.span is not None:
        _bar(ax, shown, theme)
    elif legend == "beside":
        _beside(ax, shown, theme)
    else:
        _on_the_map(ax, shown, embedding, theme)


def _bar(ax: Any, shown: Coloured, theme: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    assert shown.span is not None
    colours = ListedColormap(shown.colouring.palette / 255)
    bar = ax.figure.colorbar(ScalarMappable(Normalize(*shown.span), colours), ax=ax, shrink=0.6, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=INK[theme], labelsize=8)


def _beside(ax: Any, shown: Coloured, theme: str) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], linestyle="", marker="o", markersize=6, color=tuple(c / 255), label=f"{name} ({count:,})"
        )
        for c, name, count in zip(shown.colouring.palette, shown.names, shown.counts, strict=True)
    ]
    ax.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=8,
        labelcolor=INK[theme],
        ncols=_legend_columns(shown),
        handletextpad=0.1,
    )


def _on_the_map(ax: Any, shown: Coloured, embedding: Any, theme: str) -> None:
    """Write each class's name at the median of its rows."""
    from matplotlib.patheffects import withStroke

    ground = "black" if theme == "dark" else "white"
    size = 8 if len(shown.names) <= 40 else 5
    for name, (x, y) in zip(shown.names, _centres(shown, embedding), strict=True):
        if not math.isnan(x):
            ax.text(
                x,
                y,
                name,
                ha="center",
                va="center",
                fontsize=size,
                color=INK[theme],
                clip_on=True,
                path_effects=[withStroke(linewidth=2, foreground=ground)],
            )


def _centres(shown: Coloured, embedding: Any) -> Array:
    """Return (classes, 2) medians of every so-many-th row; NaN for classes without one of them."""
    step = max(1, embedding.shape[0] // CENTRE_ROWS)
    places, codes = [], []
    for rows, known, found in points_of(embedding):
        ids = np.arange(rows.start, rows.stop)[known]
        taken = ids % step == 0
        places.append(found[taken])
        codes.append(shown.colouring.codes[ids[taken]])
    place, code = np.concatenate(places), np.concatenate(codes)
    medians = [
        np.median(place[code == c], axis=0) if (code == c).any() else [np.nan] * 2
        for c in range(len(shown.names))
    ]
    return np.array(medians).reshape(-1, 2)
