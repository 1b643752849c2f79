"""Runs a job: its map, then new rows, results and what is too old; each only where something changed."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import daskumap
from daskumap import events
from daskumap.clusters.files import read
from daskumap.errors import LockedError, ParameterError, RunMismatchError
from daskumap.jobs.dated import Dated, delete_old, fixed, next_run, runs_of
from daskumap.jobs.growth import Increment, increments_of, new_increment, share_far
from daskumap.jobs.notify import notify
from daskumap.jobs.reading import read_job
from daskumap.jobs.results import check_results, write_results
from daskumap.jobs.rows import open_part, open_rows, rows_or_run
from daskumap.jobs.schema import CLUSTER_FILES, DATE, Job
from daskumap.jobs.state import JobState
from daskumap.jobs.summary import Summary
from daskumap.params import explicit
from daskumap.store.run import is_run_store

log = logging.getLogger(__name__)


@explicit
def run_job(job: Any, *, progress: Any = True, take_over: bool = False, restart: bool = False) -> Summary:
    """Run a whole job: fit, transform, write results, forget old runs, tell somebody.

    It may be called any number of times: what is done already is not done again, what was interrupted goes
    on, and where neither the input nor the parameters changed nothing is made. One process runs it at a time.

    Parameters
    ----------
    job
        Path of a job file (see docs/nightly.md), or a mapping with its keys.
    progress
        As of `daskumap.fit`.
    take_over
        Take the job from another process, which may be alive, as of `daskumap.fit`.
    restart
        Make the map anew, whether anything changed or not.

    Returns
    -------
    Summary
        Its `state` is "finished" or "unchanged".

    Raises
    ------
    LockedError
        If another process runs the job; the message says who.
    ParameterError, SourceError, PlanError, RunMismatchError, StoreError, TaskError, ClusterError
        As of `daskumap.fit`, after whoever is to be told was told.
    """
    summary, error = attempt_job(job, progress=progress, take_over=take_over, restart=restart)
    if error is not None:
        raise error
    return summary


def attempt_job(
    job: Any, *, progress: Any = True, take_over: bool = False, restart: bool = False
) -> tuple[Summary, BaseException | None]:
    """Run a job as `run_job`; return what it did, and what ended it where it failed or was stopped.

    Raises
    ------
    ParameterError
        If it is no job.
    """
    found = read_job(job)
    summary = Summary(found.name or "job", started=datetime.now().astimezone().isoformat(timespec="seconds"))
    began, error = time.monotonic(), None
    try:
        _refuse_allocation(found)
        state = JobState(found)
        with state.held(take_over), events.of_run(found.run):
            events.tell("job", f"the job {summary.job!r} begins", state="begun", job=summary.job)
            _Work(found, state, summary, progress, take_over, restart).do()
    except (Exception, KeyboardInterrupt) as caught:
        error = caught
        summary.end(error)
    summary.seconds = round(time.monotonic() - began, 3)
    about = {**summary.as_json(), "run": summary.run or found.run}
    events.tell(
        "job", f"The job {summary.job!r} is {summary.state}, {summary.seconds:.1f} s.", logging.INFO, **about
    )
    if not isinstance(error, LockedError):  # who runs it tells how it ends
        notify(found, summary)
    return summary, error


@dataclass
class _Work:
    """One turn of a job."""

    job: Job
    state: JobState
    summary: Summary
    progress: Any
    take_over: bool
    restart: bool

    def do(self) -> None:
        """Do what is left to do, in order; note in the summary what was done."""
        check_results(self.job, self.state)
        for one in self.job.transform:
            open_rows(one.source)  # what is missing is told before there is a map, which may take hours
        at, run = self._grown() if self.job.growing else self._fitted()
        about = self.summary
        about.run, about.rows = run.path, run.store.about["sizes"]["rows"]
        about.verdict = (run.report["verdict"] or {}).get("sentence")
        write_results(self.job.results, run, at.label, self.state, about)
        for placed in self._placed:
            write_results(self.job.results, placed[1], at.label, self.state, about, placed[0].name)
        self._transform(run, at)
        about.removed = delete_old(self.job, at, self.state) if self.job.dated else []
        about.state = "finished" if about.changed else "unchanged"

    def __post_init__(self) -> None:
        self._placed: list[tuple[Increment, Any]] = []

    # -- the map

    def _fitted(self) -> tuple[Dated, Any]:
        """Return the run with the map of the input as it is now."""
        rows = rows_or_run(self.job)
        if not self.job.dated:
            return fixed(self.job), self._fit_fixed(rows)
        known = runs_of(self.job, self.state)
        if known and not self.restart:
            try:
                return known[-1], self._fit(rows, known[-1].path)
            except RunMismatchError as error:
                self._because(str(error))
        return self._new(rows)

    def _new(self, rows: Any) -> tuple[Dated, Any]:
        new = next_run(self.job, self.state)
        return new, self._fit(rows, new.path)

    def _fit_fixed(self, rows: Any) -> Any:
        try:
            return self._fit(rows, self.job.run, self.restart and is_run_store(self.job.run))
        except RunMismatchError as error:
            if self.job.when_changed == "refuse":
                raise
            self._refuse_foreign(self.job.run, error)
            self._because(str(error))
        return self._fit(rows, self.job.run, restart=True)

    def _because(self, reason: str) -> None:
        """Remember why a new map is made: what differs, without what a caller of a fit would do about it."""
        self.summary.reason = reason.partition(" Give the same input")[0]
        log.info("A new map is made: %s", self.summary.reason)

    def _fit(self, rows: Any, path: str, restart: bool = False) -> Any:
        done = not restart and _is_done(path)
        self.state.begin(path, restart)
        run = daskumap.fit(rows, path, restart=restart, **self.job.parameters, **self._how())
        self.state.set_written(path, run.store.about["id"])
        self.summary.state = "unchanged" if done else "finished"
        return run

    # -- a source that grows

    def _grown(self) -> tuple[Dated, Any]:
        """Return the run of the rows that there were, with the new ones placed; or a new one of all."""
        total = open_rows(self.job.source, self.job.labels).shape[0]
        known = runs_of(self.job, self.state)
        if known and not self.restart:
            reason = self._grow(known[-1], total)
            if reason is None:
                return known[-1], daskumap.open(known[-1].path)
            self._because(reason)
        self._placed = []
        return self._new(open_part(self.job, 0, total))

    def _grow(self, at: Dated, total: int) -> str | None:
        """Place what came since a run; return why a new map is needed, or None."""
        assert self.job.growing is not None
        fitted = _rows_of(at.path)
        if total < fitted:
            return f"The source has {total:,} rows, and had {fitted:,}."
        try:
            run = self._fit(open_part(self.job, 0, fitted), at.path)
        except RunMismatchError as error:
            return str(error)
        if total - fitted > self.job.growing.refit_growth * fitted:
            return (
                f"There are {total - fitted:,} new rows, more than refit_growth = "
                f"{self.job.growing.refit_growth:g} times the {fitted:,} fitted ones."
            )
        self._place_increments(run, fitted, total)
        far = share_far([placed for _, placed in self._placed])
        self.summary.new_rows, self.summary.far = total - fitted, round(far, 4)
        if far > self.job.growing.refit_above:
            return (
                f"Of {total - fitted:,} new rows {far:.1%} are farther from their neighbours than 95 % of "
                f"the fitted rows; refit_above is {self.job.growing.refit_above:g}."
            )
        return None

    def _place_increments(self, run: Any, fitted: int, total: int) -> None:
        """Place all new rows: those of earlier nights are there, unless they changed."""
        known = [one for one in increments_of(run.path, fitted) if one.stop <= total]
        last = known[-1].stop if known else fitted
        for one in [*known, *([new_increment(run.path, last, total)] if last < total else [])]:
            state, placed = self._place(run, open_part(self.job, one.start, one.stop), one.path)
            self._placed.append((one, placed))
            self.summary.transforms.append({"path": one.path, "state": state})

    # -- new rows

    def _transform(self, run: Any, at: Dated) -> None:
        for one in self.job.transform:
            out = one.out.replace(DATE, at.label)
            state, placed = self._place(run, open_rows(one.source), out)
            self.summary.transforms.append({"path": out, "state": state})
            write_results(one.results, placed, at.label, self.state, self.summary)

    def _place(self, run: Any, rows: Any, out: str) -> tuple[str, Any]:
        """Place rows into the map; those of the same rows and run are there already."""
        done = _is_done(out)
        self.state.begin(out)
        try:
            placed = daskumap.transform(run, rows, out, **self._how())
        except RunMismatchError as error:
            if self.job.when_changed == "refuse" and not self.job.dated:
                raise
            self._refuse_foreign(out, error)
            log.info("New rows are placed again: %s", error)
            done = False
            self.state.begin(out, restart=True)
            placed = daskumap.transform(run, rows, out, restart=True, **self._how())
        self.state.set_written(out, placed.store.about["id"])
        return "unchanged" if done else "made", placed

    def _refuse_foreign(self, path: str, error: RunMismatchError) -> None:
        """Keep what the job did not make: `--restart` alone replaces it."""
        if not self.state.owns(path):
            raise RunMismatchError(
                f"{error} This job did not make what is there. Name another place; or, where it may go, "
                "delete it yourself."
            ) from error

    def _how(self) -> dict[str, Any]:
        """Return where tasks run, and what is said meanwhile."""
        job = self.job
        where = {"cluster" if _is_cluster(job) else "client": job.cluster}
        return {
            **where,
            "memory": job.memory,
            "threads": job.threads,
            "progress": self.progress,
            "take_over": self.take_over,
            "trust_input": job.trust_input,
        }


def _refuse_allocation(job: Job) -> None:
    """Refuse a cluster whose processes would each run the job, and which ends with its first run."""
    if _is_cluster(job) and (found := read(job.cluster)).one_run:
        raise ParameterError(
            f"cluster is of kind {found.kind}, which serves one run, and each of its processes would run "
            "this job. Submit the job file with workflows/slurm_fit.sbatch, or name a kind that starts "
            "workers, such as slurm or ssh."
        )


def _is_cluster(job: Job) -> bool:
    """Return whether a job names a cluster file, or has its content."""
    return isinstance(job.cluster, dict) or str(job.cluster).endswith(CLUSTER_FILES)


def _is_done(path: str) -> bool:
    """Return whether a finished run is at a path."""
    return is_run_store(path) and bool(daskumap.open(path).finished)


def _rows_of(path: str) -> int:
    return int(daskumap.open(path).store.about["sizes"]["rows"])
