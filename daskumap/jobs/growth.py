"""A store that grows: its new rows are placed into the map, until they are too unlike those that made it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from daskumap.store.documents import Documents
from daskumap.store.places import find_place
from daskumap.store.run import is_run_store

# A row is far where so large a share of the fitted rows is nearer to its neighbours than it is to its own:
# of rows like the fitted ones a twentieth is.
FAR = 0.95
BLOCK_ROWS = 1 << 20
ENDING = ".zarr"
RANGE = re.compile(rf"(\d+)-(\d+){re.escape(ENDING)}")


def split(path: str) -> tuple[str, str]:
    """Return the folder of a path or URL, and the name in it."""
    folder, _, name = path.rstrip("/").rpartition("/")
    return folder or ".", name


class Increment(NamedTuple):
    """New rows that were placed at a time: which ones, and where their places are."""

    start: int
    stop: int
    path: str

    @property
    def name(self) -> str:
        """What it is called in names of results."""
        return f"new-{self.start:010d}-{self.stop:010d}"


def folder_of(run: str) -> str:
    """Return the folder of the increments of a run, beside it."""
    return f"{run.rstrip('/').removesuffix(ENDING)}.new"


def increments_of(run: str, fitted: int) -> list[Increment]:
    """Return the increments of a run that follow each other from its last fitted row on."""
    row, chain = fitted, []
    for one in sorted(_parsed(path) for path in placed_beside(run)):
        if one.start == row and is_run_store(one.path):
            chain.append(one)
            row = one.stop
    return chain


def placed_beside(run: str) -> list[str]:
    """Return all that is in the folder of a run's increments and may be one, whole or not."""
    folder = folder_of(run)
    place = find_place(folder)
    names = Documents(place.store(), "", place.url).members("") if place.is_occupied() else []
    return [f"{folder}/{name}" for name in (name.rstrip("/") for name in names) if RANGE.fullmatch(name)]


def new_increment(run: str, start: int, stop: int) -> Increment:
    """Return the increment of some rows."""
    return Increment(start, stop, f"{folder_of(run)}/{start:010d}-{stop:010d}{ENDING}")


def _parsed(path: str) -> Increment:
    found = RANGE.fullmatch(split(path)[1])
    assert found is not None
    return Increment(int(found[1]), int(found[2]), path)


def share_far(placed: list[Any]) -> float:
    """Return the share of the new rows that are far from the fitted ones; 0 where there are none."""
    far = rows = 0
    for one in placed:
        for block in _blocks(one.fit_distance):
            far += int(np.count_nonzero(block > FAR))
            rows += len(block)
    return far / rows if rows else 0.0


def _blocks(array: Any) -> Iterator[Any]:
    for start in range(0, array.shape[0], BLOCK_ROWS):
        yield np.asarray(array[start : start + BLOCK_ROWS])


def delete_empty(path: str) -> None:
    """Delete a folder that holds nothing; in a bucket there is none."""
    if "://" not in path:
        with suppress(OSError):
            Path(path).rmdir()
