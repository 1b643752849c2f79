"""Exchange: how records move from the tasks that make them to the tasks that need them.

Each source task writes one *run*: its records sorted by destination, column by column, with a table of
offsets. A destination then reads its slice of every run. A destination range of any width is a contiguous
slice of each run, so readers choose their own range, and there are as many objects as runs, never sources
times destinations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import zarr

from daskumap.store.run import RunStore, create_array, read_rows

# Small enough that a slice of a run reads little beside itself, large enough that a request is worth making.
CHUNK_BYTES = 1 << 20
MANY_RUNS, TOGETHER = 64, 8


def chunk_rows(row_bytes: int) -> int:
    """Return how many rows make a chunk of about one MiB."""
    return max(1, CHUNK_BYTES // max(1, row_bytes))


def _together(function: Callable[[int], Any], runs: list[int]) -> Iterator[Any]:
    """Yield function(run) for each run in order, a few at a time where there are many.

    Requests to a store far away wait for one another otherwise: tasks x runs of them decide at 10^8 rows
    (docs/scaling.md). Of many runs each slice is small, so that those on the way take little memory.
    """
    if len(runs) < MANY_RUNS:
        yield from map(function, runs)
        return
    with ThreadPoolExecutor(TOGETHER, thread_name_prefix="daskumap-exchange") as pool:
        ahead = deque(pool.submit(function, run) for run in runs[:TOGETHER])
        for run in runs[TOGETHER:]:
            yield ahead.popleft().result()
            ahead.append(pool.submit(function, run))
        while ahead:
            yield ahead.popleft().result()


class RunWriter:
    """Writes one source task's run; call `append` in the order of destinations, then `close`."""

    def __init__(
        self, store: RunStore, exchange: str, task: int, rows: int, columns: dict[str, tuple[str, int]]
    ) -> None:
        """Create the run's arrays; `columns` maps a name to its dtype and width (0 for a vector)."""
        self.store, self.name = store, f"{exchange}/{task:08d}"
        self.arrays: dict[str, zarr.Array[Any]] = {}
        for name, (dtype, width) in columns.items():
            step = chunk_rows(np.dtype(dtype).itemsize * max(1, width))
            shape, chunks = ((rows, width), (step, width)) if width else ((rows,), (step,))
            self.arrays[name] = create_array(store.group, f"{self.name}/{name}", shape, chunks, dtype)

    def write(self, name: str, values: np.ndarray[Any, Any], start: int = 0) -> None:
        """Write consecutive rows of a column, from row `start`, a multiple of its chunk unless at the end."""
        self.arrays[name][start : start + len(values)] = values

    def step(self, name: str) -> int:
        """Return the number of rows in a chunk of a column."""
        return int(self.arrays[name].chunks[0])

    def close(self, offsets: np.ndarray[Any, Any]) -> None:
        """Write the table of offsets: destination d has the rows offsets[d] to offsets[d + 1]."""
        array = create_array(self.store.group, f"{self.name}/offsets", offsets.shape, (1 << 13,), "int64")
        array[:] = offsets


class RunReader:
    """Reads slices of the runs of an exchange, for the destinations first to last - 1."""

    def __init__(
        self, store: RunStore, exchange: str, tasks: int, columns: tuple[str, ...], first: int, last: int
    ) -> None:
        """Open the runs and read their offsets: those asked for, since all of them may not fit in memory."""
        self.first = first

        def open_(task: int) -> tuple[list[zarr.Array[Any]], np.ndarray[Any, Any]]:
            run = f"{exchange}/{task:08d}"
            return [store.array(f"{run}/{name}") for name in columns], store.read(
                f"{run}/offsets", first, last + 1
            )

        runs = list(_together(open_, list(range(tasks))))
        self.arrays = [arrays for arrays, _ in runs]
        self.offsets = [offsets for _, offsets in runs]

    def count(self, first: int, last: int) -> int:
        """Return how many records are for the destinations first to last - 1."""
        first, last = first - self.first, last - self.first
        return int(sum(table[last] - table[first] for table in self.offsets))

    def slices(self, first: int, last: int) -> Iterator[tuple[np.ndarray[Any, Any], ...]]:
        """Yield the columns of each run's records for the destinations first to last - 1."""
        first, last = first - self.first, last - self.first
        some = [run for run, table in enumerate(self.offsets) if table[last] > table[first]]

        def load(run: int) -> tuple[np.ndarray[Any, Any], ...]:
            start, stop = (int(self.offsets[run][place]) for place in (first, last))
            return tuple(read_rows(array, start, stop) for array in self.arrays[run])

        yield from _together(load, some)

    def read(self, first: int, last: int) -> tuple[np.ndarray[Any, Any], ...]:
        """Return the columns of all records for the destinations first to last - 1, run after run."""
        total = self.count(first, last)
        columns = [np.empty((total, *array.shape[1:]), array.dtype) for array in self.arrays[0]]
        at = 0
        for part in self.slices(first, last):
            for column, piece in zip(columns, part, strict=True):
                column[at : at + len(piece)] = piece
            at += len(part[0])
        return tuple(columns)
