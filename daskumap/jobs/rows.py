"""The rows that a job names: opened with their options and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daskumap.errors import ParameterError, SourceError
from daskumap.jobs.schema import Job, Rows
from daskumap.sources.base import Source
from daskumap.sources.find import source
from daskumap.sources.known import in_memory
from daskumap.sources.part import part_of
from daskumap.store.labels import InMemory
from daskumap.store.run import is_run_store


def open_rows(rows: Rows, labels: str | None = None) -> Source:
    """Return the source that a job names, with the labels that lie in a file beside it."""
    found = source(rows.path, **rows.options)
    if labels is not None:
        name = Path(labels.rstrip("/")).stem or "label"
        found.labels = {**found.labels, name: InMemory(_read(labels, found.shape[0]))}
    return found


def rows_or_run(job: Job) -> Source | str:
    """Return the source of a job, or where the run is whose neighbours it is about.

    Raises
    ------
    ParameterError
        If a run is given labels or options: it has its own.
    """
    path = job.source.path
    if not is_run_store(path):
        return open_rows(job.source, job.labels)
    if job.labels or job.source.options:
        raise ParameterError(
            f"The source {path} is a run, which has the labels of its rows. Leave labels and options out."
        )
    return path


def open_part(job: Job, start: int, stop: int) -> Source:
    """Return consecutive rows of a job's source."""
    return part_of(open_rows(job.source, job.labels), [start, stop])


def _read(labels: str, rows: int) -> Any:
    found = in_memory("labels", labels)
    if found.shape != (rows,):
        raise SourceError(
            f"{labels} has labels of shape {found.shape}; one for each of the {rows:,} rows is needed, as "
            f"({rows},)."
        )
    return found
