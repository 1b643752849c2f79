"""Exchange: how records move from the tasks that make them to the tasks that need them.

Each task of the sender writes one *batch*: its records sorted by destination, column by column, with a table
of offsets. A destination then reads its slice of every batch. A destination range of any width is a
contiguous slice of each batch, so readers choose their own range, and there are as many objects as batches,
never batches times destinations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import zarr

from daskumap.store.arrays import create_array
from daskumap.store.chunks import write_rows
from daskumap.store.run import RunStore, read_range
from daskumap.store.schema import Exchange

Array = np.ndarray[Any, Any]
# Columns of records, each (r,) or (r, width), by name.
Records = dict[str, Array]
# Type and width of each column; width 0 is a vector.
Columns = dict[str, tuple[str, int]]

MANY_BATCHES, TOGETHER = 64, 8


def batch_name(exchange: Exchange, task: int) -> str:
    """Return the name of a task's batch."""
    return f"{exchange.name}/{task:08d}"


def chunk_rows(exchange: Exchange, row_bytes: int) -> int:
    """Return how many rows make a chunk of a column."""
    return max(1, exchange.chunk_bytes // max(1, row_bytes))


def _together(function: Callable[[int], Any], batches: list[int]) -> Iterator[Any]:
    """Yield function(batch) for each batch in order, a few at a time where there are many.

    Requests to a store far away wait for one another otherwise: tasks x batches of them decide at 10^8 rows
    (docs/scaling.md). Of many batches each slice is small, so that those on the way take little memory.
    """
    if len(batches) < MANY_BATCHES:
        yield from map(function, batches)
        return
    with ThreadPoolExecutor(TOGETHER, thread_name_prefix="daskumap-exchange") as pool:
        ahead = deque(pool.submit(function, batch) for batch in batches[:TOGETHER])
        for batch in batches[TOGETHER:]:
            yield ahead.popleft().result()
            ahead.append(pool.submit(function, batch))
        while ahead:
            yield ahead.popleft().result()


class BatchWriter:
    """Writes one task's batch; call `write` in the order of destinations, then `close`."""

    def __init__(self, store: RunStore, exchange: Exchange, task: int, rows: int, columns: Columns) -> None:
        self.store, self.exchange, self.name = store, exchange, batch_name(exchange, task)
        self.arrays: dict[str, zarr.Array[Any]] = {}
        for name, (dtype, width) in columns.items():
            step = chunk_rows(exchange, np.dtype(dtype).itemsize * max(1, width))
            shape, chunks = ((rows, width), (step, width)) if width else ((rows,), (step,))
            self.arrays[name] = create_array(store.arrays, f"{self.name}/{name}", shape, chunks, dtype)

    def write(self, name: str, values: Array, start: int = 0) -> None:
        """Write consecutive rows of a column, from row `start`, a multiple of its chunk unless at the end."""
        write_rows(self.arrays[name], (start,), values)

    def step(self, name: str) -> int:
        """Return the number of rows in a chunk of a column."""
        return int(self.arrays[name].chunks[0])

    def close(self, offsets: Array) -> None:
        """Write the table of offsets: destination d has the rows offsets[d] to offsets[d + 1]."""
        array = create_array(
            self.store.arrays,
            f"{self.name}/{self.exchange.offsets}",
            offsets.shape,
            (self.exchange.offsets_a_chunk,),
            "int64",
        )
        write_rows(array, (0,), offsets)


class BatchReader:
    """Reads slices of the batches of an exchange, for the destinations first to last - 1."""

    def __init__(
        self,
        store: RunStore,
        exchange: Exchange,
        batches: int,
        columns: tuple[str, ...],
        first: int,
        last: int,
    ) -> None:
        """Open the batches and read their offsets: those asked for, since all may not fit in memory."""
        self.first, self.columns = first, columns

        def open_(task: int) -> tuple[list[zarr.Array[Any]], Array]:
            batch = batch_name(exchange, task)
            offsets = store.read(f"{batch}/{exchange.offsets}", first, last + 1)
            return [store.array(f"{batch}/{name}") for name in columns], offsets

        opened = list(_together(open_, list(range(batches))))
        self.arrays = [arrays for arrays, _ in opened]
        self.offsets = [offsets for _, offsets in opened]

    def count(self, first: int, last: int) -> int:
        """Return how many records are for the destinations first to last - 1."""
        first, last = first - self.first, last - self.first
        return int(sum(table[last] - table[first] for table in self.offsets))

    def slices(self, first: int, last: int, *columns: str) -> Iterator[Records]:
        """Yield each batch's records, unless it has none, for the destinations first to last - 1.

        All columns unless some are named.
        """
        first, last = first - self.first, last - self.first
        some = [batch for batch, table in enumerate(self.offsets) if table[last] > table[first]]
        places = {name: place for place, name in enumerate(self.columns) if name in (columns or self.columns)}

        def load(batch: int) -> Records:
            start, stop = (int(self.offsets[batch][place]) for place in (first, last))
            arrays = self.arrays[batch]
            return {name: read_range(arrays[place], start, stop) for name, place in places.items()}

        yield from _together(load, some)

    def read(self, first: int, last: int) -> Records:
        """Return all records for the destinations first to last - 1, batch after batch."""
        total = self.count(first, last)
        columns = [np.empty((total, *array.shape[1:]), array.dtype) for array in self.arrays[0]]
        at = 0
        for records in self.slices(first, last):
            size = len(records[self.columns[0]])
            for column, piece in zip(columns, records.values(), strict=True):
                column[at : at + size] = piece
            at += size
        return dict(zip(self.columns, columns, strict=True))
