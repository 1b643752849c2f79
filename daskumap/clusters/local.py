"""Worker processes of this machine."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import resource_tracker
from typing import Any, Literal

from daskumap.clusters.base import Sized, connected


class Local(Sized):
    """Several worker processes on this machine, on its loopback."""

    kind: Literal["local"]

    @property
    def look(self) -> str:
        """What to look at where no workers come."""
        return (
            "See what the workers say above, and whether the machine has their memory. In a script, call "
            "daskumap below `if __name__ == '__main__':`, since each worker process imports the script."
        )

    def explain(self) -> list[str]:
        """Return sentences that say what a run would do with it."""
        return [
            f"A run starts a scheduler in its own process, and {self.size()}.",
            "All listen on 127.0.0.1 only, and end with the run.",
        ]

    def sizes(self) -> dict[str, int]:
        """Return what the file says; Dask gives a worker no more than the machine has."""
        from distributed.system import MEMORY_LIMIT

        return {**super().sizes(), "memory": min(self.memory, MEMORY_LIMIT)}

    def shown(self) -> str:
        """Return what would be started."""
        return f"# processes of this machine: {self.workers} x dask worker --nthreads {self.threads} " + (
            f"--memory-limit {self.memory} --host 127.0.0.1"
        )

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """Start a `LocalCluster`, whose workers a Ctrl-C does not reach: the driver stops them in order."""
        from distributed import LocalCluster

        cluster = without_interrupts(
            LocalCluster,
            n_workers=self.workers,
            threads_per_worker=self.threads,
            memory_limit=self.memory,
            local_directory=self.folder,
            processes=True,
            host="127.0.0.1",
            protocol=f"{self.protocol}://",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(cluster)
            client = stack.enter_context(connected(cluster))
            try:
                yield client
            except BaseException:
                # What Dask's processes say of an end amid their work is no news to whoever ended it.
                client.run(logging.disable, logging.CRITICAL, on_error="ignore")
                with _quiet():
                    stack.close()
                raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let Dask log nothing in this process."""
    loggers = [
        logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed")
    ]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def without_interrupts(make: Callable[..., Any], **options: Any) -> Any:
    """Call what starts threads and processes, none of which gets a SIGINT; the caller itself still does.

    A terminal sends a Ctrl-C to all processes that it sees. Threads and processes inherit which signals are
    held back from the thread that starts them.
    """

    def call() -> Any:
        if hasattr(signal, "pthread_sigmask"):
            resource_tracker.ensure_running()  # Its start would let them through again.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        return make(**options)

    pool = ThreadPoolExecutor(1, thread_name_prefix="daskumap-start")
    try:
        begun = pool.submit(call)
        try:
            return begun.result()
        except BaseException:
            begun.add_done_callback(_close)
            raise
    finally:
        pool.shutdown(wait=False)


def _close(begun: Future[Any]) -> None:
    """Close what was started for a caller that no longer waits."""
    if begun.exception() is None:
        begun.result().close()
