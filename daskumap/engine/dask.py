"""The Dask engine: a bounded window of tasks on the workers of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from distributed import (
    CancelledError,
    Client,
    KilledWorker,
    Worker,
    WorkerPlugin,
    as_completed,
    get_worker,
    rejoin,
    secede,
)
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError

from daskumap import events
from daskumap.engine.base import (
    KEPT,
    RETRIES,
    Context,
    Listener,
    in_our_words,
    measured,
    memory_need,
    tell_retry,
)
from daskumap.engine.machine import available_memory
from daskumap.engine.rounds import run_part, run_rounds
from daskumap.errors import ClusterError, DaskumapError, ParameterError, TaskError
from daskumap.planning.sizes import Resources
from daskumap.planning.stage import Receipt, Stage

log = logging.getLogger(__name__)

# Tasks under way for each slot: the next one is there when one ends, and the scheduler never holds thousands.
WINDOW = 3
# A batch system may take minutes to start workers; the shipped configuration gives a run without any as long.
WAIT_SECONDS = 300
# Workers that start together register within so many seconds of each other.
SETTLE_SECONDS = 1.0
# A client whose event loop runs hears of its scheduler in milliseconds.
ANSWER_SECONDS = 10
# Rounds sent while as many others run: a look at how far they are costs as much as a round or two.
ROUNDS_AHEAD = 10
# A few events a second say all that a person can read.
EVENT_SECONDS = 0.2
# The scheduler's topic that workers come and go by.
EVERYTHING = "all"
# What a client that was cut off raises, by whatever it was doing.
LOST = (CancelledError, CommClosedError, ClosedClientError)


class DaskEngine:
    """Runs tasks on the workers of a Dask cluster, in a context that each worker opens for the run.

    Parameters
    ----------
    client
        A connected client.
    memory
        Bytes a worker process may use, where that is less than the workers say; None for what they say.
    owned
        Whether the client is closed with the engine.

    Raises
    ------
    ParameterError
        If the client does not answer, or no workers come.
    """

    local = False

    def __init__(self, client: Client, memory: int | None = None, owned: bool = False) -> None:
        self.client, self._owned = client, owned
        self.address = client.scheduler.address
        logging.getLogger("distributed.batched").addFilter(_is_news)
        self._close_cluster: Callable[[], None] = _do_nothing
        self._name, self._hears_all = "", False
        self._progress = _Progress()
        self._context: Context | None = None
        self._take_slot: Callable[[], None] | None = None
        try:
            workers = self._workers() or self._wait_for_workers()
            self.resources = _resources(list(workers.values()), memory)
        except (OSError, *LOST) as error:
            self.close()
            raise self._silent() from error
        except BaseException:
            self.close()
            raise

    def _workers(self) -> dict[str, Any]:
        """Return what the scheduler knows of each worker, by address.

        Asked for here: `Client.scheduler_info` returns what the client asked for last, which may be its own
        regular question, without the workers.
        """
        identity = self.client.sync(
            self.client.scheduler.identity, n_workers=-1, callback_timeout=ANSWER_SECONDS
        )
        return dict(identity["workers"])

    def _silent(self) -> ParameterError:
        return ParameterError(
            f"The client of the scheduler at {self.address} got no answer within {ANSWER_SECONDS} s. If it "
            f"was made before this process was forked, it does not work here: give {self.address} in its "
            "place. Else see whether the scheduler is there."
        )

    def _wait_for_workers(self) -> dict[str, Any]:
        """Wait until there are workers: until one has run a task, for which an adaptive cluster starts it."""
        log.warning("Waiting up to %s s for workers of the Dask scheduler at %s.", WAIT_SECONDS, self.address)
        probe, known = self.client.submit(int, pure=False), dict[str, Any]()
        with suppress(Exception):  # none came in time, or in the time that the scheduler itself allows
            probe.result(timeout=WAIT_SECONDS)
            workers = self._workers()
            while len(workers) > len(known):
                known = workers
                time.sleep(SETTLE_SECONDS)
                workers = self._workers()
        if not known:
            raise ParameterError(
                f"The Dask cluster at {self.address} has no workers: none came within {WAIT_SECONDS} s. "
                f"Start some, as `dask worker {self.address}` does, or give client='threads' to fit here."
            )
        return known

    def begin(self, context: Context) -> None:
        """Start a run: give each worker, and those that come later, what opens its context."""
        self._name, self._context = f"daskumap-{uuid.uuid4().hex[:12]}", context
        self._take_slot = _give_up_slot()
        try:
            self._register(ContextPlugin(context.opener()))
            self._progress.run = context.url
            self.client.subscribe_topic(self._name, self._progress.hear)
            if EVERYTHING not in self.client._event_handlers:  # which may be the user's own
                self.client.subscribe_topic(EVERYTHING, self._progress.hear_of_workers)
                self._hears_all = True
        except (OSError, *LOST) as error:
            self.end()
            raise self._lost(error, "before the first stage") from error
        except BaseException:
            self.end()
            raise

    def _register(self, plugin: ContextPlugin) -> None:
        """Give workers a plugin; again where one of them goes meanwhile, and then without that one."""
        for _ in range(RETRIES + 1):
            try:
                self.client.register_plugin(plugin, name=self._name)
                return
            except (OSError, CommClosedError):
                if self.client.status != "running":
                    raise
                time.sleep(SETTLE_SECONDS)

    def run(self, stage: Stage, todo: list[int], listener: Listener) -> Iterator[tuple[int, Receipt]]:
        """Run tasks on the cluster, a bounded window at a time."""
        self._progress.start(stage.name, listener)
        if stage.rounds is not None and self.resources.workers > 1:
            for segment in todo:
                with self._our_words(stage, segment):
                    receipt = self._run_rounds(stage, segment, partial(listener, segment))
                yield segment, receipt
        else:
            yield from self._run_tasks(stage, todo)

    def _run_tasks(self, stage: Stage, todo: list[int]) -> Iterator[tuple[int, Receipt]]:
        window = 1 if stage.ordered else WINDOW * self.resources.slots
        waiting, futures, sent = iter(todo), dict[Any, int](), _lean(stage)
        completed = as_completed(loop=self.client.loop)

        def send(count: int) -> None:
            for number in itertools.islice(waiting, count):
                with self._our_words(stage, number):
                    future = self._submit(f"{stage.name}-{number}", _run_task, self._name, sent, number)
                futures[future] = number
                completed.add(future)

        try:
            send(window)
            for future in completed:
                number = futures.pop(future)
                with self._our_words(stage, number):
                    receipt = future.result()
                future.release()
                yield number, receipt
                send(1)
        finally:
            if futures and self.client.status == "running":
                with suppress(Exception):  # the connection may be what was lost
                    self.client.cancel(list(futures), force=True)

    def _submit(self, name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        key = f"{name}-{time.time_ns()}"
        return self.client.submit(function, *args, key=key, retries=RETRIES, pure=False, **options)

    def _run_rounds(self, stage: Stage, segment: int, listener: Callable[[float], None]) -> Receipt:
        """Run one segment of rounds; a part stays with the worker that has it."""
        # They may all be on their way back; tasks would wait for the worker that has their part too.
        try:
            self.client.wait_for_workers(1, timeout=WAIT_SECONDS)
        except TimeoutError as error:
            raise ClusterError(
                f"The Dask cluster at {self.address} lost all its workers, and none came back within "
                f"{WAIT_SECONDS} s. Start some. {KEPT}"
            ) from error
        addresses = sorted(self._workers())
        return run_rounds(stage, segment, _Workers(self, stage, addresses), listener)

    @contextlib.contextmanager
    def _our_words(self, stage: Stage, number: int) -> Iterator[None]:
        """Raise what ended a task in daskumap's words."""
        assert self._context is not None, "no run has begun"
        try:
            yield
        except DaskumapError:
            raise
        except KilledWorker as error:
            raise TaskError(
                f"Stage '{stage.name}', task {number}: {error.allowed_failures + 1} workers died while they "
                f"ran it, as they do when memory runs out (their logs say). "
                f"{memory_need(stage, self._context.resources)}"
            ) from error
        except Exception as error:
            if isinstance(error, LOST) or self.client.status != "running":
                raise self._lost(error, f"in stage '{stage.name}', task {number}") from error
            raise in_our_words(error, stage, self._context, number, RETRIES + 1) from error

    def _lost(self, error: Exception, where: str) -> ClusterError:
        if isinstance(error, CancelledError) and self.client.status == "running":
            return ClusterError(
                f"The run was cut off {where}: its tasks on the scheduler at {self.address} were cancelled, "
                f"by someone else or by a restart. {KEPT}"
            )
        return ClusterError(
            f"The connection to the scheduler at {self.address} was lost {where}. Look for it, or start "
            f"another one. {KEPT}"
        )

    def ask(self, question: Callable[[], Any]) -> list[Any]:
        """Return what a function returns on each worker."""
        try:
            return list(self.client.run(question).values())
        except (OSError, *LOST) as error:
            raise self._lost(error, "before the first stage") from error

    def end(self) -> None:
        """End the run: workers close its contexts, where they can still be told."""
        self._progress.stop()
        hears_all, self._hears_all = self._hears_all, False
        if self._name and self.client.status == "running":
            with suppress(Exception):
                if hears_all:
                    self.client.unsubscribe_topic(EVERYTHING)
                self.client.unsubscribe_topic(self._name)
                self.client.unregister_worker_plugin(self._name)
        self._name, self._context = "", None
        take_slot, self._take_slot = self._take_slot, None
        if take_slot is not None:
            take_slot()

    def closes(self, close: Callable[[], None]) -> None:
        """Let a cluster that was started for this engine be closed with it."""
        self._close_cluster = close

    def close(self) -> None:
        """Close what this engine opened; a client that was given stays open."""
        close, self._close_cluster = self._close_cluster, _do_nothing
        with _quiet():
            close()
        if self._owned:
            with _quiet(), suppress(Exception):
                self.client.close()


