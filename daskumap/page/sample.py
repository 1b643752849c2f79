"""What the page shows of a map: a picture of all rows, and some rows that can be pointed at."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from daskumap.errors import ParameterError
from daskumap.plot.colouring import Coloured, coloured
from daskumap.plot.columns import name_of, read_column
from daskumap.plot.maps import map_of
from daskumap.report.paint import Colouring
from daskumap.report.picture import DARK, LIGHT, Theme, raster
from daskumap.report.png import write_png
from daskumap.report.window import points_of

Array = np.ndarray[Any, Any]

# Rows that can be pointed at, 24 bytes each in the page, and the longer side of its pictures, of which each
# map has two or four: 2 MB for one map. For several both are fewer, so that three take 3 MB.
SAMPLE_ROWS = 20_000
PIXELS = 900
LEAST_PIXELS = 400
# Columns of labels that are offered, and the length at which their texts end.
MOST_COLUMNS, TEXT_LENGTH = 8, 80
# Colours of a column of texts; of more kinds it is told, but not drawn.
FEW_CLASSES = 256


def shown(run: Any, color: Any, name: str, maps: int = 1) -> dict[str, Any]:
    """Return what the page draws of a run, as JSON types.

    Parameters
    ----------
    color
        A column, as of `daskumap.plot.points`, or None.
    name
        What the run is called.
    maps
        How many the page has.
    """
    embedding, labels = map_of(run)
    if embedding.shape[1] < 2:
        raise ParameterError("The map has one dimension, and the page shows two. Fit with n_components=2.")
    rows, places = _sample(embedding, 2 * SAMPLE_ROWS // (maps + 1))
    pixels = max(LEAST_PIXELS, int(PIXELS / maps**0.5))
    density, limits = _pictures(embedding, None, pixels)
    others = [key for key in labels or () if not (isinstance(color, str) and key == color)]
    columns = [_label(key, labels[key], rows) for key in others[:MOST_COLUMNS]]
    if color is not None:
        columns.insert(0, _coloured(embedding, color, labels, rows, pixels))
    return {
        "name": name,
        "limits": limits,
        "raster": density,
        "rows": _text_of(rows.astype(np.float64)),
        "places": _text_of(places.astype(np.float32)),
        "columns": columns,
        "coloured": color is not None,
        "sampled": len(rows),
        "total": embedding.shape[0],
    }


def _sample(embedding: Any, most: int) -> tuple[Array, Array]:
    """Return row numbers, ascending, and places of some rows that are on the map, drawn once and for all.

    Of maps of as many rows they are the same, so that a row can be looked for on each.
    """
    n = embedding.shape[0]
    rng = np.random.default_rng(0)
    wanted = np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))
    rows, places = [], []
    for block, known, points in points_of(embedding):
        ids = np.arange(block.start, block.stop)[known]
        taken = np.isin(ids, wanted[slice(*np.searchsorted(wanted, (block.start, block.stop)))])
        rows.append(ids[taken])
        places.append(points[taken])
    return np.concatenate(rows), np.concatenate(places)


def _pictures(
    embedding: Any, colours: dict[str, Colouring] | None, pixels: int
) -> tuple[dict[str, str], Any]:
    """Return a picture of all rows for a light and for a dark page, and the limits of both."""
    found, limits = {}, None
    for name, theme in (("light", LIGHT), ("dark", DARK)):
        image, info = raster(embedding, colours[name] if colours else None, pixels, open_ground(theme))
        stream = io.BytesIO()
        write_png(stream, image)
        found[name] = "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
        limits = [list(pair) for pair in info.limits]
    return found, limits


def open_ground(theme: Theme) -> Theme:
    """Return a theme without its ground: the page has its own."""
    return Theme(theme.ground, theme.unlabelled, theme.density, transparent=True)


def _coloured(embedding: Any, color: Any, labels: Any, rows: Array, pixels: int) -> dict[str, Any]:
    """Return the column by which all rows are coloured."""
    found = coloured(color, embedding.shape[0], labels, LIGHT)
    themes = {"light": found, "dark": found.on(DARK)}
    pictures, _ = _pictures(embedding, {name: one.colouring for name, one in themes.items()}, pixels)
    column = _column(name_of(color, labels), themes, np.asarray(found.colouring.codes)[rows])
    if found.span:
        column["values"] = _numbers(_read(read_column(color, embedding.shape[0], labels), rows))
    return {**column, "raster": pictures}


def _label(name: str, column: Any, rows: Array) -> dict[str, Any]:
    """Return a column of labels at the sampled rows: drawn where it has few kinds, told in any case."""
    values = _read(column, rows)
    try:
        found = coloured(values, len(rows), None, LIGHT)
    except ParameterError:  # more classes than colours, or times
        texts = [None if v is None or v != v else str(v)[:TEXT_LENGTH] for v in values.tolist()]
        return {"name": name, "texts": texts, "codes": None}
    drawn = _column(name, {"light": found, "dark": found.on(DARK)}, np.asarray(found.colouring.codes))
    return {**drawn, "values": _numbers(values)} if found.span else drawn


def _numbers(values: Array) -> list[float | None]:
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values.astype(float).tolist()]


def _read(column: Any, rows: Array, step: int = 1 << 18) -> Array:
    parts = []
    for start in range(0, len(column), step):
        low, high = np.searchsorted(rows, (start, start + step))
        if low < high:
            parts.append(np.asarray(column[start : min(start + step, len(column))])[rows[low:high] - start])
    return np.concatenate(parts)


def _column(name: str, found: dict[str, Coloured], codes: Array) -> dict[str, Any]:
    palettes = {
        theme: [f"rgb({r},{g},{b})" for r, g, b in one.colouring.palette.tolist()]
        for theme, one in found.items()
    }
    one = found["light"]
    return {
        "name": name,
        "codes": _text_of(codes.astype(np.int16)),
        "palette": palettes,
        "names": list(one.names),
        "counts": list(one.counts),
        "span": one.span,
    }


def _text_of(values: Array) -> str:
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return base64.b64encode(little.tobytes()).decode()
