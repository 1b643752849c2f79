"""Maps coloured by what was measured of each row, in the manner of `umap.plot.diagnostic`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from daskumap.errors import ParameterError
from daskumap.kernels.quality.neighbors import READ_ROWS
from daskumap.plot.colouring import Coloured
from daskumap.plot.maps import multiples, points, refuse_no_fit
from daskumap.report.paint import Colouring
from daskumap.sources.base import Source

Array = np.ndarray[Any, Any]

# Levels of red, green and blue for three components.
CUBE = 6


def diagnostic(
    run: Any, kind: str = "all", *, fitted: Any = None, theme: str = "light", **options: Any
) -> Any:
    """Draw a map coloured by what each row is like in the data; options as in `points`.

    Parameters
    ----------
    run
        A finished run that kept its neighbours.
    kind
        "neighborhood": the share of a row's neighbours in the data that are among as many on the map;
        "local_dim": how many dimensions the data have around it, by the distances to its neighbours;
        "radius": the distance to its last neighbour; "pca": the first three principal components of the data
        as red, green and blue; "all": all four beside one another.
    fitted
        Path or URL of the rows, for "pca", where they are no longer where the run found them.

    Returns
    -------
    matplotlib.axes.Axes, or a Figure for "all"

    References
    ----------
    Levina and Bickel (2004), "Maximum likelihood estimation of intrinsic dimension".
    """
    refuse_no_fit(run)
    if kind == "all":
        columns = [_column(run, name, fitted) for name in KINDS]
        return multiples([run] * len(KINDS), columns, theme=theme, titles=list(KINDS), **options)
    column = _column(run, kind, fitted)
    options.setdefault("title", kind)
    if kind == "pca":
        options.setdefault("legend", "none")
    return points(run, column, theme=theme, **options)


def _column(run: Any, kind: str, fitted: Any) -> Any:
    if kind not in KINDS:
        raise ParameterError(f"kind is {kind!r}; allowed are {', '.join(KINDS)}, all.")
    return KINDS[kind](run, fitted)


def _neighborhood(run: Any, fitted: Any) -> Array:
    """Return for each row the share of its neighbours that are among as many on the map."""
    from sklearn.neighbors import NearestNeighbors

    places = run.embedding[:]
    known = np.isfinite(places).all(axis=1)
    near, _ = run.knn()
    k = min(near.shape[1], int(known.sum()) - 1)
    number = np.flatnonzero(known)
    found = np.full(len(places), np.nan)
    search = NearestNeighbors(n_neighbors=k).fit(places[known])
    for start in range(0, len(number), READ_ROWS):
        rows = number[start : start + READ_ROWS]
        on_map = number[search.kneighbors(places[rows], k + 1, return_distance=False)]
        # The row itself is among them, and of equal places any may come first.
        shared = (near[rows][:, :, None] == on_map[:, None, :]).any(axis=2) & (near[rows] != rows[:, None])
        found[rows] = shared.sum(axis=1) / k
    return found


def _local_dim(run: Any, fitted: Any) -> Array:
    """Return the number of dimensions by the growth of the distances; NaN where neighbours coincide."""
    _, distances = run.knn()
    last = np.log(distances[:, -1:])
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.where(distances[:, :-1] > 0, last - np.log(distances[:, :-1]), np.nan)
        found: Array = 1.0 / np.nanmean(growth, axis=1)
    return np.where(np.isfinite(found), found, np.nan)


def _radius(run: Any, fitted: Any) -> Array:
    found: Array = run.knn()[1][:, -1]
    return np.where(np.isfinite(found), found, np.nan)


def _pca(run: Any, fitted: Any) -> Coloured:
    """Return the first three principal components of the rows as red, green and blue."""
    source = run.model(fitted).source
    axes, mean = _axes(source)
    found = np.empty((source.shape[0], 3), np.float32)
    for start, stop in _ranges(source):
        found[start:stop] = (source.read(start, stop) - mean) @ axes
    low, high = np.nanquantile(found, (0.01, 0.99), axis=0)
    share = np.clip((found - low) / np.maximum(high - low, np.finfo(np.float32).tiny), 0, 1)
    levels = np.rint(np.nan_to_num(share) * (CUBE - 1)).astype(np.int64)
    codes = np.where(np.isnan(found).any(axis=1), -1, levels @ np.array([CUBE * CUBE, CUBE, 1]))
    steps = np.rint(np.linspace(0, 230, CUBE)).astype(np.uint8)
    palette = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return Coloured(Colouring(codes, palette, (150, 152, 160)))


def _axes(source: Source) -> tuple[Array, Array]:
    """Return (D, 3) axes and (D,) mean of all rows, from sums of blocks."""
    total, products, count = np.zeros(source.shape[1]), np.zeros((source.shape[1],) * 2), 0
    for start, stop in _ranges(source):
        rows = source.read(start, stop).astype(np.float64)
        rows = rows[np.isfinite(rows).all(axis=1)]
        total, products, count = total + rows.sum(axis=0), products + rows.T @ rows, count + len(rows)
    mean = total / count
    _, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    axes = vectors[:, ::-1][:, :3]
    missing = np.zeros((len(axes), 3 - axes.shape[1]))
    return np.concatenate([axes, missing], axis=1), mean


def _ranges(source: Source) -> Iterator[tuple[int, int]]:
    step = max(1, (1 << 24) // source.shape[1] // source.block_rows) * source.block_rows
    for start in range(0, source.shape[0], step):
        yield start, min(start + step, source.shape[0])


KINDS: dict[str, Callable[[Any, Any], Any]] = {
    "neighborhood": _neighborhood,
    "local_dim": _local_dim,
    "radius": _radius,
    "pca": _pca,
}
