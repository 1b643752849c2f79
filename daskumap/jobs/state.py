"""What is kept of a job beside its runs: who runs it, and what it wrote, which alone it may delete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from daskumap.errors import StoreError
from daskumap.jobs.growth import split
from daskumap.jobs.schema import DATE, Job
from daskumap.session import refuse_anndata, refuse_in_group
from daskumap.store.documents import Documents
from daskumap.store.lock import RunLock
from daskumap.store.places import Folder, find_place
from daskumap.store.run import RunStore, is_run_store

WRITTEN = "written"
# What the job remembers of a place that was free, while it is written.
UNDER_WAY = "under way"


class JobState:
    """The folder of a job, beside its runs: `.NAME.job`, with `day` for the date in NAME.

    It follows from where the runs are, so that two job files which write the same runs exclude each other.
    """

    def __init__(self, job: Job) -> None:
        folder, name = split(job.run)
        where = f"{folder}/.{name.replace(DATE, 'day')}.job"
        self.place = find_place(where)
        refuse_anndata(self.place)
        refuse_in_group(self.place)
        self.documents = Documents(self.place.store(), "", self.place.url)
        self._name = job.name
        self._turn: RunLock | None = None
        self._written: dict[str, Any] | None = None

    @property
    def url(self) -> str:
        """What it is called in messages."""
        return f"The job {self._name!r} ({self.place.url})"

    @contextmanager
    def held(self, take_over: bool = False) -> Iterator[None]:
        """Let nobody else run the job meanwhile.

        Raises
        ------
        LockedError
            If somebody alive runs it; the message says who.
        """
        with RunLock(self, take_over) as lock:
            self._turn, self._written = lock, None
            for number in self.documents.numbers("generations"):
                if number < lock.generation - 1:  # a job that runs each night would leave thousands
                    with suppress(StoreError):
                        self.documents.delete(f"generations/{number:08d}.json")
            yield

    def check(self) -> None:
        """Raise if another process took the job over."""
        if self._turn is not None:
            self._turn.check()

    def written(self, path: str) -> Any:
        """Return what this job wrote at a path; None if it is not of this job."""
        return self._known().get(self._key(path))

    def set_written(self, path: str, about: Any) -> None:
        """Remember what was written at a path; None forgets it."""
        self.check()
        known, key = dict(self._known()), self._key(path)
        if known.get(key) != about:
            known.pop(key, None)
            self._written = known if about is None else {**known, key: about}
            self.documents.save(WRITTEN, self._written)

    def begin(self, path: str, restart: bool = False) -> None:
        """Remember that a run store is made, where there is none: whatever happens, it is of this job."""
        if restart or not is_run_store(path):
            self.set_written(path, UNDER_WAY)

    def owns(self, path: str) -> bool:
        """Return whether the run store at a path is one that this job made, and no other in its place."""
        known = self.written(path)
        if known is None or not is_run_store(path):
            return False
        return known in (UNDER_WAY, RunStore.open_to_replace(find_place(path)).about.get("id"))

    def _known(self) -> dict[str, Any]:
        if self._written is None:
            self._written = dict(self.documents.load(WRITTEN) or {})
        return self._written

    def _key(self, path: str) -> str:
        """Return how a path is written down: as seen from here, so that all of it may be moved together."""
        if not isinstance(self.place, Folder) or "://" in path:
            return path
        return os.path.relpath(path, self.place.path.parent)
