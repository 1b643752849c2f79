"""Synchronous rounds: load, then step and share again and again, then save. One algorithm for all engines.

Every part goes from its state to the next one, given what all parts share. A runner says where that happens:
here, or on the worker that has the part.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial, reduce
from operator import add
from typing import Any, Protocol

from daskumap.engine.base import Context, measured
from daskumap.engine.process import enter, one_thread, peak_bytes, usual_floats
from daskumap.planning.stage import Receipt, Rounds, Stage


class Runner(Protocol):
    """Where the functions of rounds run.

    Attributes
    ----------
    workers
        How many parts run at the same time.
    every
        Rounds between two looks at how far they are.
    """

    workers: int
    every: int

    def bind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what calls `function(context, stage, *args)` with the context of where it runs."""

    def submit(self, name: str, part: int, function: Callable[..., Any], *args: Any) -> Any:
        """Let a function run for a part; return its result or a promise of it."""

    def results(self, promised: list[Any]) -> list[Any]:
        """Wait for what was promised, and return it."""


def run_rounds(stage: Stage, segment: int, runner: Runner, listener: Callable[[float], None]) -> Receipt:
    """Run the rounds of one segment over all parts.

    Runners that promise get work ahead: `every` rounds are sent while as many others run, so that workers
    never wait for what comes next, and yet the list of what was promised stays short.
    """
    rounds = _rounds(stage)
    started, parts = time.perf_counter(), range(rounds.parts)
    load, step, save = runner.bind(_load), runner.bind(_step), runner.bind(_save)
    states = [runner.submit("load", part, load, part, segment) for part in parts]
    marks, reached = list[Any](), 0
    for number, now in enumerate(rounds.segments[segment]):
        blocks = [runner.submit(f"share-{number}", part, rounds.share, states[part]) for part in parts]
        states = [
            runner.submit(f"step-{number}", part, step, part, now, states[part], blocks) for part in parts
        ]
        if (number + 1) % runner.every == 0:
            runner.results(marks)
            listener(reached / len(rounds.segments[segment]))
            marks = [runner.submit(f"mark-{number}", part, _mark, states[part]) for part in parts]
            reached = number + 1
    saved = [runner.submit("save", part, save, part, segment, states[part]) for part in parts]
    del states
    return _together(runner.results(saved), time.perf_counter() - started, min(runner.workers, rounds.parts))


def _together(receipts: list[Receipt], seconds: float, at_once: int) -> Receipt:
    """Return the receipt of a segment from those of its parts, in order; what they found is added up."""
    found = {name: [receipt.found[name] for receipt in receipts] for name in receipts[0].found}
    return Receipt(
        rows=sum(receipt.rows for receipt in receipts),
        found={name: reduce(add, values) for name, values in found.items()},
        kernel_seconds=sum(receipt.kernel_seconds for receipt in receipts) / at_once,
        seconds=seconds,
        peak_bytes=max(receipt.peak_bytes for receipt in receipts),
    )


def run_part(context: Context, stage: Stage, function: Callable[..., Any], *args: Any) -> Any:
    """Run one function of the rounds in this process, as a task is run."""
    enter(context, stage)
    with one_thread(), usual_floats():
        return function(context, stage, *args)


def run_here(stage: Stage, context: Context, number: int, listener: Callable[[float], None]) -> Receipt:
    """Run one task in this process; one that has rounds part by part."""
    if stage.rounds is None:
        return measured(stage, context, number, listener)
    return run_rounds(stage, number, _Here(stage, context), listener)


class _Here:
    """Runs each function at once."""

    workers = every = 1

    def __init__(self, stage: Stage, context: Context) -> None:
        self.stage, self.context = stage, context

    def bind(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return partial(run_part, self.context, self.stage, function)

    def submit(self, name: str, part: int, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    def results(self, promised: list[Any]) -> list[Any]:
        return promised


def _rounds(stage: Stage) -> Rounds:
    assert stage.rounds is not None
    return stage.rounds


def _load(context: Context, stage: Stage, part: int, segment: int) -> Any:
    return _rounds(stage).load(context, part, segment)


def _step(context: Context, stage: Stage, part: int, now: Any, state: Any, blocks: list[Any]) -> Any:
    rounds = _rounds(stage)
    return rounds.step(context, part, now, state, rounds.reduce(blocks))


def _mark(state: Any) -> None:
    """Say that a state was reached, without keeping it."""


def _save(context: Context, stage: Stage, part: int, segment: int, state: Any) -> Receipt:
    receipt = _rounds(stage).save(context, part, segment, state)
    return dataclasses.replace(receipt, peak_bytes=peak_bytes())
