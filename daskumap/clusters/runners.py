"""One allocation in which each process has a role: scheduler, driver or worker. Tasks of Slurm, ranks of MPI.

The same command runs in all of them, as `srun daskumap fit ...` and `mpirun daskumap fit ...` do. Process 0
becomes the scheduler and process 1 the driver; the others become workers. Where the run ends, so do they.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from daskumap.clusters.base import NANNY, Cluster, Count, Memory
from daskumap.clusters.jobqueue import _own_handler
from daskumap.engine.machine import parse_memory
from daskumap.errors import ClusterError

# A scheduler, a driver and a worker.
LEAST = 3


class Runner(Cluster):
    """Processes that an allocation started, each with a role."""

    threads: Count | None = Field(None, description="threads of a worker")
    memory: Memory | None = Field(None, description="memory of a worker, such as 8GB")
    interface: str | None = Field(
        None, description="network between nodes, such as ib0; default: the loopback"
    )
    folder: str | None = Field(
        None, description="local folder of the workers, for what they keep by themselves"
    )

    launcher: ClassVar[str]
    one_run: ClassVar[bool] = True
    # Whether this process drove a run: the scheduler and the workers ended with it.
    served: ClassVar[bool] = False

    def processes(self) -> int | None:
        """Return how many there are; None where this process is none of them."""
        raise NotImplementedError

    def allocated(self) -> int | None:
        """Return how many there will be, as far as the allocation says so."""
        return self.processes()

    @property
    def expected(self) -> int:
        """All but the scheduler and the driver."""
        return max(1, (self.processes() or LEAST) - 2)

    @property
    def look(self) -> str:
        """What to look at where no workers come."""
        return (
            f"Start the run with `{self.launcher} daskumap fit ...`, {LEAST} processes or more: a scheduler, "
            f"a driver and workers. Look at what the others wrote, and whether nodes reach one another by "
            f"{self._network}."
        )

    @property
    def _network(self) -> str:
        return self.interface or "the loopback"

    def explain(self) -> list[str]:
        """Return sentences that say what a run would do with it."""
        return [
            f"Started by `{self.launcher}` in one allocation, process 0 becomes the scheduler, process 1 the "
            "driver of the run, and each other one a worker; all end with the run.",
            f"They talk over {self._network}: on several nodes `interface` has to name what joins them.",
        ]

    def address_options(self) -> dict[str, Any]:
        """Return keywords of scheduler and workers: where they listen."""
        protocol = {"protocol": f"{self.protocol}://"}
        return protocol | ({"interface": self.interface} if self.interface else {"host": "127.0.0.1"})

    def worker_options(self) -> dict[str, Any]:
        """Return keywords of a Nanny."""
        options = {"nthreads": self.threads, "memory_limit": self.memory, "local_directory": self.folder}
        return {name: value for name, value in options.items() if value is not None}

    def sizes(self) -> dict[str, int]:
        """Return what the file says; in an allocation, what that has too."""
        there = self.allocated()
        options = self.worker_options() if there else Runner.worker_options(self)
        names = {"nthreads": "threads", "memory_limit": "memory"}
        known = {names[name]: value for name, value in options.items() if name in names}
        return {**known, **({"workers": max(1, there - 2)} if there else {})}

    @contextlib.contextmanager
    def opened(self) -> Iterator[Any]:
        """Take this process' role; the driver's gets a client, the others do not come back."""
        if Runner.served:
            raise ClusterError(
                "This allocation has served a run, and its scheduler and workers ended with it. Make several "
                "calls within one `with daskumap.start_cluster(...) as client:`, each with client=client."
            )
        found = self.processes()
        if found is None or found < LEAST:
            seen = "none: this is not such a process" if found is None else str(found)
            raise ClusterError(f"The allocation has {seen} of at least {LEAST} processes. {self.look}")
        with self.driven() as client:
            Runner.served = True
            yield client

    def driven(self) -> contextlib.AbstractContextManager[Any]:
        """Take this process' role, in an allocation that is large enough."""
        raise NotImplementedError


