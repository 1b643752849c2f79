"""Settings of Dask that make a fit fail or hang, in whatever file or variable they stand."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# A worker that reads or compiles may not answer for so long.
LEAST_TTL = 60


def problems() -> list[tuple[str, str]]:
    """Return what is wrong with Dask's settings, each with its remedy."""
    try:
        import dask
        import distributed  # noqa: F401 - its settings have their defaults then
        from dask.utils import parse_timedelta
    except ValueError as error:  # which a file of settings that is no YAML raises
        return [(f"Dask cannot read its settings: {error}", "Mend that file, or move it away.")]
    return [*_named_file(), *_check(dask.config.get, parse_timedelta)]


def _named_file() -> Iterator[tuple[str, str]]:
    named = os.environ.get("DASK_CONFIG")
    if named and not Path(named).exists():
        yield f"DASK_CONFIG is {named}, where nothing is; Dask ignores that.", "Name a file that is there."


def _check(get: Callable[..., Any], seconds: Callable[[Any], float | None]) -> Iterator[tuple[str, str]]:
    ttl = get("distributed.scheduler.worker-ttl", None)
    if ttl is not None and (seconds(ttl) or 0) < LEAST_TTL:
        yield (
            f"distributed.scheduler.worker-ttl is {ttl}: workers that are busy for longer count as dead.",
            f"Set it to {LEAST_TTL} s or more; Dask's own default is 5 minutes.",
        )
    failures = get("distributed.scheduler.allowed-failures", 3)
    if int(failures) < 1:
        yield (
            f"distributed.scheduler.allowed-failures is {failures}: one lost worker ends a run.",
            "Set it to 3, Dask's own default.",
        )
    if folder := get("temporary-directory", None):
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            yield (
                f"temporary-directory is {folder}, which cannot be written: {error.strerror}.",
                "Name another.",
            )
    if get("scheduler", None) in ("synchronous", "sync", "single-threaded"):
        yield (
            "scheduler is synchronous: rows of dask arrays are computed one block at a time.",
            "Remove it from Dask's settings, where it is left from debugging.",
        )
