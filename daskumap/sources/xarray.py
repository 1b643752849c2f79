"""Arrays of xarray, which wrap one of another kind."""

from __future__ import annotations

from typing import Any

from daskumap.errors import SourceError


def is_xarray(data: Any) -> bool:
    """Return whether it is one of xarray's objects."""
    return type(data).__module__.partition(".")[0] == "xarray"


def array_of(data: Any) -> Any:
    """Return the array that a DataArray or a Variable wraps."""
    if not hasattr(data, "dtype"):
        raise SourceError(
            f"The input is an xarray {type(data).__name__}, which may hold several arrays. Pass one of its "
            "variables, such as data['name']."
        )
    return data.data
