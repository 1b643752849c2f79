"""How far a run is, on standard error: a bar on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

log = logging.getLogger("daskumap.progress")


class Silent:
    """Says nothing."""

    def start(self, stage: str, tasks: int, done: int) -> None:
        """Do nothing."""

    def advance(self, done: float) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class Lines:
    """One line when a stage ends, and one every half minute before that: what a log file wants."""

    EVERY = 30.0

    def start(self, stage: str, tasks: int, done: int) -> None:
        """Note when the stage starts."""
        self.stage, self.tasks, self.first, self.done = stage, tasks, done, float(done)
        self.started = self.said = time.monotonic()

    def advance(self, done: float) -> None:
        """Say how far it is, now and then."""
        self.done = done
        now = time.monotonic()
        if now - self.said > self.EVERY:
            self.said = now
            rate = (done - self.first) / (now - self.started)
            left = (self.tasks - done) / rate if rate > 0 else float("inf")
            self._say(f"{self.stage}: {done / self.tasks:.0%}, {left:,.0f} s left")

    def finish(self) -> None:
        """Say what the stage took."""
        self._say(f"{self.stage}: {self.tasks} task(s), {time.monotonic() - self.started:.1f} s")

    def _say(self, text: str) -> None:
        sys.stderr.write(f"daskumap  {text}\n")
        sys.stderr.flush()


class Bar:
    """A bar a stage with rate and time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.bars: Any = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(),
            TextColumn("{task.percentage:>4.0f} %"),
            TextColumn("{task.fields[rate]:>12}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )

    def start(self, stage: str, tasks: int, done: int) -> None:
        """Add the stage's bar."""
        self.bars.start()
        self.started, self.first = time.monotonic(), done
        self.bar = self.bars.add_task(stage, total=tasks, completed=done, rate="")

    def advance(self, done: float) -> None:
        """Move the bar."""
        rate = (done - self.first) / max(1e-9, time.monotonic() - self.started)
        self.bars.update(self.bar, completed=done, rate=f"{rate:,.1f} task/s")

    def finish(self) -> None:
        """Fill the bar."""
        self.bars.update(self.bar, completed=self.bars.tasks[self.bar].total)
        self.bars.refresh()
        self.bars.stop()


def choose_progress(wanted: Any) -> Any:
    """Return what shows progress: True for the fitting kind, False for none, or an object of one's own."""
    if wanted is False or wanted is None:
        return Silent()
    if wanted is not True:
        return wanted
    return Bar() if sys.stderr.isatty() else Lines()
