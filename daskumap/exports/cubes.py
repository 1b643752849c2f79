"""Maps on the grid of the cube that they are of, as Zarr that xarray opens."""

from __future__ import annotations

import os
from typing import Any

from daskumap.sources.cubes.unstack import write_cube
from daskumap.sources.cubes.written import whole_group
from daskumap.views import MAP, Mapped


def is_zarr(target: Any) -> bool:
    """Return whether it is the place of a Zarr store, as its ending says."""
    return isinstance(target, str | os.PathLike) and os.fspath(target).rstrip("/").lower().endswith(".zarr")


def write_zarr_cube(run: Mapped, target: Any, *, overwrite: bool, cube: Any = None) -> Any:
    """Write the map on the grid of its cube, with its coordinates; it is there once it is whole.

    Parameters
    ----------
    cube
        The cube, where the run does not name it: it came from memory, or has moved.
    """
    source, values = run.cube(cube), run.embedding
    with whole_group(target, overwrite, MAP) as group:
        write_cube(source, values, group, MAP, run.origin())
    return target
