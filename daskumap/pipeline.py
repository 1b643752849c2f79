"""The ordered stages: read this first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from daskumap.engine.base import Engine
from daskumap.errors import PlanError, SourceError
from daskumap.planning.job import Job
from daskumap.planning.sizes import RESERVED, STORE_BYTES_A_SECOND
from daskumap.planning.stage import Receipt, Stage
from daskumap.stages import (
    calibrate,
    count,
    initialize,
    judge,
    layout,
    neighbors,
    order,
    partition,
    publish,
    scan,
    symmetrize,
    unique,
)
from daskumap.stages.common import run_of

# What the ledger calls them, in the same order; a test holds the two together.
STEPS = (
    "scan",
    "partition.cells",
    "partition.assign",
    "partition.count",
    "partition.order",
    "partition.shuffle",
    "neighbors",
    "neighbors.merge",
    "calibrate",
    "symmetrize",
    "initialize",
    "layout",
    "publish",
    "report.neighbors",
    "report.rows",
    "report.distances",
    "report.ranks",
    "report.loss",
    "report.summary",
)

#  source            X (n, D)
STAGES: tuple[Callable[[Job], Stage], ...] = (
    scan.plan_scan,  # one streaming pass: shape, NaN and inf, the sample
    partition.plan_cells,  # k-means cells of the sample
    partition.plan_assign,  # each row's nearest cells; exact neighbours of the probe rows
    count.plan_count,  # what the blocks counted, summed over groups of them
    order.plan_order,  # the overlap that reaches the target recall; rows renumbered cell-major
    partition.plan_shuffle,  # each row into its cells
    neighbors.plan_neighbors,  # one kNN graph per cell
    neighbors.plan_merge,  # merged nearest k per vertex       knn/indices, knn/distances
    calibrate.plan_calibrate,  # per-row smooth-kNN            calibration/rho, sigma
    symmetrize.plan_symmetrize,  # union with the transpose    graph/: one CSR block row per partition
    initialize.plan_initialize,  # pca, spectral, random, array    initial
    layout.plan_layout,  # synchronous epochs                  layout/ checkpoints
    publish.plan_publish,  # back to the user's row order      embedding (n, d)
    judge.plan_map_neighbors,  # what the map is worth         report/
    judge.plan_rows,
    judge.plan_distances,
    judge.plan_ranks,
    judge.plan_loss,
    judge.plan_summary,
)

# What `unique` adds, after the scan.
UNIQUE_STEPS = ("unique.twins", "unique.rows")
UNIQUE_STAGES: tuple[Callable[[Job], Stage], ...] = (
    unique.plan_twins,  # equal hashes, bucket by bucket
    unique.plan_rows,  # the first row equal to each             rows/first
)


def steps_of(unique: bool) -> tuple[str, ...]:
    """Return the names of a run's stages, in order."""
    return (STEPS[0], *UNIQUE_STEPS, *STEPS[1:]) if unique else STEPS


def planners_of(job: Job) -> tuple[Callable[[Job], Stage], ...]:
    """Return what plans the stages of a run, in order."""
    return (STAGES[0], *UNIQUE_STAGES, *STAGES[1:]) if job.params.unique else STAGES


# What a task costs beside its work (measured: 5 to 20 ms).
TASK_SECONDS = 0.01


class Progress(Protocol):
    """Hears how far a run is."""

    def start(self, stage: str, tasks: int, done: int) -> None:
        """Hear that a stage starts, with `done` of its tasks finished in an earlier attempt."""

    def advance(self, done: float) -> None:
        """Hear that so many tasks of the stage are finished, those under way in part."""

    def finish(self) -> None:
        """Hear that the stage is finished."""


