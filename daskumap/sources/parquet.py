"""Parquet files, and folders of them: row groups are decoded one at a time."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from daskumap.errors import DaskumapError, SourceError
from daskumap.extras import load
from daskumap.secrets import printable
from daskumap.sources.archives import is_references
from daskumap.sources.base import BLOCK_BYTES, Array, Source, check_array
from daskumap.sources.columns import choose, labels_of, number_type, shown, vectors_of
from daskumap.sources.files import Files, ends_in, expanded
from daskumap.sources.nodes import open_node
from daskumap.store.labels import TEXT, Read

log = logging.getLogger(__name__)

ENDINGS = (".parquet", ".pq")
# Row groups above this are not decoded again for each read: the run copies the rows once, as they stream by.
GROUP_BYTES = 128 << 20
# What the decoder and Arrow's allocator hold beside the values of a row group. Measured: 20 to 60 MB.
DECODER_BYTES = 64 << 20


class Group(NamedTuple):
    """A row group: its file, its number there, and its rows, from `start` on."""

    file: int
    number: int
    start: int
    rows: int


class ParquetSource(Source):
    """Vectors in parquet: one column of lists, or columns of numbers, and all other columns as labels.

    Parameters
    ----------
    where
        A file, or a folder, whose files are read in the order of their names.
    columns
        The column of lists, or the columns of numbers; * and ? stand for any letters.
    labels
        Columns that become labels; None for all others that hold texts, numbers or times.
    """

    def __init__(
        self,
        where: Any,
        columns: Any = None,
        labels: Any = None,
        storage_options: dict[str, Any] | None = None,
    ) -> None:
        self._arrow = load("pyarrow", "tables", "A parquet file")
        self._parquet = load("pyarrow.parquet", "tables", "A parquet file")
        self._files = Files(where, storage_options)
        self._names = self._files.below(*ENDINGS)
        if not self._names:
            raise SourceError(f"{self._files.path} is a folder without files {' or '.join(ENDINGS)}.")
        self._footers = [self._footer(name) for name in self._names]
        self._versions = [self._files.version(name) for name in self._names]
        self._groups = [
            Group(file, number, 0, footer.row_group(number).num_rows)
            for file, footer in enumerate(self._footers)
            for number in range(footer.num_row_groups)
            if footer.row_group(number).num_rows
        ]
        self._ends = np.cumsum([group.rows for group in self._groups], dtype=np.int64)
        self._groups = [
            group._replace(start=int(end) - group.rows)
            for group, end in zip(self._groups, self._ends, strict=True)
        ]
        if not self._groups:
            raise SourceError(f"{self._files.path} has no rows. At least one is needed.")
        schema = self._schema()
        self._chosen = choose(schema, columns, labels, self._files.path)
        self._options = {
            name: value for name, value in (("columns", columns), ("labels", labels)) if value is not None
        }
        shape = int(self._ends[-1]), self._width(schema)
        kinds = [schema.field(column).type for column in self._chosen.vectors]
        numbers = [kind.value_type if self._chosen.is_list else kind for kind in kinds]
        array = _Like(shape, np.result_type(*map(number_type, numbers)))
        check_array(array, self._files.path)
        super().__init__(array, self._files.path, max(group.rows for group in self._groups))
        self._group_bytes = self.block_rows * shape[1] * self.dtype.itemsize
        self.copied = self._group_bytes > GROUP_BYTES
        if self.copied:
            self.block_rows = 1
            log.info(
                "%s has row groups of %d MB: its rows are copied into the run first. `daskumap convert` "
                "does that once for all runs.",
                self.name,
                self._group_bytes >> 20,
            )
        self.labels = {
            shown(column): Read(shape[0], self._label_type(column, kind), partial(self._label, column, kind))
            for column, kind in self._chosen.labels.items()
        }

    @property
    def in_place(self) -> bool:  # type: ignore[override]
        """Whether rows are read where they are; those of large row groups are copied."""
        return not self.copied

    def read_bytes(self, rows: int) -> int:
        """Return the bytes of the rows, and thrice those of a row group: encoded, decoded, together."""
        group = min(self._group_bytes, BLOCK_BYTES) if self.copied else self._group_bytes
        return rows * self.shape[1] * 4 + 3 * group + DECODER_BYTES

    def blocks(self) -> Iterator[Array]:
        """Return all rows as blocks, each row group decoded once, and a part of it at a time."""
        step = max(1, BLOCK_BYTES // (self.shape[1] * self.dtype.itemsize))
        for group in self._groups:
            row = group.start
            with self._opened(group) as file:
                try:
                    batches = file.iter_batches(
                        step, [group.number], list(self._chosen.vectors), use_threads=False
                    )
                    for batch in batches:
                        block = self._block(self._arrow.Table.from_batches([batch]), row)
                        row += len(block)
                        yield block
                except (DaskumapError, MemoryError, GeneratorExit):
                    raise
                except Exception as error:
                    raise self._damage(group, error) from printable(error)

    def fingerprint_rows(self) -> int:
        """Return how many scattered rows can be read at little cost: each decodes a row group."""
        return min(super().fingerprint_rows(), 2 if self.copied else max(2, GROUP_BYTES // self._group_bytes))

    def identity(self) -> dict[str, Any]:
        """Return the fingerprint of the rows, and that of the files."""
        layout = [
            [Path(name).name, footer.num_rows]
            for name, footer in zip(self._names, self._footers, strict=True)
        ]
        digest = hashlib.sha256(json.dumps(layout).encode()).hexdigest()
        return super().identity() | {"metadata": digest}

    def _spec(self) -> dict[str, Any] | None:
        if self.copied:
            return None
        return {"kind": "parquet", "path": self._files.path, "options": dict(self._options)}

    def _read(self, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
        out = np.empty((stop - start, self.shape[1]), dtype)
        for group in self._touched(start, stop):
            low, high = max(start, group.start), min(stop, group.start + group.rows)
            table = self._table(group, list(self._chosen.vectors))
            block = self._block(table.slice(low - group.start, high - low), low)
            self._cast(block, out[low - start : high - start], low)
        return out

    def _block(self, table: Any, start: int) -> Array:
        block = vectors_of(table, self._chosen, self.shape[1], start, self._files.path)
        return block.astype(self.dtype, copy=False)

    def _label(self, column: str, kind: str, start: int, stop: int) -> Array:
        parts = []
        for group in self._touched(start, stop):
            low, high = max(start, group.start), min(stop, group.start + group.rows)
            table = self._table(group, [column]).slice(low - group.start, high - low)
            parts.append(labels_of(table.column(column), kind))
        return np.concatenate(parts) if parts else np.empty(0, object)

    def _label_type(self, column: str, kind: str) -> str:
        """Return the type of labels: numbers of which some lack are floats, and booleans texts."""
        if kind[0] not in "iub":
            return kind
        if all(self._is_whole(group, column) for group in self._groups):
            return kind
        return TEXT if kind == "bool" else "float64"

    def _is_whole(self, group: Group, column: str) -> bool:
        footer = self._footers[group.file].row_group(group.number)
        places = [i for i in range(footer.num_columns) if footer.column(i).path_in_schema == column]
        known = footer.column(places[0]).statistics if places else None
        return known is not None and known.has_null_count and known.null_count == 0

    def _touched(self, start: int, stop: int) -> list[Group]:
        first, last = np.searchsorted(self._ends, [start, stop - 1], "right").tolist()
        return self._groups[first : last + 1] if stop > start else []

    def _table(self, group: Group, columns: list[str]) -> Any:
        with self._opened(group) as file:
            try:
                return file.read_row_group(group.number, columns, use_threads=False)
            except MemoryError:
                raise
            except Exception as error:
                raise self._damage(group, error) from printable(error)

    def _opened(self, group: Group) -> Any:
        """Open the file of a row group, by the footer that is known: it must be the one that was there."""
        name = self._names[group.file]
        try:
            if self._files.version(name) != self._versions[group.file]:
                raise SourceError(
                    f"{name} was written anew since it was opened. Start again, with a file that stays."
                )
            return self._parquet.ParquetFile(self._files.readable(name), metadata=self._footers[group.file])
        except OSError as error:
            raise self._damage(group, error) from printable(error)

    def _damage(self, group: Group, error: Exception) -> SourceError:
        end = group.start + group.rows
        return SourceError(
            f"Rows {group.start} to {end} of {self.name} cannot be read: row group {group.number} of "
            f"{self._names[group.file]} fails with {type(error).__name__}: {error}. Restore the file from a "
            "copy, or write it again."
        )

    def _footer(self, name: str) -> Any:
        try:
            with self._files.open(name) as file:
                return self._parquet.read_metadata(file)
        except FileNotFoundError:
            open_node(name)  # It says what is near.
            raise
        except Exception as error:
            raise SourceError(
                f"{name} is no parquet file, or a damaged one ({type(error).__name__}: {error}). Restore it "
                "from a copy, or write it again."
            ) from printable(error)

    def _schema(self) -> Any:
        """Return the schema, which all files have to share."""
        first = self._footers[0].schema.to_arrow_schema()
        for name, footer in zip(self._names, self._footers, strict=True):
            other = footer.schema.to_arrow_schema()
            if _difference(first, other):
                raise SourceError(
                    f"{name} has other columns than {self._names[0]}: {_difference(first, other)}. Files of "
                    "a folder need the same columns and types: write them again, or name one file."
                )
        return first

    def _width(self, schema: Any) -> int:
        """Return the number of columns: of lists, as many as the first row has."""
        if not self._chosen.is_list:
            return len(self._chosen.vectors)
        (column,) = self._chosen.vectors
        kind = schema.field(column).type
        if hasattr(kind, "list_size"):
            return int(kind.list_size)
        first = self._groups[0]
        with self._opened(first) as file:
            try:
                batch = next(file.iter_batches(1, [first.number], [column], use_threads=False))
            except Exception as error:
                raise self._damage(first, error) from printable(error)
        value = batch.column(0)[0].as_py()
        if not value:
            raise SourceError(
                f"Row 0 of {self._files.path} has no values in {column!r}, and rows must be complete. Drop "
                "or fill such rows first."
            )
        return len(value)


class _Like(NamedTuple):
    shape: tuple[int, int]
    dtype: np.dtype[Any]


def is_parquet(data: Any) -> bool:
    """Return whether it is a path or URL of parquet, or a folder with such files and no Zarr."""
    if ends_in(data, *ENDINGS):
        return not (_is_zarr(data) or is_references(data))
    return _is_folder_of_parquet(data)


def _is_zarr(data: Any) -> bool:
    path = expanded(data)
    return any((path / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


def _is_folder_of_parquet(data: Any) -> bool:
    if not isinstance(data, str | Path) or "://" in str(data):
        return False
    path = expanded(data)
    try:
        if not path.is_dir() or _is_zarr(path):
            return False
        return any(entry.suffix.lower() in ENDINGS for entry in path.iterdir()) or any(
            found.is_file() for ending in ENDINGS for found in path.glob(f"*=*/*{ending}")
        )
    except OSError:
        return False


def _difference(one: Any, other: Any) -> str:
    known = {field.name: str(field.type) for field in one}
    there = {field.name: str(field.type) for field in other}
    wrong = [name for name in {**known, **there} if known.get(name) != there.get(name)]
    return ", ".join(f"{name} is {there.get(name)} and not {known.get(name)}" for name in wrong[:5])
