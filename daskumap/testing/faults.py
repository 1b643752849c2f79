"""Faults on a schedule, and witnesses: which task was run how often.

>>> # The third attempt succeeds.
>>> schedule = {("calibrate", 0): (RuntimeError("first"), RuntimeError("second"))}
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from daskumap.engine.base import Engine, Listener
from daskumap.plan.job import Job
from daskumap.plan.stage import Receipt, Stage

Attempts = Sequence[Exception | None]


class Fault(RuntimeError):  # noqa: N818, a planned one is no error
    """What a schedule raises where the kind of error does not matter."""


@dataclasses.dataclass(frozen=True)
class Witnessed:
    """A task that leaves one file for each attempt, and fails in those that the schedule names.

    Files, since tasks run in any process. The fault comes before the task's work, or `after` it: data
    written, record not.

    Attributes
    ----------
    attempts
        What the first, second, ... attempt raises, None for nothing; later attempts succeed.
    """

    task: Any
    name: str
    folder: str
    attempts: Mapping[int, Attempts]
    after: bool = False

    def __call__(self, job: Job, number: int) -> Receipt:
        """Run or fail."""
        attempt = _next(Path(self.folder), f"{self.name}-{number}")
        planned = self.attempts.get(number, ())
        fault = planned[attempt] if attempt < len(planned) else None
        if fault is not None and not self.after:
            raise fault
        receipt: Receipt = self.task(job, number)
        if fault is not None:
            raise fault
        return receipt


def _next(folder: Path, name: str) -> int:
    """Count an attempt, safe against others that count at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    for attempt in itertools.count():
        try:
            (folder / f"{name}-{attempt}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return attempt
    raise AssertionError


class FailingEngine:
    """An engine whose tasks fail on schedule, and which counts them.

    Parameters
    ----------
    engine
        What runs the tasks.
    folder
        Where the witnesses are kept.
    faults
        (stage, task number) -> what its attempts raise.
    after
        Whether a task fails after its data are written.
    stop_at
        Name of a stage that is never started: the driver dies when it comes to it.
    """

    def __init__(
        self,
        engine: Engine,
        folder: str | Path,
        faults: Mapping[tuple[str, int], Attempts] | None = None,
        *,
        after: bool = False,
        stop_at: str | None = None,
    ) -> None:
        self.engine, self.folder, self.faults = engine, Path(folder), dict(faults or {})
        self.after, self.stop_at = after, stop_at
        self.resources = engine.resources

    def run(
        self, stage: Stage, job: Job, todo: list[int], listener: Listener
    ) -> Iterator[tuple[int, Receipt]]:
        """Run the tasks, some of which fail."""
        if stage.name == self.stop_at:
            raise Fault(f"the driver died before stage {stage.name}")
        faults = {number: attempts for (name, number), attempts in self.faults.items() if name == stage.name}
        task = Witnessed(stage.task, stage.name, str(self.folder), faults, self.after)
        rounds = stage.rounds and dataclasses.replace(stage.rounds, load=_Load(task, stage.rounds.load))
        return self.engine.run(dataclasses.replace(stage, task=task, rounds=rounds), job, todo, listener)

    def counts(self) -> dict[str, int]:
        """Return how often a task was started, by stage."""
        found: dict[str, int] = {}
        for path in sorted(self.folder.glob("*")):
            stage = path.name.rsplit("-", 2)[0]
            found[stage] = found.get(stage, 0) + 1
        return found

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


@dataclasses.dataclass(frozen=True)
class _Load:
    """Rounds have no task: the first partition's `load` stands for the segment."""

    witnessed: Witnessed
    load: Any

    def __call__(self, job: Job, partition: int, segment: int) -> Any:
        if partition == 0:
            dataclasses.replace(self.witnessed, task=lambda job, number: {}, after=False)(job, segment)
        return self.load(job, partition, segment)


class ShufflingEngine:
    """An engine that runs a stage's tasks in a random order, unless each needs the one before."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.resources = engine, engine.resources
        self.random = random.Random(seed)

    def run(
        self, stage: Stage, job: Job, todo: list[int], listener: Listener
    ) -> Iterator[tuple[int, Receipt]]:
        """Run the tasks in a random order."""
        order = todo if stage.ordered else self.random.sample(todo, len(todo))
        return self.engine.run(stage, job, order, listener)

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()
