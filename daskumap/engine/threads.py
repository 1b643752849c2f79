"""The threads engine: the default, a pool of threads in this process."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any

from daskumap.engine.base import RETRIES, Context, Listener, in_our_words, tell_retry
from daskumap.engine.process import give_back, refuse_broken_fork
from daskumap.engine.rounds import run_here
from daskumap.planning.sizes import Resources
from daskumap.planning.stage import Receipt, Stage

# Tasks under way for each thread: the next one is there when one ends.
WINDOW = 2


class ThreadsEngine:
    """Runs tasks in threads of this process, where kernels are compiled once and nothing is copied."""

    local = True

    def __init__(self, memory: int, threads: int) -> None:
        self.resources = Resources(memory, threads=threads)
        self._context: Context | None = None

    def begin(self, context: Context) -> None:
        """Start a run."""
        refuse_broken_fork()
        give_back()  # before there are threads, each with an arena of its own
        self._context = context

    def run(self, stage: Stage, todo: list[int], listener: Listener) -> Iterator[tuple[int, Receipt]]:
        """Run the tasks; one at a time where each needs the one before, with its own threads then.

        After an error or an interruption no task is begun, and those under way end where they next say how
        far they are: whatever they wrote is written again.
        """
        assert self._context is not None, "no run has begun"
        team, waiting, window = _Team(stage, self._context), iter(todo), WINDOW * self.resources.threads
        with ThreadPoolExecutor(self.resources.threads, thread_name_prefix="daskumap-task") as pool:
            try:
                under_way = {}
                for number in itertools.islice(waiting, 1 if stage.ordered else window):
                    under_way[number] = pool.submit(team.work, number)
                while under_way:
                    number, news = team.inbox.get()
                    if isinstance(news, float):
                        listener(number, news)
                        continue
                    receipt = under_way.pop(number).result()
                    yield number, receipt
                    for number in itertools.islice(waiting, 1):
                        under_way[number] = pool.submit(team.work, number)
            finally:
                team.stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def ask(self, question: Callable[[], Any]) -> list[Any]:
        """Return what a function returns here."""
        return [question()]

    def end(self) -> None:
        """End the run."""
        self._context = None

    def close(self) -> None:
        """Do nothing: threads end with their stage."""


class _Stopped(BaseException):
    """Ends a task whose result nobody waits for; no `except Exception` holds it up."""


class _Team:
    """What the threads of one stage share.

    Attributes
    ----------
    inbox
        What the driver hears of a task: the share that is done, or None at its end.
    """

    def __init__(self, stage: Stage, context: Context) -> None:
        self.stage, self.context = stage, context
        self.inbox: SimpleQueue[tuple[int, float | None]] = SimpleQueue()
        self.stopped = threading.Event()

    def work(self, number: int) -> Receipt:
        """Run one task, again where it fails."""
        try:
            return self._attempt(number)
        finally:
            self.inbox.put((number, None))

    def _attempt(self, number: int) -> Receipt:
        failed = 0
        while True:
            try:
                return run_here(self.stage, self.context, number, partial(self._tell, number))
            except Exception as error:
                failed += 1
                if failed > RETRIES or self.stopped.is_set():
                    raise in_our_words(error, self.stage, self.context, number, failed) from error
                seen = f"{type(error).__name__}: {error}"
                tell_retry(self.stage.name, number, seen, failed, self.context.url)

    def _tell(self, number: int, share: float) -> None:
        if self.stopped.is_set():
            raise _Stopped
        self.inbox.put((number, share))
