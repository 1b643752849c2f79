"""The sequential engine: the specification of what an engine does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from daskumap.engine.base import Context, Listener, in_our_words
from daskumap.engine.process import refuse_broken_fork
from daskumap.engine.rounds import run_here
from daskumap.planning.sizes import Resources
from daskumap.planning.stage import Receipt, Stage


class SequentialEngine:
    """Runs one task after another in this process; `cores` are for a task that can share its work."""

    local = True

    def __init__(self, memory: int, cores: int = 1) -> None:
        self.resources = Resources(memory, cores=cores)
        self._context: Context | None = None

    def begin(self, context: Context) -> None:
        """Start a run."""
        refuse_broken_fork()
        self._context = context

    def run(self, stage: Stage, todo: list[int], listener: Listener) -> Iterator[tuple[int, Receipt]]:
        """Run the tasks in the order given."""
        context = self._context
        assert context is not None, "no run has begun"
        for number in todo:
            try:
                receipt = run_here(stage, context, number, partial(listener, number))
            except Exception as error:
                raise in_our_words(error, stage, context, number) from error
            yield number, receipt

    def ask(self, question: Callable[[], Any]) -> list[Any]:
        """Return what a function returns here."""
        return [question()]

    def end(self) -> None:
        """End the run."""
        self._context = None

    def close(self) -> None:
        """Do nothing: there is nothing open."""
