"""What a user knows of rows beside their values: classes of some, and where some are to lie on the map."""

from __future__ import annotations

import hashlib
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr

from daskumap.encoder_params import MOST_CLASSES
from daskumap.errors import ParameterError
from daskumap.sources.nodes import open_node

Array = np.ndarray[Any, Any]

# The label of a row whose class is not known, as scikit-learn has it.
UNLABELLED = -1
# A number that is a class is one of 64 bits.
LARGEST = 2**63 - 1


class Known(NamedTuple):
    """Values by row, and what a run store says of them.

    Attributes
    ----------
    values
        (n,) int32 numbers of classes, -1 for none; or (n, d) float32 places, NaN for none.
    about
        A digest, how many rows are known, and of classes their labels in the order of the numbers.
    """

    values: Array
    about: dict[str, Any]


def open_labels(labels: Any, rows: int) -> Known | None:
    """Return the classes of rows; None where no row has one.

    Raises
    ------
    ParameterError
        If they are no integers or names, one a row.
    """
    if labels is None:
        return None
    found = in_memory("labels", labels)
    found = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    found = _as_text(found) if found.dtype.kind in "OUT" else found
    found = _as_integers(found) if found.dtype.kind in "bf" else found
    beyond = found.dtype.kind == "u" and found.max(initial=0) > LARGEST
    if found.shape != (rows,) or found.dtype.kind not in "iuU" or beyond:
        raise ParameterError(
            f"labels have shape {found.shape} and type {found.dtype}; they must be {rows:,} integers or "
            f"names, one a row in the order of the run's input, {UNLABELLED} where there is none; integers "
            "are below 2^63. A target that is no class is left out by label_weight=0."
        )
    there = found != found.dtype.type(UNLABELLED) if found.dtype.kind != "u" else np.ones(rows, bool)
    names, numbers = np.unique(found[there], return_inverse=True)
    if len(names) > MOST_CLASSES:
        raise ParameterError(
            f"labels have {len(names):,} classes; allowed are {MOST_CLASSES:,}. They are to be classes: give "
            "a target that is a number as landmarks."
        )
    if not len(names):
        return None
    values = np.full(rows, UNLABELLED, np.int32)
    values[there] = numbers
    return Known(values, {**_about(found), "rows": int(there.sum()), "classes": names.tolist()})


def open_landmarks(landmarks: Any, rows: int, components: int) -> Known | None:
    """Return where rows are to lie; None where no row has a place.

    Raises
    ------
    ParameterError
        If they are no places on the map, one a row.
    """
    if landmarks is None:
        return None
    found = in_memory("landmarks", landmarks)
    if found.shape != (rows, components) or found.dtype.kind not in "fiu":
        raise ParameterError(
            f"landmarks have shape {found.shape} and type {found.dtype}; they must be {rows, components}, "
            "numeric: the place of each row on the map, NaN where it is free."
        )
    with np.errstate(over="ignore"):
        values = np.array(found, np.float32)
    finite, free = np.isfinite(values).all(axis=1), np.isnan(values).all(axis=1)
    odd = np.flatnonzero(~finite & ~free)
    if len(odd):
        raise ParameterError(
            f"landmarks have {len(odd):,} rows with a place that is neither finite in float32 nor NaN in all "
            f"columns; the first is row {odd[0]}. Give whole places, or NaN for rows that are free."
        )
    return Known(values, {**_about(found), "rows": int(finite.sum())}) if finite.any() else None


def _as_text(labels: Array) -> Array:
    """Return names as text, and -1, as None and NaN, for rows without; other objects as they are."""
    plain = [UNLABELLED if _is_gap(one) else one for one in labels.ravel().tolist()]
    if all(isinstance(one, Real | np.bool_) for one in plain):  # as of a frame that had gaps
        return np.array(plain).reshape(labels.shape)
    named = all(isinstance(one, str) or (isinstance(one, Real) and one == UNLABELLED) for one in plain)
    return np.array(plain, str).reshape(labels.shape) if named else labels


def _is_gap(label: Any) -> bool:
    """Return whether an object says that there is no label: None, NaN, or pandas' NA, which has no truth."""
    try:
        return label is None or bool(label != label)
    except TypeError:
        return True
    except ValueError:  # an array where a label should be
        return False


def _as_integers(labels: Array) -> Array:
    """Return bools and whole numbers as integers, NaN as -1; numbers that are not whole as they are."""
    known = np.nan_to_num(labels.astype(np.float64), nan=UNLABELLED, posinf=0.5, neginf=0.5)
    whole = (known == np.rint(known)) & (np.abs(known) <= LARGEST // 2)
    return known.astype(np.int64) if whole.all() else labels


def in_memory(name: str, values: Any) -> Array:
    """Return values that lie in memory, in a NumPy file or in a Zarr array, of any shape and type."""
    if isinstance(values, str | Path):
        values = _load(name, values) if str(values).endswith(".npy") else open_node(values)
    if isinstance(values, zarr.Group):
        raise ParameterError(f"{name} is a Zarr group; name the array in it.")
    if isinstance(values, np.ma.MaskedArray):
        raise ParameterError(f"{name} is a masked array; pass values.filled of what stands for none.")
    try:
        return np.asarray(values[...] if isinstance(values, zarr.Array) else values)
    except ValueError as error:  # lists of unequal lengths
        raise ParameterError(f"{name} is no array ({error}). Give one value, or place, a row.") from error


def _load(name: str, path: str | Path) -> Array:
    try:
        found: Array = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise ParameterError(
            f"{name} cannot be read from {path} ({error}). Name a file of numpy.save with numbers or text, "
            "not objects, or a Zarr array."
        ) from error
    return found


def _about(values: Array) -> dict[str, Any]:
    return {"digest": hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]}
