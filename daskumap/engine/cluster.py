"""The Dask engine: a bounded window of tasks on a cluster, embedded by default."""

from __future__ import annotations

import itertools
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
from distributed import CancelledError, Client, KilledWorker, LocalCluster, as_completed, get_worker
from distributed.comm import CommClosedError
from distributed.utils import TimeoutError as DaskTimeout

from daskumap.engine.base import (
    KEPT,
    Listener,
    give_back,
    in_our_words,
    measured,
    memory_need,
    peak_bytes,
    round_ranges,
    start_stage,
)
from daskumap.errors import ParameterError, TaskError
from daskumap.planning.job import Job
from daskumap.planning.sizes import Resources
from daskumap.planning.stage import Receipt, Stage

TOPIC = "daskumap"
# Exceptions are retried by task, worker deaths counted by task: two settings of Dask, and they do not add up.
RETRIES = 2
ALLOWED_FAILURES = 3
# Tasks under way for each slot: the next one is there when one ends, and the scheduler never holds thousands.
WINDOW = 3
CONNECT_SECONDS = 20


class DaskEngine:
    """Runs tasks on the workers of a Dask cluster.

    Parameters
    ----------
    client
        A `Client`, a scheduler's address, a scheduler file, or None for one worker in this process with a
        thread a core: no `__main__` guard is needed, and kernels are compiled once.
    memory
        Bytes a worker process may use; None for what the workers say.
    threads
        Threads of the embedded worker; None for one a core.
    """

    def __init__(self, client: Any = None, memory: int | None = None, threads: int | None = None) -> None:
        self._cluster = None
        self._owned = not isinstance(client, Client)
        if client is None:
            self._cluster = embedded_cluster(threads or available_cores(), memory)
            self.client = Client(self._cluster, set_as_default=False)
        else:
            self.client = client if isinstance(client, Client) else connect(client)
        self.address = self.client.scheduler.address if self.client.scheduler else "nowhere"
        self.resources = self._resources(memory)

    def _resources(self, memory: int | None) -> Resources:
        workers = self._workers().values()
        if not workers:
            self.close()
            raise ParameterError(
                "The Dask cluster has no workers. Start some, or leave `client` out for the embedded engine."
            )
        limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
        return Resources(
            memory=min([*limits, *([memory] if memory else [])] or [available_memory()]),
            workers=len(workers),
            threads=min(worker["nthreads"] for worker in workers),
        )

    def _workers(self) -> dict[str, Any]:
        """Return what the scheduler knows of each worker, by address.

        Asked for here: `Client.scheduler_info` returns what the client asked for last, which may be its own
        regular question, without the workers.
        """
        identity = self.client.sync(self.client.scheduler.identity, n_workers=-1)
        return dict(identity["workers"])

    def run(
        self, stage: Stage, job: Job, todo: list[int], listener: Listener
    ) -> Iterator[tuple[int, Receipt]]:
        """Run tasks on the cluster, a bounded window at a time."""
        self.client.subscribe_topic(TOPIC, lambda event: _hear(event, stage, listener))
        try:
            if stage.rounds is not None and self.resources.workers > 1:
                for segment in todo:
                    yield segment, self._run_rounds(stage, job, segment, listener)
            else:
                yield from self._run_tasks(stage, job, todo)
        finally:
            with suppress(Exception):  # the connection may be what was lost
                self.client.unsubscribe_topic(TOPIC)

    def _run_tasks(self, stage: Stage, job: Job, todo: list[int]) -> Iterator[tuple[int, Receipt]]:
        window = 1 if stage.ordered else WINDOW * self.resources.slots
        waiting = iter(todo)
        futures = {self._submit(stage, job, number): number for number in itertools.islice(waiting, window)}
        completed = as_completed(futures, loop=self.client.loop)
        try:
            for future in completed:
                number = futures.pop(future)
                receipt = self._result(future, stage, job, number)
                future.release()
                yield number, receipt
                for following in itertools.islice(waiting, 1):
                    new = self._submit(stage, job, following)
                    futures[new] = following
                    completed.add(new)
        finally:
            with suppress(Exception):
                self.client.cancel(list(futures), force=True)

    def _submit(self, stage: Stage, job: Job, number: int) -> Any:
        return self.client.submit(
            _run_measured,
            stage,
            job,
            number,
            key=f"{stage.name}-{number}-{time.time_ns()}",
            retries=RETRIES,
            pure=False,
        )

    def _result(self, future: Any, stage: Stage, job: Job, number: int) -> Any:
        """Return a task's receipt, or raise what ended it in daskumap's words."""
        try:
            return future.result()
        except KilledWorker as error:
            raise TaskError(
                f"Stage '{stage.name}', task {number}: {error.allowed_failures + 1} workers died while they "
                f"ran it, as they do when memory runs out (their logs say). {memory_need(stage, job)}"
            ) from error
        except (CancelledError, CommClosedError) as error:  # which of the two is a race
            raise TaskError(
                f"Stage '{stage.name}', task {number} was cancelled, as all are when the connection to the "
                f"scheduler at {self.address} is lost. Look for it, or start another one. {KEPT}"
            ) from error
        except Exception as error:
            raise in_our_words(error, stage, job, number, RETRIES + 1) from error

    def _run_rounds(self, stage: Stage, job: Job, segment: int, listener: Listener) -> Receipt:
        """Run one segment of synchronous rounds; partition p stays with the worker that has it."""
        rounds, parts = stage.rounds, range(job.sizes.layout_partitions)
        assert rounds is not None
        self.client.wait_for_workers(1)  # they may all be on their way back; tasks would wait for them too
        addresses = sorted(self._workers())
        started, tag = time.perf_counter(), time.time_ns()

        def submit(name: str, part: int, function: Any, *args: Any) -> Any:
            return self.client.submit(
                function,
                *args,
                key=f"layout-{name}-{segment}-{part}-{tag}",
                retries=RETRIES,
                pure=False,
                workers=[addresses[part % len(addresses)]],
                allow_other_workers=True,
            )

        states = [
            submit("load", part, _load_measured, rounds.load, stage.name, job, part, segment)
            for part in parts
        ]
        first, last = rounds.ranges[segment]
        marks, reached = list[Any](), first
        for number, now in enumerate(round_ranges(stage, job, segment)):
            blocks = [submit(f"block-{number}", part, rounds.block, states[part]) for part in parts]
            states = [
                submit(f"step-{number}", part, rounds.step, job, part, now, states[part], blocks)
                for part in parts
            ]
            if number % 10 == 9:
                # Keep the graph on the scheduler short, and the user informed; but never let the workers wait
                # for what comes next: ten rounds are sent while ten others run.
                self._wait(marks, stage, job, segment)
                listener(segment, (reached - first) / (last - first))
                marks = [submit(f"mark-{number}", part, _mark, states[part]) for part in parts]
                reached = now[1]
        saves = [
            submit("save", part, _save_measured, rounds.save, job, part, segment, states[part])
            for part in parts
        ]
        receipts = [self._result(save, stage, job, segment) for save in saves]
        return {
            "rows": sum(receipt["rows"] for receipt in receipts),
            "epochs": last - first,
            "seconds": time.perf_counter() - started,
            "peak_bytes": max(receipt["peak_bytes"] for receipt in receipts),
            "kernel_seconds": max(receipt["kernel_seconds"] for receipt in receipts),
        }

    def _wait(self, futures: list[Any], stage: Stage, job: Job, segment: int) -> None:
        for future in as_completed(futures, loop=self.client.loop):
            if future.status != "finished":
                self._result(future, stage, job, segment)

    def close(self) -> None:
        """Close what this engine opened; a client that was given stays open.

        A heartbeat on its way then fails, and Dask would print a traceback under the user's finished fit.
        """
        log = logging.getLogger("distributed.worker")
        level = log.level
        log.setLevel(logging.CRITICAL)
        try:
            if self._owned:
                with suppress(Exception):
                    self.client.close()
            if self._cluster is not None:
                with suppress(Exception):
                    self._cluster.close()
        finally:
            log.setLevel(level)


