"""Clusters that run already: by an address, or by the file that their scheduler writes."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from daskumap.clusters.base import Cluster, Count
from daskumap.errors import ClusterError

# One attempt takes so long; then the file is read again: it may have been of an earlier scheduler.
ATTEMPT_SECONDS = 5
PAUSE_SECONDS = 0.2
# The variable from which Dask itself, and a job of its Kubernetes operator, knows a scheduler.
VARIABLE = "DASK_SCHEDULER_ADDRESS"


class _Given(Cluster):
    """A cluster of somebody else's, which stays when the run ends."""

    workers: Count = Field(1, description="workers to wait for")

    @property
    def expected(self) -> int:
        """As many as the file says; those that come later take part too."""
        return self.workers

    def sizes(self) -> dict[str, int]:
        """Return what the workers that are there say: they are waited for, as by a run."""
        from daskumap.engine.dask import DaskEngine

        with self.started() as client:
            found = DaskEngine(client).resources
        return {"workers": found.workers, "threads": found.threads, "memory": found.memory}

    def _commands(self, scheduler: str, worker: str) -> str:
        exports = [f"export {name}={shlex.quote(value)}" for name, value in self.variables().items()]
        host = "--host 127.0.0.1 --no-dashboard"
        return "\n".join(
            [
                "# in the shell that starts them, as what is shipped goes with its variables:",
                *exports,
                f"dask scheduler {host} {scheduler} &",
                f"dask worker {host} {worker} --nworkers {self.workers} --nthreads 1 --memory-limit 4GB &",
            ]
        )

    def _connect(self, find: Callable[[], dict[str, Any]]) -> Any:
        """Return a client, as soon as a scheduler answers."""
        from distributed import Client

        until, last = time.monotonic() + self.wait, "it is not there"
        while True:
            with contextlib.suppress(_NotYetError):
                where = find()
                try:
                    left = max(1.0, until - time.monotonic())
                    return Client(**where, timeout=min(ATTEMPT_SECONDS, left), set_as_default=False)
                except (OSError, ValueError) as error:
                    last = str(error) or type(error).__name__
            if time.monotonic() > until:
                raise ClusterError(f"No scheduler answered within {self.wait:g} s ({last}). {self.look}")
            time.sleep(PAUSE_SECONDS)


class _NotYetError(Exception):
    """There is nothing to connect to yet."""


class Address(_Given):
    """A scheduler that listens at an address."""

    kind: Literal["address"]
    address: str | None = Field(
        None, description=f"such as tcp://127.0.0.1:8786; without it the variable {VARIABLE}"
    )

    @property
    def where(self) -> str:
        """The address."""
        return self.address or os.environ.get(VARIABLE, "")

    @property
    def look(self) -> str:
        """What to look at where no workers come."""
        return (
            f"Look whether a scheduler listens at {self.where or '$' + VARIABLE}, and workers of it run: "
            "`daskumap cluster check` shows how they are started."
        )

    def explain(self) -> list[str]:
        """Return sentences that say what a run would do with it."""
        return [
            f"A run uses the scheduler at {self.where or 'the address in ' + VARIABLE}, waits for "
            f"{self.workers} worker(s), and leaves it running.",
        ]

    def shown(self) -> str:
        """Return the commands that start such a cluster."""
        port = (self.where or ":8786").rsplit(":", 1)[-1].strip("/")
        return self._commands(f"--port {port}", self.where or f"${VARIABLE}")

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """Connect."""
        if not self.where:
            raise ClusterError(
                f"The file names no address, and the variable {VARIABLE} is not set. Write address: ..."
            )
        with self._connect(lambda: {"address": self.where}) as client:
            yield client


class SchedulerFile(_Given):
    """A scheduler that writes down where it is: `dask scheduler --scheduler-file FILE`."""

    kind: Literal["scheduler-file"]
    file: Path = Field(description="file that the scheduler writes; it may come later than the run")

    @property
    def look(self) -> str:
        """What to look at where no workers come."""
        return (
            f"Look whether `dask scheduler --scheduler-file {self.file}` and workers of it run, and whether "
            "the file is of that scheduler: `daskumap cluster check` shows how they are started."
        )

    def explain(self) -> list[str]:
        """Return sentences that say what a run would do with it."""
        return [
            f"A run waits for the file {self.file}, uses the scheduler that it names, waits for "
            f"{self.workers} worker(s), and leaves them running. It may be started before them.",
        ]

    def shown(self) -> str:
        """Return the commands that start such a cluster."""
        where = f"--scheduler-file {shlex.quote(str(self.file))}"
        return self._commands(f"--port 0 {where}", where)

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """Wait for the file, and connect."""
        with self._connect(self._find) as client:
            yield client

    def _find(self) -> dict[str, Any]:
        import json

        try:
            return {"address": json.loads(self.file.read_text())["address"]}
        except (OSError, ValueError, KeyError) as error:  # not there, or half written
            raise _NotYetError from error
