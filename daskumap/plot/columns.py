"""Where a column of colours is: an array, a label of the run, or a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.errors import ParameterError, SourceNotFoundError
from daskumap.extras import load


def read_column(color: Any, rows: int, labels: Any = None, called: str = "color") -> Any:
    """Return (rows,) values of what a user names, which are sliced: an array, a label, a column of a file.

    Parameters
    ----------
    color
        An array or a series; a name among `labels`; or the path of a `.npy`, `.csv` or `.parquet` file, with
        `:COLUMN` behind it where it has several.
    labels
        Mapping of the run's columns, or None.
    called
        The argument's name, for messages.

    Raises
    ------
    ParameterError
        If it has another number of rows, or is no such name or file.
    """
    if isinstance(color, str | os.PathLike):
        text = os.fspath(color)
        named = _is_column(text, labels)
        color = labels[text] if named else _read_file(text, labels, called)
        if named and len(color) == rows:
            return color
    found = np.asarray(color)
    if found.shape == (rows, 1):
        found = found[:, 0]
    if found.shape != (rows,):
        raise ParameterError(
            f"{called} has the shape {found.shape}; one value for each of {rows:,} rows is needed."
        )
    return found


def name_of(color: Any, labels: Any = None) -> str:
    """Return what a column is called: the label, the column of a file or the file, the name of a series."""
    if not isinstance(color, str | os.PathLike):
        return str(getattr(color, "name", None) or "colour")
    text = os.fspath(color)
    if _is_column(text, labels):
        return text
    before, _, column = text.rpartition(":")
    return column if before and not Path(text).exists() else Path(text).stem


def _is_column(text: str, labels: Any) -> bool:
    """Return whether a column is meant: a label, or what an input says of its rows, unless it is a file.

    So a file is read though an input is not where it was.
    """
    if labels is None:
        return False
    return text in getattr(labels, "labels", labels) or (_file_of(text) is None and text in labels)


def _file_of(text: str) -> tuple[Path, str | None] | None:
    """Return the file that a text names, and the column in it; None where there is no such file."""
    before, _, column = text.rpartition(":")
    if Path(text).exists():
        return Path(text), None
    return (Path(before), column) if before and Path(before).exists() else None


def _read_file(text: str, labels: Any, called: str) -> Any:
    found = _file_of(text)
    if found is None:
        names = [] if labels is None else list(dict.fromkeys([*labels, *getattr(labels, "more", ())]))
        known = (
            f" The run has the columns {', '.join(names)}." if names else " The run has no columns of labels."
        )
        raise SourceNotFoundError(f"{called} is {text!r}, which is no file and no column of the run.{known}")
    path, column = found
    if path.suffix == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    if path.suffix not in (".csv", ".parquet"):
        raise ParameterError(f"{called} is the file {path}; allowed are .npy, .csv and .parquet.")
    pandas = load("pandas", "tables", "Reading a table")
    frame = pandas.read_csv(path) if path.suffix == ".csv" else pandas.read_parquet(path)
    if column is None and frame.shape[1] == 1:
        column = frame.columns[0]
    if column not in frame.columns:
        raise ParameterError(
            f"{path} has the columns {', '.join(map(str, frame.columns))}. Name one: {path}:COLUMN."
        )
    return frame[column]
