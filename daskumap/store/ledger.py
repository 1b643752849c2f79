"""The ledger: one record for each finished task, and what was freed since its last reader was done.

A task is done when its record is there, which is written after its data. Neither chunks nor the memory of an
engine can say so: chunks of a half-written array count, and engines die.
"""

from __future__ import annotations

from daskumap.planning.stage import Receipt
from daskumap.store.documents import Documents

FREED = "ledger/freed"


class Ledger:
    """The records of a run store."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents

    def has_begun(self) -> bool:
        """Return whether any task has a record."""
        return bool(self.documents.members("ledger"))

    def record(self, stage: str, task: int, receipt: Receipt) -> None:
        """Write down that a task is done. Call it after the task's data is written."""
        self.documents.save(f"ledger/{stage}/{task:08d}", receipt.as_dict())

    def records(self, stage: str) -> dict[int, Receipt]:
        """Return the receipts of a stage's finished tasks by task number; a damaged one counts as missing."""
        loaded = {
            task: self.documents.load(f"ledger/{stage}/{task:08d}")
            for task in self.documents.numbers(f"ledger/{stage}")
        }
        return {task: Receipt(**receipt) for task, receipt in loaded.items() if receipt is not None}

    def count(self, stage: str) -> int:
        """Return how many tasks of a stage have a record."""
        return len(self.documents.numbers(f"ledger/{stage}"))

    def forget(self, stage: str) -> None:
        """Delete the records of a stage's tasks, so that they run again."""
        for task in self.documents.numbers(f"ledger/{stage}"):
            self.documents.delete(f"ledger/{stage}/{task:08d}.json")

    def freed(self) -> set[str]:
        """Return the names of the items that were deleted, or are about to be, since no step needs them."""
        return set(self.documents.load(FREED) or ())

    def set_freed(self, names: set[str]) -> None:
        """Write down which items are gone on purpose; before they are deleted."""
        self.documents.save(FREED, sorted(names))
