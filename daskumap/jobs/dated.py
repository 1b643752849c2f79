"""Runs by day: which there are of a job, what the next one is called, and which are one too many."""

from __future__ import annotations

import logging
import re
from datetime import date
from typing import NamedTuple

from daskumap.errors import StoreError
from daskumap.jobs.growth import delete_empty, folder_of, placed_beside, split
from daskumap.jobs.schema import DATE, Job
from daskumap.jobs.state import JobState
from daskumap.store.documents import Documents
from daskumap.store.lock import alone
from daskumap.store.places import find_place
from daskumap.store.run import RunStore

log = logging.getLogger(__name__)


class Dated(NamedTuple):
    """A run of a job: its day, which of that day's it is, and where it lies."""

    day: str
    number: int
    path: str

    @property
    def label(self) -> str:
        """What stands in the place of {date}: 2026-01-31, and 2026-01-31-2 for the second of a day."""
        return self.day if self.number == 1 else f"{self.day}-{self.number}"


def today() -> str:
    """Return the day that a run which begins now is called by: the local one, as schedulers have it."""
    return date.today().isoformat()


def runs_of(job: Job, state: JobState) -> list[Dated]:
    """Return the run stores that a dated job made, the newest last; what is only called so is none."""
    return [one for one in _taken(job) if state.owns(one.path)]


def next_run(job: Job, state: JobState) -> Dated:
    """Return a run that there is none of yet, and that is newer than all others: clocks are set back."""
    taken = _taken(job)
    day = max([today(), *(one.day for one in taken if state.owns(one.path))])
    number = max((one.number for one in taken if one.day == day), default=0) + 1
    label = Dated(day, number, "").label
    return Dated(day, number, job.run.replace(DATE, label))


def fixed(job: Job) -> Dated:
    """Return the one run of a job that is not dated."""
    return Dated(today(), 1, job.run)


def _taken(job: Job) -> list[Dated]:
    """Return all names that look like a run of the job, the newest last."""
    folder, name = split(job.run)
    before, _, after = map(re.escape, name.partition(DATE))
    pattern = re.compile(rf"{before}(\d{{4}}-\d\d-\d\d)(?:-(\d+))?{after}")
    place = find_place(folder)
    members = Documents(place.store(), "", place.url).members("") if place.is_occupied() else []
    found = [(pattern.fullmatch(member.rstrip("/")), member.rstrip("/")) for member in members]
    return sorted(Dated(at[1], int(at[2] or 1), f"{folder}/{name}") for at, name in found if at)


def delete_old(job: Job, newest: Dated, state: JobState) -> list[str]:
    """Delete the runs that the retention of a job does not keep, and their new rows; return what is gone.

    Of the finished runs the newest stay, and of the unfinished ones none that is older than the newest run,
    since its input or its parameters were left behind. What the job did not make stays.
    """
    if job.retention is None:
        return []
    older = [one for one in runs_of(job, state) if one[:2] < newest[:2]]
    finished = [one for one in older if _is_finished(one.path)]
    kept = set(finished[max(0, len(finished) + 1 - job.retention) :])
    gone = []
    for run in older:
        if run not in kept:
            outs = [one.out.replace(DATE, run.label) for one in job.transform if DATE in one.out]
            outs += placed_beside(run.path) if job.growing else []
            # The run goes last: what is left of it is found again.
            paths = [path for path in (*outs, run.path) if state.owns(path)]
            gone += [path for path in paths if _delete(path, state)]
            if job.growing:
                delete_empty(folder_of(run.path))
    return gone


def _is_finished(path: str) -> bool:
    try:
        return RunStore.open(find_place(path), mode="r").ledger.finished() is not None
    except StoreError:
        return False


def _delete(path: str, state: JobState) -> bool:
    """Delete a run store that nobody works on; return whether it is gone."""
    state.check()
    try:
        store = RunStore.open_to_replace(find_place(path))
        with alone(store) as turn:
            turn.check()
            store.discard()
    except StoreError as error:
        log.warning("%s stays for now: %s", path, error)
        return False
    state.set_written(path, None)
    return True
