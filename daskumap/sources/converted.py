"""Rows and labels as `daskumap convert` writes them: a Zarr group with the array X, and one array a label."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from daskumap.errors import SourceError
from daskumap.sources.base import Array, Labelled, Source
from daskumap.sources.whole import whole_chunks
from daskumap.store.labels import BLOCK_ROWS, TEXT, Column, Read

KEY = "daskumap_conversion"
ROWS = "X"
# As in a run store: a file costs little, and so does a scattered row.
CHUNK_BYTES = 4 << 20
# Zarr's own has no checksum, and a flipped bit would be another number.
CODEC = ZstdCodec(level=1, checksum=True)


def is_converted(data: Any) -> bool:
    """Return whether it is a group that a conversion wrote."""
    about: Any = data.attrs.get(KEY) if isinstance(data, zarr.Group) else None
    return isinstance(about, dict) and "conversion" in about


def open_converted(group: zarr.Group) -> Labelled:
    """Return the rows of a conversion, and their labels.

    Raises
    ------
    SourceError
        If it was cut short.
    """
    about: Any = group.attrs[KEY]
    if about["conversion"] != "whole":
        raise SourceError(
            f"The conversion in {group.store_path} was cut short, and not all rows are there. Convert again, "
            "with --overwrite."
        )
    labels = {
        label["label"]: Read(
            label["rows"], label["dtype"], partial(_stored, group[label["name"]], label["dtype"])
        )
        for label in about["labels"]
    }
    return Labelled(group[ROWS], labels)


def write_converted(source: Source, group: zarr.Group) -> None:
    """Write all rows of a source, block by block, and their labels, into an empty group."""
    group.attrs[KEY] = {"conversion": "unfinished", "labels": []}
    rows, columns = source.shape
    step = max(1, min(rows, CHUNK_BYTES // (columns * source.dtype.itemsize)))
    target = group.create_array(
        ROWS, shape=source.shape, chunks=(step, columns), dtype=source.dtype, compressors=CODEC
    )
    row = 0
    for part in whole_chunks(source.blocks(), step):
        target[row : row + len(part)] = part
        row += len(part)
    labels = [
        _write_label(group, f"labels/{number}", label, column)
        for number, (label, column) in enumerate(source.labels.items())
    ]
    group.attrs[KEY] = {"conversion": "whole", "labels": labels}


def _write_label(group: zarr.Group, name: str, label: str, column: Column) -> dict[str, Any]:
    timed = column.dtype.startswith(("datetime64", "timedelta64"))
    kind: Any = "string" if column.dtype == TEXT else "int64" if timed else column.dtype
    array = group.create_array(name, shape=(len(column),), chunks=(min(BLOCK_ROWS, len(column)),), dtype=kind)
    array.attrs["label"] = label
    for start, values in _blocks(column):
        if column.dtype == TEXT:
            values = np.array(["" if text is None else text for text in values.tolist()], object)
        array[start : start + len(values)] = values.view(np.int64) if timed else values
    return {"label": label, "name": name, "rows": len(column), "dtype": column.dtype}


def _blocks(column: Column) -> Iterator[tuple[int, Array]]:
    for start in range(0, len(column), BLOCK_ROWS):
        yield start, column.read(start, min(start + BLOCK_ROWS, len(column)))


def _stored(array: Any, dtype: str, start: int, stop: int) -> Array:
    values = np.asarray(array[start:stop])
    if dtype == TEXT:
        return values.astype(object)
    return values.view(dtype) if dtype.startswith(("datetime64", "timedelta64")) else values
