"""What a job writes for other programs: each result once for each map, and never over somebody else's."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daskumap.errors import ParameterError, StoreError
from daskumap.exports.targets import export, is_written
from daskumap.jobs.schema import DATE, Job, Result
from daskumap.jobs.state import UNDER_WAY, JobState
from daskumap.jobs.summary import Summary


def write_results(
    results: list[Result], run: Any, label: str, state: JobState, summary: Summary, part: str = ""
) -> None:
    """Write the results of a map, or of new rows on it, unless they are there.

    Parameters
    ----------
    label
        What stands for the date in their names.
    part
        Which rows, where they are a part: it goes before the ending.
    """
    for result in results:
        path = _named(result.path.replace(DATE, label), part)
        summary.results.append({"path": path, "state": _write(result, path, run, state)})


def _named(path: str, part: str) -> str:
    """Return a path with the name of a part before its ending.

    >>> _named("maps/map.parquet", "new-0-100")
    'maps/map.new-0-100.parquet'
    """
    if not part:
        return path
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    return f"{folder}{slash}{stem}.{part}.{ending}" if dot else f"{path}.{part}"


def _write(result: Result, path: str, run: Any, state: JobState) -> str:
    """Write one result; what this job wrote of another map, or otherwise, or did not finish, is replaced."""
    known, made_of = state.written(path), [run.store.about["id"], result.options]
    there = is_written(path, **result.options)
    if known == made_of and there:
        return "unchanged"
    own = known is not None
    if not there:
        state.set_written(path, UNDER_WAY)
    if "://" not in path:
        _make_folder(path)
    export(run, path, overwrite=result.overwrite or own, **result.options)
    state.set_written(path, made_of)
    return "made"


def check_results(job: Job, state: JobState) -> None:
    """Refuse results that could not be written, before there is a map, which may take hours.

    Raises
    ------
    ParameterError
        If something is there that the job did not write.
    StoreError
        If a folder cannot be written to.
    """
    for result in job.all_results:
        free = result.overwrite or DATE in result.path or state.written(result.path) is not None
        if not free and is_written(result.path, **result.options):
            raise ParameterError(
                f"{result.path} is there, and this job did not write it. Name another place, or let it be "
                "replaced: overwrite: true."
            )
        if "://" not in result.path:
            with _speaking(folder := _make_folder(result.path)), tempfile.TemporaryFile(dir=folder):
                pass


def _make_folder(path: str) -> Path:
    folder = Path(path).parent
    with _speaking(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _speaking(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"The folder {folder} of results cannot be written to ({error.strerror}). "
            "Change its permissions, make room, or name another one."
        ) from error
