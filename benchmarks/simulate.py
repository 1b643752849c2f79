"""How long 10^8 and 10^9 rows would take on many workers, from what one real run measured.

    python benchmarks/scale.py growth --folder DIR --json growth.json
    python benchmarks/simulate.py growth.json [--rows 100000000 1000000000] [--workers 64 512] ...

Tasks, bytes and work of a stage come from `daskumap.plan` of an array of that shape, seconds a unit of work
and the spread of task times from the run's receipts. Tasks are dealt to slots by list scheduling. What the
model assumes stands at the top of its output; all of it can be set. The same arguments give the same output
(give the two --scheduler figures, which are measured otherwise).
"""

import argparse
import heapq
import json
import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from compare import ROOT, render

sys.path.append(str(ROOT))

CAUSES = ("compute", "few tasks", "stragglers", "scheduler", "store bytes", "store requests", "network")
# Exchanges that a stage's tasks read: a slice of every batch, each column a request, some batches at a time
# (`BatchReader`), of which the offsets, and the metadata of each array, are read whole.
EXCHANGES = {
    "neighbors": ("partition.shuffle", 2),
    "neighbors.merge": ("neighbors", 3),
    "symmetrize": ("calibrate", 3),
}
# Arrays that a stage reads of each task of others: one by one, and with all threads where it counts the rows
# of wide cells, twice.
READS = {"partition.count": ("partition.assign", 6), "partition.order": ("partition.count", 6)}
COUNTED = {"partition.order": ("partition.assign", 4)}
# Spreads below this many tasks say nothing.
LEAST_TASKS = 8
NOOPS, MESH, REPEATS = 2_000, 96, 3


@dataclass(frozen=True)
class World:
    """What is assumed of the cluster."""

    workers: int
    threads: int
    memory: str
    network: float  # bytes a second into a worker
    store: float  # bytes a second of the store, all workers together
    request: float  # seconds a request of the store
    task: float  # the scheduler's seconds a task
    edge: float  # the scheduler's seconds a dependency

    @property
    def slots(self) -> int:
        """Tasks at a time."""
        return self.workers * self.threads


