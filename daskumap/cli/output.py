"""What the command says: results on standard output, all else on standard error."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from daskumap import events
from daskumap.errors import DaskumapError, exit_code


def open_missing_streams() -> None:
    """Give a process that was started without standard output or error a place that swallows both.

    Otherwise the next file that is opened, such as one of the run store, gets the free number, and libraries
    and child processes write their messages into it.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            # It stays open until the process ends.
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def say(text: str) -> None:
    """Write a result on standard output; a reader that has seen enough may leave.

    Raises
    ------
    DaskumapError
        If it cannot be written for another reason, such as a full disk.
    """
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise DaskumapError(
                f"The result cannot be written to standard output: {error}. Send it elsewhere; "
                "`daskumap status` and `report` say what a run has done."
            ) from error


def say_json(value: Any) -> None:
    """Write a result for programs."""
    say(json.dumps(value, indent=1))


def complain(text: str) -> None:
    """Write a message on standard error, if anyone can still read it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class Messages(logging.Handler):
    """Shows what is logged on the standard error of the moment: a live display takes its place meanwhile."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        complain(self.format(record))


FORMATS: dict[str, Callable[[], logging.Formatter]] = {
    "plain": lambda: logging.Formatter("daskumap  %(message)s"),
    "stamped": events.Line,
    "json": events.JsonLine,
}


@contextlib.contextmanager
def showing_messages(quiet: bool, log_json: bool = False) -> Iterator[None]:
    """Show what daskumap logs: news and warnings, or warnings alone, or each event as a line of JSON.

    What is no terminal is a log, whose lines say when, where and of which run.
    """
    log, messages = logging.getLogger("daskumap"), Messages()
    style = "json" if log_json else "plain" if _is_terminal() else "stamped"
    messages.setFormatter(FORMATS[style]())
    before = log.level
    log.addHandler(messages)
    log.setLevel(events.DETAIL if log_json else logging.WARNING if quiet else logging.INFO)
    try:
        with events.in_style(style):
            yield
    finally:
        log.setLevel(before)
        log.removeHandler(messages)


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, OSError, ValueError):
        return False


def complain_of(error: BaseException) -> int:
    """Say what ended a command, in the style of its messages; return the exit code."""
    stopped = isinstance(error, KeyboardInterrupt)
    text = "stopped." if stopped else str(error)
    code = 128 + int(error.args[0] if error.args else signal.SIGINT) if stopped else exit_code(error)
    if events.style() == "json":
        events.tell("failure", text, logging.ERROR, exit_code=code, error=type(error).__name__)
    else:
        complain(f"{events.stamped('ERROR') if events.style() == 'stamped' else ''}daskumap: {text}")
    return code