def _lean(stage: Stage) -> Stage:
    """Return what is sent with every task: without what only the driver needs."""
    rounds = stage.rounds and dataclasses.replace(stage.rounds, segments=())
    return dataclasses.replace(stage, outputs=(), conclude=None, rounds=rounds)


def _resources(workers: list[dict[str, Any]], memory: int | None) -> Resources:
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    return Resources(
        memory=min([*limits, *([memory] if memory else [])] or [available_memory()]),
        workers=len(workers),
        threads=min(worker["nthreads"] for worker in workers),
    )


class _Workers:
    """Runs the functions of rounds on the workers: part p on the one that has it."""

    every = ROUNDS_AHEAD

    def __init__(self, engine: DaskEngine, stage: Stage, addresses: list[str]) -> None:
        self.engine, self.stage, self.addresses = engine, stage, addresses
        self.workers = len(addresses)

    def bind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return partial(_run_part, self.engine._name, _lean(self.stage), function)

    def submit(self, name: str, part: int, function: Callable[..., Any], *args: Any) -> Any:
        return self.engine._submit(
            f"{self.stage.name}-{name}-{part}",
            function,
            *args,
            workers=[self.addresses[part % len(self.addresses)]],
            allow_other_workers=True,
        )

    def results(self, promised: list[Any]) -> list[Any]:
        for future in as_completed(promised, loop=self.engine.client.loop):
            future.result()  # the first error ends all
        return [future.result() for future in promised]


