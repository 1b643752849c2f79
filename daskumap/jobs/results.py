"""What a job writes for other programs: each result once for each map, and never over somebody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from daskumap.exports.targets import export
from daskumap.jobs.schema import DATE, Result
from daskumap.jobs.state import JobState
from daskumap.jobs.summary import Summary

# What the job remembers of a result while it is written.
UNDER_WAY = "under way"


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
    """Write one result; what this job wrote of another map, or did not finish, is replaced."""
    known, made_of = state.written().get(path), run.store.about["id"]
    there = "://" in path or Path(path).exists()
    if known == made_of and there:
        return "unchanged"
    own = known is not None
    if not own and not there:
        state.set_written(path, UNDER_WAY)
    if "://" not in path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    export(run, path, overwrite=result.overwrite or own, **result.options)
    state.set_written(path, made_of)
    return "made"
