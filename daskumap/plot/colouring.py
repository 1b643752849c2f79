"""What `color=` means: a class or a value for each row, as colours and as what the legend says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.errors import ParameterError, SourceNotFoundError
from daskumap.extras import load
from daskumap.report.colours import CIVIDIS, MOST_CLASSES, of_classes, ramp
from daskumap.report.paint import Colouring
from daskumap.report.picture import Theme

Array = np.ndarray[Any, Any]

# Integers of more kinds than this are values, of fewer classes.
FEW_INTEGERS = 64
LEVELS = 256
# Rows of small classes count more where they share pixels with large ones, up to so many times.
MOST_WEIGHT = 64


@dataclass(frozen=True)
class Coloured:
    """Colours of rows, and what they mean.

    Attributes
    ----------
    names, counts
        Of classes, in their sorted order; empty for values.
    span
        Of values, the lowest and the highest of the colour bar.
    """

    colouring: Colouring
    names: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    span: tuple[float, float] | None = None


def read_column(color: Any, rows: int, labels: Any = None) -> Array:
    """Return (rows,) values of what a user names: an array, a column of the run's labels, or a file.

    Parameters
    ----------
    color
        An array or a series; a name among `labels`; or the path of a `.npy`, `.csv` or `.parquet` file, with
        `:COLUMN` behind it where it has several.
    labels
        Mapping of the run's columns, or None.

    Raises
    ------
    ParameterError
        If it has another number of rows, or is no such name or file.
    """
    if isinstance(color, str | os.PathLike):
        text = os.fspath(color)
        own = getattr(labels, "labels", labels)
        # A file goes before the columns of an input, which need not be where it was.
        named = labels is not None and (text in own or (_file_of(text) is None and text in labels))
        color = labels[text] if named else _read_file(text, labels)
    found = np.asarray(color)
    if found.shape == (rows, 1):
        found = found[:, 0]
    if found.shape != (rows,):
        raise ParameterError(
            f"color has the shape {found.shape}; one value for each of {rows:,} rows is needed."
        )
    return found


def _file_of(text: str) -> tuple[Path, str | None] | None:
    """Return the file that a text names, and the column in it; None where there is no such file."""
    before, _, column = text.rpartition(":")
    if Path(text).exists():
        return Path(text), None
    return (Path(before), column) if before and Path(before).exists() else None


def _read_file(text: str, labels: Any) -> Any:
    found = _file_of(text)
    if found is None:
        names = (
            []
            if labels is None
            else list({**dict.fromkeys(labels), **dict.fromkeys(getattr(labels, "more", ()))})
        )
        known = (
            f" The run has the columns {', '.join(names)}." if names else " The run has no columns of labels."
        )
        raise SourceNotFoundError(f"color is {text!r}, which is no file and no column of the run.{known}")
    path, column = found
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    if path.suffix not in (".csv", ".parquet"):
        raise ParameterError(f"color is the file {path}; allowed are .npy, .csv and .parquet.")
    pandas = load("pandas", "tables", "Reading a table")
    frame = pandas.read_csv(path) if path.suffix == ".csv" else pandas.read_parquet(path)
    if column is None and frame.shape[1] == 1:
        column = frame.columns[0]
    if column not in frame.columns:
        raise ParameterError(
            f"{path} has the columns {', '.join(map(str, frame.columns))}. Name one: {path}:COLUMN."
        )
    return frame[column]


def coloured(color: Any, rows: int, labels: Any, theme: Theme) -> Coloured:
    """Return the colours of rows: classes for texts, booleans and few integers, values for all others.

    Arguments are those of `read_column`; colours that are known already stay.
    """
    if isinstance(color, Coloured):
        return color
    values = read_column(color, rows, labels)
    is_text = values.dtype.kind in "OUSTb"
    if is_text or (values.dtype.kind in "iu" and len(np.unique(values)) <= FEW_INTEGERS):
        return _of_classes(values, theme)
    if values.dtype.kind not in "iuf":
        raise ParameterError(f"color holds {values.dtype}; allowed are texts, integers, floats and bool.")
    return _of_values(values.astype(np.float64), theme)


def _of_classes(values: Array, theme: Theme) -> Coloured:
    missing = _missing(values)
    texts = np.array([str(value) for value in values.tolist()]) if values.dtype.kind == "O" else values
    found, codes, counts = np.unique(texts[~missing], return_inverse=True, return_counts=True)
    if len(found) > MOST_CLASSES:
        raise ParameterError(
            f"color has {len(found):,} classes; at most {MOST_CLASSES} can be told apart. Merge some, or "
            "pass numbers to be drawn as values."
        )
    shown = np.full(len(values), -1, np.int64)
    shown[~missing] = codes
    weights = np.clip(np.rint(np.sqrt(counts.max(initial=1) / counts)), 1, MOST_WEIGHT).astype(np.int64)
    palette = of_classes(len(found), theme.ground)
    colouring = Colouring(shown, palette, theme.unlabelled, counts, weights)
    return Coloured(colouring, tuple(map(str, found.tolist())), tuple(counts.tolist()))


def _missing(values: Array) -> Array:
    if values.dtype.kind == "O":
        return np.array([value is None or value != value for value in values.tolist()], np.bool_)
    return values < 0 if values.dtype.kind == "i" else np.zeros(len(values), np.bool_)


def _of_values(values: Array, theme: Theme) -> Coloured:
    known = np.isfinite(values)
    if not known.any():
        raise ParameterError("color has no finite value.")
    # Single outliers do not use up the colours.
    low, high = (float(v) for v in np.quantile(values[known], (0.002, 0.998)))
    if low == high:
        low, high = float(values[known].min()), float(values[known].max())
    share = (np.where(known, values, low) - low) / max(high - low, np.finfo(float).tiny)
    codes = np.where(known, np.clip(share * (LEVELS - 1), 0, LEVELS - 1).astype(np.int64), -1)
    palette = np.rint(ramp(CIVIDIS, np.linspace(0, 1, LEVELS))).astype(np.uint8)
    return Coloured(Colouring(codes, palette, theme.unlabelled), span=(low, high))
