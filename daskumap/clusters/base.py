"""What all kinds of clusters have in common: keys of the file, settings, how workers are waited for."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from daskumap.clusters import settings
from daskumap.engine.machine import parse_memory
from daskumap.errors import ClusterError, DaskumapError, DependencyError, ParameterError

log = logging.getLogger(__name__)

# A worker in a process of its own, which is started again when it dies.
NANNY = "distributed.Nanny"
# While workers are waited for, a look at how many there are costs a message.
LOOK_SECONDS = 0.5
# As often somebody who waits is told what for.
SAY_SECONDS = 60
# A file lies where many read it: what opens a bucket or a database has no place in it.
CREDENTIALS = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|ACCESS_KEY|API_KEY|PRIVATE_KEY", re.IGNORECASE)


def parse_seconds(value: Any) -> Any:
    """Return seconds of a number or a text such as "10 minutes"."""
    if isinstance(value, str):
        from dask.utils import parse_timedelta

        try:
            return parse_timedelta(value)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{value!r} is no time; give seconds, or text such as '10 minutes'") from error
    return value


Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(gt=0, allow_inf_nan=False)]
Memory = Annotated[int, BeforeValidator(parse_memory)]
Count = Annotated[int, Field(ge=1, strict=True)]


class Part(BaseModel):
    """A part of a cluster file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(Part):
    """Files of certificates, as PEM, with which scheduler, workers and client know one another."""

    ca: Path = Field(description="certificate of the authority that signed the others")
    cert: Path = Field(description="certificate of this cluster")
    key: Path = Field(description="its private key, which only its owner may read")

    def settings(self) -> dict[str, Any]:
        """Return what Dask is told."""
        roles = ("scheduler", "worker", "client")
        files = {
            f"distributed.comm.tls.{role}.{name}": str(getattr(self, name).absolute())
            for role in roles
            for name in ("cert", "key")
        }
        return {
            "distributed.comm.require-encryption": True,
            "distributed.comm.tls.ca-file": str(self.ca.absolute()),
            **files,
        }


