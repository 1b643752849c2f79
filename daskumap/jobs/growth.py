"""A store that grows: its new rows are placed into the map, until they are too unlike those that made it."""

from __future__ import annotations

from collections.abc import Iterator
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
    place = find_place(folder_of(run))
    names = Documents(place.store(), "", place.url).members("") if place.is_occupied() else []
    found = sorted(_parsed(run, name.rstrip("/")) for name in names if name.rstrip("/").endswith(ENDING))
    row, chain = fitted, []
    for one in found:
        if one.start == row and is_run_store(one.path):
            chain.append(one)
            row = one.stop
    return chain


def new_increment(run: str, start: int, stop: int) -> Increment:
    """Return the increment of some rows."""
    return Increment(start, stop, f"{folder_of(run)}/{start:010d}-{stop:010d}{ENDING}")


def _parsed(run: str, name: str) -> Increment:
    start, _, stop = name.removesuffix(ENDING).partition("-")
    if not (start.isdigit() and stop.isdigit()):
        return Increment(-1, -1, "")
    return Increment(int(start), int(stop), f"{folder_of(run)}/{name}")


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


def delete_folder(run: str) -> None:
    """Delete what is left of the folder of a run's increments."""
    folder, name = split(folder_of(run))
    place = find_place(folder)
    Documents(place.store(), "", place.url).delete_folder(name)
