"""What an engine is, and what engines share: one task with its measurements, and errors in our words."""

from __future__ import annotations

import dataclasses
import errno
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from daskumap import events
from daskumap.engine.process import enter, one_thread, peak_bytes, usual_floats
from daskumap.errors import NO_SPACE, DaskumapError, StoreError, TaskError
from daskumap.planning.sizes import Resources
from daskumap.planning.stage import Receipt, Stage
from daskumap.runtime.listen import listening

Listener = Callable[[int, float], None]

# A task may raise so often before its last attempt: a bucket or a network that fails now and then is no
# reason to end a run, and a mistake fails again at once.
RETRIES = 2
KEPT = "Finished tasks are kept: `daskumap resume`, or the same fit, goes on from here."


class Context(Protocol):
    """All that an engine knows of what tasks get: stores, source and caches of one run in one process."""

    @property
    def url(self) -> str:
        """Where the run store is, for messages."""

    @property
    def resources(self) -> Resources:
        """What the run was planned for."""

    def enter(self, stage: Stage) -> bool:
        """Hear which stage the next task is of; tell whether the process comes from another one."""

    def opener(self) -> Callable[[], Context]:
        """Return what opens a context of the same run in another process; it can be pickled."""

    def close(self) -> None:
        """Free all that is held; may be called again."""


@runtime_checkable
class Engine(Protocol):
    """Runs tasks of a stage, in any order unless the stage is ordered, and yields receipts as they come.

    Attributes
    ----------
    resources
        What runs may use.
    local
        Whether tasks run in this process, and so see its memory.
    """

    resources: Resources
    local: bool

    def begin(self, context: Context) -> None:
        """Start a run. Tasks in this process get this very context, those in others one that they open."""
        ...

    def run(self, stage: Stage, todo: list[int], listener: Listener) -> Iterator[tuple[int, Receipt]]:
        """Run the tasks `todo`; yields (number, receipt). `listener(number, share)` hears of long tasks."""
        ...

    def ask(self, question: Callable[[], Any]) -> list[Any]:
        """Return what a function returns in each process that runs tasks."""
        ...

    def end(self) -> None:
        """End the run, also after an error: contexts of other processes are closed."""
        ...

    def close(self) -> None:
        """Close what the engine opened."""
        ...


def measured(
    stage: Stage, context: Context, number: int, listener: Callable[[float], None] | None = None
) -> Receipt:
    """Run one task; add seconds and the process' peak memory during this stage to its receipt."""
    enter(context, stage)
    started = time.perf_counter()
    with one_thread(), usual_floats(), listening(listener):
        receipt = stage.task(context, number)
    return dataclasses.replace(receipt, seconds=time.perf_counter() - started, peak_bytes=peak_bytes())


def in_our_words(
    error: Exception, stage: Stage, context: Context, number: int, attempts: int = 1
) -> DaskumapError:
    """Say what ended a task: what was seen, and what to do. Errors in our words stay as they are."""
    if isinstance(error, DaskumapError):
        return error
    where = f"Stage '{stage.name}', task {number}"
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return StoreError(
            error.errno,
            f"{where} found no space left in {context.url} ({errno.errorcode[error.errno]}); the stage "
            f"writes {max(1, round(stage.written_bytes / 1e6)):,} MB. Free that much there. {KEPT}",
        )
    if isinstance(error, MemoryError):
        return TaskError(f"{where} ran out of memory. {memory_need(stage, context.resources)}")
    times = f"failed {attempts} times, at last with" if attempts > 1 else "failed with"
    return TaskError(f"{where} {times} {type(error).__name__}: {error}. Mend the cause. {KEPT}")


def memory_need(stage: Stage, resources: Resources) -> str:
    """Say what memory a task was to take, and what to lower."""
    terms = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in stage.memory.items() if size)
    smaller = "`max_cell_rows`" if stage.name == "neighbors" else "`memory`, which makes blocks smaller"
    return (
        f"The plan gives a task {stage.task_bytes / 1e6:,.0f} MB ({terms}), and a worker "
        f"{resources.memory / 1e6:,.0f} MB with {resources.threads} thread(s). Resume with fewer "
        f"threads a worker, or with more memory a worker; or start over with a lower {smaller} (restart)."
    )


def tell_retry(stage: str, number: int, error: str, failed: int, run: str) -> None:
    """Tell that a task failed and is tried again."""
    events.tell(
        "retry",
        f"Task {number} of stage '{stage}' failed and is tried again ({failed} of {RETRIES} times): {error}",
        logging.WARNING,
        run=run,
        stage=stage,
        task=number,
        attempt=failed,
        error=error,
    )
