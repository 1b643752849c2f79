"""A result on the grid of its cube: points that were left out are missing values."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import zarr

from daskumap.extras import load
from daskumap.sources.cubes.coordinates import Coordinate, encode_dates
from daskumap.sources.cubes.grid import boxes
from daskumap.sources.cubes.source import CubeSource

Array = np.ndarray[Any, Any]

# Values of a result that are held at a time, and at most those of a chunk.
BLOCK_VALUES = 1 << 21
COMPONENT = "component"


def on_grid(source: CubeSource, values: Any, first: int, last: int) -> Array:
    """Return the values of points first to last, NaN where a point is no row.

    Parameters
    ----------
    values
        (rows, d): an array of Zarr's or NumPy's, of which consecutive rows are read.
    """
    begin, whole = source.rows_among(first, last)
    out = np.full((last - first, values.shape[1]), np.nan, np.float32)
    out[whole] = values[begin : begin + int(whole.sum())]
    return out


def to_xarray(source: CubeSource, values: Any, name: str, attrs: dict[str, Any]) -> Any:
    """Return a Dataset of xarray's, in memory, with the values on the grid and its coordinates."""
    xarray = load("xarray", "xarray", "A result as a Dataset of xarray's")
    layout, width = source.layout, int(values.shape[1])
    out = np.empty((layout.points, width), np.float32)
    step = max(1, BLOCK_VALUES // width)
    for first in range(0, layout.points, step):
        last = min(first + step, layout.points)
        out[first:last] = on_grid(source, values, first, last)
    coords = {one.name: (one.dims, one.values, _plain(one)) for one in source.coordinates.values()}
    data = {name: ((*layout.sample_dims, COMPONENT), out.reshape(*layout.shape, width))}
    return xarray.Dataset(data, {**coords, COMPONENT: np.arange(width)}, attrs)


def write_cube(source: CubeSource, values: Any, group: zarr.Group, name: str, attrs: dict[str, Any]) -> None:
    """Write a result on its grid, with coordinates, into an empty Zarr group, some points at a time."""
    layout, width = source.layout, int(values.shape[1])
    for one in source.coordinates.values():
        _write_coordinate(group, one)
    _write(group, COMPONENT, np.arange(width), (COMPONENT,), {})
    beside = " ".join(one.name for one in source.coordinates.values() if one.dims != (one.name,))
    chunk = chunk_of(layout.shape, BLOCK_VALUES // width)
    target = group.create_array(
        name,
        shape=(*layout.shape, width),
        chunks=(*chunk, width),
        dtype="float32",
        fill_value=np.nan,
        dimension_names=(*layout.sample_dims, COMPONENT),
        attributes={"coordinates": beside} if beside else {},
    )
    # Whole chunks, where these span all dimensions but the first.
    step = math.prod(chunk)
    for first in range(0, layout.points, step):
        block = on_grid(source, values, first, min(first + step, layout.points))
        for box in boxes(layout.shape, first, first + len(block)):
            shape = tuple(part.stop - part.start for part in box)
            target[box] = block[: math.prod(shape)].reshape(*shape, width)
            block = block[math.prod(shape) :]
    group.attrs.update(attrs)


def chunk_of(shape: tuple[int, ...], points: int) -> tuple[int, ...]:
    """Return the shape of a chunk of so many points at most, as long as can be in the last dimensions.

    >>> chunk_of((100, 20, 30), 1300)
    (2, 20, 30)
    """
    chunk: list[int] = []
    for size in reversed(shape):
        chunk.append(min(size, max(1, points // math.prod(chunk))))
    return tuple(reversed(chunk))


def _write_coordinate(group: zarr.Group, one: Coordinate) -> None:
    values, encoded = encode_dates(one.values)
    _write(group, one.name, values, one.dims, {**_plain(one), **encoded})


def _write(group: zarr.Group, name: str, values: Array, dims: tuple[str, ...], attrs: dict[str, Any]) -> None:
    if values.dtype.kind not in "biuf":
        values = values.astype(np.dtypes.StringDType())
    with warnings.catch_warnings(action="ignore"):  # of texts, which xarray reads
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, dimension_names=dims)
    array[...] = values
    array.attrs.update(attrs)


def _plain(one: Coordinate) -> dict[str, Any]:
    """Return what is said of a coordinate in JSON types, but how its dates were stored."""
    dated = ("units", "calendar") if one.values.dtype.kind in "Mm" else ()
    kinds = (str, int, float, bool, list, np.generic)
    return {
        str(key): value.item() if isinstance(value, np.generic) else value
        for key, value in one.attrs.items()
        if key not in dated and isinstance(value, kinds)
    }
