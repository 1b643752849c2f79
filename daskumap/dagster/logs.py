"""What a run says, in the log of the Dagster run that it is part of."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from daskumap.secrets import hide_secrets

LOGGER = "daskumap"


class Forward(logging.Handler):
    """Hands records of a logger on to the log of an asset."""

    def __init__(self, log: Any) -> None:
        super().__init__(logging.INFO)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one record on; what Dagster cannot take must not end a run."""
        try:
            self.log.log(record.levelno, hide_secrets(record.getMessage()))
        except Exception:  # a handler's contract: it tells, and does not raise
            self.handleError(record)


@contextmanager
def forwarded(log: Any) -> Iterator[None]:
    """Hand on what daskumap logs meanwhile, warnings of any thread too.

    Where `python_logs` of dagster.yaml manages the logger already, nothing is told twice.
    """
    logger, handler = logging.getLogger(LOGGER), Forward(log)
    managed = any(type(one).__module__.startswith("dagster.") for one in logger.handlers)
    level = logger.level
    if not managed:
        logger.addHandler(handler)
    if logger.getEffectiveLevel() > logging.INFO:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class Stages:
    """Progress as lines of a log: one when a step begins, what was done of it before, and one each minute."""

    EVERY = 60.0

    def __init__(self, log: Any) -> None:
        self.log = log
        self.step, self.tasks, self.said = "", 0, 0.0

    def start(self, stage: str, tasks: int, done: int) -> None:
        """Tell that a step begins."""
        self.step, self.tasks, self.said = stage, tasks, time.monotonic()
        if tasks > done:
            before = f", {done:,} of them done by an earlier attempt" if done else ""
            self.log.info(f"{stage}: {tasks:,} task{'' if tasks == 1 else 's'}{before}")

    def advance(self, done: float) -> None:
        """Tell how far the step is, now and then."""
        if time.monotonic() - self.said > self.EVERY:
            self.said = time.monotonic()
            self.log.info(f"{self.step}: {done / self.tasks:.0%}")

    def finish(self) -> None:
        """Say nothing: the next step begins, or the asset is there."""
