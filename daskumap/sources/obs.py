"""Columns of the tables of an AnnData, `obs` and `var`, as labels: read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import zarr

from daskumap.errors import ParameterError
from daskumap.store.labels import BLOCK_ROWS, TEXT, Column, InMemory, Labels, Read, as_labels

Array = np.ndarray[Any, Any]

# What text is stored with, beside what numbers are; others may make objects.
TEXT_CODECS = {"vlen-utf8", "bytes", "blosc", "zstd", "gzip", "zlib", "lz4", "sharding_indexed", "crc32c"}
LISTED = 12


class Columns(Mapping[str, Column]):
    """Columns by name; those that are in no known way are left out.

    Parameters
    ----------
    names
        What there may be.
    opens
        Returns the column of a name, or None.
    """

    def __init__(self, names: Callable[[], list[str]], opens: Callable[[str], Column | None]) -> None:
        self._names, self._opens = names, opens

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._names() and self._opens(name) is not None

    def __getitem__(self, name: str) -> Column:
        found = self._opens(name) if name in self._names() else None
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._names() if self._opens(name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def stored_columns(table: Any) -> Columns:
    """Return the columns of a table that AnnData wrote to Zarr or HDF5; None has none."""
    index = index_name(table)

    def names() -> list[str]:
        order = () if table is None else table.attrs.get("column-order", ())
        return [str(name) for name in order if str(name) != index and str(name) in table]

    return Columns(names, lambda name: stored_column(table[name]))


def index_name(table: Any) -> str:
    """Return the name of the column of a stored table that names its rows."""
    return "" if table is None else str(table.attrs.get("_index", "_index"))


def stored_names(table: Any) -> Column | None:
    """Return the names of the rows of a stored table; None where they are in no known way."""
    name = index_name(table)
    return stored_column(table[name]) if table is not None and name in table else None


def stored_column(node: Any) -> Column | None:
    """Return one column; None where it is in no known way."""
    encoding = str(getattr(node, "attrs", {}).get("encoding-type", ""))
    if encoding == "categorical":
        codes, categories = _plain(node, "codes"), _plain(node, "categories")
        return None if codes is None or categories is None else _categorical(codes, as_labels(categories[:]))
    if encoding.startswith("nullable-"):
        values, mask = _plain(node, "values"), _plain(node, "mask")
        return None if values is None or mask is None else _nullable(values, mask, encoding)
    return None if not _is_plain(node) else _as_stored(node)


def _plain(group: Any, name: str) -> Any:
    return group[name] if name in group and _is_plain(group[name]) else None


def _is_plain(node: Any) -> bool:
    """Return whether it is a vector of which nothing makes other objects than text."""
    if not hasattr(node, "shape") or len(node.shape) != 1:
        return False
    return not isinstance(node, zarr.Array) or makes_text_only(node)


def makes_text_only(array: zarr.Array[Any]) -> bool:
    """Return whether nothing that decodes it makes other objects than text."""
    if array.metadata.zarr_format == 2:
        codecs = [*(array.filters or ()), *(array.compressors or ())]
        names = {str(getattr(codec, "codec_id", codec)) for codec in codecs}
    else:
        names = {str(codec.to_dict()["name"]).removeprefix("numcodecs.") for codec in array.metadata.codecs}
    return names <= TEXT_CODECS


def _as_stored(node: Any) -> Column:
    dtype = str(as_labels(node[:1]).dtype) if node.dtype.kind in "iufb" else TEXT
    return Read(int(node.shape[0]), dtype, lambda start, stop: node[start:stop])


def _categorical(codes: Any, categories: Array) -> Column:
    """Return classes by their texts; what is in none is None."""
    texts = np.array([*as_labels(categories.astype(object)).tolist(), None], object)

    def read(start: int, stop: int) -> Array:
        found: Array = texts[np.asarray(codes[start:stop])]  # -1 is the last
        return found

    return Read(int(codes.shape[0]), TEXT, read)


def _nullable(values: Any, mask: Any, encoding: str) -> Column:
    """Return integers as floats, all else as texts, of which some may be missing."""
    dtype = "float64" if encoding == "nullable-integer" else TEXT

    def read(start: int, stop: int) -> Array:
        found = np.asarray(values[start:stop]).astype("float64" if dtype != TEXT else object)
        found[np.asarray(mask[start:stop], bool)] = np.nan if dtype != TEXT else None
        return found

    return Read(int(values.shape[0]), dtype, read)


def columns_in_memory(table: Any) -> Columns:
    """Return the columns of a frame of pandas', whose categories are classes by their texts."""
    return Columns(
        lambda: [name for name in table.columns if isinstance(name, str)], lambda n: _series(table[n])
    )


def _series(series: Any) -> Column | None:
    if getattr(series, "ndim", 1) != 1:
        return None  # two columns of one name
    if type(series.dtype).__name__ == "CategoricalDtype":
        return _categorical(series.cat.codes.to_numpy(), series.cat.categories.to_numpy())
    if series.dtype.kind in "iu" and series.isna().any():
        return InMemory(series.to_numpy(np.float64, na_value=np.nan))
    return InMemory(series.to_numpy(object) if series.dtype.kind == "O" else series.to_numpy())


def chosen_columns(columns: Mapping[str, Column], labels: Any, name: str) -> dict[str, Column]:
    """Return those of a table that the option `labels` names: one, or several.

    Raises
    ------
    ParameterError
        Listing what there is.
    """
    names = [labels] if isinstance(labels, str) else labels
    if not isinstance(names, list | tuple) or not all(isinstance(one, str) for one in names):
        raise ParameterError(f"labels is {labels!r}; it must be the name of a column of obs, or several.")
    for one in names:
        if one not in columns:
            raise ParameterError(f"{name} has no obs/{one}. {listed(columns)}")
    return {one: columns[one] for one in names}


def listed(columns: Mapping[str, Any]) -> str:
    """Say which columns there are."""
    names = list(columns)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"obs has {', '.join(names[:LISTED])}{more}." if names else "obs has no columns."


def refuse_other_names(ours: Column, names: Any, where: str) -> None:
    """Compare the names of cells with those that came with a run's input.

    Raises
    ------
    ParameterError
        Naming the first that differs.
    """
    for start in range(0, len(names), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(names))
        known = np.asarray(ours.read(start, stop)).astype(str)
        there = np.asarray(names[start:stop]).astype(str)
        other = np.flatnonzero(known != there)
        if len(other):
            row = int(other[0])
            raise ParameterError(
                f"{where} has other cells than the run: cell {start + row} is {str(there[row])!r} there "
                f"and was {str(known[row])!r}. Name the AnnData that was fitted, its cells in their order."
            )


def as_label(column: Column | None, name: str) -> Labels:
    """Return a column as labels of one name; none where there is no such column."""
    return {} if column is None else {name: column}