class _Progress:
    """What a client calls for every event of a run; it keeps this for as long as it lives."""

    def __init__(self) -> None:
        self._stage, self.run = "", ""
        self._listener: Listener = _hear_nothing
        self._failed: Counter[int] = Counter()

    def start(self, stage: str, listener: Listener) -> None:
        self._stage, self._listener = stage, listener
        self._failed.clear()

    def stop(self) -> None:
        self._stage, self._listener = "", _hear_nothing

    def hear(self, event: Any) -> None:
        listener, message = self._listener, event[1]
        if message["stage"] != self._stage:
            return
        if "error" not in message:
            listener(message["task"], message["share"])
            return
        number = message["task"]
        self._failed[number] += 1
        if self._failed[number] <= RETRIES:  # the last error is raised
            tell_retry(self._stage, number, message["error"], self._failed[number], self.run)

    def hear_of_workers(self, event: Any) -> None:
        """Tell of a worker that went while a stage was under way; one that was told to go is no news."""
        message = event[1]
        if not self._stage or message.get("action") != "remove-worker" or message.get("expected"):
            return
        held = [str(key) for key in (*message["processing-tasks"], *message["lost-computed-tasks"])]
        tasks = [key.rpartition("-")[0] for key in held if key.startswith(f"{self._stage}-")]
        with_them = f" with {len(tasks)} tasks of it, which others run again" if tasks else ""
        events.tell(
            "dead worker",
            f"The worker {message['worker']} was lost in stage '{self._stage}'{with_them}: it died or lost "
            "its connection, as it does when memory runs out (its own log says).",
            logging.WARNING,
            run=self.run,
            worker=message["worker"],
            stage=self._stage,
            tasks=tasks,
        )