def _run_measured(stage: Stage, job: Job, number: int) -> Receipt:
    worker = get_worker()
    said = [0.0]

    def listener(share: float) -> None:
        if time.monotonic() - said[0] > 0.2:  # a few events a second say all that a person can read
            said[0] = time.monotonic()
            worker.log_event(TOPIC, {"stage": stage.name, "task": number, "share": share})

    return measured(stage, job, number, listener)


def _mark(state: Any) -> None:
    """Say that a state was reached, without keeping it."""


def _load_measured(load: Any, stage: str, job: Job, part: int, segment: int) -> Any:
    start_stage(job, stage)
    return load(job, part, segment)


def _save_measured(save: Any, job: Job, part: int, segment: int, state: Any) -> Receipt:
    return {**save(job, part, segment, state), "peak_bytes": peak_bytes()}


def _hear(event: Any, stage: Stage, listener: Listener) -> None:
    message = event[1] if isinstance(event, tuple) else event
    if isinstance(message, dict) and message.get("stage") == stage.name:
        listener(message["task"], message["share"])


def embedded_cluster(threads: int, memory: int | None) -> LocalCluster:
    """Start one worker in this process, reachable by nobody else."""
    give_back()  # before there are threads, each with an arena of its own
    with dask.config.set(
        {
            "distributed.worker.memory.target": False,
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.pause": False,
            "distributed.worker.memory.terminate": False,
            # It keeps the call stacks of an hour, 80 MB for half of it (measured), which no plan knows of.
            "distributed.worker.profile.enabled": False,
            "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
            # A laptop that was asleep for five minutes has not lost its worker.
            "distributed.scheduler.worker-ttl": None,
        }
    ):
        return LocalCluster(
            n_workers=1,
            threads_per_worker=threads,
            processes=False,
            memory_limit=memory or available_memory(),
            # None would still open HTTP servers, on all interfaces.
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=40,
        )


def connect(where: str | Path) -> Client:
    """Connect to a scheduler by address or by scheduler file.

    Raises
    ------
    ParameterError
        If nobody answers there.
    """
    text = str(where)
    is_file = isinstance(where, Path) or ("://" not in text and Path(text).suffix == ".json")
    if is_file and not Path(text).is_file():
        raise ParameterError(
            f"There is no scheduler file {text}. Start one with `dask scheduler --scheduler-file {text}`."
        )
    try:
        if is_file:
            return Client(scheduler_file=text, timeout=CONNECT_SECONDS, set_as_default=False)
        return Client(text, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, DaskTimeout, ValueError, TypeError) as error:
        raise ParameterError(
            f"No Dask scheduler answers at {text} ({error}). Give a Client, an address such as "
            "tcp://host:8786, or a scheduler file; or leave `client` out for the embedded engine."
        ) from error


def available_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Return 60 % of the memory that the machine or the container has, in bytes."""
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT * 0.6)


def parse_memory(text: str | int | None) -> int | None:
    """Return a number of bytes from a number or text such as "4GB" or "512MiB".

    Raises
    ------
    ParameterError
        If it is neither, or not positive.
    """
    if text is None:
        return None
    try:
        size = int(dask.utils.parse_bytes(text))
    except (ValueError, TypeError) as error:
        raise ParameterError(f"memory is {text!r}; give bytes, or text such as '4GB'.") from error
    if size <= 0:
        raise ParameterError(f"memory is {text!r}; it must be above 0.")
    return size
