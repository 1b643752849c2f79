"""Frames in memory: of pandas, Polars and Arrow. Their numbers become rows, their index labels."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from daskumap.errors import SourceError
from daskumap.extras import load
from daskumap.sources.base import FLOATS_AND_MORE, Array, is_numeric
from daskumap.sources.columns import choose, labels_of, shown, vectors_of
from daskumap.sources.memory import MemorySource, as_numpy
from daskumap.sources.objects import comes_from
from daskumap.store.labels import Column, InMemory

LISTED = 12


def is_frame(data: Any) -> bool:
    """Return whether it is a frame of pandas or Polars, or a table of Arrow."""
    kinds = (("pandas", "DataFrame"), ("polars", "DataFrame"), ("pyarrow", "Table"))
    return any(comes_from(data, *kind) for kind in kinds) and hasattr(data, "columns")


def open_frame(data: Any, columns: Any = None, labels: Any = None) -> MemorySource:
    """Return the source of a frame.

    Parameters
    ----------
    columns
        The columns of numbers, or the column of lists; * and ? stand for any letters. None for all columns,
        which have to be numbers then, or the only column of lists.
    labels
        Columns that become labels beside the index; None for all others, where `columns` says which are not.

    Raises
    ------
    SourceError
        Naming columns that are not numbers, or have missing values.
    """
    if comes_from(data, "pandas"):
        return _of_pandas(data, columns, labels)
    return _of_arrow(data, columns, labels)


def _of_arrow(data: Any, columns: Any, labels: Any) -> MemorySource:
    name = f"The {type(data).__module__.partition('.')[0]} {type(data).__name__}"
    if hasattr(data, "to_arrow"):
        numbers = all(kind.is_numeric() for kind in data.dtypes) and not any(data.null_count().row(0))
        if columns is None and numbers and len(data):
            return MemorySource(as_numpy(data))  # which needs no other library
        load("pyarrow", "tables", f"{name} with columns of lists or of texts")
        data = data.to_arrow()
    if data.num_rows == 0:
        raise SourceError(f"{name} has no rows. At least one is needed.")
    chosen = choose(data.schema, columns, labels, name)
    width = len(chosen.vectors)
    if chosen.is_list:
        first = data.column(chosen.vectors[0])[0].as_py()
        if not first:
            raise SourceError(
                f"Row 0 of {name} has no values, and rows must be complete. Drop such rows first."
            )
        width = len(first)
    found = MemorySource(vectors_of(data, chosen, width, 0, name))
    found.labels = {
        shown(column): InMemory(labels_of(data.column(column), kind))
        for column, kind in chosen.labels.items()
    }
    return found


def _of_pandas(data: Any, columns: Any, labels: Any) -> MemorySource:
    if not data.columns.is_unique:
        raise SourceError("The DataFrame has two columns of one name. Rename one of them.")
    if 0 in data.shape:
        raise SourceError(
            f"The DataFrame is empty: its shape is {data.shape}. At least one row and one column are needed."
        )
    names = list(data.columns)
    chosen = names if columns is None else _matching(columns, names)
    wrong = [name for name in chosen if not _is_number(data[name].dtype)]
    lists = [name for name in wrong if _has_lists(data[name])]
    if len(lists) == 1 and (len(chosen) == 1 or columns is None):
        chosen, values = lists, _stacked(data[lists[0]])
    elif wrong:
        raise _not_numbers(data, chosen, wrong)
    else:
        values = _numbers(data[chosen])
    found = MemorySource(values)
    beside = [name for name in names if name not in chosen] if labels is None else _matching(labels, names)
    found.labels = {
        **_index_of(data.index),
        **{str(name): InMemory(data[name].array) for name in beside if not _has_lists(data[name])},
    }
    return found


def _numbers(frame: Any) -> Array:
    """Return columns of numbers as an array; refuse those of pandas' own types that lack values."""
    for name in frame.columns:
        if not isinstance(frame[name].dtype, np.dtype) and frame[name].isna().any():
            row = int(np.flatnonzero(frame[name].isna().to_numpy())[0])
            raise SourceError(
                f"Row {row} of the DataFrame lacks a value in {name!r}, and rows must be complete. Drop or "
                "fill such rows first: data.dropna()."
            )
    kinds = [_as_numpy(dtype) for dtype in frame.dtypes]
    values: Array = frame.to_numpy(np.result_type(*kinds))
    return values


def _is_number(dtype: Any) -> bool:
    return is_numeric(_as_numpy(dtype))


def _as_numpy(dtype: Any) -> Any:
    """Return the type of the numbers: pandas has some that may lack values, and sparse ones."""
    return getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype))


def _has_lists(column: Any) -> bool:
    """Return whether a column of objects holds a list or an array in its first row."""
    first = column.iloc[0] if len(column) and column.dtype == object else None
    return isinstance(first, list | tuple | np.ndarray)


def _stacked(column: Any) -> Array:
    """Return a column of lists or arrays as rows of one length."""
    rows = [np.asarray(value if value is not None else ()) for value in column]
    width = len(rows[0])
    for number, row in enumerate(rows):
        if row.shape != (width,) or not width:
            raise SourceError(
                f"Row {number} of column {column.name!r} has the shape {row.shape}, and row 0 has {width} "
                "values. All rows need the same number: pad or drop such rows first."
            )
    return np.stack(rows)


def _index_of(index: Any) -> dict[str, Column]:
    """Return the levels of an index as labels; none of one that only counts."""
    if comes_from(index, "pandas", "RangeIndex") and (index.start, index.step) == (0, 1):
        return {}
    levels = [index.get_level_values(level) for level in range(index.nlevels)]
    plain = ["index" if len(levels) == 1 else f"index_{level}" for level in range(len(levels))]
    return {
        str(name if values.name is None else values.name): InMemory(values.array)
        for name, values in zip(plain, levels, strict=True)
    }


def _not_numbers(data: Any, chosen: list[Any], wrong: list[Any]) -> SourceError:
    listed = ", ".join(f"{name} ({data[name].dtype})" for name in wrong[:LISTED])
    numbers = [name for name in chosen if name not in wrong]
    remedy = (
        f"Choose those that are the vectors: daskumap.source(data, columns={numbers[:3]}), or pass "
        "data.select_dtypes('number')"
        if numbers
        else f"Allowed are {FLOATS_AND_MORE}"
    )
    return SourceError(f"The DataFrame has columns that are not numbers: {listed}. {remedy}.")


def _matching(patterns: Any, names: list[Any]) -> list[Any]:
    found: list[Any] = []
    for pattern in patterns if isinstance(patterns, list | tuple) else [patterns]:
        fitting = [pattern] if pattern in names else [n for n in names if fnmatchcase(str(n), str(pattern))]
        if not fitting:
            listed = ", ".join(map(str, names[:LISTED]))
            raise SourceError(f"The DataFrame has no column {pattern!r}. It has {listed}.")
        found += [name for name in fitting if name not in found]
    return found
