"""The ledger: one record for each finished task, and what was freed since its last reader was done.

A task is done when its record is there, which is written after its data. Neither chunks nor the memory of an
engine can say so: chunks of a half-written array count, and engines die.

Every driver writes into a folder of its own generation (`store/lock.py`), and what it begins with is one
document: which records of earlier generations hold, and what was freed. So to forget anything is one write,
which has happened or has not, and what a driver writes after another one took over is never read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from daskumap.planning.stage import Receipt
from daskumap.store.documents import Documents

BEGUN, FREED, FINISHED, FAILED = "begun", "freed", "finished", "failed"
# What lies in the ledger of a run: of which generation, and where it is a record, of which step and task.
IN_LEDGER = re.compile(r"ledger/[^/]+/(\d+)/(?:([^/]+)/(\d+)\.json$)?")


class Ledger:
    """The records of one run.

    Parameters
    ----------
    documents
        Of the run store.
    run
        Which run: the store may have held another one, whose records are none.
    """

    def __init__(self, documents: Documents, run: str) -> None:
        self.documents, self.run = documents, run
        self._own: int | None = None
        self._begun: dict[int, dict[str, Any]] = {}

    # -- generations

    def has_begun(self) -> bool:
        """Return whether any driver began with this run."""
        return self.generation() >= 0

    def generation(self) -> int:
        """Return the generation that decides what is done: this driver's, or else the newest; -1 for none."""
        if self._own is not None:
            return self._own
        names = self.documents.members(f"ledger/{self.run}")
        return max((int(name) for name in names if name.isdigit()), default=-1)

    def generations(self) -> list[int]:
        """Return those of the drivers that began with this run."""
        names = self.documents.members(f"ledger/{self.run}")
        return sorted(int(name) for name in names if name.isdigit())

    def begin(self, generation: int, kept: Mapping[str, Iterable[int]], freed: set[str]) -> None:
        """Let a new generation begin, with the records of some tasks by step, and with what was freed."""
        about = {
            "kept": {stage: self._where(stage, set(tasks)) for stage, tasks in kept.items()},
            "freed": sorted(freed),
        }
        self.documents.save(self._name(generation, BEGUN), about)
        self._own, self._begun[generation] = generation, about

    def _where(self, stage: str, tasks: set[int]) -> dict[str, list[list[int]]]:
        """Return for each generation the ranges, first and last, of those of some tasks that it recorded."""
        found: dict[str, list[list[int]]] = {}
        for task, generation in sorted(self.tasks(stage).items()):
            if task in tasks:
                ranges = found.setdefault(str(generation), [])
                if ranges and ranges[-1][1] == task - 1:
                    ranges[-1][1] = task
                else:
                    ranges.append([task, task])
        return found

    def _beginning(self, generation: int) -> dict[str, Any]:
        """Return what a generation began with: nothing where that is damaged, so that all is done again."""
        if generation not in self._begun:
            known = self.documents.load(self._name(generation, BEGUN))
            self._begun[generation] = known or {"kept": {}, "freed": []}
        return self._begun[generation]

    # -- records

    def record(self, stage: str, task: int, receipt: Receipt) -> None:
        """Write down that a task is done. Call it after the task's data is written."""
        generation = self.generation()
        record = {"of": self._identity(generation, stage, task), "receipt": receipt.as_dict()}
        self.documents.save(self._name(generation, stage, task), record)

    def tasks(self, stage: str) -> dict[int, int]:
        """Return which tasks of a step have a record that holds, and the generation that wrote it."""
        newest = self.generation()
        return self._holding(stage, newest, lambda generation: self._numbers(generation, stage))

    def all_tasks(self) -> dict[str, dict[int, int]]:
        """Return the same for each step that has a record: of one listing, where `tasks` needs some."""
        there: dict[int, dict[str, set[int]]] = {}
        for name in self.documents.below(f"ledger/{self.run}"):
            if found := IN_LEDGER.match(name):
                generation, stage, task = found.groups()
                stages = there.setdefault(int(generation), {})
                if stage is not None:
                    stages.setdefault(stage, set()).add(int(task))
        newest = max(there, default=-1) if self._own is None else self._own

        def held(stage: str) -> dict[int, int]:
            return self._holding(stage, newest, lambda number: there.get(number, {}).get(stage, set()))

        return {stage: held(stage) for stage in set[str]().union(*there.values())}

    def _holding(self, stage: str, newest: int, there: Callable[[int], set[int]]) -> dict[int, int]:
        """Return which tasks of a step hold, by what is there of it by generation."""
        if newest < 0:
            return {}
        found: dict[int, int] = {}
        for generation, ranges in self._beginning(newest)["kept"].get(stage, {}).items():
            recorded = there(int(generation))
            kept = (task for first, last in ranges for task in range(first, last + 1))
            found |= {task: int(generation) for task in kept if task in recorded}
        return found | dict.fromkeys(there(newest), newest)

    def records(self, stage: str, tasks: Mapping[int, int] | None = None) -> dict[int, Receipt]:
        """Return the receipts of a step's finished tasks by task number; a damaged one counts as missing.

        Parameters
        ----------
        tasks
            What `tasks` returned for it, where that is known.
        """
        known = (self.tasks(stage) if tasks is None else tasks).items()
        loaded = {task: self._load(generation, stage, task) for task, generation in known}
        return {task: receipt for task, receipt in sorted(loaded.items()) if receipt is not None}

    def receipt(self, stage: str, task: int) -> Receipt | None:
        """Return the receipt of one task, None if it has no record or a damaged one."""
        generation = self.tasks(stage).get(task)
        return None if generation is None else self._load(generation, stage, task)

    def count(self, stage: str) -> int:
        """Return how many tasks of a step have a record."""
        return len(self.tasks(stage))

    def _load(self, generation: int, stage: str, task: int) -> Receipt | None:
        record = self.documents.load(self._name(generation, stage, task))
        if not isinstance(record, dict) or record["of"] != self._identity(generation, stage, task):
            return None
        return Receipt(**record["receipt"])

    def _identity(self, generation: int, stage: str, task: int) -> list[Any]:
        return [self.run, generation, stage, task]

    # -- what was freed, and the end

    def freed(self) -> set[str]:
        """Return the names of the items that were deleted, or are about to be, since no step needs them."""
        generation = self.generation()
        if generation < 0:
            return set()
        now = self.documents.load(self._name(generation, FREED))
        return set(self._beginning(generation)["freed"] if now is None else now)

    def set_freed(self, names: set[str]) -> None:
        """Write down which items are gone on purpose; before they are deleted."""
        self.documents.save(self._name(self.generation(), FREED), sorted(names))

    def finished(self) -> str | None:
        """Return since when nothing is left to do, None if something is: a new generation takes it back."""
        found: str | None = self.documents.load(self._name(self.generation(), FINISHED))
        return found

    def finish(self, now: str) -> None:
        """Write down that nothing is left to do."""
        self.documents.save(self._name(self.generation(), FINISHED), now)

    def failure(self) -> dict[str, str] | None:
        """Return when and by what the newest driver's turn was ended, None if it was not by an error."""
        found: dict[str, str] | None = self.documents.load(self._name(self.generation(), FAILED))
        return found

    def fail(self, now: str, error: str) -> None:
        """Write down what ended this driver's turn."""
        self.documents.save(self._name(self.generation(), FAILED), {"time": now, "error": error})

    def _name(self, generation: int, name: str, task: int | None = None) -> str:
        folder = f"ledger/{self.run}/{generation:08d}/{name}"
        return folder if task is None else f"{folder}/{task:08d}"

    def _numbers(self, generation: int, stage: str) -> set[int]:
        return set(self.documents.numbers(self._name(generation, stage)))
