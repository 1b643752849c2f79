"""Two worker processes against one, a thread each: how much of the second one arrives.

Each worker is bound to a core of its own, as batch systems do it: unbound, the threads move from core to
core, and two workers take an eighth longer. Both clusters are warmed by a fit of their own, and run in turn;
the fastest of the repeats counts. Efficiency is t1 / (2 t2). The promise is for neighbors to layout. Memory
is such that the single worker cannot keep all decoded rows, which two never do: both clusters do the same.
Task seconds tell what is lost where: if two workers take more of them, the tasks were in each other's way; if
not, the workers waited.
"""

import argparse
import hashlib
import os
from typing import Any

import measure

LEAST_EFFICIENCY = 0.85
STAGES = ("neighbors", "calibrate", "symmetrize", "initialize", "layout")
WORKERS = (1, 2)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--memory", default="1GB", help="bytes a worker")
    parser.add_argument("--repeats", type=int, default=2, help="fits with each number of workers")


def run(arguments: argparse.Namespace) -> measure.Outcome:
    """Fit with one worker and with two, in turn."""
    from daskumap.testing.datasets import uneven_clusters

    path = measure.write_rows(uneven_clusters(arguments.rows, arguments.columns), arguments.folder)
    fits: dict[int, list[dict[str, Any]]] = {count: [] for count in WORKERS}
    for _ in range(arguments.repeats):
        for count in WORKERS:
            fits[count].append(fit_with(count, str(path), arguments))
    one, two = (best(fits[count], "seconds") for count in WORKERS)
    tasks = [best(fits[count], "task_seconds") for count in WORKERS]
    title = f"{arguments.rows:,} x {arguments.columns}, workers of {arguments.memory}, {measure.machine()}"
    same = len({found["bits"] for found in [*fits[1], *fits[2]]}) == 1
    promises = [
        measure.at_least("efficiency, neighbors to layout", efficiency(one, two, STAGES), LEAST_EFFICIENCY),
        measure.at_least("same bits in all fits", float(same), 1.0),
    ]
    return measure.Outcome(title, [table(one, two, tasks)], promises, [], fits)


def fit_with(count: int, path: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Fit on a cluster of so many worker processes."""
    from distributed import Client, LocalCluster

    options = {"memory": arguments.memory, **dict(arguments.set)}
    cluster = LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        memory_limit=arguments.memory,
        dashboard_address="127.0.0.1:0",
        local_directory=str(arguments.folder),
    )
    with cluster, Client(cluster, set_as_default=False) as client:
        bind(client)
        # With a partition for each worker, the layout's kernels are loaded in all of them.
        warm = {**options, "client": client, "partitions": count}
        measure.warm_up(arguments.columns, arguments.folder, **warm)
        with measure.run_store(arguments.folder) as place:
            fitted, seconds = measure.timed_fit(path, place, client=client, **options)
            bits = hashlib.sha256(fitted.embedding[:].tobytes()).hexdigest()
            return {**measure.record(fitted, seconds), "bits": bits}


def bind(client: Any) -> None:
    """Bind each worker to one core, where the system can and there are enough."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []
    workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
    if len(cores) < len(workers):
        raise SystemExit(f"{len(workers)} workers need as many cores; there are {len(cores)}")
    for worker, core in zip(workers, cores, strict=False):
        client.run(bind_here, core, workers=[worker])


def bind_here(core: int) -> None:
    """Bind all threads of this process to a core; those that come inherit it."""
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {core})


def best(fits: list[dict[str, Any]], figure: str) -> dict[str, float]:
    """Return the least of a figure of each stage, in the order of the stages."""
    found = [measure.in_order(fit["report"]["stages"]) for fit in fits]
    return {stage: float(min(stages[stage][figure] for stages in found)) for stage in found[0]}


def efficiency(one: dict[str, float], two: dict[str, float], names: tuple[str, ...]) -> float:
    """Return the share of two workers' time that a perfect division of the work would take."""
    return sum(one[name] for name in names) / (2 * sum(two[name] for name in names))


def table(one: dict[str, float], two: dict[str, float], tasks: list[dict[str, float]]) -> measure.Table:
    """Return seconds and efficiency by stage."""
    rows = [["stage", "1 worker, s", "2 workers, s", "efficiency", "task seconds of 1", "of 2"]]
    groups = {**{name: (name,) for name in one}, "neighbors to layout": STAGES, "all": tuple(one)}
    for title, names in groups.items():
        seconds = [f"{sum(found[name] for name in names):,.1f}" for found in (one, two, *tasks)]
        rows.append([title, *seconds[:2], f"{efficiency(one, two, names):.2f}", *seconds[2:]])
    return rows