class Cluster(Part):
    """A cluster as a file describes it. `started` gives a client of it, and closes what it started."""

    kind: str = Field(description="what starts the workers")
    wait: Seconds = Field(300, description="how long workers are waited for: seconds, or '10 minutes'")

    extra: ClassVar[str] = ""  # of the package, with what this kind needs
    one_run: ClassVar[bool] = False  # whether it cannot be started again when a run ended
    tls: Tls | None = Field(None, description="encrypt and authenticate: files ca, cert and key")

    @property
    def expected(self) -> int:
        """How many workers a run waits for."""
        raise NotImplementedError

    @property
    def look(self) -> str:
        """What to look at where no workers come."""
        raise NotImplementedError

    def explain(self) -> list[str]:
        """Return sentences that say what a run would do with it."""
        raise NotImplementedError

    def shown(self) -> str:
        """Return what would be submitted or run, as text: a script, a manifest, or commands."""
        raise NotImplementedError

    def opened(self) -> contextlib.AbstractContextManager[Any]:
        """Start what is to be started; gives a client."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return what Dask is told, by dotted names."""
        return {**settings.shipped(), **(self.tls.settings() if self.tls else {})}

    def environment_of_workers(self) -> dict[str, str]:
        """Return variables that each worker process has."""
        return dict(settings.ONE_THREAD)

    def variables(self) -> dict[str, str]:
        """Return all that is shipped, as variables."""
        return {**settings.as_variables(self.settings()), **self.environment_of_workers()}

    @property
    def protocol(self) -> str:
        """How scheduler and workers talk."""
        return "tls" if self.tls else "tcp"

    def sizes(self) -> dict[str, int]:
        """Return workers, threads and memory as far as they are known without a start."""
        raise NotImplementedError

    @contextlib.contextmanager
    def started(self) -> Iterator[Any]:
        """Start the cluster, wait for its workers, give a client; close what was started in the end.

        Raises
        ------
        ClusterError
            If it cannot be started, or no worker comes in time, saying what to look at.
        DependencyError
            If a package is missing.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(settings.in_force(self.settings(), self.environment_of_workers()))
            with self._our_words():
                client = stack.enter_context(self.opened())
            self._wait(client)
            self._compare(client)
            yield client

    @contextlib.contextmanager
    def _our_words(self) -> Iterator[None]:
        try:
            yield
        except DaskumapError:
            raise
        except ImportError as error:
            raise self.lacking(error) from error
        except Exception as error:
            said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise ClusterError(
                f"The cluster of kind {self.kind} could not be started ({said}). {self.look}"
            ) from error

    def lacking(self, error: ImportError) -> DependencyError:
        """Return what is said where a package is missing."""
        return DependencyError(
            f"A cluster of kind {self.kind} needs the package {error.name or error}. Install it: "
            f"pip install 'daskumap[{self.extra}]'."
        )

    def _wait(self, client: Any) -> None:
        """Wait for all workers; go on with fewer when the time is over, if there are any."""
        began = said = time.monotonic()
        while (count := count_workers(client)) < self.expected:
            now = time.monotonic()
            if now - began > self.wait:
                break
            if said == began or now - said > SAY_SECONDS:
                said = now
                log.info("%d of %d workers are there. %s", count, self.expected, self.look)
            time.sleep(LOOK_SECONDS)
        if count == 0:
            raise ClusterError(
                f"No worker of the cluster of kind {self.kind} came within {self.wait:g} s. {self.look}"
            )
        if count < self.expected:
            log.warning(
                "%d of %d workers came within %g s; the run goes on with these. %s",
                count,
                self.expected,
                self.wait,
                self.look,
            )

    def _compare(self, client: Any) -> None:
        """Say which settings of the workers are not those that the plan counts on."""
        answers = client.run(settings.of_this_process)
        found = {
            name: value for answer in answers.values() for name, value in settings.differing(answer).items()
        }
        if found:
            listed = ", ".join(f"{name}: {value}" for name, value in sorted(found.items()))
            log.warning(
                "Workers have settings that cost memory or time which no plan counts (%s). Start them with "
                "those that `daskumap cluster check` shows.",
                listed,
            )


def count_workers(client: Any) -> int:
    """Return how many workers the scheduler knows."""
    return len(client.sync(client.scheduler.identity, n_workers=-1)["workers"])


class Sized(Cluster):
    """A cluster whose workers daskumap starts: as many as the file says, until the run ends."""

    workers: Count = Field(description="worker processes; their number does not change")
    threads: Count = Field(description="threads of each, and cores")
    memory: Memory = Field(description="memory of each, such as 8GB")
    folder: str | None = Field(
        None, description="local folder of the workers, for what they keep by themselves"
    )
    environment: dict[str, str] = Field({}, description="more variables of the workers; no credentials")

    @field_validator("environment", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        for name in value:
            if CREDENTIALS.search(str(name)):
                raise ValueError(
                    f"{name} looks like a credential, and a file is read by many. Let the profile of the "
                    "account, a role or a secret give it to the workers"
                )
        return {name: str(text) for name, text in value.items()}

    @property
    def expected(self) -> int:
        """All of them."""
        return self.workers

    def sizes(self) -> dict[str, int]:
        """Return what the file says."""
        return {"workers": self.workers, "threads": self.threads, "memory": self.memory}

    def environment_of_workers(self) -> dict[str, str]:
        """Return variables that each worker process has; the file's own go before those of daskumap."""
        return {**settings.ONE_THREAD, **self.environment}

    def size(self) -> str:
        """Say how many there are, and how large."""
        return (
            f"{self.workers} worker(s), each with {self.threads} thread(s) and "
            f"{self.memory / 1e9:,.3g} GB; their number does not change while a run lasts"
        )

    def worker_options(self) -> dict[str, Any]:
        """Return keywords of Dask's Nanny."""
        options = {"nthreads": self.threads, "memory_limit": self.memory}
        return options | ({"local_directory": self.folder} if self.folder else {})


def connected(cluster: Any) -> Any:
    """Return a client of a cluster object that is no default client."""
    from distributed import Client

    return Client(cluster, set_as_default=False)


def refuse_outside(path: Path, what: str) -> None:
    """Refuse a file that is not there."""
    if not path.is_file():
        raise ParameterError(f"{what} names {path}, and there is no such file.")
