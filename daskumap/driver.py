"""Runs a pipeline: plans its steps, finds damage, runs what has no record, frees scratch, keeps times."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from daskumap.engine.base import Engine
from daskumap.errors import SourceError
from daskumap.planning import memory
from daskumap.planning.plan import Plan
from daskumap.planning.stage import Receipt, Stage, Step
from daskumap.report.progress import Progress
from daskumap.runtime.context import Context
from daskumap.store import schema
from daskumap.store.damage import find_damage as find_in

log = logging.getLogger(__name__)

FINISHED, STAGES = "finished", "report/stages"
Steps = tuple[Step, ...]


def make_plan(context: Context, steps: Steps) -> Plan:
    """Plan all steps, as far as is known; starts nothing."""
    return Plan(
        context.job,
        tuple(step.planned(context) for step in steps),
        reserved_bytes(context),
        freed=tuple(
            frozenset(item.name for item in scratch) for scratch in scratch_after(steps, context.params.keep)
        ),
    )


def reserved_bytes(context: Context) -> int:
    """Return what a worker takes before it holds any data."""
    return context.resources.reserved + (memory.DESCENT_RESERVED if context.metric.uses_descent else 0)


def find_damage(context: Context, steps: Steps, read: bool) -> dict[str, list[str]]:
    """Return what is damaged in a run store, by the step that can make it again.

    Chunks of finished steps are counted, and with `read` all that is there is read against its checksums.
    What was freed is no damage.
    """
    store, found = context.store, dict[str, list[str]]()
    if not store.ledger.has_begun():
        return found
    freed = store.ledger.freed()
    for step in steps:
        done = store.ledger.count(step.name)
        if not done:
            break
        stage = step.planned(context)
        names = [name for name in _products(stage, done) if name not in freed]
        batches = stage.tasks if done == stage.tasks else 0
        whole = batches or stage.ordered
        # What a step that is half done has not written is no damage.
        wrong = [
            text
            for name in names
            for text in find_in(store, name, read, batches)
            if whole or "missing" not in text
        ]
        if wrong:
            found[step.name] = wrong
    return found


def _products(stage: Stage, done: int) -> list[str]:
    """Return the names of the arrays and exchanges that a stage with so many finished tasks has made."""
    names = [output.name for output in stage.outputs] + list(stage.made)
    if stage.ordered and done == 1:  # The second segment has yet to write its slot.
        second = {item.name for item in schema.STATE[1]}
        names = [name for name in names if name not in second]
    return names


def reopen(context: Context, steps: Steps) -> None:
    """Forget the steps whose products are gone and are needed again by a step that is not done.

    So it is where a late step runs again after its inputs were freed.
    """
    ledger = context.store.ledger
    if not ledger.has_begun():
        return
    freed, needed = ledger.freed(), set[str]()
    back = set[str]()
    for step in reversed(steps):
        lost = {item.name for item in step.writes} & needed & freed
        if lost:
            log.warning(
                "Stage '%s' runs again: %s was freed and is needed.", step.name, ", ".join(sorted(lost))
            )
            ledger.forget(step.name)
            back |= {item.name for item in step.writes}
        if lost or not is_done(context, step):
            needed |= {item.name for item in step.reads}
    if back & freed:
        ledger.set_freed(freed - back)


def is_done(context: Context, step: Step) -> bool:
    """Return whether every task of a step has its record; one that is damaged is none."""
    done = len(context.store.ledger.records(step.name))
    return bool(done) and done == step.planned(context).tasks


def run_pipeline(
    context: Context, steps: Steps, engine: Engine, progress: Progress, check: Callable[[], None]
) -> None:
    """Run every step that is not finished yet, in order; `check` raises if this driver must not write."""
    reopen(context, steps)
    engine.begin(context)
    try:
        for step, scratch in zip(steps, scratch_after(steps, context.params.keep), strict=True):
            check()
            run_stage(step.planned(context), context, engine, progress, check)
            context.store.free(scratch)
    finally:
        engine.end()
        context.leave()
    context.store.documents.save(FINISHED, datetime.now(UTC).isoformat(timespec="seconds"))


def scratch_after(steps: Steps, keep: str) -> list[list[schema.Item]]:
    """Return for each step what nothing needs once it is done.

    Parameters
    ----------
    keep
        "all", "model" or "embedding", as of `daskumap.fit`.
    """
    last: dict[schema.Item, int] = {}
    for number, step in enumerate(steps):
        for item in (*step.reads, *step.writes):
            if item.stays < schema.KEEP[keep]:
                last[item] = number
    return [[item for item, place in last.items() if place == number] for number in range(len(steps))]


def run_stage(
    stage: Stage, context: Context, engine: Engine, progress: Progress, check: Callable[[], None]
) -> None:
    """Run the tasks of a stage that have no record yet; record each when its data is written."""
    store = context.store
    receipts = store.ledger.records(stage.name)
    todo = [number for number in range(stage.tasks) if number not in receipts]
    progress.start(stage.name, stage.tasks, len(receipts))
    started = time.perf_counter()
    if todo:
        if not receipts:  # What an earlier attempt made may be damaged, a group's metadata too.
            for name in stage.made:
                store.documents.delete_folder(name)
        for output in stage.outputs:
            store.create(output, anew=not receipts)
    for number, receipt in _run_all(stage, engine, todo, progress, len(receipts)):
        check()
        store.ledger.record(stage.name, number, receipt)
        receipts[number] = receipt
    context.leave()
    try:
        if stage.conclude is not None:
            stage.conclude(context, receipts)
    except SourceError:
        store.discard()  # All that is there came of rows that have to be mended first.
        raise
    if todo:
        _keep_times(stage, context, receipts, time.perf_counter() - started)
    progress.finish()


def _run_all(
    stage: Stage, engine: Engine, todo: list[int], progress: Progress, done: int
) -> Iterator[tuple[int, Receipt]]:
    under_way: dict[int, float] = {}

    def listener(number: int, share: float) -> None:
        if number in left:
            under_way[number] = share
            progress.advance(done + sum(under_way.values()))

    left = set(todo)
    for number, receipt in engine.run(stage, todo, listener) if todo else ():
        left.discard(number)
        under_way.pop(number, None)
        done += 1
        yield number, receipt
        progress.advance(done + sum(under_way.values()))


def _keep_times(stage: Stage, context: Context, receipts: dict[int, Receipt], seconds: float) -> None:
    """Add a stage's wall time and peaks to what the report says of it."""
    documents = context.store.documents
    known: dict[str, Any] = documents.load(STAGES) or {}
    before = known.get(stage.name, {})
    known[stage.name] = {
        "tasks": stage.tasks,
        "seconds": before.get("seconds", 0.0) + seconds,
        "task_seconds": sum(receipt.seconds for receipt in receipts.values()),
        "kernel_seconds": sum(receipt.kernel_seconds for receipt in receipts.values()),
        "peak_bytes": max(receipt.peak_bytes for receipt in receipts.values()),
        "projected_bytes": Plan(context.job, (stage,), reserved_bytes(context)).peak_bytes(stage),
        "read_bytes": stage.read_bytes,
        "written_bytes": stage.written_bytes,
    }
    documents.save(STAGES, known)
