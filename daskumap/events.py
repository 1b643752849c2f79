"""What happens in a run, told by logging: each event is a record with its facts beside its text.

Whoever wants to hear listens to the logger "daskumap": events that say how far a run is have a level of their
own between DEBUG and INFO, so that handlers which show news do not show each task. `facts_of` returns what a
record is about, and the two formatters write it as a line for people or as one line of JSON.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from daskumap.secrets import hide_secrets

# Below INFO: what a person need not see, and a program may want to.
DETAIL = 15
logging.addLevelName(DETAIL, "DETAIL")
# The kinds of events; a record that is none is "warning" or "news", by its level.
KINDS = (
    "job",
    "run",
    "stage",
    "task",
    "retry",
    "dead worker",
    "checkpoint",
    "verdict",
    "failure",
    "notification",
)

log = logging.getLogger(__name__)
_run: ContextVar[str | None] = ContextVar("daskumap_run", default=None)
_style: ContextVar[str] = ContextVar("daskumap_style", default="plain")


def tell(kind: str, text: str, level: int = DETAIL, *, run: str | None = None, **facts: Any) -> None:
    """Tell an event.

    Parameters
    ----------
    kind
        One of `KINDS`.
    text
        For people; it may be one of many, so it names what it is about.
    run
        Where the run is, for threads that are not the driver's; None for the run that is under way here.
    facts
        JSON types, for programs.
    """
    if log.isEnabledFor(level):
        about = {"event": kind, "run": run or _run.get(), **facts}
        log.log(level, "%s", text, extra={"daskumap_event": about})


@contextmanager
def of_run(where: str) -> Iterator[None]:
    """Let all that is logged meanwhile be of a run, unless it is of another one within."""
    token = _run.set(where)
    try:
        yield
    finally:
        _run.reset(token)


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a record of the logger "daskumap" is about: its kind as "event", its run, and its facts."""
    told: dict[str, Any] | None = getattr(record, "daskumap_event", None)
    if told is not None:
        return told
    kind = "warning" if record.levelno >= logging.WARNING else "news"
    return {"event": kind, "run": _run.get()}


@contextmanager
def in_style(style: str) -> Iterator[None]:
    """Let lines of progress be like the messages beside them: "plain", "stamped", or none in "json"."""
    token = _style.set(style)
    try:
        yield
    finally:
        _style.reset(token)


def style() -> str:
    """Return the style that lines of progress have to have here."""
    return _style.get()


def prefix() -> str:
    """Return what a line of progress begins with."""
    return f"{stamped('INFO') if _style.get() == 'stamped' else ''}daskumap  "


class Line(logging.Formatter):
    """A line for people: time, level, host, run, and what happened."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a text of several lines begins each with the same."""
        stamp = stamped(record.levelname, _time(record), facts_of(record)["run"])
        return "\n".join(
            f"{stamp}daskumap  {line}" for line in hide_secrets(record.getMessage()).splitlines()
        )


def stamped(level: str, time: str | None = None, run: str | None = None) -> str:
    """Return what a line of a log begins with: by default as of now, and of the run under way here."""
    where = run or _run.get() or "-"
    return f"{time or _now()} {level} {socket.gethostname()} {where} "


class JsonLine(logging.Formatter):
    """A line for programs: one JSON object an event."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, its texts without passwords and tokens."""
        about = {
            "time": _time(record),
            "level": record.levelname,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            **facts_of(record),
            "text": record.getMessage(),
        }
        return json.dumps(_public(about))


def _public(value: Any) -> Any:
    """Return a value as JSON has it: texts without passwords and tokens, no NaN, which is no JSON."""
    if isinstance(value, dict):
        return {str(key): _public(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_public(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | None) else hide_secrets(str(value))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
