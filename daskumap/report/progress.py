"""How far a run is: a line for each finished stage; on a terminal a bar too, in a notebook a bar alone."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from daskumap import events
from daskumap.errors import ParameterError

if TYPE_CHECKING:
    from rich.console import Console


class Progress(Protocol):
    """Hears how far a run is.

    A run calls `start`, `advance` any number of times and `finish` for one step after the other. It calls
    `close` once, however it ends. An object of the user's may lack `close`.
    """

    def start(self, stage: str, tasks: int, done: int) -> None:
        """Hear that a step starts, with `done` of its tasks finished in an earlier attempt.

        Steps of one stage are called `<stage>.<step>` and follow each other.
        """

    def advance(self, done: float) -> None:
        """Hear that so many tasks of the step are finished, those under way in part."""

    def finish(self) -> None:
        """Hear that the step is finished."""

    def close(self) -> None:
        """Hear that nothing follows: the run is finished, it failed, or someone stopped it."""


class Silent:
    """Says nothing."""

    def start(self, stage: str, tasks: int, done: int) -> None:
        """Do nothing."""

    def advance(self, done: float) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Outlet:
    """A text stream that goes silent at the first failure: a reader that went away must not end a run."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.open = True
        self.encoding = getattr(stream, "encoding", None)

    def isatty(self) -> bool:
        """Return whether the stream says that it is a terminal."""
        try:
            return bool(self.stream.isatty())
        except (AttributeError, OSError, ValueError):
            return False

    def write(self, text: str) -> None:
        """Write a text where that still works."""
        self._attempt("write", text)

    def flush(self) -> None:
        """Flush the stream if it has something to flush."""
        if hasattr(self.stream, "flush"):
            self._attempt("flush")

    def _attempt(self, method: str, *arguments: str) -> None:
        if not self.open:
            return
        try:
            getattr(self.stream, method)(*arguments)
        except (AttributeError, OSError, ValueError):  # the last is what a closed stream raises
            self.open = False


@dataclass
class Step:
    """A step under way: its tasks, those that an earlier attempt finished, and when it started."""

    name: str
    tasks: int
    first: int
    started: float

    def describe(self, done: float) -> str:
        """Return how far the step is, and how long it takes yet at the rate so far."""
        text = f"{self.name}: {done / self.tasks:.0%}"
        if done <= self.first:
            return text
        left = (self.tasks - done) * (time.monotonic() - self.started) / (done - self.first)
        return f"{text}, {left:,.0f} s left"


class Lines:
    """One line when a stage ends, and one every half minute before that: what a log file wants."""

    EVERY = 30.0

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.stage = ""
        self.tasks = 0
        self.seconds = 0.0
        self.started = self.said = time.monotonic()
        self.step: Step | None = None

    def start(self, stage: str, tasks: int, done: int) -> None:
        """Begin a step; the first of a new stage ends the stage before it."""
        name, now = stage.partition(".")[0], time.monotonic()
        if name != self.stage:
            self._end_stage()
            self.stage, self.started = name, now
        self.step, self.said = Step(stage, tasks, done, now), now

    def advance(self, done: float) -> None:
        """Say how far the step is, now and then."""
        if self.step is not None and time.monotonic() - self.said > self.EVERY:
            self.said = time.monotonic()
            self._say(self.step.describe(done))

    def finish(self) -> None:
        """Count what this attempt did of the step."""
        if self.step is not None:
            self.tasks += self.step.tasks - self.step.first
            self.seconds = time.monotonic() - self.started
        self.step = None

    def close(self) -> None:
        """End the last stage, unless the run broke off inside it."""
        if self.step is None:
            self._end_stage()

    def _end_stage(self) -> None:
        """Say what the stage took; a stage that an earlier attempt finished took nothing."""
        if self.tasks:
            plural = "" if self.tasks == 1 else "s"
            self._say(f"{self.stage}: {self.tasks:,} task{plural}, {self.seconds:.1f} s")
        self.tasks = 0

    def _say(self, text: str) -> None:
        self.outlet.write(f"{events.prefix()}{text}\n")
        self.outlet.flush()


