"""Workers on other machines, which are started there by SSH."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from daskumap.clusters.base import NANNY, Sized, connected


class Ssh(Sized):
    """A scheduler on one host and workers on others, as of Dask's `SSHCluster`."""

    kind: Literal["ssh"]
    extra: ClassVar[str] = "ssh"

    hosts: tuple[str, ...] = Field(min_length=1, description="hosts of the workers, which share them evenly")
    scheduler: str | None = Field(None, description="host of the scheduler; default: the first of hosts")
    interface: str | None = Field(
        None, description="network between the hosts, such as eth0; default: the address of their names"
    )
    user: str | None = Field(None, description="name on the hosts")
    port: int | None = Field(None, ge=1, le=65535, description="port of their SSH servers")
    identity: Path | None = Field(None, description="private key; default: those of the agent and ~/.ssh")
    known_hosts: Path | None = Field(None, description="keys of the hosts; default: ~/.ssh/known_hosts")
    python: str | None = Field(None, description="Python of the hosts; default: that of the run")

    @model_validator(mode="after")
    def _evenly(self) -> Ssh:
        if self.workers % len(self.hosts):
            raise ValueError(
                f"workers is {self.workers}, and there are {len(self.hosts)} hosts; write a multiple, since "
                "each "
                "gets as many"
            )
        return self

    @property
    def first(self) -> str:
        """Host of the scheduler."""
        return self.scheduler or self.hosts[0]

    @property
    def look(self) -> str:
        """What to look at where no workers come."""
        return (
            f"See whether `ssh {self._login(self.first)} {self.python or sys.executable} -c 'import "
            "daskumap'` works "
            "without a password, on each host, and whether they reach one another."
        )

    def _login(self, host: str) -> str:
        port = f"-p {self.port} " if self.port else ""
        return f"{port}{self.user}@{host}" if self.user else f"{port}{host}"

    def explain(self) -> list[str]:
        """Return sentences that say what a run would do with it."""
        where = self.interface or self.first
        return [
            f"A run starts a scheduler on {self.first} by SSH, which listens on {where}, and on "
            f"{', '.join(self.hosts)} {self.size()}.",
            "All end with the run. Data and run store have to be where all hosts reach them.",
            "Scheduler and workers know one another by certificates."
            if self.tls
            else f"Whoever reaches {where} can run code there: `tls` keeps out who has no certificate.",
        ]

    def shown(self) -> str:
        """Return the commands that are run on the hosts."""
        start = f"{self.python or sys.executable} -m distributed.cli.dask_"

        def host(name: str) -> str:
            return f"--interface {self.interface}" if self.interface else f"--host {name}"

        lines = [f"ssh {self._login(self.first)} {start}scheduler {host(self.first)} --no-dashboard"]
        for one in self.hosts:
            size = f"--nworkers {self.workers // len(self.hosts)} --nthreads {self.threads}"
            size += f" --memory-limit {self.memory} --no-dashboard"
            lines.append(
                f"ssh {self._login(one)} {start}worker {self.protocol}://{self.first}:<port> {host(one)} "
                f"{size}"
            )
        shipped = [f"#   {name}={shlex.quote(value)}" for name, value in self.variables().items()]
        return "\n".join([*lines, "# with these settings:", *shipped])

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """Log in and start."""
        import asyncssh  # noqa: F401, what is missing is said before anything is started
        from distributed import SpecCluster
        from distributed.deploy import ssh

        login = {"connect_options": self._connect_options(), "remote_python": self.python}
        # Not by `SSHCluster`, whose workers all have the same options: each has to listen on its own host.
        cluster = SpecCluster(
            {i: self._worker(ssh.Worker, host, login) for i, host in enumerate(self.hosts)},
            {
                "cls": ssh.Scheduler,
                "options": {
                    "address": self.first,
                    "kwargs": self._options(self.first, dashboard=False, port=0),
                    **login,
                },
            },
            name="daskumap",
            silence_logs=logging.WARNING,
        )
        with cluster, connected(cluster) as client:
            yield client

    def _worker(self, kind: Any, host: str, login: dict[str, Any]) -> dict[str, Any]:
        count = self.workers // len(self.hosts)
        options = self._options(host, **self.worker_options(), n_workers=count)
        return {"cls": kind, "options": {"address": host, "kwargs": options, "worker_class": NANNY, **login}}

    def _options(self, host: str, **options: Any) -> dict[str, Any]:
        """Return keywords of a scheduler or of workers on a host: where they listen, and more."""
        listening = {"interface": self.interface} if self.interface else {"host": host}
        return {"protocol": f"{self.protocol}://", "dashboard_address": "127.0.0.1:0", **listening, **options}

    def _connect_options(self) -> dict[str, Any]:
        options = {
            "username": self.user,
            "port": self.port,
            "client_keys": [str(self.identity)] if self.identity else None,
            "known_hosts": str(self.known_hosts) if self.known_hosts else None,
        }
        return {name: value for name, value in options.items() if value is not None}