class SlurmAllocation(Runner):
    """The tasks of one allocation of Slurm, by dask-jobqueue's `SLURMRunner`."""

    kind: Literal["slurm-runner"]
    extra: ClassVar[str] = "jobqueue"
    launcher: ClassVar[str] = "srun"
    scheduler_file: str = Field(
        "scheduler-{job_id}-{step}.json",
        description="file by which the tasks find one another, in a folder that all reach",
    )

    def processes(self) -> int | None:
        """Return the number of tasks of this step; the script of a job is no such task."""
        return _integer("SLURM_NTASKS") if "SLURM_STEP_ID" in os.environ else None

    def allocated(self) -> int | None:
        """Return the number of tasks of this step, or of the job whose script this is."""
        return _integer("SLURM_NTASKS")

    def shown(self) -> str:
        """Return a script for sbatch."""
        threads, memory = self.threads or 4, self.memory or 8 * 10**9
        return "\n".join(
            [
                "#!/usr/bin/env bash",
                "# A scheduler, a driver, and two workers:",
                "#SBATCH --ntasks=4",
                f"#SBATCH --cpus-per-task={threads}",
                f"#SBATCH --mem-per-cpu={-(-memory // threads // 2**20)}M",
                "srun daskumap fit data.zarr/X run.zarr --cluster slurm-allocation.yaml",
            ]
        )

    def worker_options(self) -> dict[str, Any]:
        """Return keywords of a Nanny; what the file does not say, Slurm's variables do."""
        known = {
            "nthreads": self.threads or _integer("SLURM_CPUS_PER_TASK") or 1,
            "memory_limit": self.memory or slurm_memory(),
        }
        return {
            **super().worker_options(),
            **{name: value for name, value in known.items() if value is not None},
        }

    @contextlib.contextmanager
    def driven(self) -> Iterator[Any]:
        """Take this task's role."""
        with _own_handler():
            from dask_jobqueue.slurm import SLURMRunner
        dashboard = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
        with _ending_by_signal():
            runner = SLURMRunner(
                scheduler_file=self._file(),
                scheduler_options={**self.address_options(), **dashboard},
                worker_class=NANNY,
                worker_options={**self.address_options(), **self.worker_options()},
            )
        from distributed import Client

        with runner, Client(runner.scheduler_address, set_as_default=False) as client:
            yield client

    def _file(self) -> str:
        """Return a file of this step alone: an earlier one that died may have left its own."""
        step = f"{os.environ.get('SLURM_RESTART_COUNT', '0')}.{os.environ['SLURM_STEP_ID']}"
        return self.scheduler_file.replace("{job_id}", os.environ["SLURM_JOB_ID"]).replace("{step}", step)


def slurm_memory() -> int | None:
    """Return the bytes that Slurm gives a task, where it says so."""
    if per_cpu := _integer("SLURM_MEM_PER_CPU"):
        return parse_memory(f"{per_cpu * (_integer('SLURM_CPUS_PER_TASK') or 1)}MiB")
    if per_node := _integer("SLURM_MEM_PER_NODE"):
        return parse_memory(f"{per_node // max(1, _tasks_of_node())}MiB")
    return None


def _tasks_of_node() -> int:
    """Return the most tasks on one node: "2(x3),1" are two on three nodes and one on the last."""
    found = os.environ.get("SLURM_STEP_TASKS_PER_NODE") or os.environ.get("SLURM_TASKS_PER_NODE") or "1"
    return max(int(part.split("(")[0]) for part in found.split(","))


def _integer(name: str) -> int | None:
    found = os.environ.get(name, "")
    return int(found) or None if found.isdigit() else None


@contextlib.contextmanager
def _ending_by_signal() -> Iterator[None]:
    """Let SIGINT end a process without a word, by which the runner ends those whose role is over."""
    before = signal.signal(signal.SIGINT, lambda *_: sys.exit())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Mpi(Runner):
    """The ranks of MPI, by dask-mpi."""

    kind: Literal["mpi"]
    extra: ClassVar[str] = "mpi"
    launcher: ClassVar[str] = "mpirun"

    def processes(self) -> int | None:
        """Return the number of ranks, as the launchers of Open MPI, MPICH and Slurm say it."""
        return (
            _integer("OMPI_COMM_WORLD_SIZE")
            or _integer("PMI_SIZE")
            or (_integer("SLURM_NTASKS") if "SLURM_STEP_ID" in os.environ else None)
        )

    def shown(self) -> str:
        """Return the command."""
        return (
            "# a scheduler, a driver, two workers:\n"
            "mpirun -n 4 daskumap fit data.zarr/X run.zarr --cluster mpi.yaml"
        )

    @contextlib.contextmanager
    def driven(self) -> Iterator[Any]:
        """Take this rank's role."""
        import dask
        from dask_mpi import initialize
        from distributed import Client

        drives = initialize(
            interface=self.interface or _loopback(),
            protocol=f"{self.protocol}://",
            dashboard=False,
            dashboard_address="127.0.0.1:0",
            worker_class=NANNY,
            worker_options=self.worker_options(),
            exit=False,
        )
        if not drives:
            sys.exit()
        with Client(dask.config.get("scheduler_address"), set_as_default=False) as client:
            try:
                yield client
            finally:
                client.shutdown()


def _loopback() -> str:
    """Return the name of this machine's loopback interface."""
    import psutil

    found = psutil.net_if_addrs()
    return next((name for name in ("lo", "lo0") if name in found), "lo")