class Bar(Lines):
    """Lines, and below them the bar of the step under way: one display for the whole run."""

    def __init__(self, outlet: Outlet, console: Console) -> None:
        from rich import progress
        from rich.table import Column

        super().__init__(outlet)
        self.console = console
        # Of a column that may wrap, a narrow terminal would show one character a line.
        self.display = progress.Progress(
            progress.TextColumn("{task.description:<17}"),
            progress.BarColumn(bar_width=None),
            progress.TextColumn("{task.percentage:>3.0f} %"),
            progress.TimeElapsedColumn(table_column=Column(no_wrap=True)),
            progress.TimeRemainingColumn(table_column=Column(no_wrap=True)),
            console=console,
            refresh_per_second=4,
            expand=True,
            redirect_stdout=False,  # results that someone pipes elsewhere stay where they belong
        )

    def start(self, stage: str, tasks: int, done: int) -> None:
        """Show the bar of a step that has something to do."""
        super().start(stage, tasks, done)
        if done < tasks:
            self.display.start()
            # The display hides the cursor, and a process that is killed would leave the terminal without.
            self.console.show_cursor()
            self.display.add_task(stage, total=tasks, completed=done)

    def advance(self, done: float) -> None:
        """Move the bar."""
        for bar in self.display.task_ids:
            self.display.update(bar, completed=done)

    def finish(self) -> None:
        """Take the bar away."""
        super().finish()
        for bar in self.display.task_ids:
            self.display.remove_task(bar)

    def close(self) -> None:
        """Give the terminal back; a step that broke off leaves its bar."""
        super().close()
        self.display.live.transient = self.step is None
        self.display.stop()

    def _say(self, text: str) -> None:
        """Write a line above the bar."""
        self.console.print(
            f"daskumap  {text}", markup=False, highlight=False, no_wrap=True, overflow="ellipsis"
        )


class Given:
    """An object of the user's, which need not have a `close`."""

    def __init__(self, listener: Any) -> None:
        self.start = listener.start
        self.advance = listener.advance
        self.finish = listener.finish
        close = getattr(listener, "close", None)
        self.close = close if callable(close) else Silent().close


def choose_progress(wanted: bool | Progress | None) -> Progress:
    """Return what hears of a run: True for what suits standard error, False or None for nothing.

    Parameters
    ----------
    wanted
        True, False, None, or an object with the methods of `Progress`.

    Raises
    ------
    ParameterError
        If the object cannot be called as the run calls it.
    """
    if wanted is None or wanted is False:
        return Silent()
    if wanted is True:
        return _for_stderr()
    lacking = [name for name in ("start", "advance", "finish") if not callable(getattr(wanted, name, None))]
    if lacking or isinstance(wanted, type):
        seen = f"lacks {', '.join(lacking)}" if lacking else "is a class, not an object"
        raise ParameterError(
            f"progress is {wanted!r}, which {seen}. It must be True, False, or an object with the methods "
            "start(stage, tasks, done), advance(done) and finish(), and close() if it likes."
        )
    return Given(wanted)


def _for_stderr() -> Progress:
    """Return what suits standard error: a bar in a notebook or a terminal, lines elsewhere."""
    # The first in a process without a console; events say it all where they are shown.
    if sys.stderr is None or events.style() == "json":
        return Silent()
    if in_notebook():
        from daskumap.report.cell import Cell

        return Cell()
    outlet = Outlet(sys.stderr)
    # Where another display draws on the terminal, as of a second fit, it shows our lines above itself.
    if not outlet.isatty() or hasattr(sys.stderr, "rich_proxied_file"):
        return Lines(outlet)
    from rich.console import Console

    console = Console(file=cast("TextIO", outlet))
    return Bar(outlet, console) if console.is_interactive else Lines(outlet)


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, whose cells show more than text."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None
