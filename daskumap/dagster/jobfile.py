"""A job file, once for each partition: `{partition}` in its texts is the name of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskumap.errors import ParameterError
from daskumap.jobs.reading import read_job
from daskumap.jobs.schema import Job

PARTITION = "{partition}"
# While a job file is looked at to see what it has: a name that any path may have.
ANY = "partition"


@dataclass(frozen=True)
class JobFile:
    """A job file as assets see it.

    Attributes
    ----------
    path
        Where it lies. It is read whenever it is needed, so that what is changed in it counts at once.
    name
        What its assets are called by: letters, digits and underscores.
    """

    path: Path
    name: str

    @classmethod
    def open(cls, path: str | Path) -> JobFile:
        """Open a job file, and see that it can be run."""
        path = Path(path).absolute()
        found = cls(path, "")
        return cls(path, re.sub(r"\W", "_", found.read(ANY).name or path.stem))

    def read(self, partition: str | None = None) -> Job:
        """Return the job of a partition."""
        return read_job(self.path, {} if partition is None else {PARTITION: partition})

    def parts(self) -> tuple[bool, bool]:
        """Return whether the map differs by partition, and whether the new rows do.

        Raises
        ------
        ParameterError
            If partitions would write over each other.
        """
        job, other = self.read(ANY), self.read("other")
        by_map, by_rows = _differ(_of_map(job), _of_map(other)), _differ(job.transform, other.transform)
        if by_map and job.run == other.run:
            raise ParameterError(
                f"{self.path} has {PARTITION} and writes all partitions to the run {job.run!r}. Put "
                f"{PARTITION} into its name, such as 'maps/{PARTITION}.zarr'."
            )
        for one, same in zip(job.transform, other.transform, strict=True):
            if (by_map or by_rows) and one.out == same.out:
                raise ParameterError(
                    f"{self.path} has {PARTITION} and places all partitions in {one.out!r}. Put {PARTITION} "
                    f"into its name, such as 'placed/{PARTITION}.zarr'."
                )
        return by_map, by_map or by_rows


def _of_map(job: Job) -> dict[str, Any]:
    """Return what a job says of its map."""
    return job.model_dump(exclude={"transform", "notify"})


def _differ(one: Any, other: Any) -> bool:
    return bool(one != other)


def places_rows(job: Job) -> bool:
    """Return whether a job places new rows into its map."""
    return bool(job.transform) or job.growing is not None


def only_map(job: Job) -> Job:
    """Return a job without what comes after its map; old runs go once new rows are placed.

    The new rows of a source that grows decide whether there is a new map, and are placed with it.
    """
    return job.model_copy(update={"transform": [], "retention": None}) if job.transform else job