def _do_nothing() -> None:
    pass


def _hear_nothing(number: int, share: float) -> None:
    pass


class ContextPlugin(WorkerPlugin):  # type: ignore[misc]
    """Keeps the context of one run on a worker: opened by its first task there, closed when the run ends.

    A driver that died ends no run. So a run that begins lets the contexts of all others be closed, as soon as
    none of their tasks is under way; the next task of a run that lives opens its own again.
    """

    def __init__(self, opener: Callable[[], Context]) -> None:
        self._opener = opener
        self._lock = threading.Lock()
        self._context: Context | None = None
        self._users = 0
        self._unwanted = self._over = False

    def __reduce__(self) -> Any:
        return ContextPlugin, (self._opener,)

    async def setup(self, worker: Worker) -> None:
        """Let the contexts of other runs on this worker be closed."""
        for other in list(worker.plugins.values()):
            if isinstance(other, ContextPlugin) and other is not self:
                await asyncio.to_thread(other.release)

    async def teardown(self, worker: Worker) -> None:
        """Close the context, and open none again."""
        self._over = True
        await asyncio.to_thread(self.release)

    @contextlib.contextmanager
    def use(self) -> Iterator[Context]:
        """Give a task the context, which stays open meanwhile."""
        with self._lock:
            if self._over:
                raise RuntimeError("the run of this task is over")
            if self._context is None:
                self._context = self._opener()
            context = self._context
            self._users += 1
        try:
            yield context
        finally:
            with self._lock:
                self._users -= 1
                self._close_unwanted()

    def release(self) -> None:
        """Close the context as soon as no task uses it."""
        with self._lock:
            self._unwanted = True
            self._close_unwanted()

    def _close_unwanted(self) -> None:
        if self._unwanted and not self._users:
            self._unwanted = False
            context, self._context = self._context, None
            if context is not None:
                context.close()


def _run_task(run: str, stage: Stage, number: int) -> Receipt:
    worker, said = get_worker(), 0.0

    def tell(share: float) -> None:
        nonlocal said
        if time.monotonic() - said > EVENT_SECONDS:
            said = time.monotonic()
            worker.log_event(run, {"stage": stage.name, "task": number, "share": share})

    with worker.plugins[run].use() as context:
        try:
            return measured(stage, context, number, tell)
        except Exception as error:
            about = {"stage": stage.name, "task": number, "error": f"{type(error).__name__}: {error}"}
            worker.log_event(run, about)
            raise


def _run_part(run: str, stage: Stage, function: Callable[..., Any], *args: Any) -> Any:
    with get_worker().plugins[run].use() as context:
        return run_part(context, stage, function, *args)


def task_resources() -> Resources | None:
    """Return what the task of a Dask worker may use that this thread runs, if it runs one."""
    try:
        memory = get_worker().memory_manager.memory_limit
    except ValueError:
        return None
    return Resources(memory or available_memory())


def _give_up_slot() -> Callable[[], None] | None:
    """Let another task have the thread of the task that this is, if it is one; return what takes one back.

    A driver that waits in a task for other tasks would else wait for ever where its worker has one thread.
    """
    with suppress(ValueError, KeyError, AttributeError):  # no task; one without a thread; a coroutine
        secede()
        taker: Callable[[], None] = rejoin
        return taker
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves what a client logs that is closed while it looks for a lost scheduler.

    That is a traceback of 30 lines, or that it gave up after so many seconds, when it did not wait for them.
    """
    logger, drop = logging.getLogger("distributed.client"), lambda record: False
    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)


def _is_news(record: logging.LogRecord) -> bool:
    """Drop the traceback of a client that was sending when its scheduler was lost: an error of ours says it.

    It may come at any time until the client is closed, so this filter stays; adding it again changes nothing.
    """
    return not (record.msg.startswith("Batched Comm Closed") and "Client->Scheduler" in str(record.args))
