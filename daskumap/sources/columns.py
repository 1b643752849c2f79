"""Which columns of a table are the vectors, and which ones are labels, by Arrow's schema; their values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from daskumap.errors import SourceError
from daskumap.sources.base import FLOATS_AND_MORE, Array
from daskumap.store.labels import TEXT

LISTED = 12
# What pandas calls an index without a name.
INDEX = "__index_level_"


class Chosen(NamedTuple):
    """Columns of a table.

    Attributes
    ----------
    vectors
        The column of lists, or columns of a number each.
    is_list
        Whether it is one column of lists.
    labels
        Columns that become labels, with their types there.
    """

    vectors: tuple[str, ...]
    is_list: bool
    labels: dict[str, str]


def choose(schema: Any, columns: Any, labels: Any, name: str) -> Chosen:
    """Return what is meant by the options, or else by the types of the columns.

    Without `columns` it is the one column of lists of numbers; where there is none, all columns, which have
    to be numbers. Without `labels` these are all other columns that hold a text, a number or a time.

    Parameters
    ----------
    schema
        Arrow's.
    name
        Of the table, for messages.

    Raises
    ------
    SourceError
        If the columns leave a choice, or are no numbers.
    """
    fields = {field.name: field.type for field in schema}
    if len(fields) < len(schema):
        raise SourceError(f"{name} has two columns of one name. Rename one of them.")
    index = [column for column in _index_of(schema) if column in fields]
    vectors = _matching(columns, fields, name) if columns is not None else _guess(fields, index, name)
    lists = [column for column in vectors if is_list(fields[column])]
    if lists and len(vectors) > 1:
        raise SourceError(
            f"{name}: the columns {', '.join(vectors[:LISTED])} are lists and numbers mixed, or several "
            "lists. Choose one column of lists, or columns of numbers: columns='embedding'."
        )
    number = fields[vectors[0]].value_type if lists else None
    for column in vectors:
        if not is_number(number if number is not None else fields[column]):
            raise SourceError(
                f"{name}: the column {column!r} holds {fields[column]}; allowed are {FLOATS_AND_MORE}, and "
                "lists of these. Choose others with columns, or cast it first."
            )
    others = [column for column in fields if column not in vectors]
    beside = others if labels is None else _matching(labels, fields, name) if labels else []
    kinds = {column: label_type(fields[column]) for column in beside}
    if labels is not None and None in kinds.values():
        wrong = next(column for column, kind in kinds.items() if kind is None)
        raise SourceError(
            f"{name}: the column {wrong!r} holds {fields[wrong]}, and labels are texts, numbers or times. "
            "Leave it out of labels."
        )
    return Chosen(tuple(vectors), bool(lists), {c: kind for c, kind in kinds.items() if kind is not None})


def shown(column: str) -> str:
    """Return what a column of labels is called: that of an index of pandas without a name, index."""
    level = column.removeprefix(INDEX).rstrip("_")
    if not column.startswith(INDEX) or not level.isdigit():
        return column
    return "index" if level == "0" else f"index_{level}"


def is_list(kind: Any) -> bool:
    """Return whether a type of Arrow's is one of lists."""
    return str(kind).startswith(("list<", "large_list<", "fixed_size_list<"))


def is_number(kind: Any) -> bool:
    """Return whether values of a type of Arrow's can be read as float32."""
    return str(kind) in NUMBERS


