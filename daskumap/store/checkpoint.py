"""Checkpoints: the state of an ordered step after each of its tasks.

Each task has a place of its own for it, so that whoever writes there, however late, writes the bits that are
there already. The task's record holds a digest of every chunk, and who reads a chunk compares it: no other
task's state passes for this one's, nor a damaged or missing chunk for a whole one.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from daskumap.errors import StoreError
from daskumap.planning.stage import Output, Receipt
from daskumap.store.chunks import write_rows
from daskumap.store.run import RunStore
from daskumap.store.schema import Checkpoints
from daskumap.store.trouble import is_out_of_reach

Array = np.ndarray[Any, Any]
# Digests of chunks in their order, by part.
Digests = dict[str, list[int]]

# So many stay, so that where the last one is lost, as by a power cut, the one before it is there.
KEPT = 2


class Checkpoint:
    """The state after one task.

    Parameters
    ----------
    task
        Number of the task.
    output
        Shape, chunks and type of each part.
    """

    def __init__(self, store: RunStore, item: Checkpoints, task: int, output: Output) -> None:
        self.store, self.item, self.task, self.output = store, item, task, output

    def write(self, start: int, parts: dict[str, Array]) -> Digests:
        """Write whole chunks of each part from row `start` on, and return their digests."""
        for part, values in parts.items():
            write_rows(self.store.create(self._array(part)), (start,), values)
        step = self.output.chunks[0]
        return {
            part: [_digest(values[at : at + step]) for at in range(0, len(values), step)]
            for part, values in parts.items()
        }

    def read(self, part: str, start: int, stop: int) -> Array:
        """Return whole chunks of a part, each compared with the task's record.

        A chunk at a time: at once, all would be held read and decoded.

        Raises
        ------
        StoreError
            If they are not what the task wrote.
        """
        receipt = self.store.ledger.receipt(self.item.name, self.task)
        if receipt is None:
            raise self._damaged("it has no record")
        name, step = self._array(part).name, self.output.chunks[0]
        out = np.empty((stop - start, *self.output.shape[1:]), self.output.dtype)
        for at in range(start, stop, step):
            end = min(stop, at + step)
            out[at - start : end - start] = self.store.read(name, at, end)
            if _digest(out[at - start : end - start]) != receipt.found[part][at // step]:
                raise self._damaged(f"{part}, rows {at} to {end - 1}, are not what was written")
        return out

    def damage(self) -> list[str]:
        """Return what is wrong with the state; all of it is read."""
        if not self.store.documents.members(f"{self.item.name}/{self.task:08d}"):
            return [f"{self.item.name}/{self.task:08d} is missing"]
        found = []
        for part in self.item.parts:
            for at in range(0, self.output.shape[0], self.output.chunks[0]):
                try:
                    self.read(part, at, min(self.output.shape[0], at + self.output.chunks[0]))
                except StoreError as error:
                    if is_out_of_reach(error):
                        raise
                    found.append(f"{self._array(part).name}: {error}")
        return found

    def _array(self, part: str) -> Output:
        name = f"{self.item.name}/{self.task:08d}/{part}"
        return Output(name, self.output.shape, self.output.chunks, self.output.dtype)

    def _damaged(self, why: str) -> StoreError:
        return StoreError(
            f"The checkpoint of '{self.item.name}' after task {self.task} in {self.store.url} is damaged: "
            f"{why}. `daskumap resume` goes back to one that is whole, or to the start."
        )


def delete_before(store: RunStore, item: Checkpoints, task: int, lasting: frozenset[int]) -> None:
    """Delete the checkpoints that a task's own makes superfluous, but for those that later steps need."""
    for name in store.documents.members(item.name):
        if name.isdigit() and int(name) <= task - KEPT and int(name) not in lasting:
            store.documents.delete_folder(f"{item.name}/{name}")


def unbroken(receipts: dict[int, Receipt]) -> dict[int, Receipt]:
    """Return the receipts of an ordered step up to the first that is missing: what is later is done again."""
    whole = next((task for task in range(len(receipts)) if task not in receipts), len(receipts))
    return {task: receipts[task] for task in range(whole)}


def _digest(values: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data)
