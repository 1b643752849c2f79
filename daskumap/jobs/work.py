"""Runs a job: its map, then new rows, results and what is too old; each only where something changed."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import daskumap
from daskumap import events
from daskumap.errors import LockedError, RunMismatchError
from daskumap.jobs.dated import Dated, delete_old, fixed, next_run, runs_of
from daskumap.jobs.notify import notify
from daskumap.jobs.reading import read_job
from daskumap.jobs.schema import DATE, Job, Rows
from daskumap.jobs.state import JobState
from daskumap.jobs.summary import Summary
from daskumap.store.run import is_run_store

log = logging.getLogger(__name__)


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
    began, state, error = time.monotonic(), JobState(found), None
    try:
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
        at, run = self._fitted()
        about = self.summary
        about.run, about.rows = run.path, run.store.about["sizes"]["rows"]
        about.verdict = (run.report["verdict"] or {}).get("sentence")
        self._transform(run, at)
        about.removed = delete_old(self.job, at) if self.job.dated else []
        about.state = "finished" if about.changed else "unchanged"

    def _fitted(self) -> tuple[Dated, Any]:
        """Return the run with the map of the input as it is now."""
        if not self.job.dated:
            return fixed(self.job), self._fit_fixed()
        known = runs_of(self.job)
        if known and not self.restart:
            try:
                return known[-1], self._fit(known[-1].path)
            except RunMismatchError as error:
                self._because(str(error))
        new = next_run(self.job)
        return new, self._fit(new.path)

    def _fit_fixed(self) -> Any:
        try:
            return self._fit(self.job.run, self.restart and is_run_store(self.job.run))
        except RunMismatchError as error:
            if self.job.when_changed == "refuse":
                raise
            self._because(str(error))
        return self._fit(self.job.run, restart=True)

    def _because(self, reason: str) -> None:
        """Remember why a new map is made: what differs, without what a caller of a fit would do about it."""
        self.summary.reason = reason.partition(" Give the same input")[0]
        log.info("A new map is made: %s", self.summary.reason)

    def _fit(self, path: str, restart: bool = False) -> Any:
        done = not restart and _is_done(path)
        run = daskumap.fit(
            _rows(self.job.source), path, restart=restart, **self.job.parameters, **self._how()
        )
        self.summary.state = "unchanged" if done else "finished"
        return run

    def _transform(self, run: Any, at: Dated) -> None:
        """Place the new rows; those of the same rows and run are there already."""
        for one in self.job.transform:
            out, rows = one.out.replace(DATE, at.label), _rows(one.source)
            done = _is_done(out)
            try:
                daskumap.transform(run, rows, out, **self._how())
            except RunMismatchError as error:
                if self.job.when_changed == "refuse" and not self.job.dated:
                    raise
                log.info("New rows are placed again: %s", error)
                done = False
                daskumap.transform(run, rows, out, restart=True, **self._how())
            self.summary.transforms.append({"path": out, "state": "unchanged" if done else "made"})

    def _how(self) -> dict[str, Any]:
        """Return where tasks run, and what is said meanwhile."""
        job = self.job
        machine = {"client": job.cluster, "memory": job.memory, "threads": job.threads}
        return {
            **machine,
            "progress": self.progress,
            "take_over": self.take_over,
            "trust_input": job.trust_input,
        }


def _is_done(path: str) -> bool:
    """Return whether a finished run is at a path."""
    return is_run_store(path) and bool(daskumap.open(path).finished)


def _rows(rows: Rows) -> Any:
    return rows.path