@dataclass(frozen=True)
class Plan:
    """What a run will do, from metadata alone.

    Attributes
    ----------
    stages
        In order. Numbers that only the data can tell (how many cells a row joins, how they are grouped) are
        expected values; memory is an upper bound whatever they turn out to be.
    speed
        Of matrix products and of other kernels on a core of the workers, as multiples of the reference
        (`kernels.speed`). Estimates of time rest on it.
    """

    job: Job
    stages: tuple[Stage, ...]
    speed: tuple[float, float] = (1.0, 1.0)

    @property
    def disk_bytes(self) -> int:
        """Bytes of the finished run store."""
        return sum(stage.written_bytes for stage in self.stages)

    def peak_bytes(self, stage: Stage) -> int:
        """Return the projected peak of one worker process in a stage."""
        at_once = min(stage.tasks, self.job.resources.threads) if not stage.ordered else 1
        held = reserved_bytes(self.job) + self.job.sizes.cache_bytes + stage.shared
        return held + at_once * stage.task_bytes

    def seconds(self, stage: Stage) -> float:
        """Return the expected wall time of a stage: within a factor of two where little else runs."""
        r = self.job.resources
        # A segment of the layout is one task, which uses all threads of its worker.
        at_once = r.slots if stage.ordered else min(stage.tasks, r.slots)
        if stage.ordered:
            at_once = min(at_once, r.threads * self.job.sizes.layout_partitions)
        waiting = TASK_SECONDS * stage.tasks / min(stage.tasks, r.slots)
        moved = (stage.read_bytes + stage.written_bytes) / STORE_BYTES_A_SECOND / r.workers
        return stage.work / self.speed[0 if stage.products else 1] / at_once + waiting + moved

    def check(self, free_disk: int | None = None) -> None:
        """Refuse a plan that cannot fit.

        Raises
        ------
        PlanError
            Naming the stage, both numbers and the setting to change.
        """
        for stage in self.stages:
            needed, allowed = self.peak_bytes(stage), self.job.resources.memory
            if needed > allowed:
                raise PlanError(
                    f"Stage '{stage.name}' needs {needed / 1e9:.2f} GB a worker, memory is "
                    f"{allowed / 1e9:.2f} GB ({_terms(stage, self.job)}). "
                    f"{_remedy(stage, self.job, needed)}"
                )
        if free_disk is not None and self.disk_bytes > free_disk:
            raise PlanError(
                f"The run store needs {self.disk_bytes / 1e9:.2f} GB of disk, {free_disk / 1e9:.2f} GB are "
                "free. Free some, or put the run store elsewhere."
            )

    def __str__(self) -> str:
        s, r = self.job.sizes, self.job.resources
        lines = [
            f"{s.rows:,} rows x {s.columns:,} columns; {r.workers} worker(s) x {r.threads} thread(s), "
            f"{r.memory / 1e9:.2f} GB a worker",
            f"about {s.cells:,} cells, {s.row_blocks:,} row blocks of {s.row_block:,}, "
            f"{s.partitions:,} vertex partitions",
            "",
            f"{'stage':<20}{'tasks':>7}{'MB a task':>11}{'MB a worker':>13}{'MB read':>11}{'MB written':>12}"
            f"{'seconds':>10}",
        ]
        lines += [
            f"{stage.name:<20}{stage.tasks:>7,}{stage.task_bytes / 1e6:>11,.0f}"
            f"{self.peak_bytes(stage) / 1e6:>13,.0f}{stage.read_bytes / 1e6:>11,.0f}"
            f"{stage.written_bytes / 1e6:>12,.0f}{self.seconds(stage):>10,.1f}"
            for stage in self.stages
        ]
        total = sum(map(self.seconds, self.stages))
        lines.append(f"{'total':<20}{'':>42}{self.disk_bytes / 1e6:>12,.0f}{total:>10,.1f}")
        return "\n".join(lines)


def reserved_bytes(job: Job) -> int:
    """Return what a worker takes before it holds any data."""
    return RESERVED + (neighbors.DESCENT_RESERVED if neighbors.uses_descent(job) else 0)


def _terms(stage: Stage, job: Job) -> str:
    held = {"reserved": reserved_bytes(job), "cache": job.sizes.cache_bytes, "shared": stage.shared}
    terms = {**held, **stage.memory}
    parts = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in terms.items() if size)
    return f"{parts}; {min(stage.tasks, job.resources.threads)} task(s) at once"


