"""The rows that a job names: opened with their options and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daskumap.errors import SourceError
from daskumap.jobs.schema import Job, Rows
from daskumap.sources.base import Source
from daskumap.sources.find import source
from daskumap.sources.known import in_memory
from daskumap.sources.part import part_of
from daskumap.store.labels import InMemory


def open_rows(rows: Rows, labels: str | None = None) -> Source:
    """Return the source that a job names, with the labels that lie in a file beside it."""
    found = source(rows.path, **rows.options)
    if labels is not None:
        name = Path(labels.rstrip("/")).stem or "label"
        found.labels = {**found.labels, name: InMemory(_read(labels, found.shape[0]))}
    return found


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
