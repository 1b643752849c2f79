"""Worker processes of this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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
        """Start a `LocalCluster`."""
        from distributed import LocalCluster

        cluster = LocalCluster(
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
        with cluster, connected(cluster) as client:
            yield client
