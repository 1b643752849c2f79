"""Where a column of colours is: an array, a label of the run, or a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.errors import ParameterError, SourceNotFoundError
from daskumap.extras import load
from daskumap.sources.archives import find_archive
from daskumap.sources.nodes import open_node
from daskumap.store.places import METADATA
from daskumap.store.trouble import is_url


def read_column(color: Any, rows: int, labels: Any = None, called: str = "color") -> Any:
    """Return (rows,) values of what a user names, which are sliced: an array, a label, a column of a file.

    Parameters
    ----------
    color
        An array or a series; a name among `labels`; the path or URL of a Zarr array, such as one beside the
        rows; or the path of a `.npy`, `.csv` or `.parquet` file, with `:COLUMN` behind it where it has
        several.
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
    if is_url(text) or _is_zarr(Path(text)):
        return _read_array(text, called)
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
    there = _columns_of(path, pandas)
    if column is None and len(there) == 1:
        column = there[0]
    if column not in there:
        raise ParameterError(f"{path} has the columns {', '.join(there)}. Name one: {path}:COLUMN.")
    # Of this column alone: the vectors may be beside it.
    if path.suffix == ".csv":
        return pandas.read_csv(path, usecols=[column])[column]
    return pandas.read_parquet(path, columns=[column]).reset_index()[column]


def _columns_of(path: Path, pandas: Any) -> list[str]:
    if path.suffix == ".csv":
        return list(map(str, pandas.read_csv(path, nrows=0).columns))
    dataset = load("pyarrow.dataset", "tables", "Reading a table")
    return list(dataset.dataset(path, format="parquet").schema.names)


def _is_zarr(path: Path) -> bool:
    return any((path / name).exists() for name in METADATA) or bool(find_archive(str(path)))


def _read_array(text: str, called: str) -> Any:
    found: Any = open_node(text)
    if not hasattr(found, "shape"):
        arrays = ", ".join(sorted(found.array_keys())) or "no arrays"
        raise ParameterError(f"{called} is the Zarr group {text}. Name one of its arrays: it has {arrays}.")
    return found[...]
