"""What is kept of a job beside its runs: who runs it, and which results it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from daskumap.errors import StoreError
from daskumap.jobs.growth import split
from daskumap.jobs.schema import DATE, Job
from daskumap.session import refuse_anndata, refuse_in_group
from daskumap.store.documents import Documents
from daskumap.store.lock import RunLock
from daskumap.store.places import find_place

WRITTEN = "written"


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
            for number in self.documents.numbers("generations"):
                if number < lock.generation - 1:  # a job that runs each night would leave thousands
                    with suppress(StoreError):
                        self.documents.delete(f"generations/{number:08d}.json")
            yield

    def written(self) -> dict[str, Any]:
        """Return the results that this job wrote, by path: which run each is of."""
        return dict(self.documents.load(WRITTEN) or {})

    def set_written(self, path: str, about: Any) -> None:
        """Remember which run a result is of; None forgets it."""
        known = {name: one for name, one in self.written().items() if name != path}
        self.documents.save(WRITTEN, known if about is None else {**known, path: about})
