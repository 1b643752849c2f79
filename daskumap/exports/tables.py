"""Maps as tables and arrays: parquet, csv and npy, written block by block."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from daskumap.errors import ParameterError
from daskumap.exports.files import whole_file
from daskumap.extras import load
from daskumap.store.labels import BLOCK_ROWS, TEXT, Column
from daskumap.store.trouble import is_url
from daskumap.views import Mapped

Array = np.ndarray[Any, Any]

# What programs that draw maps look for.
AXES = ("x", "y", "z")


def write_parquet(run: Mapped, target: Any, *, overwrite: bool, columns: Sequence[str] | None = None) -> Any:
    """Write the map and the labels as a parquet file, a row group a block."""
    pyarrow, parquet = (load(name, "tables", "A parquet file") for name in ("pyarrow", "pyarrow.parquet"))
    names, labels = names_of(run, columns), labels_beside(run, columns)
    kinds = {name: _arrow_type(pyarrow, column) for name, column in labels.items()}
    kinds = {name: pyarrow.float32() for name in names} | kinds
    schema = pyarrow.schema(list(kinds.items()))
    with whole_file(target, overwrite) as path, parquet.ParquetWriter(path, schema) as writer:
        for block, beside in blocks_of(run, labels):
            parts = [*np.ascontiguousarray(block.T), *beside.values()]
            arrays = [pyarrow.array(part, kind) for part, kind in zip(parts, kinds.values(), strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
    return target if is_url(target) else Path(target)


def write_csv(run: Mapped, target: Any, *, overwrite: bool, columns: Sequence[str] | None = None) -> Any:
    """Write the labels and the map as text, with a header; of places as many digits as tell them apart."""
    names, labels = names_of(run, columns), labels_beside(run, columns)
    delimiter = "\t" if str(target).lower().endswith(".tsv") else ","
    with whole_file(target, overwrite) as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow([*labels, *names])
        for block, beside in blocks_of(run, labels):
            places = block.astype(str).T.tolist()  # the shortest text that is this float32 again
            writer.writerows(zip(*(part.tolist() for part in _printed(beside)), *places, strict=True))
    return target if is_url(target) else Path(target)


def write_npy(run: Mapped, target: Any, *, overwrite: bool) -> Any:
    """Write the map as an array of NumPy's, (n, n_components) float32."""
    embedding = run.embedding
    with whole_file(target, overwrite) as path:
        out = np.lib.format.open_memmap(path, "w+", np.float32, embedding.shape)
        for start in range(0, len(out), BLOCK_ROWS):
            out[start : start + BLOCK_ROWS] = embedding[start : start + BLOCK_ROWS]
        out.flush()
        del out
    return target if is_url(target) else Path(target)


def names_of(run: Mapped, columns: Sequence[str] | None) -> list[str]:
    """Return the names of the columns of a map: x, y and z, or umap_0 and so on."""
    width = run.embedding.shape[1]
    if columns is None:
        return list(AXES[:width]) if 2 <= width <= len(AXES) else [f"umap_{axis}" for axis in range(width)]
    names = [columns] if isinstance(columns, str) else list(columns)
    if len(names) != width or len(set(names)) != width:
        raise ParameterError(
            f"columns names {names}; the map has {width} columns, each with a name of its own."
        )
    return names


def labels_beside(run: Mapped, columns: Sequence[str] | None) -> dict[str, Column]:
    """Return the labels by names that no column of the map has."""
    taken, found = set(names_of(run, columns)), {}
    for name, column in run.labels.items():
        free = name
        while free in taken:
            free = f"{free}_label"
        taken.add(free)
        found[free] = column
    return found


def blocks_of(run: Mapped, labels: dict[str, Column]) -> Iterator[tuple[Array, dict[str, Array]]]:
    """Yield places and labels of consecutive rows."""
    embedding = run.embedding
    for start in range(0, embedding.shape[0], BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, embedding.shape[0])
        beside = {name: column.read(start, stop) for name, column in labels.items()}
        yield np.asarray(embedding[start:stop]), beside


def _printed(beside: dict[str, Array]) -> Iterator[Array]:
    for values in beside.values():
        yield np.datetime_as_string(values) if values.dtype.kind == "M" else values


def _arrow_type(pyarrow: Any, column: Column) -> Any:
    return pyarrow.string() if column.dtype == TEXT else pyarrow.from_numpy_dtype(np.dtype(column.dtype))
