"""Input and graph larger than memory, on workers that the operating system holds to their limit.

Each worker is a process with one thread under a cgroup of its own (or RLIMIT_DATA, `benchmarks/limits.py`);
scheduler and driver are outside. Dask's own watermarks are off, so nothing but the limit and the plan keeps a
worker small. One that the kernel kills is started again, as a nanny would, and counted.
"""

import argparse
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import limits
import measure
from compare import ROOT

SAMPLE_SECONDS = 0.2
# The shipped configuration, which turns Dask's watermarks off, and what a nanny gives its worker. Ours has no
# nanny: the limit holds the worker alone.
ENVIRONMENT = {
    "DASK_CONFIG": str(ROOT / "daskumap" / "clusters" / "settings.yaml"),
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--columns", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", default="1GB", help="limit of each worker, also given to the plan")
    parser.add_argument("--mechanism", choices=("cgroup", "data"), default="cgroup", help="data: RLIMIT_DATA")


class LimitedWorker:
    """One worker process under a limit, started again when it dies."""

    def __init__(self, number: int, address: str, size: int, folder: Path, mechanism: str) -> None:
        self.limit = limits.make_limit(str(number), size) if mechanism == "cgroup" else limits.DataLimit(size)
        self.arguments = [
            *self.limit.command(),
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            address,
            "--nthreads",
            "1",
            "--no-nanny",
            "--no-dashboard",
            "--memory-limit",
            str(size),
            "--local-directory",
            str(folder),
        ]
        self.deaths, self.rss = 0, 0
        self.log = (folder / f"worker-{number}.log").open("w")
        self.start()

    def start(self) -> None:
        """Start the process, which enters the limit before it becomes the worker."""
        paths = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": paths}
        self.process = subprocess.Popen(self.arguments, env=environment, stdout=self.log, stderr=self.log)

    def look(self) -> None:
        """Note what the process holds; start it again if it is gone."""
        if self.process.poll() is not None:
            self.deaths += 1
            self.start()
        self.rss = max(self.rss, self.limit.readings().get("rss", 0) or self._resident())

    def _resident(self) -> int:
        try:
            return measure.status_bytes("VmRSS", self.process.pid)
        except OSError:  # it ended between the two looks
            return 0

    def close(self) -> dict[str, int]:
        """End the process; return what was counted."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:  # a kernel that does not look at signals
            self.process.kill()
            self.process.wait()
        readings = {**self.limit.readings(), "rss": self.rss, "deaths": self.deaths}
        self.limit.close()
        self.log.close()
        return readings


class LimitedCluster:
    """A scheduler in this process and limited workers, watched by a thread."""

    def __init__(self, arguments: argparse.Namespace, size: int) -> None:
        from distributed import Client, LocalCluster

        self.cluster = LocalCluster(
            n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", processes=True
        )
        self.client = Client(self.cluster, set_as_default=False)
        self.folder = arguments.folder / "workers"
        self.folder.mkdir(exist_ok=True)
        self.readings: list[dict[str, int]] = []
        self.workers: list[LimitedWorker] = []
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        try:
            for number in range(arguments.workers):
                address = self.cluster.scheduler_address
                self.workers.append(LimitedWorker(number, address, size, self.folder, arguments.mechanism))
            self.client.wait_for_workers(arguments.workers, timeout=120)
            self._watch.start()
        except BaseException:
            self.__exit__()
            raise

    def _look(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            for worker in self.workers:
                worker.look()

    def __enter__(self) -> "LimitedCluster":
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        if self._watch.ident is not None:
            self._watch.join()
        self.readings = [worker.close() for worker in self.workers]
        self.client.close()
        self.cluster.close()


def idle_bytes() -> int:
    """Return what this worker holds between two runs: libraries, compiled kernels, dask."""
    import ctypes
    import gc

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return measure.status_bytes("VmRSS")


def run(arguments: argparse.Namespace) -> measure.Outcome:
    """Fit on the limited workers."""
    from dask.utils import parse_bytes

    from daskumap.kernels.jit import is_compiled
    from daskumap.testing.datasets import uneven_clusters

    size = parse_bytes(arguments.memory)
    data = uneven_clusters(arguments.rows, arguments.columns)
    path = measure.write_rows(data, arguments.folder)

    def warm_up(client: Any) -> None:
        measure.warm_up(arguments.columns, arguments.folder, client=client, partitions=arguments.workers)

    if not is_compiled():  # which leaves 110 MB in a process, once an installation
        with LimitedCluster(arguments, size) as compiling:
            warm_up(compiling.client)
    with measure.run_store(arguments.folder) as place:
        with LimitedCluster(arguments, size) as cluster:
            warm_up(cluster.client)  # loads the kernels, so that they count as overhead and not as time
            idle = list(cluster.client.run(idle_bytes).values())
            fitted, seconds = measure.timed_fit(
                str(path), place, client=cluster.client, memory=size, **dict(arguments.set)
            )
        figures = {
            **measure.record(fitted, seconds),
            "idle": idle,
            "readings": cluster.readings,
            "limit": cluster.workers[0].limit.kind,
            "limit_bytes": size,
            "input_bytes": arguments.rows * arguments.columns * 4,
            "graph_bytes": measure.folder_bytes(f"{place}/graph"),
            "store_bytes": measure.folder_bytes(place),
        }
    return outcome(arguments, figures)


def outcome(arguments: argparse.Namespace, figures: dict[str, Any]) -> measure.Outcome:
    """Return tables and promises of a run."""
    title = (
        f"{arguments.rows:,} x {arguments.columns}, {arguments.workers} workers of {arguments.memory} "
        f"({figures['limit']}), {measure.machine()}"
    )
    tables = [step_table(figures), memory_table(figures), worker_table(figures)]
    return measure.Outcome(title, tables, promises(figures), [], figures)


def step_table(figures: dict[str, Any]) -> measure.Table:
    """Return seconds and peaks by step."""
    rows = [["step", "tasks", "seconds", "peak VmHWM, MB", "projected, MB"]]
    for name, step in measure.in_order(figures["report"]["steps"]).items():
        peaks = [measure.megabytes(step[key]) for key in ("peak_bytes", "projected_bytes")]
        rows.append([name, f"{step['tasks']:,}", f"{step['seconds']:,.1f}", *peaks])
    return [*rows, ["wall", "", f"{figures['wall']:,.1f}", "", ""]]


def memory_table(figures: dict[str, Any]) -> measure.Table:
    """Return sizes beside what the workers have."""
    lines = {
        "input": figures["input_bytes"],
        "run store": figures["store_bytes"],
        "graph": figures["graph_bytes"],
        "limit of all workers": figures["limit_bytes"] * len(figures["idle"]),
        "idle workers, all": sum(figures["idle"]),
        "left beside their overhead": room(figures),
    }
    return [["", "MB"], *([name, measure.megabytes(size)] for name, size in lines.items())]


def room(figures: dict[str, Any]) -> int:
    """Return the bytes that the workers have left beside their own overhead."""
    return int(figures["limit_bytes"] * len(figures["idle"]) - sum(figures["idle"]))


def worker_table(figures: dict[str, Any]) -> measure.Table:
    """Return what the system counted of each worker; page cache counts in "most", not in "own memory"."""
    rows = [["worker", "own memory at most, MB", "most with page cache, MB", "limit hit", "killed", "deaths"]]
    for number, found in enumerate(figures["readings"]):
        peak = measure.megabytes(found["peak"]) if found.get("peak") else "-"
        counts = [str(found.get(name, "-")) for name in ("hits", "killed", "deaths")]
        rows.append([str(number), measure.megabytes(found["rss"]), peak, *counts])
    return rows


def promises(figures: dict[str, Any]) -> list[measure.Promise]:
    """Hold the figures against what is promised."""
    report, readings = figures["report"], figures["readings"]
    limit = figures["limit_bytes"] * len(readings)
    return [
        measure.at_least("recall", report["measures"]["recall"], 0.95),
        measure.at_most("workers that died", sum(found["deaths"] for found in readings), 0),
        measure.at_most("killed by the kernel", sum(found.get("killed", 0) for found in readings), 0),
        measure.within_plan(report["steps"]),
        measure.at_least("input / limit of all workers", figures["input_bytes"] / limit, 1.0),
        measure.at_least("graph / left beside overhead", figures["graph_bytes"] / room(figures), 1.0),
    ]