def measure_scheduler() -> tuple[float, float]:
    """Return the scheduler's seconds a task that does nothing, and a dependency between tasks."""
    from distributed import Client, LocalCluster

    # Threads enough that the scheduler is what tasks wait for, not the way to one worker and back.
    options = {"n_workers": 2, "threads_per_worker": 16, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        _seconds(client, 100, None)
        task = min(_seconds(client, NOOPS, None) for _ in range(REPEATS)) / NOOPS
        blocks = client.map(_nothing, range(MESH), pure=False)
        alone, mesh = (min(_seconds(client, MESH, on) for _ in range(REPEATS)) for on in (None, blocks))
    return task, max(0.0, mesh - alone) / MESH**2


def _seconds(client: Any, tasks: int, argument: Any) -> float:
    """Return how long so many empty tasks take; `argument` may be futures that each of them depends on."""
    begin = time.perf_counter()
    client.gather([client.submit(_nothing, argument, pure=False) for _ in range(tasks)])
    return time.perf_counter() - begin


def _nothing(_: Any) -> None:
    """Do nothing."""


def plan_of(rows: int, columns: int, workers: int, threads: int, memory: str) -> tuple[Any, str]:
    """Return the plan of an array of that shape, made from its metadata alone, and why it is refused."""
    import zarr

    import daskumap
    from daskumap.errors import PlanError

    with tempfile.TemporaryDirectory() as folder:
        chunks = (min(rows, 100_000), columns)
        zarr.create_array(f"{folder}/x.zarr", shape=(rows, columns), chunks=chunks, dtype="float32")
        options = {"workers": workers, "threads": threads}
        try:
            return daskumap.plan(f"{folder}/x.zarr", memory=memory, **options), ""
        except PlanError as error:  # go on as if there were memory: the time says what else is in the way
            return daskumap.plan(f"{folder}/x.zarr", memory="100TB", **options), str(error)


def work_of(stage: Any, rows: int) -> float:
    """Return a stage's work: as planned, else its rows."""
    return float(stage.work or rows)


class Costs:
    """Seconds a unit of work of each step, and the spread of its task times, from a recorded run."""

    def __init__(self, recorded: dict[str, Any]) -> None:
        sizes, self.steps = recorded["report"]["sizes"], recorded["report"]["steps"]
        self.threads = recorded["threads"]
        self.rows, self.columns = sizes["rows"], sizes["columns"]
        # Work depends on the shape alone; memory only has to be enough.
        planned, _ = plan_of(self.rows, self.columns, 1, 1, "1TB")
        self.rate = {
            stage.name: self._core_seconds(stage.name) / work_of(stage, self.rows) for stage in planned.stages
        }
        self.spread = {name: _spread(receipts) for name, receipts in recorded["receipts"].items()}
        self.usual = float(np.median([s for s in self.spread.values() if s is not None] or [0.1]))

    def _core_seconds(self, name: str) -> float:
        """Return the seconds of cores that a step took; a task of the layout keeps all threads busy."""
        step = self.steps[name]
        return float(step["kernel_seconds"] * self.threads if name == "layout" else step["task_seconds"])

    def seconds(self, stage: Any, rows: int) -> float:
        """Return the core seconds of a planned stage."""
        return self.rate[stage.name] * work_of(stage, rows)

    def noise(self, name: str, shape: tuple[int, ...]) -> Any:
        """Return log-normal factors with mean 1, the same in every call."""
        found = self.spread.get(name)
        sigma = self.usual if found is None else found
        generator = np.random.default_rng(sum(map(ord, name)))
        return np.exp(generator.normal(-(sigma**2) / 2, sigma, shape))


def _spread(receipts: list[list[float]]) -> float | None:
    """Return the standard deviation of the logarithm of seconds a row; None if there are few tasks."""
    each = [seconds / rows for rows, seconds in receipts if rows > 0 and seconds > 0]
    return float(np.std(np.log(each))) if len(each) >= LEAST_TASKS else None


def makespan(durations: Any, slots: int, dispatch: float) -> float:
    """Return when the last task ends; a slot takes the next task, and the scheduler sends one at a time.

    >>> makespan([1.0, 1.0, 1.0], 2, 0.0), makespan([1.0, 1.0], 2, 5.0)
    (2.0, 11.0)
    """
    free = [0.0] * min(slots, len(durations))
    last = 0.0
    for number, duration in enumerate(durations):
        end = max(heapq.heappop(free), (number + 1) * dispatch) + float(duration)
        heapq.heappush(free, end)
        last = max(last, end)
    return last


def requests_of(stage: Any, stages: dict[str, Any], threads: int) -> int:
    """Return for how many requests in turn a task of a stage waits."""
    from daskumap.store.exchange import MANY_BATCHES, TOGETHER

    if stage.name in EXCHANGES:
        source, columns = EXCHANGES[stage.name]
        batches = stages[source].tasks
        return math.ceil(batches / (TOGETHER if batches >= MANY_BATCHES else 1)) * (2 * columns + 2)
    requests = 0
    for reads, at_once in ((READS, 1), (COUNTED, threads)):
        source, arrays = reads.get(stage.name, (stage.name, 0))
        requests += math.ceil(stages[source].tasks * arrays / stage.tasks / at_once)
    return requests


def simulate_stage(stage: Any, stages: dict[str, Any], costs: Costs, rows: int, world: World) -> list[float]:
    """Return a stage's seconds by cause."""
    core = costs.seconds(stage, rows)
    each = np.full(stage.tasks, core / stage.tasks)
    waiting = np.full(stage.tasks, requests_of(stage, stages, world.threads) * world.request)
    noise = costs.noise(stage.name, (stage.tasks,))
    noisy = each * noise / noise.mean()  # noise moves work between tasks, it does not make any
    ideal = core / world.slots
    even = makespan(each, world.slots, 0.0)
    # Short tasks may fill a gap by luck: no cause is credited for that.
    uneven = max(even, makespan(noisy, world.slots, 0.0))
    asking = max(uneven, makespan(noisy + waiting, world.slots, 0.0))
    sent = max(asking, makespan(noisy + waiting, world.slots, world.task))
    moved = (stage.read_bytes + stage.written_bytes) / world.store
    return [ideal, even - ideal, uneven - even, sent - asking, moved, asking - uneven, 0.0]


def simulate_layout(stage: Any, plan: Any, costs: Costs, rows: int, world: World) -> list[float]:
    """Return the layout's seconds by cause: synchronous rounds over one partition a worker."""
    parts, iterations = plan.job.sizes.layout_partitions, plan.job.iterations
    rounds = math.ceil(iterations / plan.job.params.reconcile_every)
    core = costs.seconds(stage, rows)
    ideal = core / world.slots
    even = core / (parts * world.threads)
    slowest = costs.noise(stage.name, (rounds, parts)).max(axis=1).mean()
    # Two tasks a partition and round; the second depends on the first of every partition.
    scheduler = rounds * (2 * parts * world.task + parts * parts * world.edge)
    snapshot = rows * 4 * plan.job.params.n_components
    network = rounds * snapshot * (parts - 1) / parts / world.network
    moved = (stage.written_bytes * stage.tasks / 2 + stage.read_bytes / stage.tasks) / world.store
    return [ideal, even - ideal, even * (slowest - 1), scheduler, moved, 0.0, network]


def simulate(costs: Costs, rows: int, columns: int, world: World) -> tuple[dict[str, list[float]], str]:
    """Return the seconds by cause of each step, and why the plan is refused."""
    plan, refused = plan_of(rows, columns, world.workers, world.threads, world.memory)
    stages = {stage.name: stage for stage in plan.stages}
    found = {name: simulate_stage(stage, stages, costs, rows, world) for name, stage in stages.items()}
    found["layout"] = simulate_layout(stages["layout"], plan, costs, rows, world)
    return found, refused


def table(found: dict[str, list[float]]) -> str:
    """Return the seconds by step and cause as Markdown."""
    total = np.sum(list(found.values()), axis=0)
    lines = {**{name: np.array(seconds) for name, seconds in found.items()}, "total": total}
    cells = [[name, *(f"{s:,.0f}" for s in line), f"{line.sum():,.0f}"] for name, line in lines.items()]
    return render([["seconds", *CAUSES, "all"], *cells], True)


def bottlenecks(found: dict[str, list[float]], count: int = 4) -> list[str]:
    """Return the largest seconds that are not computing, with their share of the whole."""
    total = sum(map(sum, found.values()))
    parts = [
        (seconds, f"{name}: {cause}")
        for name, line in found.items()
        for cause, seconds in zip(CAUSES, line, strict=True)
        if cause != "compute"
    ]
    worst = sorted(parts, reverse=True)[:count]
    return [f"{text}, {seconds:,.0f} s ({seconds / total:.0%})" for seconds, text in worst]


def assumptions(arguments: argparse.Namespace, costs: Costs, task: float, edge: float) -> str:
    """Return what the tables rest on."""
    return "\n".join(
        [
            "Assumed:",
            "",
            f"- costs of a run of {costs.rows:,} x {costs.columns}; seconds a unit of work stay as they are "
            "there, however large the snapshot that the layout reads at random",
            f"- task times are log-normal with the spread of its receipts (usual sigma {costs.usual:.2f})",
            f"- workers with {arguments.threads} threads and {arguments.memory}",
            f"- {arguments.network / 1e9:g} GB/s into a worker",
            f"- {arguments.store / 1e9:g} GB/s from and to the store for each 64 workers, "
            f"{1e3 * arguments.request:g} ms a request; many batches are read eight at a time",
            f"- the scheduler takes {1e3 * task:.2f} ms a task and {1e6 * edge:.0f} us a dependency",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Print a table for each size and number of workers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recorded", type=Path, help="a file of scale.py --json; its largest run counts")
    parser.add_argument("--rows", type=int, nargs="+", default=[10**8, 10**9])
    parser.add_argument("--columns", type=int, default=128)
    parser.add_argument("--workers", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--memory", default="64GB")
    parser.add_argument("--network", type=float, default=1.25e9, help="bytes a second into a worker")
    parser.add_argument("--store", type=float, default=20e9, help="bytes a second for each 64 workers")
    parser.add_argument("--request", type=float, default=0.005, help="seconds a request")
    parser.add_argument("--scheduler-task", type=float, help="seconds a task; measured if left out")
    parser.add_argument("--scheduler-edge", type=float, help="seconds a dependency; measured if left out")
    arguments = parser.parse_args(argv)
    recorded = json.loads(arguments.recorded.read_text())
    costs = Costs(recorded[-1] if isinstance(recorded, list) else recorded)
    known = (arguments.scheduler_task, arguments.scheduler_edge)
    task, edge = measure_scheduler() if None in known else known
    print(assumptions(arguments, costs, task, edge))
    for rows in arguments.rows:
        for workers in arguments.workers:
            world = World(
                workers,
                arguments.threads,
                arguments.memory,
                arguments.network,
                arguments.store * workers / 64,
                arguments.request,
                task,
                edge,
            )
            found, refused = simulate(costs, rows, arguments.columns, world)
            print(f"\n## {rows:,} x {arguments.columns} on {workers} workers\n\n{table(found)}\n")
            print("Most of what is not computing: " + "; ".join(bottlenecks(found)) + ".")
            if refused:
                print(f"\nThe plan refuses this: {refused}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
