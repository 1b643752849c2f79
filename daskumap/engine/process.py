"""What tasks share with all else in their process: its memory, and the threads of BLAS and OpenMP."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from daskumap.errors import ProcessError

if TYPE_CHECKING:
    from daskumap.engine.base import Context
    from daskumap.planning.stage import Stage

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h


class _Tasks:
    """The tasks under way in this process, of all its runs, and the limit that they set for all."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.limit: Any = None


_tasks = _Tasks()
_broken_by_fork = False


def enter(context: Context, stage: Stage) -> None:
    """Tell a context which stage its next task is of; give back memory where it comes from another one.

    The peak is forgotten then, unless another run has tasks under way whose peak it is. All tasks wait
    meanwhile, so that none of the new stage is one of those.
    """
    with _tasks.lock:
        if context.enter(stage):
            give_back()
            if _tasks.count == 0:
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
    """Return the process' peak resident memory in bytes; 0 where the system does not tell.

    It is not ru_maxrss: that one is inherited, and cannot be forgotten.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return 0


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep BLAS and OpenMP to one thread: tasks are what runs in parallel, and bits depend on the split.

    OpenMP has a limit for each thread, OpenBLAS one for the process, which the first task sets and the last
    one takes back.
    """
    tasks = _tasks
    _load_pools()
    pools = _pools(len(sys.modules))
    with tasks.lock:
        if tasks.count == 0:
            _free_openblas()
            tasks.limit = pools.limit(limits=1, user_api="blas")
        tasks.count += 1
    try:
        with pools.limit(limits=1, user_api="openmp"):
            yield
    finally:
        with tasks.lock:
            tasks.count -= 1
            if tasks.count == 0:
                _free_openblas()
                tasks.limit.restore_original_limits()
                _free_openblas()


def usual_floats() -> np.errstate:
    """Return what lets NumPy's errors be as they usually are, whatever the caller made exceptions."""
    return np.errstate(divide="warn", over="warn", under="ignore", invalid="warn")


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


def refuse_broken_fork() -> None:
    """Refuse to work where Numba would end the process.

    Raises
    ------
    ProcessError
        If this process was forked from one in which GNU OpenMP was at work, as the search for neighbours is.
    """
    if _broken_by_fork:
        raise ProcessError(
            "This process was forked from one that had used OpenMP, which does not survive a fork. Start "
            "processes afresh, with multiprocessing.get_context('spawn') or 'forkserver'; or fork before the "
            "first fit."
        )


def _after_fork() -> None:
    """Forget tasks that other threads of the parent had under way, and see whether OpenMP was.

    Once it has threads, Numba ends any child that uses it (0.68.1): "fork() called from a process already
    using GNU OpenMP".
    """
    global _tasks, _broken_by_fork
    _tasks = _Tasks()
    numba = sys.modules.get("numba")
    with contextlib.suppress(AttributeError, ValueError):  # half imported, or without threads so far
        _broken_by_fork |= numba is not None and numba.threading_layer() == "omp"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