NUMBERS = {
    "bool": "bool",
    "halffloat": "float16",
    "float": "float32",
    "double": "float64",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def number_type(kind: Any) -> np.dtype[Any]:
    """Return NumPy's type for one of Arrow's."""
    return np.dtype(NUMBERS[str(kind)])


def label_type(kind: Any) -> str | None:
    """Return the type that labels have; None for what makes none."""
    name = str(kind)
    if name in NUMBERS:
        return NUMBERS[name]
    if name.startswith("timestamp["):
        return f"datetime64[{name[10:].split(',')[0].rstrip(']')}]"
    if name == "date32[day]":
        return "datetime64[D]"
    if name.startswith("duration["):
        return f"timedelta64{name[8:]}"
    texts = ("string", "large_string", "string_view", "decimal", "dictionary<", "time32", "time64", "date64")
    return TEXT if name.startswith(texts) and "list" not in name else None


def vectors_of(table: Any, chosen: Chosen, width: int, start: int, name: str) -> Array:
    """Return the vectors of a table, (rows, width), in the types that they have.

    Parameters
    ----------
    start
        The number of its first row, for messages.

    Raises
    ------
    SourceError
        Naming rows without a value, or with another number of values.
    """
    parts = [_values(table.column(column), width, start, name, chosen) for column in chosen.vectors]
    if chosen.is_list:
        return parts[0]
    out = np.empty((table.num_rows, width), np.result_type(*parts))
    for place, part in enumerate(parts):
        out[:, place] = part[:, 0]
    return out


def labels_of(column: Any, kind: str) -> Array:
    """Return the labels of a column, of the type that `label_type` said, or float64 where numbers lack."""
    if kind == TEXT:
        values = np.empty(len(column), object)
        values[:] = column.to_pylist()
        return values
    found: Array = np.asarray(column.to_numpy())
    return found


def _values(column: Any, width: int, start: int, name: str, chosen: Chosen) -> Array:
    """Return the numbers of a column of Arrow's, (rows, width); refuse what is missing."""
    _refuse_missing(column, start, name)
    parts, row = [np.empty((0, width), _number(column, chosen))], start
    for chunk in column.chunks:
        if not chosen.is_list:
            parts.append(_plain(chunk).reshape(-1, 1))
        elif len(chunk):
            parts.append(_of_lists(chunk, width, row, name))
        row += len(chunk)
    return parts[1] if len(parts) == 2 else np.concatenate(parts)


def _number(column: Any, chosen: Chosen) -> np.dtype[Any]:
    return number_type(column.type.value_type if chosen.is_list else column.type)


def _of_lists(chunk: Any, width: int, row: int, name: str) -> Array:
    """Return the values of lists of one length."""
    counts = (
        np.full(len(chunk), chunk.type.list_size)
        if str(chunk.type).startswith("fixed")
        else np.diff(np.asarray(chunk.offsets))
    )
    other = np.flatnonzero(counts != width)
    if len(other):
        raise SourceError(
            f"Row {row + other[0]} of {name} has {counts[other[0]]} values, and row 0 has {width}. All rows "
            "need the same number: pad or drop such rows first."
        )
    values = chunk.flatten()
    _refuse_missing(values, row, name, width)
    return _plain(values).reshape(-1, width)


def _plain(values: Any) -> Array:
    """Return an array of Arrow's without missing values as one of NumPy's."""
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _refuse_missing(values: Any, start: int, name: str, width: int = 1) -> None:
    if values.null_count:
        row = start + int(np.flatnonzero(np.asarray(values.is_null()))[0]) // width
        raise SourceError(
            f"Row {row} of {name} has a null, and rows must be complete. Drop or fill such rows first."
        )


def _guess(fields: dict[str, Any], index: Sequence[str], name: str) -> list[str]:
    """Return the columns that are the vectors where nobody says so."""
    lists = [column for column, kind in fields.items() if is_list(kind) and is_number(kind.value_type)]
    if len(lists) == 1:
        return lists
    if lists:
        raise SourceError(
            f"{name} has {len(lists)} columns of lists: {', '.join(lists[:LISTED])}. Choose one, such as "
            f"columns={lists[0]!r} (--source-option columns={lists[0]})."
        )
    found = [column for column in fields if column not in index]
    wrong = [f"{column} ({fields[column]})" for column in found if not is_number(fields[column])]
    numbers = [column for column in found if is_number(fields[column])]
    if wrong and numbers:
        raise SourceError(
            f"{name} has columns that are not numbers: {', '.join(wrong[:LISTED])}. Choose those that are "
            f"the vectors with columns, such as columns={numbers[:3]}; * and ? stand for any letters."
        )
    if not numbers:
        raise SourceError(
            f"{name} has no column of numbers or of lists of numbers. It has {', '.join(wrong[:LISTED])}."
        )
    return numbers


def _matching(patterns: Any, fields: dict[str, Any], name: str) -> list[str]:
    """Return the columns that are named, in the order asked for; * and ? stand for any letters."""
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else list(patterns):
        fitting = [pattern] if pattern in fields else [c for c in fields if fnmatchcase(c, str(pattern))]
        fitting = fitting or [c for c in fields if shown(c) == pattern]
        if not fitting:
            raise SourceError(
                f"{name} has no column {pattern!r}. It has {', '.join(list(fields)[:LISTED])}"
                f"{', ...' if len(fields) > LISTED else ''}."
            )
        found += [column for column in fitting if column not in found]
    if not found:
        raise SourceError(f"{name}: no columns are chosen. Leave the option out, or name some.")
    return found


def _index_of(schema: Any) -> list[str]:
    """Return the columns that were the index of a frame of pandas, as it says itself."""
    try:
        about = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
        return [column for column in about.get("index_columns", ()) if isinstance(column, str)]
    except (ValueError, AttributeError):
        return []
