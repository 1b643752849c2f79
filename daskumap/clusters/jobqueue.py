"""Workers as jobs of a batch system, by dask-jobqueue: Slurm, PBS, LSF, Grid Engine."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from daskumap.clusters.base import Seconds, Sized, connected
from daskumap.errors import ClusterError, ParameterError


class Batch(Sized):
    """Workers that are jobs, and a scheduler in the process of the run, which the nodes have to reach."""

    extra: ClassVar[str] = "jobqueue"
    made_by: ClassVar[str]  # class of dask_jobqueue
    submit: ClassVar[str]
    queue_command: ClassVar[str]

    wait: Seconds = Field(3600, description="how long jobs may wait in the queue")
    interface: str = Field(
        description="network by which nodes reach the scheduler, such as ib0 or eth0 (`ip -brief address` "
        "lists them); lo where all is one machine"
    )
    workers_per_job: int = Field(1, ge=1, strict=True, description="worker processes in one job")
    queue: str | None = Field(None, description="queue or partition")
    account: str | None = Field(None, description="account or project that is charged")
    walltime: str | None = Field(None, description="time limit of a job, as the batch system writes it")
    directives: tuple[str, ...] = Field((), description="more options of a job, without the #...")
    skip_directives: tuple[str, ...] = Field(
        (), description="options that are left out, by a part of their line"
    )
    prologue: tuple[str, ...] = Field((), description="lines of shell before the worker starts")
    python: str | None = Field(None, description="Python of the nodes; default: that of the run")
    log_folder: str | None = Field(None, description="folder for what jobs write, which nodes reach too")
    name: str = Field("daskumap", description="name of the jobs")

    @field_validator("walltime", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError('without quotes YAML takes 12:00:00 for a number; write "12:00:00"')
        return value

    @model_validator(mode="after")
    def _whole_jobs(self) -> Batch:
        if self.workers % self.workers_per_job:
            raise ValueError(
                f"workers is {self.workers} and workers_per_job is {self.workers_per_job}; all jobs are "
                "alike, so the first has to be a multiple of the second"
            )
        return self

    @property
    def jobs(self) -> int:
        """How many are submitted."""
        return self.workers // self.workers_per_job

    @property
    def look(self) -> str:
        """What to look at where no workers come."""
        logs = (
            f"the logs in {self.log_folder}"
            if self.log_folder
            else "the logs of the jobs (log_folder says where)"
        )
        return (
            f"Look at the queue (`{self.queue_command}`), at {logs}, and whether nodes reach this machine by "
            f"{self.interface}; `daskumap cluster check` shows what is submitted."
        )

    def explain(self) -> list[str]:
        """Return sentences that say what a run would do with it."""
        return [
            f"A run starts a scheduler in its own process, which listens on {self.interface}, and submits "
            f"{self.jobs} job(s) by `{self.submit}`, which are {self.size()}.",
            f"It waits up to {self.wait:g} s for them, and cancels them when it ends.",
            self._safety(),
        ]

    def _safety(self) -> str:
        if self.tls:
            return "Scheduler and workers know one another by certificates."
        if self.interface == "lo":
            return "Nobody outside this machine reaches the scheduler."
        return f"Whoever reaches {self.interface} can run code there: `tls` keeps out who has no certificate."

    def shown(self) -> str:
        """Return the script of a job; the package makes it, so it has to be installed."""
        with _scripts_only():
            try:
                job = self._class().job_cls(
                    f"{self.protocol}://<address of the scheduler>", name="<name>", **self._job(preview=True)
                )
            except ImportError as error:
                raise self.lacking(error) from error
        return str(job.job_script())

    def _class(self) -> Any:
        with _own_handler():
            import dask_jobqueue
        return getattr(dask_jobqueue, self.made_by)

    def _job(self, preview: bool = False) -> dict[str, Any]:
        exports = [f"export {name}='{value}'" for name, value in self.variables().items()]
        options = {
            "cores": self.threads * self.workers_per_job,
            "memory": f"{self.memory * self.workers_per_job} B",
            "processes": self.workers_per_job,
            "queue": self.queue,
            "walltime": self.walltime,
            "interface": self.interface,
            "protocol": f"{self.protocol}://" if self.tls else None,
            "job_name": self.name,
            "job_extra_directives": list(self.directives),
            "job_directives_skip": list(self.skip_directives),
            "job_script_prologue": [*exports, *self.prologue],
            "python": self.python or sys.executable,
            # A preview makes no folder.
            "log_directory": None if preview else self.log_folder,
            "local_directory": self.folder,
            "worker_extra_args": ["--no-dashboard"],
            **self._account(),
        }
        return {name: value for name, value in options.items() if value is not None}

    def _account(self) -> dict[str, Any]:
        return {"account": self.account}

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """Submit jobs; a refusal of the batch system is an error at once."""
        if shutil.which(self.submit) is None:
            raise ClusterError(
                f"There is no command {self.submit} here. Start the run where jobs can be submitted, such as "
                "the login node."
            )
        kind = self._class()
        cluster = kind(
            scheduler_options={
                "dashboard": False,
                "dashboard_address": "127.0.0.1:0",
                "interface": self.interface,
            },
            **self._job(),
        )
        with cluster:
            self._submit(cluster)
            with connected(cluster) as client:
                yield client

    def _submit(self, cluster: Any) -> None:
        """Submit all jobs; `scale` would do so behind our back, and nobody would hear of a refusal."""
        for _ in range(self.jobs):
            cluster.worker_spec.update(cluster.new_worker_spec())
        try:
            cluster.sync(cluster._correct_state)
        except RuntimeError as error:
            cluster._created.clear()  # its end would ask for that of jobs that there are not
            said = " ".join(str(error).rpartition("stderr:")[2].split()).rstrip(".")
            raise ClusterError(
                f"The batch system does not take the jobs. {self.submit} says: {said}. Change the cluster "
                "file; `daskumap cluster check` shows what is submitted."
            ) from error


class Slurm(Batch):
    """Jobs of Slurm."""

    kind: Literal["slurm"]
    made_by: ClassVar[str] = "SLURMCluster"
    submit: ClassVar[str] = "sbatch"
    queue_command: ClassVar[str] = "squeue --me"


class Pbs(Batch):
    """Jobs of PBS or Torque."""

    kind: Literal["pbs"]
    made_by: ClassVar[str] = "PBSCluster"
    submit: ClassVar[str] = "qsub"
    queue_command: ClassVar[str] = "qstat -u $USER"
    resource_spec: str | None = Field(
        None, description="what -l asks for; default: select=1 with cores and memory"
    )

    def _account(self) -> dict[str, Any]:
        return {"account": self.account, "resource_spec": self.resource_spec}


class Lsf(Batch):
    """Jobs of LSF."""

    kind: Literal["lsf"]
    made_by: ClassVar[str] = "LSFCluster"
    submit: ClassVar[str] = "bsub"
    queue_command: ClassVar[str] = "bjobs"
    units: Literal["kb", "mb", "gb", "tb"] = Field(
        "kb", description="unit of memory, LSF_UNIT_FOR_LIMITS of lsf.conf"
    )

    def _account(self) -> dict[str, Any]:
        return {"project": self.account, "lsf_units": self.units}


class Sge(Batch):
    """Jobs of Grid Engine."""

    kind: Literal["sge"]
    made_by: ClassVar[str] = "SGECluster"
    submit: ClassVar[str] = "qsub"
    queue_command: ClassVar[str] = "qstat"
    resource_spec: str | None = Field(None, description="what -l asks for, such as h_vmem=8G")
    parallel_environment: str | None = Field(
        None, description="-pe of a job with several threads, such as smp"
    )

    def _account(self) -> dict[str, Any]:
        return {"project": self.account, "resource_spec": self.resource_spec}

    def _job(self, preview: bool = False) -> dict[str, Any]:
        job = super()._job(preview)
        if self.parallel_environment:
            cores = self.threads * self.workers_per_job
            job["job_extra_directives"] = [
                f"-pe {self.parallel_environment} {cores}",
                *job["job_extra_directives"],
            ]
        return job


@contextlib.contextmanager
def _own_handler() -> Iterator[None]:
    """Keep what this process does on SIGINT, which importing dask_jobqueue changes."""
    if threading.current_thread() is not threading.main_thread():
        if "dask_jobqueue" not in sys.modules:
            raise ParameterError(
                "dask_jobqueue can be imported in the main thread only, since it sets a handler of signals. "
                "Write `import dask_jobqueue` at the top of the script."
            )
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _scripts_only() -> Iterator[None]:
    """Let nothing of the user's own Dask configuration be missing from a preview."""
    import dask

    with dask.config.set({}):
        yield
