"""What a run will do, from metadata alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from daskumap.errors import PlanError
from daskumap.planning import costs, training
from daskumap.planning.job import Job
from daskumap.planning.stage import Stage
from daskumap.planning.table import as_table

# The step that holds the rows that a network is trained on.
TRAIN = "encoder.train"


@dataclass(frozen=True)
class Plan:
    """What a run will do, stage by stage; `print` it.

    Attributes
    ----------
    stages
        In order. Numbers that only the data can tell (how many cells a row joins, how they are grouped) are
        expected values; memory is an upper bound whatever they turn out to be.
    reserved
        Bytes that a worker takes before it holds any data.
    speed
        Of matrix products and of other kernels on a core of the workers, as multiples of the reference
        (`kernels.speed`). Estimates of time rest on it.
    freed
        Names of what goes after each stage.
    levels
        For each value of `keep` the names of what is gone in the end; none for a transform.
    """

    job: Job
    stages: tuple[Stage, ...]
    reserved: int
    speed: tuple[float, float] = (1.0, 1.0)
    freed: tuple[frozenset[str], ...] = ()
    levels: tuple[tuple[str, frozenset[str]], ...] = ()

    @property
    def disk_bytes(self) -> int:
        """Bytes that the run store takes at most: scratch goes on the way."""
        return max(self._disk())

    @property
    def kept_bytes(self) -> int:
        """Bytes of the finished run store."""
        return self._disk()[-1]

    @property
    def kept_by_level(self) -> dict[str, int]:
        """Bytes of the finished run store with each value of `keep`, without a copy of the input."""
        made = [piece for stage in self.stages for piece in _pieces(stage)]
        return {keep: _bytes_left(made, gone) for keep, gone in self.levels}

    def after(self, first: Stage) -> Plan:
        """Return the plan with a stage before all others, which frees nothing."""
        freed = (frozenset[str](), *self.freed) if self.freed else ()
        return replace(self, stages=(first, *self.stages), freed=freed)

    def _disk(self) -> list[int]:
        """Return the bytes of the run store after each stage, before it frees anything, and in the end."""
        made, gone, sizes = list[tuple[frozenset[str], int]](), frozenset[str](), list[int]()
        freed = self.freed or (frozenset[str](),) * len(self.stages)
        for stage, names in zip(self.stages, freed, strict=True):
            made += _pieces(stage)
            sizes.append(_bytes_left(made, gone))
            gone |= names
        return [*sizes, _bytes_left(made, gone)]

    def peak_bytes(self, stage: Stage) -> int:
        """Return the projected peak of one worker process in a stage."""
        at_once = min(stage.tasks, self.job.resources.threads) if not stage.ordered else 1
        held = self.reserved + self.job.sizes.cache_bytes + stage.shared
        return held + at_once * stage.task_bytes

    def seconds(self, stage: Stage) -> float:
        """Return the expected wall time of a stage: within a factor of two where little else runs."""
        r = self.job.resources
        # A segment of the layout is one task, which uses all threads of its worker.
        at_once = r.slots if stage.ordered else min(stage.tasks, r.slots)
        if stage.ordered:
            at_once = min(at_once, r.threads * self.job.sizes.layout_partitions)
        if stage.name == TRAIN:  # a thread for each network
            at_once = min(r.slots, self.job.params.encoder.replicas)
        waiting = costs.TASK * stage.tasks / min(stage.tasks, r.slots)
        moved = (stage.read_bytes + stage.written_bytes) / costs.STORE_BYTES_A_SECOND / r.workers
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
                    f"{allowed / 1e9:.2f} GB ({self._terms(stage)}). {self._remedy(stage, needed)}"
                )
        if free_disk is not None and self.disk_bytes > free_disk:
            raise PlanError(
                f"The run store needs {self.disk_bytes / 1e9:.2f} GB of disk, {free_disk / 1e9:.2f} GB are "
                "free. Free some, or put the run store elsewhere."
            )

    def as_dict(self) -> dict[str, Any]:
        """Return what `print` shows, as values of JSON; sizes in bytes, times in seconds."""
        s, r = self.job.sizes, self.job.resources
        return {
            "rows": s.rows,
            "columns": s.columns,
            "workers": r.workers,
            "threads": r.threads,
            "memory": r.memory,
            "stages": [
                {
                    "name": stage.name,
                    "tasks": stage.tasks,
                    "task_bytes": stage.task_bytes,
                    "peak_bytes": self.peak_bytes(stage),
                    "read_bytes": stage.read_bytes,
                    "written_bytes": stage.written_bytes,
                    "seconds": self.seconds(stage),
                }
                for stage in self.stages
            ],
            "disk_bytes": self.disk_bytes,
            "kept_bytes": self.kept_bytes,
            "kept_by_level": self.kept_by_level,
        }

    def _repr_html_(self) -> str:
        return as_table(self.as_dict(), f"{self._where()}; {self._parts()}")

    def __str__(self) -> str:
        lines = [
            self._where(),
            self._parts(),
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
        written = sum(stage.written_bytes for stage in self.stages)
        lines.append(f"{'total':<20}{'':>42}{written / 1e6:>12,.0f}{total:>10,.1f}")
        most, last = self.disk_bytes / 1e6, self.kept_bytes / 1e6
        lines.append(f"the run store takes {most:,.0f} MB at most, {last:,.0f} MB in the end")
        if self.levels:
            kept = (f"{size / 1e6:,.0f} MB with {keep!r}" for keep, size in self.kept_by_level.items())
            lines.append(f"what `keep` leaves: {', '.join(kept)}")
        return "\n".join(lines)

    def _where(self) -> str:
        s, r = self.job.sizes, self.job.resources
        return (
            f"{s.rows:,} rows x {s.columns:,} columns; {r.workers} worker(s) x {r.threads} thread(s), "
            f"{r.memory / 1e9:.2f} GB a worker"
        )

    def _parts(self) -> str:
        s, model = self.job.sizes, self.job.model
        blocks = f"{s.row_blocks:,} row blocks of {s.row_block:,}"
        if model is not None and self.job.anew is not None:
            return (
                f"from the neighbours of the run in {model.url}; {blocks}, {s.partitions:,} vertex partitions"
            )
        if model is not None:
            way = "from" if self.job.inverse else "into"
            return f"{way} the map of {model.sizes.rows:,} rows in {model.url}; {blocks}"
        return f"about {s.cells:,} cells, {blocks}, {s.partitions:,} vertex partitions"

    def _terms(self, stage: Stage) -> str:
        held = {"reserved": self.reserved, "cache": self.job.sizes.cache_bytes, "shared": stage.shared}
        terms = {**held, **stage.memory}
        parts = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in terms.items() if size)
        return f"{parts}; {min(stage.tasks, self.job.resources.threads)} task(s) at once"

    def _remedy(self, stage: Stage, needed: int) -> str:
        s, r = self.job.sizes, self.job.resources
        if stage.name == "neighbors" and s.max_cell_rows * 2 > s.window_rows:
            share = (r.memory - r.reserved) / max(1, needed - r.reserved)
            fits = max(64, int(s.max_cell_rows * share * 0.9))
            return f"Lower max_cell_rows to {fits:_}, use fewer threads, or raise memory."
        if stage.name == TRAIN:
            return self._smaller_window(stage, needed)
        if stage.shared > r.memory // 2:
            fewer = "raise memory" if r.workers == 1 else "use fewer workers with more memory each"
            return f"Every worker holds the positions of all rows: {fewer}."
        return "Raise memory or use fewer threads a worker."

    def _smaller_window(self, stage: Stage, needed: int) -> str:
        """Say how many rows a window may have; a warm start, as windows have by default, needs places too."""
        e, rows = self.job.params.encoder, self.job.sizes.rows
        held, taken, threads = e.held_rows(rows), e.trained_rows(rows), self.job.resources.threads
        row = stage.shared / (held * training.windows(e, rows, threads))
        row += 0 if e.warm_steps(rows) else 4 * self.job.params.n_components
        windows = 1 + min(threads, e.replicas)
        fits = training.largest_window(
            self.job.resources.memory - (needed - stage.shared), row, taken, windows
        )
        if not fits:
            return f"Not even windows of {training.LEAST_SHARE:.0%} of the rows fit: raise memory."
        return f"Raise memory, or train on windows: window_rows={fits:_} fits, at some cost in quality."


def _bytes_left(made: list[tuple[frozenset[str], int]], gone: frozenset[str]) -> int:
    """Return the bytes of what was written and is not all gone."""
    return sum(size for names, size in made if not names <= gone)


def _pieces(stage: Stage) -> list[tuple[frozenset[str], int]]:
    """Return what a stage writes, as (names, bytes); what tasks make themselves goes once all of it may."""
    arrays = [(frozenset({output.name}), output.nbytes) for output in stage.outputs]
    return [*arrays, (frozenset(stage.made), stage.made_bytes)] if stage.made else arrays
