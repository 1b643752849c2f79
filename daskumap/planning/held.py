"""What a process holds from one task of a stage to the next. Each stage plans for its own only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from daskumap.planning.job import Job

Held = TypeVar("Held")

_held: dict[tuple[str, str, str], Any] = {}
_lock = threading.Lock()


def held(job: Job, name: str, make: Callable[[], Held]) -> Held:
    """Return what `make` returns, made once a process and kept until the process starts another stage."""
    place = (job.url, job.id, name)
    with _lock:
        if place not in _held:
            _held[place] = make()
        found: Held = _held[place]
        return found


def release() -> None:
    """Free all that this process holds for the stage that it leaves."""
    with _lock:
        _held.clear()
