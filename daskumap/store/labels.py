"""Labels of rows: names, ids, times or numbers that lie beside the map, column by column, block by block."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from daskumap.errors import StoreError
from daskumap.store import schema
from daskumap.store.arrays import create_array
from daskumap.store.run import RunStore

Array = np.ndarray[Any, Any]
Labels = Mapping[str, "Column"]

# Rows of labels that are held at a time, and those of a chunk: texts of 20 letters are 2.6 MB then.
BLOCK_ROWS = 1 << 17
# Says which columns there are, once all of them are written.
COLUMNS = f"{schema.ROW_LABELS}/columns"
TEXT = "text"
PLAIN = re.compile(r"(bool|u?int(8|16|32|64)|float(16|32|64))")
TIME = re.compile(r"(datetime64|timedelta64)\[\w+\]")


class Column(ABC):
    """One label of each row, of which consecutive ones can be read.

    Attributes
    ----------
    dtype
        "text", or a type of NumPy's: booleans, integers, floats, datetime64 or timedelta64 of a unit.
    """

    def __init__(self, rows: int, dtype: str) -> None:
        self.rows, self.dtype = rows, dtype

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, slice) or key.step not in (None, 1):
            return self.read(0, self.rows)[key]
        start, stop, _ = key.indices(self.rows)
        return self.read(start, max(start, stop))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        values = self.read(0, self.rows)
        return values if dtype is None else values.astype(dtype)

    def __repr__(self) -> str:
        return f"<labels of {self.rows:,} rows: {self.dtype}>"

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """Return labels start to stop, (stop - start,): of texts an array of objects, None where missing."""


class InMemory(Column):
    """Labels that are in memory."""

    def __init__(self, values: Any) -> None:
        self._values = as_labels(values)
        super().__init__(len(self._values), dtype_of(self._values))

    def read(self, start: int, stop: int) -> Array:
        """Return labels start to stop."""
        return self._values[start:stop]


class Read(Column):
    """Labels that a function reads, such as those in a file."""

    def __init__(self, rows: int, dtype: str, read: Callable[[int, int], Any]) -> None:
        super().__init__(rows, dtype)
        self._read = read

    def read(self, start: int, stop: int) -> Array:
        """Return labels start to stop."""
        values = as_labels(self._read(start, stop))
        return values if self.dtype == TEXT else values.astype(self.dtype)


class Stored(Column):
    """Labels that lie in a run store."""

    def __init__(self, store: RunStore, name: str, rows: int, dtype: str) -> None:
        super().__init__(rows, dtype)
        self._store, self._name = store, name

    def read(self, start: int, stop: int) -> Array:
        """Return labels start to stop."""
        if self.dtype != TEXT:
            values = self._store.read(self._name, start, stop)
            return values.view(self.dtype) if TIME.fullmatch(self.dtype) else values
        if start == stop:
            return np.empty(0, object)
        blocks = range(start // BLOCK_ROWS, (stop - 1) // BLOCK_ROWS + 1)
        values = np.concatenate([self._texts(block) for block in blocks])
        first = blocks[0] * BLOCK_ROWS
        return values[start - first : stop - first]

    def _texts(self, block: int) -> Array:
        content = self._store.read(f"{self._name}/{block:08d}/letters").tobytes()
        ends = self._store.read(f"{self._name}/{block:08d}/ends")
        places = np.where(ends < 0, ~ends, ends)
        starts = np.append(0, places[:-1])
        texts = np.empty(len(ends), object)
        texts[:] = [
            None if end < 0 else content[low:high].decode()
            for end, low, high in zip(ends.tolist(), starts.tolist(), places.tolist(), strict=True)
        ]
        return texts


def as_labels(values: Any) -> Array:
    """Return values as an array of a type that labels have: what is no number and no time becomes text."""
    found: Array = np.asarray(values)
    if found.dtype.kind == "T":
        found = found.astype(object)
    if found.dtype.kind == "S":
        found = np.char.decode(found, "utf-8", "replace")
    if dtype_of(found) != TEXT:
        return found.astype(found.dtype.newbyteorder("="), copy=False)
    texts = np.empty(len(found), object)
    texts[:] = [_text(value) for value in found.tolist()]
    return texts


def dtype_of(values: Array) -> str:
    """Return the type of labels by which they are stored."""
    kind = values.dtype.newbyteorder("=")
    known = PLAIN.fullmatch(kind.name) or TIME.fullmatch(kind.name)
    return kind.name if known else TEXT


def _text(value: Any) -> str | None:
    try:
        missing = value is None or bool(value != value)  # NaN and NaT stand for what is missing
    except TypeError:  # pandas.NA, which is neither true nor false
        missing = True
    if missing:
        return None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def write_labels(store: RunStore, labels: Labels) -> None:
    """Write the labels of a run's rows into its run store, unless they are there; a block at a time."""
    if store.documents.load(COLUMNS) is not None or not labels:
        return
    columns = []
    for number, (label, column) in enumerate(labels.items()):
        name = f"{schema.ROW_LABELS}/{number}"  # A label may be called anything.
        (write_texts if column.dtype == TEXT else _write_numbers)(store, name, column)
        columns.append({"label": label, "name": name, "rows": len(column), "dtype": column.dtype})
    store.documents.save(COLUMNS, columns)


def read_labels(store: RunStore) -> dict[str, Column]:
    """Return the labels that lie in a run store, none read yet."""
    known = store.documents.load(COLUMNS) if store.ledger.has_begun() else None
    return {
        column["label"]: Stored(store, column["name"], column["rows"], column["dtype"])
        for column in known or ()
    }


def find_damaged_labels(store: RunStore) -> list[str]:
    """Return what is wrong with the labels in a run store, all of which are read."""
    found = []
    for label, column in read_labels(store).items():
        try:
            for start in range(0, len(column), BLOCK_ROWS):
                column.read(start, min(start + BLOCK_ROWS, len(column)))
        except (StoreError, ValueError) as error:
            found.append(f"labels {label!r}: {error}")
    return found


def _write_numbers(store: RunStore, name: str, column: Column) -> None:
    timed = TIME.fullmatch(column.dtype)
    dtype = "int64" if timed else column.dtype
    target = create_array(store.arrays, name, (len(column),), (BLOCK_ROWS,), dtype)
    for start in range(0, len(column), BLOCK_ROWS):
        values = column.read(start, min(start + BLOCK_ROWS, len(column)))
        target[start : start + len(values)] = values.view(np.int64) if timed else values


def write_texts(store: RunStore, name: str, column: Column) -> None:
    """Write a column of texts, which `Stored` reads again."""
    for block, start in enumerate(range(0, len(column), BLOCK_ROWS)):
        texts = column.read(start, min(start + BLOCK_ROWS, len(column)))
        content = [b"" if text is None else text.encode("utf-8", "replace") for text in texts.tolist()]
        ends = np.cumsum([len(part) for part in content], dtype=np.int64)
        missing = np.array([text is None for text in texts.tolist()], bool)
        # A missing text is told by the complement of its end.
        store.put(f"{name}/{block:08d}/ends", np.where(missing, ~ends, ends))
        store.put(f"{name}/{block:08d}/letters", np.frombuffer(b"".join(content) or b"\0", np.uint8))
