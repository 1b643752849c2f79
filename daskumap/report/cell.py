"""How far a run is, in a cell of a notebook: one bar that is renewed in place, and stays as the run ended."""

from __future__ import annotations

import html
import sys
import time
from importlib import import_module
from typing import Any, Protocol

from daskumap.report.progress import Lines, Outlet

# Seconds between two changes that are shown.
EVERY = 0.2
# Of the bar, by how the run stands: colours that can be told on light and dark ground.
COLOURS = {"running": "#3b82f6", "finished": "#16a34a", "failed": "#dc2626"}


class Painter(Protocol):
    """Shows a bar in one place; a new state takes the place of the one before."""

    def paint(self, share: float, text: str, state: str) -> None:
        """Show a share, 0 to 1, a text beside it, and "running", "finished" or "failed"."""


class Widget:
    """A bar of ipywidgets."""

    def __init__(self) -> None:
        widgets: Any = import_module("ipywidgets")
        self.bar, self.label = widgets.FloatProgress(min=0.0, max=1.0), widgets.Label()
        self.bar.layout.width = "40%"
        import_module("IPython.display").display(widgets.HBox([self.bar, self.label]))

    def paint(self, share: float, text: str, state: str) -> None:
        """Move the bar."""
        self.bar.value, self.label.value = share, text
        self.bar.bar_style = {"running": "info", "finished": "success", "failed": "danger"}[state]


class InPlace:
    """What a cell shows in one place: the newest bundle of types."""

    def __init__(self) -> None:
        self.handle: Any = None

    def show(self, html: str, text: str) -> None:
        """Show HTML, or text where that cannot be shown, in the place of what was shown before."""
        bundle = {"text/html": html, "text/plain": text}
        if self.handle is None:
            self.handle = import_module("IPython.display").display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)


class Html:
    """A bar of HTML, which any notebook shows, and keeps when it is saved."""

    def __init__(self) -> None:
        self.place = InPlace()

    def paint(self, share: float, text: str, state: str) -> None:
        """Show the bar, or put it in the place of what is shown."""
        self.place.show(self.bar(share, text, state), f"daskumap  {text}")

    @staticmethod
    def bar(share: float, text: str, state: str) -> str:
        """Return the bar as HTML."""
        filled = f"width:{share:.1%};height:100%;background:{COLOURS[state]}"
        frame = "display:inline-block;width:40%;height:0.8em;border:1px solid gray;margin-right:1em"
        return f'<div><div style="{frame}"><div style="{filled}"></div></div>{html.escape(text)}</div>'


class Cell(Lines):
    """The bar of a whole run: the step under way, and in the end how it ended."""

    def __init__(self) -> None:
        super().__init__(Outlet(None))
        self.painter: Painter | None = None
        self.began = time.monotonic()
        self.share, self.painted = 0.0, -EVERY
        # What is being handled where the run is called is no failure of the run.
        self.outer = sys.exc_info()[1]

    def start(self, stage: str, tasks: int, done: int) -> None:
        """Show a step that has something to do."""
        super().start(stage, tasks, done)
        if done < tasks:
            self.share = done / tasks
            self._paint(f"{stage}: {self.share:.0%}", "running")

    def advance(self, done: float) -> None:
        """Move the bar, now and then."""
        if self.step is None:
            return
        self.share = min(1.0, done / self.step.tasks)
        if time.monotonic() - self.painted > EVERY:
            self._paint(self.step.describe(done), "running")

    def close(self) -> None:
        """Say how the run ended; of one that had nothing to do nothing was shown."""
        if self.painter is None:
            return None
        error, seconds = sys.exc_info()[1], f"{time.monotonic() - self.began:,.1f} s"
        if self.step is None and error is self.outer:
            return self._paint(f"finished in {seconds}", "finished", 1.0)
        how = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        return self._paint(f"{how} in {self.stage} after {seconds}", "failed")

    def _paint(self, text: str, state: str, share: float | None = None) -> None:
        if self.painter is None:
            self.painter = _painter()
        self.painted = time.monotonic()
        self.painter.paint(self.share if share is None else share, text, state)

    def _say(self, text: str) -> None:
        """Say nothing of a stage that ended: the bar is all that is shown."""


def _painter() -> Painter:
    try:
        return Widget()
    except ImportError:
        return Html()
