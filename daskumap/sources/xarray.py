"""Arrays of xarray, which wrap one of another kind."""

from __future__ import annotations

from typing import Any

from daskumap.errors import SourceError

# What xarray leaves among the attributes of values that it did not unpack.
PACKED = ("scale_factor", "add_offset", "_FillValue", "missing_value")


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
    packed = [name for name in PACKED if name in getattr(data, "attrs", ())]
    if packed:
        raise SourceError(
            f"The xarray {type(data).__name__} is packed: it has the attribute {packed[0]}. Unpack it with "
            "xarray.decode_cf(dataset), or open it without mask_and_scale=False."
        )
    return data.data
