"""What engines share: running one task with its measurements, and the sequential engine."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

from daskumap.errors import NO_SPACE, DaskumapError, StoreError, TaskError
from daskumap.planning.held import release
from daskumap.planning.job import Job
from daskumap.planning.progress import listening
from daskumap.planning.sizes import Resources
from daskumap.planning.stage import Receipt, Stage

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
Listener = Callable[[int, float], None]


class Engine(Protocol):
    """Runs tasks of a stage, in any order unless the stage is ordered, and yields receipts as they come."""

    resources: Resources

    def run(
        self, stage: Stage, job: Job, todo: list[int], listener: Listener
    ) -> Iterator[tuple[int, Receipt]]:
        """Run the tasks `todo`; yields (number, receipt). `listener(number, share)` hears of long tasks."""
        ...

    def close(self) -> None:
        """Close what the engine opened."""
        ...


class SequentialEngine:
    """One task after another in this process: the specification of what an engine does."""

    def __init__(self, memory: int) -> None:
        self.resources = Resources(memory)

    def run(
        self, stage: Stage, job: Job, todo: list[int], listener: Listener
    ) -> Iterator[tuple[int, Receipt]]:
        """Run the tasks in the order given."""
        for number in todo:
            try:
                if stage.rounds is None:
                    receipt = measured(stage, job, number, partial(listener, number))
                else:
                    receipt = _run_rounds(stage, job, number, listener)
            except Exception as error:
                raise in_our_words(error, stage, job, number) from error
            yield number, receipt

    def close(self) -> None:
        """Do nothing: there is nothing open."""


KEPT = "Finished tasks are kept: `daskumap resume`, or the same fit, goes on from here."


def in_our_words(error: Exception, stage: Stage, job: Job, number: int, attempts: int = 1) -> DaskumapError:
    """Say what ended a task: what was seen, and what to do. Errors in our words stay as they are."""
    if isinstance(error, DaskumapError):
        return error
    where = f"Stage '{stage.name}', task {number}"
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return StoreError(
            error.errno,
            f"{where} found no space left in {job.url} ({errno.errorcode[error.errno]}); the stage writes "
            f"{max(1, round(stage.written_bytes / 1e6)):,} MB. Free that much there. {KEPT}",
        )
    if isinstance(error, MemoryError):
        return TaskError(f"{where} ran out of memory. {memory_need(stage, job)}")
    times = f"failed {attempts} times, at last with" if attempts > 1 else "failed with"
    return TaskError(f"{where} {times} {type(error).__name__}: {error}. Mend the cause. {KEPT}")


def memory_need(stage: Stage, job: Job) -> str:
    """Say what memory a task was to take, and what to lower."""
    terms = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in stage.memory.items() if size)
    smaller = "`max_cell_rows`" if stage.name == "neighbors" else "`memory`, which makes blocks smaller"
    return (
        f"The plan gives a task {stage.task_bytes / 1e6:,.0f} MB ({terms}), and a worker "
        f"{job.resources.memory / 1e6:,.0f} MB with {job.resources.threads} thread(s). Resume with fewer "
        f"threads a worker, or with more memory a worker; or start over with a lower {smaller} (restart)."
    )


def _run_rounds(stage: Stage, job: Job, segment: int, listener: Listener) -> Receipt:
    """Run one segment's rounds over all partitions."""
    rounds, parts = stage.rounds, range(job.sizes.layout_partitions)
    assert rounds is not None
    start_stage(job, stage.name)
    started = time.perf_counter()
    states = [rounds.load(job, part, segment) for part in parts]
    for now in round_ranges(stage, job, segment):
        blocks = [rounds.block(state) for state in states]
        states = [rounds.step(job, part, now, states[part], blocks) for part in parts]
        listener(
            segment,
            (now[1] - rounds.ranges[segment][0]) / (rounds.ranges[segment][1] - rounds.ranges[segment][0]),
        )
    receipts = [rounds.save(job, part, segment, states[part]) for part in parts]
    kernel = sum(r["kernel_seconds"] for r in receipts)
    return {
        "rows": sum(r["rows"] for r in receipts),
        "kernel_seconds": kernel,
        "seconds": time.perf_counter() - started,
        "peak_bytes": peak_bytes(),
    }


def round_ranges(stage: Stage, job: Job, segment: int) -> list[tuple[int, int]]:
    """Return the epochs [first, last) of each round of a segment."""
    assert stage.rounds is not None
    first, last = stage.rounds.ranges[segment]
    every = job.params.reconcile_every
    return [(epoch, min(epoch + every, last)) for epoch in range(first, last, every)]


def measured(stage: Stage, job: Job, number: int, listener: Callable[[float], None] | None = None) -> Receipt:
    """Run one task; add seconds and the process' peak memory during this stage to its receipt."""
    start_stage(job, stage.name)
    started = time.perf_counter()
    with one_thread(), listening(listener):
        receipt = stage.task(job, number)
    return {**receipt, "seconds": time.perf_counter() - started, "peak_bytes": peak_bytes()}


_limits = threading.Lock()
_limited: Any = None


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep BLAS and OpenMP to one thread: tasks are what runs in parallel, and bits depend on the split.

    OpenMP has a limit for each thread, OpenBLAS one for the process.
    """
    global _limited, _users
    _load_pools()
    pools = _pools(len(sys.modules))
    with _limits:
        if _users == 0:
            _free_openblas()
            _limited = pools.limit(limits=1, user_api="blas")
        _users += 1
    try:
        with pools.limit(limits=1, user_api="openmp"):
            yield
    finally:
        with _limits:
            _users -= 1
            if _users == 0:
                _free_openblas()
                _limited.restore_original_limits()
                _free_openblas()


def _load_pools() -> None:
    """Load what brings thread pools of its own: a limit holds for those that are there when it is set.

    Loaded by the first task that uses it, scikit-learn's k-means ran in all threads once a process, to other
    bits than ever after (measured).
    """
    import scipy.linalg  # noqa: F401
    import sklearn.cluster  # noqa: F401


@lru_cache(maxsize=1)
def _pools(modules: int) -> Any:
    """Return what limits the thread pools there are: a search of 7 ms, again when modules were loaded."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _free_openblas() -> None:
    """Let this thread set OpenBLAS' limit: from 3.7 on, threadpoolctl ignores all but the first that did."""
    import threadpoolctl

    clear = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


_users = 0
_stage = ("", "")


def start_stage(job: Job, name: str) -> None:
    """Forget the last stage when another starts in this process: what it held, and its peak memory.

    The peak is not ru_maxrss: that one is inherited.
    """
    global _stage
    with _limits:
        if (job.url, name) != _stage:
            _stage = (job.url, name)
            release()
            give_back()
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")


def give_back() -> None:
    """Return freed memory to the system, and let glibc keep less of it from now on.

    By itself it keeps up to half a gigabyte, in an arena for each thread. Four arenas take 70 to 110 MB less.
    Arrays from 4 MB on, for which NumPy asks for huge pages, go back as soon as they are freed; of smaller
    ones an arena keeps 16 MB. Keeping less saves another 65 MB and costs 5 to 9 % of the time of a fit, since
    fresh pages are slow; keeping 64 MB gains nothing (1,000,000 x 64, two threads, measured).
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_ARENA_MAX, 4)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 22)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 24)
        libc.malloc_trim(0)


def peak_bytes() -> int:
    """Return the process' peak resident memory in bytes; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0
