"""What the command says: results on standard output, all else on standard error."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

from daskumap.errors import DaskumapError


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


@contextlib.contextmanager
def showing_messages(quiet: bool) -> Iterator[None]:
    """Show what daskumap logs: news and warnings, or warnings alone."""
    log, messages = logging.getLogger("daskumap"), Messages()
    messages.setFormatter(logging.Formatter("daskumap  %(message)s"))
    before = log.level
    log.addHandler(messages)
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(messages)
