"""What makes torch give the same bits each time: keyed draws, deterministic algorithms, one thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Or cuBLAS refuses deterministic algorithms; it is read when the process first uses it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# Torch has one generator a process, so one step at a time draws from it.
_ONE_STEP = threading.Lock()


@contextmanager
def drawing(key: int) -> Iterator[None]:
    """Let torch draw by a key; the caller's generator of the CPU goes on as it was."""
    with _ONE_STEP, torch.random.fork_rng(devices=[]):
        torch.manual_seed(key)
        yield


class Steady:
    """While a thread is within, torch gives the same bits each time: deterministic algorithms, one thread.

    The algorithms are a setting of the whole process, which the last thread that leaves puts back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within, self._before = 0, False
        self._threads = threading.local()

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._before = torch.are_deterministic_algorithms_enabled()
                torch.use_deterministic_algorithms(True)
            self._within += 1
        self._threads.before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._threads.before)
        with self._lock:
            self._within -= 1
            if not self._within:
                torch.use_deterministic_algorithms(self._before)


STEADY = Steady()
