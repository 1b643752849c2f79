"""Faults on a schedule, and witnesses: which task was run how often.

>>> # The third attempt succeeds.
>>> schedule = {("calibrate", 0): (RuntimeError("first"), RuntimeError("second"))}
>>> # The first one dies as its process is killed, with its data written and its record not.
>>> schedule = {("calibrate", 0): (Kill("after"),)}
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from daskumap.engine.base import Context, Engine, Listener
from daskumap.planning.stage import Receipt, Rounds, Stage


@dataclasses.dataclass(frozen=True)
class Kill:
    """Ends the process that runs the task by SIGKILL, as the kernel does where memory runs out.

    Attributes
    ----------
    when
        "before" the task's work; "between" two of its writes; or "after" its data are written and before its
        record.
    writes
        How many files a task has put in place when it dies "between"; the next one is written under its
        temporary name then, and never gets its own. On local file systems only.
    """

    when: str
    writes: int = 1

    def __post_init__(self) -> None:
        if self.when not in ("before", "between", "after"):
            raise ValueError(f"when is {self.when!r}; allowed are before, between, after.")

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Run the body, and die when it is time."""
        if self.when == "before":
            die()
        with self._counting() if self.when == "between" else contextlib.nullcontext():
            yield
        if self.when == "between":
            raise AssertionError(f"The task made no more than {self.writes} writes, so it was not killed.")
        die()

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        replace, lock, left = Path.replace, threading.Lock(), [self.writes]

        def count(path: Path, target: Any) -> Path:
            if path.suffix == ".partial":  # as zarr names what it has yet to put in place
                with lock:
                    if left[0] == 0:
                        die()
                    left[0] -= 1
            return replace(path, target)

        with mock.patch.object(Path, "replace", count):
            yield


# Dask's nanny does not replace a worker that dies before the nanny has heard that it is there (2026.8.0); a
# worker that was made anew may have its first task by then.
STARTING_SECONDS = 0.3


def die() -> None:
    """End this process as `kill -9` does."""
    time.sleep(STARTING_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


Attempts = Sequence[Exception | Kill | None]


class Fault(RuntimeError):  # noqa: N818, a planned one is no error
    """What a schedule raises where the kind of error does not matter."""


@dataclasses.dataclass(frozen=True)
class Witnessed:
    """A task that leaves one file for each attempt, and fails in those that the schedule names.

    Files, since tasks run in any process. An exception comes before the task's work, or `after` it: data
    written, record not. A `Kill` says itself when it comes.

    Attributes
    ----------
    attempts
        What the first, second, ... attempt raises or dies of, None for nothing; later attempts succeed.
    """

    task: Any
    name: str
    folder: str
    attempts: Mapping[int, Attempts]
    after: bool = False

    def __call__(self, context: Context, number: int) -> Receipt:
        """Run or fail."""
        attempt = _next(Path(self.folder), f"{self.name}-{number}")
        planned = self.attempts.get(number, ())
        fault = planned[attempt] if attempt < len(planned) else None
        if isinstance(fault, Kill):
            with fault.around():
                killed: Receipt = self.task(context, number)
            return killed
        # A copy: the traceback of an exception holds what its frames held, and the schedule outlives them.
        if fault is not None and not self.after:
            raise copy.copy(fault)
        receipt: Receipt = self.task(context, number)
        if fault is not None:
            raise copy.copy(fault)
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
        self.resources, self.local = engine.resources, engine.local

    def begin(self, context: Context) -> None:
        """Start a run."""
        self.engine.begin(context)

    def run(self, stage: Stage, todo: list[int], listener: Listener) -> Iterator[tuple[int, Receipt]]:
        """Run the tasks, some of which fail."""
        if stage.name == self.stop_at:
            raise Fault(f"the driver died before stage {stage.name}")
        faults = {number: attempts for (name, number), attempts in self.faults.items() if name == stage.name}
        task = Witnessed(stage.task, stage.name, str(self.folder), faults, self.after)
        rounds = stage.rounds and dataclasses.replace(
            stage.rounds, load=_Load(task, stage.rounds), save=_Save(task, stage.rounds)
        )
        return self.engine.run(dataclasses.replace(stage, task=task, rounds=rounds), todo, listener)

    def counts(self) -> dict[str, int]:
        """Return how often a task was started, by stage."""
        found: dict[str, int] = {}
        for path in sorted(self.folder.glob("*")):
            stage = path.name.rsplit("-", 2)[0]
            found[stage] = found.get(stage, 0) + 1
        return found

    def runs(self, stage: str, task: int) -> int:
        """Return how often one task was started."""
        return len(list(self.folder.glob(f"{stage}-{task}-*")))

    def ask(self, question: Callable[[], Any]) -> list[Any]:
        """Return what a function returns in each process that runs tasks."""
        return self.engine.ask(question)

    def end(self) -> None:
        """End the run."""
        self.engine.end()

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


@dataclasses.dataclass(frozen=True)
class _Load:
    """Rounds have no task: the first part's `load` stands for the segment, but for kills after it."""

    witnessed: Witnessed
    rounds: Rounds

    def __call__(self, context: Context, part: int, segment: int) -> Any:
        if part == 0:
            early = {
                number: [None if _is_late(fault) else fault for fault in faults]
                for number, faults in self.witnessed.attempts.items()
            }
            begin = dataclasses.replace(self.witnessed, task=_do_nothing, attempts=early, after=False)
            begin(context, segment)
        return self.rounds.load(context, part, segment)


def _do_nothing(context: Context, number: int) -> Receipt:
    return Receipt(0)


def _is_late(fault: Exception | Kill | None) -> bool:
    return isinstance(fault, Kill) and fault.when != "before"


@dataclasses.dataclass(frozen=True)
class _Save:
    """The last part's `save` is where a segment's process is killed while it writes, or after."""

    witnessed: Witnessed
    rounds: Rounds

    def __call__(self, context: Context, part: int, segment: int, state: Any) -> Receipt:
        late = {
            number: [fault if _is_late(fault) else None for fault in faults]
            for number, faults in self.witnessed.attempts.items()
        }
        if part != self.rounds.parts - 1 or not any(late.get(segment, ())):
            return self.rounds.save(context, part, segment, state)
        end = dataclasses.replace(
            self.witnessed,
            name=f"{self.witnessed.name}.save",
            task=lambda context, number: self.rounds.save(context, part, segment, state),
            attempts=late,
        )
        return end(context, segment)


class ShufflingEngine:
    """An engine that runs a stage's tasks in a random order, unless each needs the one before."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.resources, self.local = engine, engine.resources, engine.local
        self.random = random.Random(seed)

    def begin(self, context: Context) -> None:
        """Start a run."""
        self.engine.begin(context)

    def run(self, stage: Stage, todo: list[int], listener: Listener) -> Iterator[tuple[int, Receipt]]:
        """Run the tasks in a random order."""
        order = todo if stage.ordered else self.random.sample(todo, len(todo))
        return self.engine.run(stage, order, listener)

    def ask(self, question: Callable[[], Any]) -> list[Any]:
        """Return what a function returns in each process that runs tasks."""
        return self.engine.ask(question)

    def end(self) -> None:
        """End the run."""
        self.engine.end()

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()
