"""Packed values, as netCDF and xarray write them, decoded by the CF conventions (sections 2.5.1 and 8.1)."""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from daskumap.errors import SourceError
from daskumap.sources.base import Array

# What says how values are packed. Others, such as units, change no number.
NAMES = (
    "scale_factor",
    "add_offset",
    "_FillValue",
    "missing_value",
    "valid_range",
    "valid_min",
    "valid_max",
    "_Unsigned",
)
# Values that only other arrays put in place (CF section 8.2).
UNKNOWN = ("compress",)
# How Zarr's JSON spells numbers that JSON lacks.
WORDS = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}


@dataclass(frozen=True)
class Packing:
    """How stored values become numbers; missing ones become NaN.

    Attributes
    ----------
    stored, seen
        Types as stored, and as which the same bytes are meant (`_Unsigned`).
    scale, offset
        A number is the value seen, times `scale`, plus `offset`.
    missing
        Stored values that mean that there is none.
    limits
        What lies outside is missing too; infinite where there is no limit.
    limits_packed
        Whether the limits are those of the values seen, or of the numbers.
    """

    stored: np.dtype[Any]
    seen: np.dtype[Any]
    scale: float
    offset: float
    missing: tuple[Any, ...]
    limits: tuple[float, float]
    limits_packed: bool

    @property
    def is_trivial(self) -> bool:
        """Whether the numbers are the stored values."""
        return (
            self.seen == self.stored
            and (self.scale, self.offset) == (1.0, 0.0)
            and not self.missing
            and self.limits == (-np.inf, np.inf)
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the numbers: that of the stored values with room for NaN, or float64 where scaled."""
        if (self.scale, self.offset) != (1.0, 0.0):
            return np.dtype(np.float64)
        return np.result_type(self.seen, np.float32)

    def decode(self, block: Array) -> Array:
        """Return the numbers of a block as stored."""
        missing = np.zeros(block.shape, bool)
        for value in self.missing:
            missing |= block == value
        seen = block.view(self.seen.newbyteorder(block.dtype.byteorder))
        numbers = seen.astype(self.dtype)
        if (self.scale, self.offset) != (1.0, 0.0):
            numbers *= self.scale
            numbers += self.offset
        low, high = self.limits
        judged = seen if self.limits_packed else numbers
        if low > -np.inf:
            missing |= judged < low
        if high < np.inf:
            missing |= judged > high
        numbers[missing] = np.nan
        return numbers


def find_packing(array: zarr.Array[Any]) -> Packing | None:
    """Return how the values of a Zarr array are packed; None where they are numbers as they stand.

    Raises
    ------
    SourceError
        If the attributes name a packing that is not known, or cannot be read.
    """
    known = {name: value for name, value in array.attrs.items() if name in (*NAMES, *UNKNOWN)}
    if "_FillValue" not in known and _fills_missing(array):
        known["_FillValue"] = array.fill_value
    if not known:
        return None
    if unknown := sorted(set(known) & set(UNKNOWN)):
        raise _refusal(array, unknown[0], known[unknown[0]])
    packing = _packing(array, known)
    return None if packing.is_trivial else packing


def _fills_missing(array: zarr.Array[Any]) -> bool:
    """Tell whether the fill value marks what is missing: so xarray writes _FillValue in the format 2."""
    return (
        array.metadata.zarr_format == 2
        and "_ARRAY_DIMENSIONS" in array.attrs
        and array.metadata.fill_value is not None
    )


def _packing(array: zarr.Array[Any], known: dict[str, Any]) -> Packing:
    """Return the packing that some attributes describe."""
    stored = array.dtype

    def numbers(name: str, *default: float) -> tuple[float, ...]:
        return _numbers(array, name, known[name]) if name in known else default

    def number(name: str, default: float) -> float:
        found = numbers(name, default)
        if len(found) != 1 or not np.isfinite(found[0]):
            raise _refusal(array, name, known[name])
        return found[0]

    scale, offset = number("scale_factor", 1.0), number("add_offset", 0.0)
    if scale == 0.0:
        raise _refusal(array, "scale_factor", known["scale_factor"])
    limits = numbers("valid_range", *(numbers("valid_min", -np.inf) + numbers("valid_max", np.inf)))
    if len(limits) != 2 or not limits[0] <= limits[1]:
        raise _refusal(array, "valid_range", known.get("valid_range", limits))
    marks = (*numbers("_FillValue"), *numbers("missing_value"))
    # Limits of another type than the packed values are limits of the numbers.
    whole = all(isinstance(limit, int) or np.isinf(limit) for limit in limits)
    return Packing(
        stored,
        _seen(array, known.get("_Unsigned")),
        scale,
        offset,
        tuple(mark for value in marks for mark in _as_stored(array, value)),
        (limits[0], limits[1]),
        whole or stored.kind == "f",
    )


def _seen(array: zarr.Array[Any], unsigned: Any) -> np.dtype[Any]:
    """Return the type as which the stored bytes are meant."""
    if unsigned is None or array.dtype.kind not in "iu":
        return array.dtype
    word = str(unsigned).lower()
    if word not in ("true", "false"):
        raise _refusal(array, "_Unsigned", unsigned)
    return np.dtype(f"{array.dtype.byteorder}{'u' if word == 'true' else 'i'}{array.dtype.itemsize}")


def _as_stored(array: zarr.Array[Any], value: float) -> tuple[Any, ...]:
    """Return a mark of missing values in the type of the array; nothing where no value can equal it."""
    if np.isnan(value):
        return ()
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return (array.dtype.type(value),)
    bits = 8 * array.dtype.itemsize
    if value != int(value) or not -(2 ** (bits - 1)) <= value < 2**bits:
        return ()
    return (
        np.array(int(value) % 2**bits, f"u{array.dtype.itemsize}").view(
            f"{array.dtype.kind}{array.dtype.itemsize}"
        )[()],
    )


def _numbers(array: zarr.Array[Any], name: str, value: Any) -> tuple[float, ...]:
    """Return the numbers of an attribute, which may be one, a list, or what xarray makes of a float."""
    items = value if isinstance(value, list | tuple) else [value]
    return tuple(_number(array, name, item) for item in items)


def _number(array: zarr.Array[Any], name: str, value: Any) -> float:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int | float):
        return value
    if isinstance(value, str) and value in WORDS:
        return WORDS[value]
    try:
        (number,) = struct.unpack("<d", base64.b64decode(value, validate=True))
    except (TypeError, ValueError, binascii.Error, struct.error) as error:
        raise _refusal(array, name, value) from error
    return float(number)


def _refusal(array: zarr.Array[Any], name: str, value: Any) -> SourceError:
    return SourceError(
        f"{array.store_path} is packed in a way that is not known: its attribute {name} is {value!r}. "
        f"Known are {', '.join(NAMES)} with the numbers that CF allows. Write the array unpacked, such as "
        "xarray.open_zarr(path)[name].drop_encoding().to_dataset(name=name).to_zarr('new.zarr')."
    )
