"""What `client=` means: which engine runs a fit. Dask is imported only where there is something of Dask."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from daskumap.engine.base import Engine
from daskumap.engine.machine import available_cores, available_memory, check_threads
from daskumap.engine.sequential import SequentialEngine
from daskumap.engine.threads import ThreadsEngine
from daskumap.errors import ParameterError
from daskumap.planning.sizes import Resources

log = logging.getLogger(__name__)

# A scheduler that is there answers in milliseconds, a far or busy one in seconds.
CONNECT_SECONDS = 20
# Up to as many rows one thread is about as fast as two, and takes 10 to 30 % less CPU (measured, D = 50), but
# in the layout, which all cores share.
SMALL_ROWS = 20_000
WHAT = (
    "a Client, a cluster, an address such as tcp://host:8786, or a scheduler file; 'threads' or 'sequential' "
    "for this process; or leave `client` out"
)


@runtime_checkable
class Startable(Protocol):
    """A cluster that is started for a run and closed after it, as a cluster file describes one."""

    def started(self) -> contextlib.AbstractContextManager[Any]:
        """Start it, wait for its workers, give a client of it, and close it in the end."""


def make_engine(
    client: Any, memory: int | None = None, threads: int | None = None, rows: int | None = None
) -> Engine:
    """Return the engine that a user means.

    Parameters
    ----------
    client
        A `Client` or a cluster of Dask, a scheduler's address or file; "threads" or "sequential" for this
        process; or an engine; or what a cluster file describes, which is started, and closed with the
        engine. None means the active client, if there is one, and else the threads of this
        process. In a task of a Dask worker it means that task alone.
    memory
        Bytes a worker process may use; None for what the workers say, or most of what this machine has.
    threads
        Threads of this process; None for one a core, and for one in a task of a Dask worker.
    rows
        Of the input. Few rows take no longer one task at a time, and less CPU, if it is for us to choose.

    Raises
    ------
    ParameterError
        If there is nobody there, or `threads` has no effect.
    """
    if isinstance(client, Engine):
        return client
    check_threads(threads)
    if isinstance(client, str) and client == "sequential":
        _refuse_threads(threads if threads != 1 else None, "the sequential engine has one")
        return SequentialEngine(memory or _here().memory)
    if client is None and (active := active_client()) is not None:
        client = active
        log.info("The active Dask client is used, of %s; client='threads' is without.", _address(client))
    if client is None or (isinstance(client, str) and client == "threads"):
        here = _here()
        if client is None and threads is None and rows is not None and rows <= SMALL_ROWS:
            return SequentialEngine(memory or here.memory, here.threads)
        return ThreadsEngine(memory or here.memory, threads or here.threads)
    _refuse_threads(threads, "the workers of a cluster have their own")
    return _dask_engine(client, memory)


def _refuse_threads(threads: int | None, why: str) -> None:
    if threads is not None:
        raise ParameterError(
            f"threads is {threads}, and {why}. Leave it out, or fit in this process with client='threads'."
        )


def active_client() -> Any:
    """Return the active Dask client, or None: also in a task of a worker, which would wait for itself."""
    if "distributed" not in sys.modules:
        return None
    from distributed import default_client

    from daskumap.engine.dask import task_resources

    try:
        client = default_client()
    except ValueError:
        return None
    # A worker makes a client for its tasks, and names it so; threads of theirs find it, and wait no better.
    return None if task_resources() or client.id.startswith("Client-worker-") else client


def _here() -> Resources:
    """Return what this process has; in a task of a Dask worker its memory and one thread, as a task has."""
    if "distributed" in sys.modules:
        from daskumap.engine.dask import task_resources

        if (found := task_resources()) is not None:
            return found
    return Resources(available_memory(), threads=available_cores())


def _dask_engine(client: Any, memory: int | None) -> Engine:
    from distributed import Client

    from daskumap.engine.dask import DaskEngine

    if isinstance(client, Startable):
        with contextlib.ExitStack() as stack:
            started = stack.enter_context(client.started())
            engine = DaskEngine(started, memory)
            engine.closes(stack.pop_all().close)
            return engine
    given = isinstance(client, Client)
    connected = client if given else connect(client)
    check_client(connected)
    return DaskEngine(connected, memory, owned=not given)


def check_client(client: Any) -> None:
    """Refuse a client that no fit can wait with.

    Raises
    ------
    ParameterError
        Saying what to give in its place.
    """
    if client.asynchronous:
        raise ParameterError(
            "The client is asynchronous, and a fit would block the event loop that it needs. Give the "
            f"scheduler's address ({_address(client)}), or fit in a thread: await asyncio.to_thread(...)."
        )
    if client.status in ("closed", "closing"):
        raise ParameterError(f"The client is closed. Give one that is open: {WHAT}.")
    if client.status != "running":
        raise ParameterError(
            f"The client is {client.status}, not connected to the scheduler at {_address(client)}. See "
            f"whether the scheduler is there, or give {WHAT}."
        )


def _address(client: Any) -> str:
    return str(client.scheduler.address) if client.scheduler is not None else "nowhere"


def connect(where: Any) -> Any:
    """Connect to the scheduler of a cluster, by an address or by a scheduler file.

    Raises
    ------
    ParameterError
        If nobody answers there.
    """
    if isinstance(getattr(where, "scheduler_address", None), str):
        if getattr(where, "asynchronous", False):
            raise ParameterError(
                "The cluster is asynchronous, and a fit would block the event loop that it needs. Give the "
                f"scheduler's address ({where.scheduler_address}), or fit in a thread."
            )
        return _open_client(f"the cluster {where!r}", where)
    if not isinstance(where, str | Path):
        raise ParameterError(f"client is {where!r}; give {WHAT}.")
    text = str(where)
    if not isinstance(where, Path) and ("://" in text or Path(text).suffix != ".json"):
        return _open_client(text, text)
    if not Path(text).is_file():
        raise ParameterError(
            f"There is no scheduler file {text}. Start one with `dask scheduler --scheduler-file {text}`."
        )
    return _open_client(text, scheduler_file=text)


def _open_client(name: str, *where: Any, **options: Any) -> Any:
    from distributed import Client

    try:
        return Client(*where, **options, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise ParameterError(f"No Dask scheduler answers at {name} ({error}). Give {WHAT}.") from error
