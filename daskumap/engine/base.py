"""What engines share: running one task with its measurements, and the sequential engine."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from daskumap.plan.job import Job
from daskumap.plan.progress import listening
from daskumap.plan.sizes import Resources
from daskumap.plan.stage import Receipt, Stage

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
            if stage.rounds is None:
                yield number, measured(stage, job, number, partial(listener, number))
            else:
                yield number, _run_rounds(stage, job, number, listener)

    def close(self) -> None:
        """Do nothing: there is nothing open."""


def _run_rounds(stage: Stage, job: Job, segment: int, listener: Listener) -> Receipt:
    """Run one segment's rounds over all partitions."""
    rounds, parts = stage.rounds, range(job.sizes.layout_partitions)
    assert rounds is not None
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
    start_peak(f"{job.url}:{stage.name}")
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
    from threadpoolctl import threadpool_limits

    global _limited, _users
    with _limits:
        if _users == 0:
            _free_openblas()
            _limited = threadpool_limits(1, user_api="blas")
        _users += 1
    try:
        with threadpool_limits(1, user_api="openmp"):
            yield
    finally:
        with _limits:
            _users -= 1
            if _users == 0:
                _free_openblas()
                _limited.restore_original_limits()
                _free_openblas()


def _free_openblas() -> None:
    """Let this thread set OpenBLAS' limit: from 3.7 on, threadpoolctl ignores all but the first that did."""
    import threadpoolctl

    clear = getattr(threadpoolctl.OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


_users = 0
_stage = ""


def start_peak(stage: str) -> None:
    """Forget the process' peak memory when a stage starts in it. Not ru_maxrss: that one is inherited."""
    global _stage
    with _limits:
        if stage != _stage:
            _stage = stage
            _give_back()
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")


def _give_back() -> None:
    """Return freed memory to the system: glibc keeps up to half a gigabyte of it otherwise (measured)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_bytes() -> int:
    """Return the process' peak resident memory in bytes; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0