def _remedy(stage: Stage, job: Job, needed: int) -> str:
    if stage.name == "neighbors" and job.sizes.max_cell_rows * 2 > job.sizes.window_rows:
        share = (job.resources.memory - RESERVED) / max(1, needed - RESERVED)
        fits = max(64, int(job.sizes.max_cell_rows * share * 0.9))
        return f"Lower max_cell_rows to {fits:_}, use fewer threads, or raise memory."
    if stage.shared > job.resources.memory // 2:
        fewer = "raise memory" if job.resources.workers == 1 else "use fewer workers with more memory each"
        return f"Every worker holds the positions of all rows: {fewer}."
    return "Raise memory or use fewer threads a worker."


def make_plan(job: Job) -> Plan:
    """Plan all stages; starts nothing."""
    return Plan(job, tuple(planner(job) for planner in planners_of(job)))


def find_damage(job: Job, read: bool) -> dict[str, list[str]]:
    """Return what is damaged in a run store, by the stage that can make it again.

    Chunks of finished stages are counted, and with `read` all that is there is read against its checksums.
    """
    run, found = run_of(job), {}
    for stage in make_plan(job).stages:
        done = len(run.records(stage.name))
        if not done:
            break
        names = [output.name for output in stage.outputs] + ([stage.exchange] if stage.exchange else [])
        # What a stage that is half done has not written is no damage, nor is the slot of the layout that its
        # second segment has yet to write.
        if stage.ordered and done == 1:
            names = [name for name in names if not name.startswith(layout.SLOTS[1])]
        whole = done == stage.tasks or stage.ordered
        wrong = [text for name in names for text in run.damage(name, read) if whole or "missing" not in text]
        if wrong:
            found[stage.name] = wrong
    return found


def run_pipeline(job: Job, engine: Engine, progress: Progress, check: Callable[[], None]) -> None:
    """Run every stage that is not finished yet, in order; `check` raises if this driver must not write."""
    for planner in planners_of(job):
        run_stage(planner(job), job, engine, progress, check)


def run_stage(stage: Stage, job: Job, engine: Engine, progress: Progress, check: Callable[[], None]) -> None:
    """Run the tasks of a stage that have no record yet; record each when its data is written."""
    check()
    run = run_of(job)
    for output in stage.outputs:
        run.create(output)
    if stage.exchange:
        run.create_group(stage.exchange)
    receipts = run.records(stage.name)
    todo = [number for number in range(stage.tasks) if number not in receipts]
    progress.start(stage.name, stage.tasks, len(receipts))
    started = time.perf_counter()
    for number, receipt in _run_all(stage, job, engine, todo, progress, len(receipts)):
        check()
        run.record(stage.name, number, receipt)
        receipts[number] = receipt
    try:
        if stage.finish is not None:
            stage.finish(job, receipts)
    except SourceError:
        run.discard()  # all that is there came of rows that have to be mended first
        raise
    if todo:
        _keep_times(stage, job, receipts, time.perf_counter() - started)
    progress.finish()


def _run_all(
    stage: Stage, job: Job, engine: Engine, todo: list[int], progress: Progress, done: int
) -> Iterator[tuple[int, Receipt]]:
    under_way: dict[int, float] = {}

    def listener(number: int, share: float) -> None:
        if number in left:
            under_way[number] = share
            progress.advance(done + sum(under_way.values()))

    left = set(todo)
    for number, receipt in engine.run(stage, job, todo, listener) if todo else ():
        left.discard(number)
        under_way.pop(number, None)
        done += 1
        yield number, receipt
        progress.advance(done + sum(under_way.values()))


def _keep_times(stage: Stage, job: Job, receipts: dict[int, Receipt], seconds: float) -> None:
    """Add a stage's wall time and peaks to what the report says of it."""
    run = run_of(job)
    known: dict[str, Any] = run.load_json("report/stages") or {}
    before = known.get(stage.name, {})
    known[stage.name] = {
        "tasks": stage.tasks,
        "seconds": before.get("seconds", 0.0) + seconds,
        "task_seconds": sum(receipt["seconds"] for receipt in receipts.values()),
        "kernel_seconds": sum(receipt.get("kernel_seconds", 0.0) for receipt in receipts.values()),
        "peak_bytes": max(receipt["peak_bytes"] for receipt in receipts.values()),
        "projected_bytes": Plan(job, (stage,)).peak_bytes(stage),
        "read_bytes": stage.read_bytes,
        "written_bytes": stage.written_bytes,
    }
    run.save_json("report/stages", known)
